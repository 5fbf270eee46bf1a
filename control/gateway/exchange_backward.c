/*
 * exchange_backward.c - from the server to the client.
 *
 * COPY FROM STDIN in the extended protocol: the server ignores Sync between CopyInResponse and the
 * end of the copy, and a client has usually sent one before it knew that it copies, and sends
 * another one at the end. When the response arrives, those that came before the end of the copy are
 * marked; they go away with the copy. If the copy fails it cannot be told whether the server had
 * read them before: such a connection is used up.
 */
#include "control/gateway/exchange_private.h"

/* The server has not done it and will not: neither have we. */
static void undo(
    struct exchange_server *server,
    struct exchange_client *client,
    const struct exchange_request *request)
{
    if (request->kind == KIND_PARSE) {
        if (request->statement != NULL) {
            statement_set_remove(&server->prepared, request->statement);
        }
        if (request->binding != NULL && client != NULL) {
            bindings_remove(&client->bindings, request->binding);
        }
    } else if (request->kind == KIND_CLOSE) {
        if (request->statement != NULL) {
            statement_set_add(&server->prepared, request->statement, server->batch);
            statement_set_confirm(&server->prepared, request->statement);
        }
        if (request->binding != NULL && request->binding->is_sure && client != NULL) {
            bindings_put_back(&client->bindings, request->binding);
        }
    }
}

/* The first `count` requests, the last one first: it may be what hid the one before. */
static void drop_requests(
    struct exchange_server *server, struct exchange_client *client, size_t count)
{
    for (size_t i = count; i > 0; i--) {
        undo(server, client, exchange_request_at(server, i - 1));
    }
    for (size_t i = 0; i < count; i++) {
        exchange_pop(server);
    }
}

struct backward {
    struct exchange_server *server;
    struct exchange_client *client; /* NULL: nobody has it */
    struct buf *to_client;
    struct errmsg *msg;
};

/* Does a message of this type complete a request of this kind? */
static bool completes(uint8_t type, enum exchange_kind kind)
{
    switch (kind) {
    case KIND_PARSE: return type == PG_PARSE_COMPLETE;
    case KIND_BIND: return type == PG_BIND_COMPLETE;
    case KIND_CLOSE: return type == PG_CLOSE_COMPLETE;
    case KIND_DESCRIBE: return type == PG_ROW_DESCRIPTION || type == PG_NO_DATA;
    case KIND_EXECUTE:
        return type == PG_COMMAND_COMPLETE || type == PG_EMPTY_QUERY || type == PG_SUSPENDED;
    case KIND_SETTINGS:
    case KIND_QUERY:
    case KIND_SYNC:
    case KIND_COPY_END:
    case KIND_REFUSAL: return false;
    }
    return false;
}

/* After COPY: the Syncs that the server has ignored. */
static void pop_ignored(struct exchange_server *server)
{
    const struct exchange_request *head = exchange_head(server);
    while (head != NULL &&
           ((head->kind == KIND_SYNC && head->is_ignored) || head->kind == KIND_COPY_END)) {
        exchange_pop(server);
        head = exchange_head(server);
    }
    server->in_copy = server->copy_ended = false;
}

static void on_copy_in(struct exchange_server *server)
{
    const struct exchange_request *head = exchange_head(server);
    server->in_copy = head != NULL && head->kind == KIND_EXECUTE;
    server->copy_ended = false;
    for (size_t i = 1; server->in_copy && i < server->queue_count && !server->copy_ended; i++) {
        struct exchange_request *request = exchange_request_at(server, i);
        request->is_ignored = request->kind == KIND_SYNC;
        server->copy_ended = request->kind == KIND_COPY_END;
    }
}

static bool is_barrier(const struct exchange_request *request)
{
    return request->kind == KIND_SYNC && !request->is_ignored;
}

/* The server skips everything up to the next Sync. */
static void on_error(struct backward *to)
{
    struct exchange_server *server = to->server;
    struct exchange_request *head = exchange_head(server);
    if (head == NULL || head->kind == KIND_SETTINGS || head->kind == KIND_QUERY ||
        head->kind == KIND_SYNC) {
        return; /* ReadyForQuery follows, or the end */
    }
    server->is_spent = server->is_spent || server->in_copy;
    size_t count = 0;
    while (count < server->queue_count && !is_barrier(exchange_request_at(server, count))) {
        count++;
    }
    drop_requests(server, to->client, count);
    server->is_skipping = server->queue_count == 0;
    server->in_copy = server->copy_ended = false;
}

/* The settings were taken: as the server spells them. */
static void adopt_settings(struct backward *to)
{
    for (size_t i = 0; to->client != NULL && i < PARAMETER_COUNT; i++) {
        if (to->server->parameters.values[i] != NULL) {
            parameters_set(
                &to->client->parameters, (enum parameter)i, to->server->parameters.values[i]);
        }
    }
}

