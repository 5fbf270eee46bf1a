/*
 * Two clients of a pool and two connections to a server that behaves as Postgres does: whatever the
 * clients send, in any pieces and however long the server takes, each sees what it would see alone
 * with a server of its own. The server here knows named statements, transactions, errors and Sync.
 *
 * A script: each byte is a step (client, what it does, or how far a server or a stream gets).
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "control/gateway/exchange.h"
#include "tests/fuzz/fuzz.h"

#define NAMES   4  /* of statements that clients use */
#define TEXTS   6  /* of statements; the last one cannot be prepared */
#define KNOWN   64 /* names that a server has */
#define CLIENTS 2
#define SERVERS 2

/* ---- a server ---- */

struct model {
    struct buf in, out;
    struct buf late; /* answers that it keeps back until Sync, Flush, or an error */
    char names[KNOWN][STATEMENT_NAME_SIZE];
    char texts[KNOWN][8];
    size_t count;
    char bound[8]; /* text of the portal */
    char status;
    bool is_skipping;
};

static size_t find(const struct model *model, const char *name)
{
    size_t i = 0;
    while (i < model->count && strcmp(model->names[i], name) != 0) {
        i++;
    }
    return i;
}

static void send_late(struct model *model)
{
    buf_append(&model->out, model->late.data, model->late.size);
    buf_clear(&model->late);
}

static void fail(struct model *model, const char *code)
{
    pg_put_error(&model->late, code, "no");
    send_late(model);
    model->is_skipping = true;
    model->status = model->status == 'I' ? 'I' : 'E';
}

static void put_empty(struct model *model, char type)
{
    pg_put(&model->late, (uint8_t)type, bytes_of(NULL, 0));
}

static void prepare(struct model *model, const char *name)
{
    const char *text = name + strlen(name) + 1;
    if (find(model, name) < model->count && name[0] != '\0') {
        fail(model, "42P05");
    } else if (text[0] == '!') {
        fail(model, "42601");
    } else {
        size_t at = find(model, name);
        ASSERT(at < KNOWN);
        model->count += at == model->count;
        (void)snprintf(model->names[at], sizeof(model->names[at]), "%s", name);
        (void)snprintf(model->texts[at], sizeof(model->texts[at]), "%s", text);
        put_empty(model, '1');
    }
}

static void bind(struct model *model, const char *portal)
{
    size_t at = find(model, portal + strlen(portal) + 1);
    if (at == model->count) {
        fail(model, "26000");
        return;
    }
    memcpy(model->bound, model->texts[at], sizeof(model->bound));
    put_empty(model, '2');
}

/* 'B' and 'C' begin and end a transaction, '/' fails, others say which text they are. */
static void run(struct model *model, const char *text)
{
    if (text[0] == '/' || (model->status == 'E' && text[0] != 'C')) {
        fail(model, text[0] == '/' ? "22012" : "25P02");
        return;
    }
    model->status = (char)(text[0] == 'B' ? 'T' : text[0] == 'C' ? 'I' : model->status);
    pg_put(&model->late, PG_COMMAND_COMPLETE, bytes_of(text, strlen(text) + 1));
}

static void be_ready(struct model *model)
{
    model->is_skipping = false;
    pg_put(&model->late, PG_READY_FOR_QUERY, bytes_of(&model->status, 1));
    send_late(model);
}

static void close_statement(struct model *model, const char *name)
{
    size_t at = find(model, name + 1);
    if (at < model->count) {
        model->count--;
        memmove(model->names[at], model->names[model->count], sizeof(model->names[at]));
        memmove(model->texts[at], model->texts[model->count], sizeof(model->texts[at]));
    }
    put_empty(model, '3');
}

static void describe(struct model *model, const char *name)
{
    if (find(model, name + 1) == model->count) {
        fail(model, "26000");
    } else {
        put_empty(model, 't');
        put_empty(model, 'n');
    }
}

/* One message of what has arrived; false: there is none. */
static bool work(struct model *model)
{
    struct pg_message message;
    struct errmsg msg;
    err_t err = pg_message_parse(buf_view(&model->in), MIB, &message, &msg);
    ASSERT(err == ERR_OK);
    if (message.size == 0) {
        return false;
    }
    const char *body = (const char *)message.body.data;
    if (message.type == PG_SYNC) {
        be_ready(model);
    } else if (!model->is_skipping) {
        switch (message.type) {
        case PG_PARSE: prepare(model, body); break;
        case PG_BIND: bind(model, body); break;
        case PG_EXECUTE: run(model, model->bound); break;
        case PG_DESCRIBE: describe(model, body); break;
        case PG_CLOSE: close_statement(model, body); break;
        case PG_FLUSH: send_late(model); break;
        case PG_QUERY:
            run(model, body);
            be_ready(model);
            break;
        default: ASSERT(false);
        }
    }
    buf_consume(&model->in, message.size);
    return true;
}

