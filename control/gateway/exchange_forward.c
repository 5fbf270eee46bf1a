/*
 * exchange_forward.c - from the client to the server.
 */
#include <stdio.h>

#include "common/base/mem.h"
#include "control/gateway/exchange_private.h"

#define SMALL_MAX     10000               /* as in Postgres: messages that are not data */
#define NAMES_MAX     2048                /* bytes of the names at the front of a message */
#define STATEMENT_MAX MIB                 /* bytes of a named Parse */
#define NOWHERE       "anabranch refuses" /* a statement that no server has */

struct forward {
    struct exchange_client *client;
    struct exchange_server *server;
    struct buf *to_server, *to_client;
    struct errmsg *msg;
    bool is_broken, is_stalled;
};

static bool is_small(uint8_t type)
{
    return strchr("DECHSXcf", type) != NULL;
}

static bool is_known(uint8_t type)
{
    return type != '\0' && strchr("QPBDECHSFdcfX", type) != NULL;
}

static bool check_head(const struct pg_head *head, struct errmsg *msg)
{
    size_t max = is_small(head->type) ? SMALL_MAX : EXCHANGE_MESSAGE_MAX;
    if (is_known(head->type) && head->size >= PG_HEADER_SIZE && head->size - 1 <= max) {
        return true;
    }
    err_ignore(
        err_set(
            msg, ERR_INVALID, "a message of type 0x%02x and %zu bytes", head->type, head->size - 1),
        "the caller tells the client");
    return false;
}

/* Pass the message on as it is, from `skip` on what is here of it; the rest follows as it comes. */
static size_t pass(struct forward *to, const struct pg_head *head, size_t skip)
{
    buf_append(to->to_server, head->seen.data + skip, head->seen.size - skip);
    to->client->pass_left = head->size - head->seen.size;
    to->client->is_dropping = false;
    return head->seen.size;
}

static size_t drop(struct forward *to, const struct pg_head *head)
{
    to->client->pass_left = head->size - head->seen.size;
    to->client->is_dropping = true;
    return head->seen.size;
}

static void put_parse(struct buf *to, const struct statement *statement)
{
    char name[STATEMENT_NAME_SIZE];
    struct buf body = {0};
    statement_name(statement, name);
    buf_append(&body, name, strlen(name) + 1);
    buf_append(&body, statement->body, statement->size);
    pg_put(to, PG_PARSE, buf_view(&body));
    buf_deinit(&body);
}

/* The server answers what it was asked so far, though no Sync follows: an answer is waited for. */
static void ask_for_answers(struct forward *to)
{
    const struct exchange_server *server = to->server;
    bool is_sync_last = server->queue_count > 0 &&
                        exchange_request_at(server, server->queue_count - 1)->kind == KIND_SYNC;
    if (!server->is_flushed && !is_sync_last) {
        pg_put(to->to_server, PG_FLUSH, bytes_of(NULL, 0));
        to->server->is_flushed = true;
    }
}

static bool is_full(const struct exchange_server *server, size_t size)
{
    const struct statement_set *set = &server->prepared;
    return set->count > 0 && (set->count >= server->limits->server_statements_max ||
                              set->bytes + size > server->limits->server_statement_bytes_max);
}

/* For a text of that size. False: what is there may not be; stalled until that is known. */
static bool make_place(struct forward *to, size_t size)
{
    struct exchange_server *server = to->server;
    struct statement *oldest = statement_set_oldest(&server->prepared);
    while (is_full(server, size) && oldest != NULL) {
        char name[STATEMENT_NAME_SIZE];
        struct buf body = {0};
        exchange_push(server, KIND_CLOSE, WAY_HIDDEN)->statement = statement_ref(oldest);
        statement_name(oldest, name);
        buf_printf(&body, "S%s", name);
        *buf_extend(&body, 1) = 0;
        pg_put(to->to_server, PG_CLOSE, buf_view(&body));
        buf_deinit(&body);
        statement_set_remove(&server->prepared, oldest);
        oldest = statement_set_oldest(&server->prepared);
    }
    to->is_stalled = is_full(server, size);
    return !to->is_stalled;
}

/* NULL: stalled. */
static struct exchange_request *prepare(
    struct forward *to, struct statement *statement, enum exchange_way way)
{
    if (!make_place(to, statement->size)) {
        return NULL;
    }
    put_parse(to->to_server, statement);
    statement_set_add(&to->server->prepared, statement, to->server->batch);
    struct exchange_request *request = exchange_push(to->server, KIND_PARSE, way);
    request->statement = statement_ref(statement);
    return request;
}

/*
 * Was this statement, or what the client calls `name`, closed in an earlier batch that may have
 * failed before? Either may be NULL.
 */
