#include "control/gateway/exchange.h"

#include "common/base/mem.h"
#include "control/gateway/exchange_private.h"

#define CROWDED     8192 /* above what fits unsent into a server's buffer */
#define QUEUE_FIRST 16

/* ---- the queue ---- */

struct exchange_request *exchange_request_at(const struct exchange_server *server, size_t index)
{
    return &server->queue[(server->queue_begin + index) % server->queue_capacity];
}

struct exchange_request *exchange_head(const struct exchange_server *server)
{
    return server->queue_count == 0 ? NULL : exchange_request_at(server, 0);
}

struct exchange_request *exchange_push(
    struct exchange_server *server, enum exchange_kind kind, enum exchange_way way)
{
    if (server->queue_count == server->queue_capacity) {
        size_t capacity = server->queue_capacity == 0 ? QUEUE_FIRST : server->queue_capacity * 2;
        struct exchange_request *queue = MEM_ARRAY(struct exchange_request, capacity);
        for (size_t i = 0; i < server->queue_count; i++) {
            queue[i] = *exchange_request_at(server, i);
        }
        mem_free(server->queue);
        server->queue = queue;
        server->queue_begin = 0;
        server->queue_capacity = capacity;
    }
    server->is_ready = server->is_flushed = false;
    server->close_count += kind == KIND_CLOSE;
    struct exchange_request *request = exchange_request_at(server, server->queue_count++);
    *request = (struct exchange_request){.kind = (uint8_t)kind, .way = (uint8_t)way};
    return request;
}

void exchange_pop(struct exchange_server *server)
{
    struct exchange_request *request = exchange_head(server);
    statement_unref(request->statement);
    binding_unref(request->binding);
    mem_free(request->refusal);
    server->close_count -= request->kind == KIND_CLOSE;
    server->queue_begin = (server->queue_begin + 1) % server->queue_capacity;
    server->queue_count--;
}

void exchange_confirm(struct exchange_server *server, const struct exchange_request *request)
{
    if (request->kind == KIND_PARSE && request->binding != NULL) {
        request->binding->is_sure = true;
    }
    if (request->kind == KIND_PARSE && request->statement != NULL) {
        statement_set_confirm(&server->prepared, request->statement);
    }
}

static void put_empty(struct buf *to, uint8_t type)
{
    pg_put(to, type, bytes_of(NULL, 0));
}

void exchange_settle(struct exchange_server *server, struct buf *to_client)
{
    const struct exchange_request *head = exchange_head(server);
    while (head != NULL && !exchange_is_amid_answer(server) &&
           (head->way == WAY_MADE_UP || head->kind == KIND_COPY_END)) {
        exchange_confirm(server, head);
        if (head->way == WAY_MADE_UP && to_client != NULL) {
            put_empty(to_client, head->kind == KIND_PARSE ? PG_PARSE_COMPLETE : PG_CLOSE_COMPLETE);
        }
        exchange_pop(server);
        head = exchange_head(server);
    }
}

/* ---- lifetime ---- */

void exchange_client_deinit(struct exchange_client *client)
{
    parameters_deinit(&client->parameters);
    bindings_deinit(&client->bindings);
    buf_deinit(&client->held);
}

void exchange_server_init(
    struct exchange_server *server,
    struct statements *statements,
    const struct exchange_limits *limits)
{
    *server = (struct exchange_server){.statements = statements, .limits = limits, .status = 'I'};
}

void exchange_server_deinit(struct exchange_server *server)
{
    while (server->queue_count > 0) {
        exchange_pop(server);
    }
    mem_free(server->queue);
    server->queue = NULL;
    statement_set_clear(&server->prepared);
    parameters_deinit(&server->parameters);
    buf_deinit(&server->held);
}

/* ---- what the owner asks ---- */

void exchange_begin(
    const struct exchange_client *client, struct exchange_server *server, struct buf *to_server)
{
    struct buf sql = {0};
    ASSERT(server->queue_count == 0);
    server->is_ready = server->is_skipping = false;
    server->failure[0] = server->failure_code[0] = '\0';
    parameters_put_changes(&client->parameters, &server->parameters, &sql);
    if (sql.size > 0) {
        *buf_extend(&sql, 1) = 0;
        pg_put(to_server, PG_QUERY, buf_view(&sql));
        exchange_push(server, KIND_SETTINGS, WAY_HIDDEN);
    }
    buf_deinit(&sql);
}

bool exchange_is_beginning(const struct exchange_server *server)
{
    const struct exchange_request *head = exchange_head(server);
    return head != NULL && head->kind == KIND_SETTINGS;
}

bool exchange_is_crowded(const struct exchange_server *server)
{
    return server->queue_count > CROWDED;
}

bool exchange_is_free(const struct exchange_server *server, const struct exchange_client *client)
{
    return server->is_ready && server->status == 'I' && server->queue_count == 0 &&
           server->pass_left == 0 && client->pass_left == 0;
}

bool exchange_is_amid_answer(const struct exchange_server *server)
{
    return server->pass_left > 0 && !server->is_dropping;
}