static void model_deinit(struct model *model)
{
    buf_deinit(&model->in);
    buf_deinit(&model->late);
    buf_deinit(&model->out);
}

/* ---- the pool between them ---- */

struct link {
    struct exchange_server exchange;
    struct model model;
    struct buf to_model;
    int client; /* -1: nobody's */
};

struct person {
    struct exchange_client exchange;
    struct buf sent; /* not yet taken */
    struct buf got;
    struct model alone; /* the server of its own */
    int server;         /* -1: none */
    bool in_batch;      /* a Sync is owed */
    bool is_waiting;    /* for a connection */
};

struct world {
    struct statements statements;
    struct person people[CLIENTS];
    struct link links[SERVERS];
};

static const struct exchange_limits limits = {
    .client_statements_max = 100,
    .client_statement_bytes_max = 10000,
    .server_statements_max = 3,
    .server_statement_bytes_max = 7};

static struct link *link_of(struct world *world, const struct person *person)
{
    return person->server < 0 ? NULL : &world->links[person->server];
}

static void take_link(struct world *world, struct person *person)
{
    for (int i = 0; i < SERVERS && person->server < 0; i++) {
        if (world->links[i].client < 0) {
            person->server = i;
            world->links[i].client = (int)(person - world->people);
            exchange_begin(&person->exchange, &world->links[i].exchange, &world->links[i].to_model);
        }
    }
}

static void feed(struct world *world, struct person *person, struct bytes bytes)
{
    struct errmsg msg;
    struct link *link = link_of(world, person);
    enum exchange_verdict verdict = exchange_from_client(
        &person->exchange, link == NULL ? NULL : &link->exchange, bytes,
        link == NULL ? NULL : &link->to_model, &person->got, &msg);
    ASSERT(verdict == EXCHANGE_ON || verdict == EXCHANGE_WANTS_SERVER);
    if (verdict == EXCHANGE_WANTS_SERVER) {
        ASSERT(link == NULL);
        take_link(world, person);
        person->is_waiting = person->server < 0;
        if (!person->is_waiting) {
            feed(world, person, bytes_of(NULL, 0));
        }
    } else if (link != NULL && exchange_is_free(&link->exchange, &person->exchange)) {
        ASSERT(!link->exchange.is_spent);
        link->client = -1;
        person->server = -1;
        feed(world, person, bytes_of(NULL, 0));
    }
}

static bool may_send(const struct person *person)
{
    return person->sent.size > 0 && !person->exchange.is_stalled && !person->is_waiting;
}

static void deliver(struct world *world, struct person *person, size_t size)
{
    struct buf piece = {0};
    size = MIN_OF(size, person->sent.size);
    buf_append(&piece, person->sent.data, size);
    buf_consume(&person->sent, size);
    feed(world, person, buf_view(&piece));
    buf_deinit(&piece);
}

static void advance(struct world *world, struct link *link, size_t size)
{
    struct errmsg msg;
    struct buf piece = {0};
    buf_append(&link->model.in, link->to_model.data, link->to_model.size);
    buf_clear(&link->to_model);
    (void)work(&link->model);
    size = MIN_OF(size, link->model.out.size);
    buf_append(&piece, link->model.out.data, size);
    buf_consume(&link->model.out, size);
    struct person *person = link->client < 0 ? NULL : &world->people[link->client];
    err_t err = exchange_from_server(
        &link->exchange, person == NULL ? NULL : &person->exchange, buf_view(&piece),
        person == NULL ? NULL : &person->got, &msg);
    ASSERT(err == ERR_OK);
    if (person != NULL) {
        feed(world, person, bytes_of(NULL, 0));
    }
    buf_deinit(&piece);
}

/* ---- what clients do ---- */

static const char *const texts[TEXTS] = {"a", "bcd", "B", "C", "/", "!"};

static void put_text(struct person *person, char type, const char *first, const char *second)
{
    struct buf body = {0};
    buf_append(&body, first, strlen(first) + 1);
    buf_append(&body, second, strlen(second) + 1);
    pg_put(&person->sent, (uint8_t)type, buf_view(&body));
    pg_put(&person->alone.in, (uint8_t)type, buf_view(&body));
    person->in_batch = true;
    buf_deinit(&body);
}

static void put_one(struct person *person, char type, const char *text)
{
    pg_put(&person->sent, (uint8_t)type, bytes_of(text, strlen(text) + 1));
    pg_put(&person->alone.in, (uint8_t)type, bytes_of(text, strlen(text) + 1));
}