static bool is_close_unsure(
    const struct forward *to, const struct statement *statement, const char *name)
{
    bool is_earlier = false;
    for (size_t i = to->server->close_count == 0 ? 0 : to->server->queue_count; i > 0; i--) {
        const struct exchange_request *request = exchange_request_at(to->server, i - 1);
        if (is_earlier && request->kind == KIND_CLOSE &&
            ((statement != NULL && request->statement == statement) ||
             (name != NULL && request->binding != NULL &&
              strcmp(request->binding->name, name) == 0))) {
            return true;
        }
        is_earlier = is_earlier || request->kind == KIND_SYNC;
    }
    return false;
}

/*
 * What the client calls by that name; NULL: nothing. When that hangs on an earlier batch the
 * message is stalled.
 */
static struct binding *find_binding(struct forward *to, const char *name)
{
    if (name[0] == '\0') {
        return NULL;
    }
    struct binding *binding = bindings_find(&to->client->bindings, name);
    to->is_stalled = binding == NULL ? is_close_unsure(to, NULL, name)
                                     : !binding->is_sure && binding->batch != to->server->batch;
    return binding;
}

static enum statement_presence look_up(const struct forward *to, const struct statement *statement)
{
    enum statement_presence presence =
        statement_set_use(&to->server->prepared, statement, to->server->batch);
    return presence == STATEMENT_ABSENT && is_close_unsure(to, statement, NULL) ? STATEMENT_UNSURE
                                                                                : presence;
}

/* The client's name of a statement as the server knows it, and it does from now on. NULL: stalled.
 */
static const char *name_for_server(
    struct forward *to, const char *name, char space[STATEMENT_NAME_SIZE])
{
    struct binding *binding = find_binding(to, name);
    if (to->is_stalled) {
        return NULL;
    }
    if (binding == NULL) {
        return name; /* the unnamed one, or of PREPARE in this transaction; or the server refuses */
    }
    enum statement_presence presence = look_up(to, binding->statement);
    if (presence == STATEMENT_UNSURE) {
        to->is_stalled = true;
        return NULL;
    }
    if (presence == STATEMENT_ABSENT) {
        if (prepare(to, binding->statement, WAY_HIDDEN) == NULL) {
            return NULL;
        }
        to->server->reprepared++;
    }
    statement_name(binding->statement, space);
    return space;
}

/*
 * The server has to fail as well, so that it skips what follows and its transaction is lost: it is
 * asked for a statement that is not there, and its error replaced.
 */
static void refuse(struct forward *to, const char *code, const char *text)
{
    struct buf error = {0};
    struct buf body = {0};
    struct exchange_request *request = exchange_push(to->server, KIND_REFUSAL, WAY_PASSED);
    pg_put_error(&error, code, text);
    request->refusal_size = error.size - PG_HEADER_SIZE;
    request->refusal = mem_dup(error.data + PG_HEADER_SIZE, request->refusal_size);
    buf_append(&body, "S" NOWHERE, sizeof("S" NOWHERE));
    pg_put(to->to_server, PG_DESCRIBE, buf_view(&body));
    buf_deinit(&body);
    buf_deinit(&error);
}

static bool has_room(const struct forward *to, size_t size)
{
    const struct bindings *bindings = &to->client->bindings;
    const struct exchange_limits *limits = to->server->limits;
    return bindings->count < limits->client_statements_max &&
           size <= limits->client_statement_bytes_max &&
           bindings->bytes <= limits->client_statement_bytes_max - size;
}

/* The client gives a statement a name; takes the reference. False: stalled. */
static bool add_binding(struct forward *to, const char *name, struct statement *statement)
{
    struct exchange_server *server = to->server;
    enum statement_presence presence = look_up(to, statement);
    to->is_stalled = presence == STATEMENT_UNSURE;
    struct exchange_request *request =
        presence == STATEMENT_PREPARED ? exchange_push(server, KIND_PARSE, WAY_MADE_UP)
        : presence == STATEMENT_ABSENT ? prepare(to, statement, WAY_PASSED)
                                       : NULL;
    if (request == NULL) {
        statement_unref(statement);
        return false;
    }
    struct binding *binding = bindings_add(&to->client->bindings, name, statement);
    binding->batch = server->batch;
    request->binding = binding_ref(binding);
    return true;
}

/* `size`: of the names at the front with the header, or of what is here of them. */
static bool check_names(struct forward *to, size_t size)
{
    to->is_broken = size > NAMES_MAX;
    if (to->is_broken) {
        err_ignore(
            err_set(to->msg, ERR_INVALID, "a name of more than %d bytes", NAMES_MAX),
            "the caller tells the client");
    }
    return !to->is_broken;
}

