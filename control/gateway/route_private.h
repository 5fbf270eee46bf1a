/*
 * route_private.h - shared by route.c (what is remembered) and route_ask.c (who asks, and who waits
 * for the same or for a turn). Threads: loop only.
 */
#pragma once

#include "common/base/list.h"
#include "control/gateway/route.h"

#define ROUTE_BUCKETS         4096
#define ROUTE_CHANGES_MAX     1024 /* that are told apart: as many as control tells at once */
#define ROUTE_ASKS_MAX        400 /* that control has at once: it has 1000 connections for everybody */
#define ROUTE_ASKS_OF_ONE_MAX 32 /* ... about one name */

/* All questions about one name that are open. */
struct route_group {
    struct list_link in_bucket, in_hungry;
    char name[ADDRESS_NAME_SIZE];
    struct list put; /* control has them */
    size_t put_count;
    struct list waiting; /* for their turn, in order */
};

struct routes {
    struct loop *loop;
    struct http_client *client;
    struct list buckets[ROUTE_BUCKETS];
    struct list endpoints[ROUTE_BUCKETS]; /* by the endpoint where they lead */
    struct list by_age;                   /* oldest first */
    size_t count;
    /* How often control said that something has changed, and the last ones: at number % MAX. */
    uint64_t forgotten;
    char changes[ROUTE_CHANGES_MAX][ADDRESS_NAME_SIZE];
    struct list groups[ROUTE_BUCKETS];
    struct list hungry; /* groups of which some wait because control has ROUTE_ASKS_MAX */
    size_t put_count;
    uint64_t wake_timeout_ms, keep_ms;
    char url[PATH_SIZE];
    char token[256];
};

struct list *routes_bucket(struct list buckets[ROUTE_BUCKETS], const char *key);
/* True: `ask` has its answer, that is not too old. */
bool route_recall(struct route_ask *ask);
/* What control answered, unless its endpoint has changed since it was asked. */
void route_remember(struct route_ask *ask);
