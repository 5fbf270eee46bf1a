#include "control/model/index.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

static size_t hash_of(const char *key)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (const char *at = key; *at != '\0'; at++) {
        hash = (hash ^ (uint8_t)*at) * 1099511628211u;
    }
    return (size_t)(hash ^ (hash >> 32));
}

static void insert_link(struct index *index, struct index_link *link)
{
    struct index_link **bucket = &index->buckets[hash_of(link->key) % index->bucket_count];
    link->next = *bucket;
    *bucket = link;
}

static void grow(struct index *index)
{
    struct index_link **old = index->buckets;
    size_t old_count = index->bucket_count;
    index->bucket_count = old_count == 0 ? 64 : old_count * 4;
    index->buckets = MEM_ARRAY(struct index_link *, index->bucket_count);
    for (size_t i = 0; i < old_count; i++) {
        struct index_link *next = NULL;
        for (struct index_link *link = old[i]; link != NULL; link = next) {
            next = link->next;
            insert_link(index, link);
        }
    }
    mem_free(old);
}

void index_deinit(struct index *index)
{
    mem_free(index->buckets);
    *index = (struct index){0};
}

void index_insert(struct index *index, struct index_link *link, const char *key)
{
    ASSERT(link->key == NULL);
    ASSERT(index_find(index, key) == NULL);
    if (index->count >= index->bucket_count) {
        grow(index);
    }
    link->key = key;
    insert_link(index, link);
    index->count++;
}

void index_remove(struct index *index, struct index_link *link)
{
    if (link->key == NULL) {
        return;
    }
    struct index_link **at = &index->buckets[hash_of(link->key) % index->bucket_count];
    while (*at != link) {
        ASSERT(*at != NULL);
        at = &(*at)->next;
    }
    *at = link->next;
    link->next = NULL;
    link->key = NULL;
    index->count--;
}

struct index_link *index_find(const struct index *index, const char *key)
{
    if (index->bucket_count == 0) {
        return NULL;
    }
    struct index_link *link = index->buckets[hash_of(key) % index->bucket_count];
    while (link != NULL && strcmp(link->key, key) != 0) {
        link = link->next;
    }
    return link;
}
