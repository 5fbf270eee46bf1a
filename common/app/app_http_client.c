/*
 * app_http_client.c - the HTTP client of an app, made when it is first asked for.
 *
 * A file of its own: a program that never asks does not have libcurl and what that loads, which is
 * a third of the time that a walproposer takes to begin.
 */
#include "common/app/app_private.h"
#include "common/base/log.h"

struct http_client *app_http_client(struct app *app)
{
    struct app_client *slot = app_client(app);
    struct errmsg msg;
    if (slot->client == NULL && http_client_create(app_loop(app), &slot->client, &msg) != ERR_OK) {
        fatal("%s", msg.text); /* it needs memory only */
    }
    slot->destroy = http_client_destroy;
    http_client_trust(slot->client, app_tls_authorities(app));
    return slot->client;
}
