/*
 * statements.h - prepared statements of the protocol, while clients share server connections.
 *
 * A client names its statements as it likes; the server knows each text under one name of ours,
 * whoever prepared it first. So there are three things: the texts of a pool (`statements`), the
 * names of a client (`bindings`), and what a server connection has prepared (`statement_set`).
 *
 * References: a binding and a place in a set hold a statement; who refers to a binding outside of
 * its client's table holds the binding. Pure; allocates what the limits of exchange.h allow.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/list.h"

#define STATEMENT_NAME_SIZE 40 /* of ours, with its NUL */

/* ---- texts ---- */

struct statements {
    struct list *buckets; /* NULL: there is none */
    size_t count;
    uint64_t last_id;
};

struct statement {
    struct list_link in_bucket;
    struct statements *owner;
    size_t refs;
    uint64_t id, hash;
    size_t size, key_size;
    uint8_t body[]; /* of the Parse message behind its name: text, NUL, types of the parameters;
                       and the key */
};

void statements_deinit(struct statements *statements); /* nobody refers to one */
/*
 * The one with this body, made if there is none; the caller holds it. `key`: the settings that
 * decide what the text means (a constant of a type with a time zone, a name): others, another one.
 */
struct statement *statements_take(
    struct statements *statements, struct bytes body, struct bytes key);
struct statement *statement_ref(struct statement *statement);
void statement_unref(struct statement *statement); /* NULL is fine */
void statement_name(const struct statement *statement, char ret_name[STATEMENT_NAME_SIZE]);

/* ---- a client's names ---- */

struct bindings {
    struct list *buckets; /* NULL: none yet */
    size_t count;
    size_t bytes; /* of the names and of their texts */
};

struct binding {
    struct list_link in_bucket; /* in no list: the client has closed it */
    size_t refs;
    struct statement *statement;
    uint64_t batch; /* of requests, that made it */
    bool is_sure;   /* the server has confirmed it */
    char name[];
};

void bindings_deinit(struct bindings *bindings);
struct binding *bindings_find(const struct bindings *bindings, const char *name); /* or NULL */
/* The table holds it; `statement` becomes the binding's. No other one has that name. */
struct binding *bindings_add(
    struct bindings *bindings, const char *name, struct statement *statement);
void bindings_remove(struct bindings *bindings, struct binding *binding); /* fine when removed */
/* One that was removed, unless its name was taken since. */
void bindings_put_back(struct bindings *bindings, struct binding *binding);
struct binding *binding_ref(struct binding *binding);
void binding_unref(struct binding *binding); /* NULL is fine */

/* ---- what a server connection has prepared ---- */

struct statement_set {
    struct list *buckets;
    struct list by_use; /* the least recently used one first */
    size_t count;
    size_t bytes; /* of their texts */
};

void statement_set_clear(struct statement_set *set);
enum statement_presence {
    STATEMENT_ABSENT,
    STATEMENT_PREPARED, /* or it will be, when nothing of this batch fails before */
    STATEMENT_UNSURE,   /* asked for in an earlier batch, which may have failed before it */
};

/* What there is used counts as used just now. */
enum statement_presence statement_set_use(
    struct statement_set *set, const struct statement *statement, uint64_t batch);
void statement_set_add(
    struct statement_set *set, struct statement *statement, uint64_t batch); /* takes a ref */
bool statement_set_has(const struct statement_set *set, const struct statement *statement);
void statement_set_confirm(struct statement_set *set, const struct statement *statement);
void statement_set_remove(struct statement_set *set, const struct statement *statement);
/* The one not used for longest, among those that the server has for sure. NULL: none. */
struct statement *statement_set_oldest(const struct statement_set *set);
