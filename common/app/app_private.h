/* app_private.h - shared by app.c and app_http_client.c only. */
#pragma once

#include "common/app/app.h"

/* Kept by the app, made and known by app_http_client.c alone: see there. */
struct app_client {
    struct http_client *client;
    void (*destroy)(struct http_client *client);
};

struct app_client *app_client(struct app *app);
const char *app_tls_authorities(const struct app *app);