static err_t on_ready(struct backward *to, struct bytes body)
{
    struct exchange_server *server = to->server;
    struct exchange_request *head = exchange_head(server);
    bool is_expected = head != NULL && (head->kind == KIND_SETTINGS || head->kind == KIND_QUERY ||
                                        head->kind == KIND_SYNC);
    if (body.size != 1 || (!is_expected && !server->is_spent)) {
        return err_set(to->msg, ERR_CORRUPT, "the compute is ready for a query that nobody sent");
    }
    bool is_settings = is_expected && head->kind == KIND_SETTINGS;
    if (is_expected) {
        exchange_pop(server);
    }
    server->status = (char)body.data[0];
    if (is_settings && server->failure[0] != '\0') {
        return err_set(to->msg, ERR_FAILED, "%s", server->failure);
    }
    if (is_settings) {
        adopt_settings(to);
    } else if (to->to_client != NULL) {
        pg_put(to->to_client, PG_READY_FOR_QUERY, body);
    }
    exchange_settle(server, to->to_client);
    server->is_skipping = false;
    server->is_ready = !is_settings && server->queue_count == 0; /* not by what was sent since */
    return ERR_OK;
}

static void on_parameter(struct backward *to, const struct pg_head *head)
{
    size_t next = 0;
    size_t end = 0;
    const char *name = pg_head_text(head, PG_HEADER_SIZE, &next);
    const char *value = name == NULL ? NULL : pg_head_text(head, next, &end);
    enum parameter parameter = value == NULL ? PARAMETER_COUNT : parameter_find(name);
    bool is_news = true;
    if (parameter != PARAMETER_COUNT) {
        parameters_set(&to->server->parameters, parameter, value);
        if (to->client != NULL) {
            const char *known = to->client->parameters.values[parameter];
            is_news =
                !exchange_is_beginning(to->server) || known == NULL || strcmp(known, value) != 0;
            parameters_set(&to->client->parameters, parameter, value);
        }
    }
    if (to->to_client != NULL && is_news) {
        buf_append(to->to_client, head->seen.data, head->seen.size);
    }
}

/* Of what the drop took there is nothing to be closed, nor to be restored when the Close fails. */
static void close_behind_drop(
    struct exchange_server *server,
    struct exchange_client *client,
    struct exchange_request *request)
{
    if (request->statement != NULL && !statement_set_has(&server->prepared, request->statement)) {
        statement_unref(request->statement);
        request->statement = NULL;
    } else if (request->statement != NULL) {
        statement_set_remove(&server->prepared, request->statement);
    }
    if (request->binding != NULL && client != NULL &&
        !list_link_is_in(&request->binding->in_bucket)) {
        binding_unref(request->binding);
        request->binding = NULL;
    } else if (request->binding != NULL && client != NULL) {
        bindings_remove(&client->bindings, request->binding);
    }
}

/* What was sent behind the drop prepares and closes as if nothing had been there before. */
static void replay_behind_drop(struct exchange_server *server, struct exchange_client *client)
{
    uint64_t batch = server->batch;
    for (size_t i = 1; i < server->queue_count; i++) {
        batch -= exchange_request_at(server, i)->kind == KIND_SYNC;
    }
    for (size_t i = 1; i < server->queue_count; i++) {
        struct exchange_request *request = exchange_request_at(server, i);
        batch += request->kind == KIND_SYNC;
        if (request->kind == KIND_PARSE) {
            if (request->statement != NULL) {
                statement_set_add(&server->prepared, request->statement, batch);
            }
            if (request->binding != NULL && client != NULL) {
                bindings_put_back(&client->bindings, request->binding);
            }
        } else if (request->kind == KIND_CLOSE) {
            close_behind_drop(server, client, request);
        }
    }
}

/* SQL has dropped what was prepared on this connection. */
static void on_tag(struct backward *to, const struct pg_head *head)
{
    size_t next = 0;
    const char *tag = pg_head_text(head, PG_HEADER_SIZE, &next);
    if (tag == NULL || (strcmp(tag, "DEALLOCATE ALL") != 0 && strcmp(tag, "DISCARD ALL") != 0)) {
        return;
    }
    statement_set_clear(&to->server->prepared);
    if (to->client != NULL) {
        bindings_deinit(&to->client->bindings);
    }
    replay_behind_drop(to->server, to->client);
}

/* These are looked into as a whole. They are small. */
static bool is_gathered(const struct exchange_server *server, uint8_t type)
{
    return type == PG_READY_FOR_QUERY || type == PG_PARAMETER_STATUS ||
           type == PG_COMMAND_COMPLETE ||
           (type == PG_ERROR_RESPONSE && exchange_is_beginning(server));
}

