#include "pageserver/timeline/shared_text.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mem.h"

#define BUCKETS_MIN 64

struct shared_text {
    struct shared_text *next; /* in the bucket */
    size_t references;
    char text[];
};

/* A power of two of buckets; none while there is no text. */
static struct {
    struct shared_text **buckets;
    size_t bucket_count, count;
} pool;

static struct shared_text **bucket_of(const char *text)
{
    return &pool.buckets[hash64(text, strlen(text), 0) & (pool.bucket_count - 1)];
}

static void resize(size_t bucket_count)
{
    struct shared_text **old = pool.buckets;
    size_t old_count = pool.bucket_count;
    pool.bucket_count = bucket_count;
    pool.buckets = MEM_ARRAY(struct shared_text *, bucket_count);
    for (size_t i = 0; i < old_count; i++) {
        for (struct shared_text *shared = old[i], *next; shared != NULL; shared = next) {
            struct shared_text **bucket = bucket_of(shared->text);
            next = shared->next;
            shared->next = *bucket;
            *bucket = shared;
        }
    }
    mem_free(old);
}

const char *shared_text_ref(const char *text)
{
    if (text == NULL || text[0] == '\0') {
        return "";
    }
    if (pool.count == pool.bucket_count) {
        resize(pool.count == 0 ? BUCKETS_MIN : 2 * pool.bucket_count);
    }
    struct shared_text **bucket = bucket_of(text);
    for (struct shared_text *shared = *bucket; shared != NULL; shared = shared->next) {
        if (strcmp(shared->text, text) == 0) {
            shared->references++;
            return shared->text;
        }
    }
    size_t size = strlen(text) + 1;
    struct shared_text *shared = mem_zalloc(sizeof(struct shared_text) + size);
    memcpy(shared->text, text, size);
    shared->references = 1;
    shared->next = *bucket;
    *bucket = shared;
    pool.count++;
    return shared->text;
}

void shared_text_unref(const char *text)
{
    if (text == NULL || text[0] == '\0') {
        return;
    }
    struct shared_text **link = bucket_of(text);
    while ((*link)->text != text) {
        link = &(*link)->next;
        ASSERT(*link != NULL); /* it is a reference */
    }
    struct shared_text *shared = *link;
    if (--shared->references > 0) {
        return;
    }
    *link = shared->next;
    mem_free(shared);
    if (--pool.count == 0) {
        mem_free(pool.buckets);
        pool.buckets = NULL;
        pool.bucket_count = 0;
    }
}