/* Parse: name, text, types. 0: more bytes are needed. */
static size_t take_parse(struct forward *to, const struct pg_head *head)
{
    size_t next = 0;
    const char *name = pg_head_text(head, PG_HEADER_SIZE, &next);
    bool is_here = name != NULL || pg_head_is_whole(head);
    if (!check_names(to, name == NULL ? head->seen.size : next) || !is_here) {
        return 0;
    }
    if (name == NULL || name[0] == '\0') { /* malformed: the server says what it thinks of it */
        exchange_push(to->server, KIND_PARSE, WAY_PASSED);
        return pass(to, head, 0);
    }
    if (head->size > STATEMENT_MAX) {
        refuse(to, "54000", "the statement is too long to be prepared with a name in a pool");
        return drop(to, head);
    }
    if (!pg_head_is_whole(head)) {
        return 0;
    }
    struct bytes body = bytes_of(head->seen.data + next, head->size - next);
    const struct binding *other = find_binding(to, name);
    if (to->is_stalled) {
        return 0;
    }
    if (other != NULL) {
        char text[200];
        (void)snprintf(text, sizeof text, "prepared statement \"%.100s\" already exists", name);
        refuse(to, "42P05", text);
        return head->size;
    }
    if (!has_room(to, strlen(name) + body.size)) {
        refuse(to, "54000", "too many prepared statements of one client of a pool");
        return head->size;
    }
    struct buf key = {0};
    parameters_put_key(&to->client->parameters, &key);
    struct statement *statement = statements_take(to->server->statements, body, buf_view(&key));
    buf_deinit(&key);
    return add_binding(to, name, statement) ? head->size : 0;
}

/* A message with the name of a statement at `name_at`: with the server's name. */
static size_t pass_renamed(
    struct forward *to, const struct pg_head *head, size_t name_at, enum exchange_kind kind)
{
    char space[STATEMENT_NAME_SIZE];
    size_t next = 0;
    const char *name = pg_head_text(head, name_at, &next);
    ASSERT(name != NULL);
    const char *known = name_for_server(to, name, space);
    if (known == NULL) {
        return 0;
    }
    size_t known_size = strlen(known) + 1;
    size_t size = head->size - (next - name_at) + known_size;
    *buf_extend(to->to_server, 1) = head->type;
    pg_put_u32(to->to_server, (uint32_t)(size - 1));
    buf_append(to->to_server, head->seen.data + PG_HEADER_SIZE, name_at - PG_HEADER_SIZE);
    buf_append(to->to_server, known, known_size);
    exchange_push(to->server, kind, WAY_PASSED);
    return pass(to, head, next);
}

/* Bind: portal, statement, values. */
static size_t take_bind(struct forward *to, const struct pg_head *head)
{
    size_t name_at = 0;
    size_t next = 0;
    bool are_here = pg_head_text(head, PG_HEADER_SIZE, &name_at) != NULL &&
                    pg_head_text(head, name_at, &next) != NULL;
    if (!check_names(to, are_here ? next : head->seen.size) ||
        (!are_here && !pg_head_is_whole(head))) {
        return 0;
    }
    if (are_here) {
        return pass_renamed(to, head, name_at, KIND_BIND);
    }
    exchange_push(to->server, KIND_BIND, WAY_PASSED);
    return pass(to, head, 0);
}

/* Describe, Close: 'S' or 'P', name. They are small, and here as a whole. */
static size_t take_named(struct forward *to, const struct pg_head *head, enum exchange_kind kind)
{
    size_t next = 0;
    const char *name = pg_head_text(head, PG_HEADER_SIZE + 1, &next);
    bool is_statement = name != NULL && head->seen.data[PG_HEADER_SIZE] == 'S';
    if (kind == KIND_DESCRIBE && is_statement) {
        return pass_renamed(to, head, PG_HEADER_SIZE + 1, kind);
    }
    struct binding *binding = is_statement ? find_binding(to, name) : NULL;
    if (to->is_stalled) {
        return 0;
    }
    if (binding != NULL) { /* the server keeps the text for others */
        exchange_push(to->server, KIND_CLOSE, WAY_MADE_UP)->binding = binding_ref(binding);
        bindings_remove(&to->client->bindings, binding);
        return head->size;
    }
    exchange_push(to->server, kind, WAY_PASSED);
    return pass(to, head, 0);
}

static size_t take_sync(struct forward *to, const struct pg_head *head)
{
    struct exchange_request *request = exchange_push(to->server, KIND_SYNC, WAY_PASSED);
    request->is_ignored = to->server->in_copy && !to->server->copy_ended;
    to->server->is_skipping = false;
    to->server->batch++;
    return pass(to, head, 0);
}

