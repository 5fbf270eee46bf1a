#include "control/gateway/statements.h"

#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/mem.h"

#define TEXT_BUCKETS 256
#define NAME_BUCKETS 32
#define SET_BUCKETS  64

struct place { /* of a statement in a set */
    struct list_link in_bucket, by_use;
    struct statement *statement;
    uint64_t batch;
    bool is_sure;
};

static struct list *make_buckets(size_t count)
{
    struct list *buckets = MEM_ARRAY(struct list, count);
    for (size_t i = 0; i < count; i++) {
        list_init(&buckets[i]);
    }
    return buckets;
}

/* ---- texts ---- */

void statements_deinit(struct statements *statements)
{
    ASSERT(statements->count == 0);
    mem_free(statements->buckets);
    statements->buckets = NULL;
}

struct statement *statements_take(
    struct statements *statements, struct bytes body, struct bytes key)
{
    if (statements->buckets == NULL) {
        statements->buckets = make_buckets(TEXT_BUCKETS);
    }
    uint64_t hash = hash64(body.data, body.size, hash64(key.data, key.size, 0));
    struct list *bucket = &statements->buckets[hash % TEXT_BUCKETS];
    LIST_FOR_EACH(bucket, link)
    {
        struct statement *statement = CONTAINER_OF(link, struct statement, in_bucket);
        if (statement->hash == hash &&
            bytes_equal(bytes_of(statement->body, statement->size), body) &&
            bytes_equal(bytes_of(statement->body + statement->size, statement->key_size), key)) {
            return statement_ref(statement);
        }
    }
    struct statement *statement = mem_zalloc(sizeof *statement + body.size + key.size);
    statement->owner = statements;
    statement->refs = 1;
    statement->id = ++statements->last_id;
    statement->hash = hash;
    statement->size = body.size;
    statement->key_size = key.size;
    memcpy(statement->body, body.data, body.size);
    memcpy(statement->body + body.size, key.data, key.size);
    list_push_back(bucket, &statement->in_bucket);
    statements->count++;
    return statement;
}

struct statement *statement_ref(struct statement *statement)
{
    statement->refs++;
    return statement;
}

void statement_unref(struct statement *statement)
{
    if (statement == NULL || --statement->refs > 0) {
        return;
    }
    list_remove(&statement->in_bucket);
    statement->owner->count--;
    mem_free(statement);
}

void statement_name(const struct statement *statement, char ret_name[STATEMENT_NAME_SIZE])
{
    (void)snprintf(ret_name, STATEMENT_NAME_SIZE, "anabranch pooled %" PRIu64, statement->id);
}

/* ---- a client's names ---- */

static struct list *bucket_of_name(const struct bindings *bindings, const char *name)
{
    return &bindings->buckets[hash64(name, strlen(name), 0) % NAME_BUCKETS];
}

void bindings_deinit(struct bindings *bindings)
{
    for (size_t i = 0; bindings->buckets != NULL && i < NAME_BUCKETS; i++) {
        LIST_FOR_EACH(&bindings->buckets[i], link)
        {
            bindings_remove(bindings, CONTAINER_OF(link, struct binding, in_bucket));
        }
    }
    mem_free(bindings->buckets);
    *bindings = (struct bindings){0};
}

struct binding *bindings_find(const struct bindings *bindings, const char *name)
{
    if (bindings->buckets == NULL) {
        return NULL;
    }
    LIST_FOR_EACH(bucket_of_name(bindings, name), link)
    {
        struct binding *binding = CONTAINER_OF(link, struct binding, in_bucket);
        if (strcmp(binding->name, name) == 0) {
            return binding;
        }
    }
    return NULL;
}

static size_t binding_size(const struct binding *binding)
{
    return binding->statement->size + strlen(binding->name);
}

static void insert(struct bindings *bindings, struct binding *binding)
{
    if (bindings->buckets == NULL) {
        bindings->buckets = make_buckets(NAME_BUCKETS);
    }
    list_push_front(bucket_of_name(bindings, binding->name), &binding->in_bucket);
    bindings->count++;
    bindings->bytes += binding_size(binding);
}

