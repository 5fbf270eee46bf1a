/*
 * exchange.h - what a pooled client and a server connection say to each other while the client has
 * it: messages are taken apart as far as sharing needs it, and passed on.
 *
 *   - requests that the server has not answered are queued, so that answers that we leave out or
 *     make up stand where the client expects them; after an error the rest up to Sync is skipped,
 *     as the server does, and what it would have prepared or closed is undone
 *   - whether something was prepared may hang on requests of an earlier batch (up to a Sync) that
 *     the server has not answered; then the client's next message waits for that
 *   - the same when what the server has not confirmed fills a limit of what it may keep, or when it
 *     owes too many answers; without a Sync it would hold them back, so it is told to flush
 *   - named statements are known to the server under our names (statements.h); one that this
 *     connection has not prepared yet is prepared before it is used
 *   - reported settings follow the client (parameters.h)
 *   - large messages pass through in pieces; only those that are looked into are gathered
 *
 * The connection is free again when the server is idle outside of a transaction, owes no answer,
 * and the client's last message is complete. Pure: bytes in, bytes appended to buffers.
 */
#pragma once

#include "control/gateway/parameters.h"
#include "control/gateway/pg_wire.h"
#include "control/gateway/statements.h"

#define EXCHANGE_GATHER_MAX (64 * KIB) /* a first message up to this waits to be complete */

struct exchange_limits {
    size_t client_statements_max;      /* named ones of a client */
    size_t client_statement_bytes_max; /* of their names and texts */
    size_t server_statements_max;      /* of a connection; more: the least recently used one goes */
    size_t server_statement_bytes_max; /* of their texts; one alone may be longer */
};

struct exchange_client {
    struct parameters parameters;
    struct bindings bindings;
    struct buf held; /* what has arrived and could not be passed on yet */
    size_t pass_left;
    bool is_dropping; /* the rest of the message goes nowhere */
    bool is_stalled;  /* what is held waits for a word of the server: look again after it */
};

struct exchange_request; /* private */

struct exchange_server {
    struct statements *statements; /* of the pool */
    const struct exchange_limits *limits;
    struct parameters parameters;
    struct statement_set prepared;
    uint64_t batch;                 /* counts what clients end with Sync */
    struct exchange_request *queue; /* a ring */
    size_t queue_begin, queue_count, queue_capacity;
    size_t close_count; /* in the queue */
    struct buf held;
    size_t pass_left;
    bool is_dropping;
    char status;              /* of the last ReadyForQuery */
    bool is_ready;            /* nothing was asked since */
    bool is_flushed;          /* it was told to answer what it was asked so far */
    bool is_skipping;         /* up to the next Sync */
    bool in_copy, copy_ended; /* CopyInResponse came; the client has ended the copy */
    bool is_told;             /* the last message was an error: it says why the connection ends */
    bool is_spent; /* not to be used again when it is free: what it still owes is not known */
    size_t reprepared;
    char failure_code[6]; /* of the settings */
    char failure[200];
};

void exchange_client_deinit(struct exchange_client *client);
void exchange_server_init(
    struct exchange_server *server,
    struct statements *statements,
    const struct exchange_limits *limits);
void exchange_server_deinit(struct exchange_server *server);

/* The client has the server from now on; its settings go first. */
void exchange_begin(
    const struct exchange_client *client, struct exchange_server *server, struct buf *to_server);
/* Its settings are being applied: a request to cancel would hit them. */
bool exchange_is_beginning(const struct exchange_server *server);
/* Nothing of the client's is left on it: it can be given to another one. */
bool exchange_is_free(const struct exchange_server *server, const struct exchange_client *client);
/* Does the server send the client the middle of a message? Then nothing may be said in between. */
bool exchange_is_amid_answer(const struct exchange_server *server);

enum exchange_verdict {
    EXCHANGE_ON,           /* wants more bytes */
    EXCHANGE_WANTS_SERVER, /* a message waits for a connection */
    EXCHANGE_ENDS,         /* the client has said good-bye */
    EXCHANGE_BROKEN,       /* not the protocol; msg says why */
};

/* `server` NULL: it has none. `bytes` may be empty: look again at what is held. */
enum exchange_verdict exchange_from_client(
    struct exchange_client *client,
    struct exchange_server *server,
    struct bytes bytes,
    struct buf *to_server,
    struct buf *to_client,
    struct errmsg *msg);

/*
 * `client` and `to_client` NULL: nobody has it. ERR_CORRUPT: not the protocol, or an answer to
 * nothing; ERR_FAILED: the client's settings were refused (server->failure).
 */
NODISCARD err_t exchange_from_server(
    struct exchange_server *server,
    struct exchange_client *client,
    struct bytes bytes,
    struct buf *to_client,
    struct errmsg *msg);