static size_t pass_back(struct backward *to, const struct pg_head *head, bool is_dropped)
{
    is_dropped = is_dropped || to->to_client == NULL;
    if (!is_dropped) {
        buf_append(to->to_client, head->seen.data, head->seen.size);
    }
    to->server->pass_left = head->size - head->seen.size;
    to->server->is_dropping = is_dropped;
    return head->seen.size;
}

static size_t take_error(struct backward *to, const struct pg_head *head)
{
    struct exchange_server *server = to->server;
    const struct exchange_request *request = exchange_head(server);
    if (request != NULL && request->kind == KIND_SETTINGS) {
        pg_error_fields(
            bytes_of(head->seen.data + PG_HEADER_SIZE, head->size - PG_HEADER_SIZE),
            server->failure_code, server->failure, sizeof server->failure);
        return head->size;
    }
    bool is_replaced = request != NULL && request->kind == KIND_REFUSAL;
    if (is_replaced && to->to_client != NULL) {
        pg_put(to->to_client, PG_ERROR_RESPONSE, bytes_of(request->refusal, request->refusal_size));
    }
    size_t taken = pass_back(to, head, is_replaced);
    on_error(to);
    exchange_settle(server, to->to_client);
    return taken;
}

static size_t take_answer(struct backward *to, const struct pg_head *head)
{
    struct exchange_server *server = to->server;
    const struct exchange_request *request = exchange_head(server);
    bool is_last = request != NULL && completes(head->type, (enum exchange_kind)request->kind);
    bool is_settings = exchange_is_beginning(server);
    bool is_hidden = is_settings || (is_last && request->way == WAY_HIDDEN);
    size_t taken = pass_back(to, head, is_hidden);
    if (head->type == PG_COMMAND_COMPLETE) {
        on_tag(to, head);
    } else if (head->type == PG_COPY_IN) {
        on_copy_in(server);
    }
    if (is_last) {
        bool was_copy = server->in_copy;
        exchange_confirm(server, request);
        exchange_pop(server);
        if (was_copy) {
            pop_ignored(server);
        }
        exchange_settle(server, to->to_client);
    }
    return taken;
}

static err_t take_back(struct backward *to, struct bytes bytes, size_t *ret_taken)
{
    struct pg_head head;
    *ret_taken = 0;
    if (!pg_head_see(bytes, &head)) {
        return ERR_OK;
    }
    bool is_gathered_type = is_gathered(to->server, head.type);
    if (head.size < PG_HEADER_SIZE || head.size > EXCHANGE_MESSAGE_MAX + 1 ||
        (is_gathered_type && head.size > MIB)) {
        return err_set(
            to->msg, ERR_CORRUPT, "the compute sent a message of type 0x%02x and %zu bytes",
            head.type, head.size);
    }
    if (is_gathered_type && !pg_head_is_whole(&head)) {
        return ERR_OK;
    }
    *ret_taken = head.size;
    to->server->is_told = head.type == PG_ERROR_RESPONSE;
    if (head.type == PG_READY_FOR_QUERY) {
        return on_ready(to, bytes_of(bytes.data + PG_HEADER_SIZE, head.size - PG_HEADER_SIZE));
    }
    if (head.type == PG_PARAMETER_STATUS) {
        on_parameter(to, &head);
    } else if (head.type == PG_ERROR_RESPONSE) {
        *ret_taken = take_error(to, &head);
    } else {
        *ret_taken = take_answer(to, &head);
    }
    return ERR_OK;
}

static size_t take_back_rest(struct backward *to, struct bytes bytes)
{
    size_t size = MIN_OF(to->server->pass_left, bytes.size);
    if (!to->server->is_dropping && to->to_client != NULL) {
        buf_append(to->to_client, bytes.data, size);
    }
    to->server->pass_left -= size;
    exchange_settle(to->server, to->to_client);
    return size;
}

err_t exchange_from_server(
    struct exchange_server *server,
    struct exchange_client *client,
    struct bytes bytes,
    struct buf *to_client,
    struct errmsg *msg)
{
    struct backward to = {server, client, to_client, msg};
    err_t err = ERR_OK;
    bool is_held = server->held.size > 0;
    if (is_held) {
        buf_append(&server->held, bytes.data, bytes.size);
        bytes = buf_view(&server->held);
    }
    size_t at = 0;
    size_t taken = 1;
    while (err == ERR_OK && taken > 0 && at < bytes.size) {
        struct bytes rest = bytes_of(bytes.data + at, bytes.size - at);
        if (server->pass_left > 0) {
            taken = take_back_rest(&to, rest);
        } else {
            err = take_back(&to, rest, &taken);
        }
        at += err == ERR_OK ? taken : 0;
    }
    if (is_held) {
        buf_consume(&server->held, at);
    } else if (at < bytes.size) {
        buf_append(&server->held, bytes.data + at, bytes.size - at);
    }
    return err;
}
