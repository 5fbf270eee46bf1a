/*
 * index.h - a hash table from a text to the object that embeds the link. Grows, never shrinks.
 *
 * The key belongs to the object and must not change while it is in the index. Threads: one owner.
 */
#pragma once

#include "common/base/types.h"

struct index_link {
    struct index_link *next;
    const char *key; /* NULL: in no index */
};

struct index {
    struct index_link **buckets;
    size_t bucket_count, count;
};

void index_deinit(struct index *index); /* the objects stay */
void index_insert(struct index *index, struct index_link *link, const char *key);
void index_remove(struct index *index, struct index_link *link);           /* in no index is fine */
struct index_link *index_find(const struct index *index, const char *key); /* NULL: absent */
