/*
 * exchange_private.h - the queue of requests, for both directions of exchange.h.
 */
#pragma once

#include "control/gateway/exchange.h"

#define EXCHANGE_MESSAGE_MAX (1024 * MIB - 1) /* as in Postgres */

enum exchange_kind {
    KIND_SETTINGS, /* a query of ours; ReadyForQuery ends it */
    KIND_QUERY,    /* or a function call; the same */
    KIND_SYNC,
    KIND_PARSE,
    KIND_BIND,
    KIND_DESCRIBE,
    KIND_EXECUTE,
    KIND_CLOSE,
    KIND_COPY_END, /* has no answer */
    KIND_REFUSAL,  /* its error is replaced by ours */
};

enum exchange_way {
    WAY_PASSED, /* the client sent it and gets the answer */
    WAY_HIDDEN, /* we sent it; the answer is left out */
    WAY_MADE_UP /* the server never sees it; the answer is ours */
};

struct exchange_request {
    uint8_t kind, way;
    bool is_ignored; /* a Sync in the middle of a copy */
    struct statement *statement;
    struct binding *binding;
    char *refusal; /* KIND_REFUSAL: the body of an ErrorResponse */
    size_t refusal_size;
};

struct exchange_request *exchange_request_at(const struct exchange_server *server, size_t index);
struct exchange_request *exchange_head(const struct exchange_server *server); /* NULL: none */
/* The fields that the kind needs are filled in by the caller. */
struct exchange_request *exchange_push(
    struct exchange_server *server, enum exchange_kind kind, enum exchange_way way);
/* It owes too many answers: what the client sends waits. */
bool exchange_is_crowded(const struct exchange_server *server);
void exchange_pop(struct exchange_server *server);
/* It was done. */
void exchange_confirm(struct exchange_server *server, const struct exchange_request *request);
/* Answer and drop what stands at the front and needs no word of the server. */
void exchange_settle(struct exchange_server *server, struct buf *to_client);