struct binding *bindings_add(
    struct bindings *bindings, const char *name, struct statement *statement)
{
    ASSERT(bindings_find(bindings, name) == NULL);
    size_t size = strlen(name) + 1;
    struct binding *binding = mem_zalloc(sizeof *binding + size);
    binding->refs = 1;
    binding->statement = statement;
    memcpy(binding->name, name, size);
    insert(bindings, binding);
    return binding;
}

void bindings_remove(struct bindings *bindings, struct binding *binding)
{
    if (list_link_is_in(&binding->in_bucket)) {
        list_remove(&binding->in_bucket);
        bindings->count--;
        bindings->bytes -= binding_size(binding);
        binding_unref(binding);
    }
}

void bindings_put_back(struct bindings *bindings, struct binding *binding)
{
    if (!list_link_is_in(&binding->in_bucket) && bindings_find(bindings, binding->name) == NULL) {
        insert(bindings, binding_ref(binding));
    }
}

struct binding *binding_ref(struct binding *binding)
{
    binding->refs++;
    return binding;
}

void binding_unref(struct binding *binding)
{
    if (binding != NULL && --binding->refs == 0) {
        ASSERT(!list_link_is_in(&binding->in_bucket));
        statement_unref(binding->statement);
        mem_free(binding);
    }
}

/* ---- what a server connection has prepared ---- */

static struct place *find_place(const struct statement_set *set, const struct statement *statement)
{
    if (set->buckets == NULL) {
        return NULL;
    }
    LIST_FOR_EACH(&set->buckets[statement->id % SET_BUCKETS], link)
    {
        struct place *place = CONTAINER_OF(link, struct place, in_bucket);
        if (place->statement == statement) {
            return place;
        }
    }
    return NULL;
}

static void drop_place(struct statement_set *set, struct place *place)
{
    list_remove(&place->in_bucket);
    list_remove(&place->by_use);
    set->bytes -= place->statement->size;
    statement_unref(place->statement);
    mem_free(place);
    set->count--;
}

void statement_set_clear(struct statement_set *set)
{
    while (set->count > 0) {
        drop_place(set, CONTAINER_OF(list_first(&set->by_use), struct place, by_use));
    }
    mem_free(set->buckets);
    set->buckets = NULL;
}

enum statement_presence statement_set_use(
    struct statement_set *set, const struct statement *statement, uint64_t batch)
{
    struct place *place = find_place(set, statement);
    if (place == NULL) {
        return STATEMENT_ABSENT;
    }
    list_remove(&place->by_use);
    list_push_back(&set->by_use, &place->by_use);
    return place->is_sure || place->batch == batch ? STATEMENT_PREPARED : STATEMENT_UNSURE;
}

void statement_set_add(struct statement_set *set, struct statement *statement, uint64_t batch)
{
    if (find_place(set, statement) != NULL) {
        return;
    }
    if (set->buckets == NULL) {
        set->buckets = make_buckets(SET_BUCKETS);
        list_init(&set->by_use);
    }
    struct place *place = MEM_NEW(struct place);
    place->statement = statement_ref(statement);
    place->batch = batch;
    list_push_back(&set->buckets[statement->id % SET_BUCKETS], &place->in_bucket);
    list_push_back(&set->by_use, &place->by_use);
    set->count++;
    set->bytes += statement->size;
}

bool statement_set_has(const struct statement_set *set, const struct statement *statement)
{
    return find_place(set, statement) != NULL;
}

void statement_set_confirm(struct statement_set *set, const struct statement *statement)
{
    struct place *place = find_place(set, statement);
    if (place != NULL) {
        place->is_sure = true;
    }
}

void statement_set_remove(struct statement_set *set, const struct statement *statement)
{
    struct place *place = find_place(set, statement);
    if (place != NULL) {
        drop_place(set, place);
    }
}

struct statement *statement_set_oldest(const struct statement_set *set)
{
    for (const struct list_link *link = set->count == 0 ? NULL : set->by_use.head.next;
         link != NULL && link != &set->by_use.head; link = link->next) {
        const struct place *place = CONTAINER_OF(link, struct place, by_use);
        if (place->is_sure) {
            return place->statement;
        }
    }
    return NULL;
}