static void act(struct person *person, unsigned what, unsigned argument)
{
    char name[4] = {'s', (char)('0' + argument % NAMES), '\0', '\0'};
    char close[8];
    (void)snprintf(close, sizeof(close), "S%s", name);
    const char *text = texts[argument / NAMES % TEXTS];
    switch (what % 6) {
    case 0: put_text(person, 'P', name, text); break;
    case 1:
        put_text(person, 'B', "", name);
        put_text(person, 'E', "", "");
        break;
    case 2:
        put_one(person, 'C', close);
        person->in_batch = true;
        break;
    case 3:
        put_one(person, 'D', close);
        person->in_batch = true;
        break;
    case 4:
        if (!person->in_batch) { /* in its midst it would hang on what was before */
            put_one(person, 'Q', text);
        }
        break;
    default:
        pg_put(&person->sent, PG_SYNC, bytes_of(NULL, 0));
        pg_put(&person->alone.in, PG_SYNC, bytes_of(NULL, 0));
        person->in_batch = false;
    }
}

/* ---- the end ---- */

/* Everything that is under way arrives; open transactions are ended. */
static void finish(struct world *world)
{
    for (int i = 0; i < CLIENTS; i++) {
        act(&world->people[i], 5, 0);
        put_one(&world->people[i], 'Q', "C");
    }
    for (int round = 0; round < 20000; round++) {
        bool busy = false;
        for (int i = 0; i < CLIENTS; i++) {
            struct person *person = &world->people[i];
            if (may_send(person)) {
                deliver(world, person, 1000);
            } else if (person->is_waiting) {
                feed(world, person, bytes_of(NULL, 0));
            }
            busy = busy || person->sent.size > 0 || person->server >= 0 ||
                   person->exchange.held.size > 0;
        }
        for (int i = 0; i < SERVERS; i++) {
            advance(world, &world->links[i], 1000);
        }
        if (!busy) {
            return;
        }
    }
    ASSERT(false); /* somebody hangs */
}

/* The text of an error may be ours; its code is not. */
static void compare(const struct person *person)
{
    struct bytes a = buf_view(&person->got);
    struct bytes b = buf_view(&person->alone.out);
    struct pg_message got;
    struct pg_message wanted;
    struct errmsg msg;
    while (b.size > 0) {
        char codes[2][6];
        char text[100];
        ASSERT(pg_message_parse(a, MIB, &got, &msg) == ERR_OK && got.size > 0);
        ASSERT(pg_message_parse(b, MIB, &wanted, &msg) == ERR_OK && wanted.size > 0);
        ASSERT(got.type == wanted.type);
        if (got.type == PG_ERROR_RESPONSE) {
            pg_error_fields(got.body, codes[0], text, sizeof(text));
            pg_error_fields(wanted.body, codes[1], text, sizeof(text));
            ASSERT(strcmp(codes[0], codes[1]) == 0);
        } else {
            ASSERT(bytes_equal(got.body, wanted.body));
        }
        a = bytes_of(a.data + got.size, a.size - got.size);
        b = bytes_of(b.data + wanted.size, b.size - wanted.size);
    }
    ASSERT(a.size == 0);
}

static void deinit(struct world *world)
{
    for (int i = 0; i < CLIENTS; i++) {
        exchange_client_deinit(&world->people[i].exchange);
        buf_deinit(&world->people[i].sent);
        buf_deinit(&world->people[i].got);
        model_deinit(&world->people[i].alone);
    }
    for (int i = 0; i < SERVERS; i++) {
        exchange_server_deinit(&world->links[i].exchange);
        buf_deinit(&world->links[i].to_model);
        model_deinit(&world->links[i].model);
    }
    statements_deinit(&world->statements);
    mem_free(world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world *world = MEM_NEW(struct world);
    for (int i = 0; i < SERVERS; i++) {
        exchange_server_init(&world->links[i].exchange, &world->statements, &limits);
        world->links[i].client = -1;
        world->links[i].model.status = 'I';
    }
    for (int i = 0; i < CLIENTS; i++) {
        world->people[i].server = -1;
        world->people[i].alone.status = 'I';
    }
    for (size_t at = 0; at + 1 < MIN_OF(size, 2000); at += 2) {
        struct person *person = &world->people[data[at] % 2];
        unsigned what = data[at] / 2;
        if (what % 8 < 6) {
            act(person, what, data[at + 1]);
        } else if (what % 8 == 6 && may_send(person)) {
            deliver(world, person, data[at + 1] % 64 + 1U);
        } else {
            advance(world, &world->links[data[at] % 2], data[at + 1] % 32 + 1U);
        }
    }
    finish(world);
    for (int i = 0; i < CLIENTS; i++) {
        while (work(&world->people[i].alone)) {
        }
        compare(&world->people[i]);
    }
    deinit(world);
    return 0;
}