static size_t take_copy_end(struct forward *to, const struct pg_head *head)
{
    if (to->server->queue_count > 0) { /* otherwise of a copy that has failed */
        exchange_push(to->server, KIND_COPY_END, WAY_PASSED);
        to->server->copy_ended = true;
    }
    return pass(to, head, 0);
}

/* With a server. 0: more bytes are needed. */
static size_t take_message(struct forward *to, const struct pg_head *head)
{
    if (is_small(head->type) && !pg_head_is_whole(head)) {
        return 0;
    }
    if (to->server->is_skipping && head->type != PG_SYNC) {
        return drop(to, head); /* as the server would */
    }
    switch (head->type) {
    case PG_PARSE: return take_parse(to, head);
    case PG_BIND: return take_bind(to, head);
    case PG_DESCRIBE: return take_named(to, head, KIND_DESCRIBE);
    case PG_CLOSE: return take_named(to, head, KIND_CLOSE);
    case PG_SYNC: return take_sync(to, head);
    case PG_COPY_DONE:
    case PG_COPY_FAIL: return take_copy_end(to, head);
    case PG_EXECUTE: exchange_push(to->server, KIND_EXECUTE, WAY_PASSED); return pass(to, head, 0);
    case PG_QUERY:
    case PG_FUNCTION_CALL:
        exchange_push(to->server, KIND_QUERY, WAY_PASSED);
        return pass(to, head, 0);
    default: return pass(to, head, 0); /* Flush, CopyData */
    }
}

/* Without a server these mean nothing: of a copy that has failed, or nothing to be flushed. */
static bool means_nothing(uint8_t type)
{
    return strchr("dcfH", type) != NULL;
}

/* One message of what is held. 0: no more. */
static size_t take_one(struct forward *to, struct bytes bytes, enum exchange_verdict *verdict)
{
    struct pg_head head;
    if (!pg_head_see(bytes, &head)) {
        return 0;
    }
    if (!check_head(&head, to->msg)) {
        *verdict = EXCHANGE_BROKEN;
        return 0;
    }
    if (head.type == PG_TERMINATE) {
        *verdict = EXCHANGE_ENDS;
        return 0;
    }
    if (to->server == NULL) {
        if (means_nothing(head.type)) {
            return drop(to, &head);
        }
        if (pg_head_is_whole(&head) || head.size > EXCHANGE_GATHER_MAX) {
            *verdict = EXCHANGE_WANTS_SERVER;
        }
        return 0;
    }
    if (exchange_is_crowded(to->server)) {
        exchange_settle(to->server, to->to_client);
        to->is_stalled = exchange_is_crowded(to->server);
        if (to->is_stalled) {
            return 0;
        }
    }
    size_t taken = take_message(to, &head);
    if (to->is_broken) {
        *verdict = EXCHANGE_BROKEN;
    }
    return taken;
}

/* The rest of a message of which the front has gone. */
static size_t take_rest(struct forward *to, struct bytes bytes)
{
    size_t size = MIN_OF(to->client->pass_left, bytes.size);
    if (!to->client->is_dropping) {
        ASSERT(to->to_server != NULL);
        buf_append(to->to_server, bytes.data, size);
    }
    to->client->pass_left -= size;
    return size;
}

enum exchange_verdict exchange_from_client(
    struct exchange_client *client,
    struct exchange_server *server,
    struct bytes bytes,
    struct buf *to_server,
    struct buf *to_client,
    struct errmsg *msg)
{
    struct forward to = {client, server, to_server, to_client, msg, false, false};
    enum exchange_verdict verdict = EXCHANGE_ON;
    bool is_held = client->held.size > 0;
    if (is_held) {
        buf_append(&client->held, bytes.data, bytes.size);
        bytes = buf_view(&client->held);
    }
    size_t at = 0;
    size_t taken = 1;
    while (taken > 0 && at < bytes.size && verdict == EXCHANGE_ON) {
        struct bytes rest = bytes_of(bytes.data + at, bytes.size - at);
        taken = client->pass_left > 0 ? take_rest(&to, rest) : take_one(&to, rest, &verdict);
        at += taken;
    }
    if (is_held) {
        buf_consume(&client->held, at);
        if (client->held.size == 0) {
            buf_deinit(&client->held);
        }
    } else if (at < bytes.size) {
        buf_append(&client->held, bytes.data + at, bytes.size - at);
    }
    if (server != NULL) {
        exchange_settle(server, to_client);
        to.is_stalled = to.is_stalled || (exchange_is_crowded(server) && client->pass_left == 0);
        if (to.is_stalled) {
            ask_for_answers(&to);
        }
    }
    client->is_stalled = to.is_stalled;
    return verdict;
}
