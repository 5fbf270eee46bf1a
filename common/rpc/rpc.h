/*
 * rpc.h - the calls of methods.h: how a server lists them and how a caller names them.
 *
 * A call travels as HTTP: the row's verb and path, its query, a JSON body, and the time that the
 * caller waits (HTTP_TIMEOUT_HEADER). An error is problem+json whose `code` is the err_t of who
 * answered (http_call_json gives it back). The path begins with the version. Threads: [any].
 */
#pragma once

#include "common/base/bytes.h"
#include "common/rpc/methods.h"

enum rpc_server {
    RPC_SERVER_SAFEKEEPER,
    RPC_SERVER_PAGESERVER,
    RPC_SERVER_AGENT,
    RPC_SERVER_CONTROL
};
enum rpc_repeat { RPC_READ, RPC_SAME };

enum rpc_id {
#define RPC_ID(id, handler, verb, path, query, body, repeat, help, answer) RPC_##id,
    RPC_SAFEKEEPER(RPC_ID) RPC_PAGESERVER(RPC_ID) RPC_AGENT(RPC_ID) RPC_CONTROL(RPC_ID)
#undef RPC_ID
        RPC_COUNT
};

struct rpc_method {
    enum rpc_server server;
    const char *name; /* "put_timeline" */
    const char *verb, *path, *query, *body;
    enum rpc_repeat repeat;
    const char *help, *answer;
};

const struct rpc_method *rpc_method(enum rpc_id id);

/*
 * Appends the path with its {parameters} filled in, as many as it has:
 *   rpc_path(&path, RPC_PAGESERVER_GET_TIMELINE, tenant, timeline)
 */
#define rpc_path(to, id, ...)                                                                      \
    rpc_path_of(to, id, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
void rpc_path_of(struct buf *to, enum rpc_id id, const char *const *params);

/* Rows of a server's route table (common/io/http_server.h): its handlers are handle_NAME. */
#define RPC_ROUTE(id, handler_, verb_, path_, query_, body_, repeat_, help_, answer_)              \
    {.method = (verb_),                                                                            \
     .path = (path_),                                                                              \
     .handler = handle_##handler_,                                                                 \
     .help = (help_),                                                                              \
     .query = (query_),                                                                            \
     .body = (body_)},
/* And their declarations, when they stand in several files. */
#define RPC_HANDLER(id, handler_, verb_, path_, query_, body_, repeat_, help_, answer_)            \
    void handle_##handler_(struct http_context *context, struct http_request *request);

/* docs/protocol/rpc.md, appended. */
void rpc_print(struct buf *to);
