/*
 * open_layer.h - the newest versions of one timeline, in memory: a hash from page to its versions,
 * newest first, and an arena that holds them.
 *
 * One writer at a time; readers need no lock and see each version either whole or not at all. A
 * version lies behind the newer ones of its page, wherever its LSN belongs. A second version of one
 * LSN takes the place of the first: re-ingest after a failure writes the same again, and an image
 * may replace the record that leads to it. However many versions a page has, one at any LSN is
 * found in the logarithm of them.
 *
 * Nothing is ever freed before the layer is: whoever holds a reference may keep what it found.
 * Once nobody writes any more (the layer is frozen) its pages can be had in key order.
 *
 * Threads: put and sort belong to the writer, everything else is [any].
 */
#pragma once

#include <stdatomic.h>

#include "common/pg/page_key.h"

struct open_layer;

struct layer_version {
    struct layer_version *_Atomic older; /* LSNs descend */
    lsn_t lsn;
    uint32_t size; /* of the value */
    uint8_t tag, block_index;
    bool is_shared;
    uint8_t head[2]; /* what stands before the value in a file, see layer_version_stored() */
    uint8_t bytes[]; /* the value; shared: where another version of this layer has it */
};

/* One of many versions of a page: the way to an old one without passing all that are newer. */
struct layer_mark {
    lsn_t lsn; /* of the version */
    struct layer_version *_Atomic version;
    struct layer_mark *older, *far; /* one back, and as many back as `depth` allows */
    uint32_t depth;                 /* 0: the oldest */
};

struct layer_page {
    struct page_key key;
    struct layer_version *_Atomic newest; /* never NULL */
    struct layer_page *next;              /* in the list of what is no page of a relation */
    struct layer_mark *_Atomic marks;     /* the newest; NULL while there are few versions */
    lsn_t newest_lsn;                     /* the writer's, as the next */
    uint32_t unmarked;                    /* newest versions without a mark */
};

struct open_layer *open_layer_create(void);
struct open_layer *open_layer_ref(struct open_layer *layer);
void open_layer_unref(struct open_layer *layer); /* NULL is fine */

/*
 * `value` as in page_key.h, without tag and block index. The value of VALUE_INIT and VALUE_DELTA is
 * the record that ends at `lsn`: given again from the same place, it is kept once. Returns the
 * bytes that the version takes.
 */
size_t open_layer_put(
    struct open_layer *layer,
    struct page_key key,
    lsn_t lsn,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value);

size_t open_layer_bytes(const struct open_layer *layer); /* of all versions; never 0 */
size_t open_layer_count(const struct open_layer *layer); /* versions that were put */
lsn_t open_layer_max_lsn(const struct open_layer *layer);
size_t open_layers_memory(void); /* of all layers of the process, tables and slack included */

/* NULL: the layer knows nothing of the page. */
const struct layer_page *open_layer_find(const struct open_layer *layer, struct page_key key);
/* The newest version with LSN <= lsn, and the next older one; NULL: none. */
const struct layer_version *layer_page_at(const struct layer_page *page, lsn_t lsn);
static inline const struct layer_version *layer_version_older(const struct layer_version *version)
{
    return atomic_load_explicit(&version->older, memory_order_acquire);
}
struct bytes layer_version_value(const struct layer_version *version);
/* Tag, block index if there is one, and value, as a file has them; `room` is used when they do not
 * lie together. */
struct bytes layer_version_stored(const struct layer_version *version, struct buf *room);
/* It is about to be read. */
static inline void layer_version_prefetch(const struct layer_version *version)
{
    if (version != NULL) {
        __builtin_prefetch(version);
        __builtin_prefetch((const uint8_t *)version + 64);
    }
}

/* Sizes of forks and keys of KEY_SPC_STATE, in no order: first, then ->next. */
const struct layer_page *open_layer_states(const struct open_layer *layer);

/*
 * Every page that was there when this was called, in no order; with a writer at work, maybe some
 * that came later. An error of `visit` ends it.
 */
NODISCARD err_t open_layer_visit(
    const struct open_layer *layer,
    err_t (*visit)(const struct layer_page *page, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg);

/* All pages in key order, an array of *ret_count that the caller frees. Nobody writes any more. */
struct layer_page **open_layer_sort(const struct open_layer *layer, size_t *ret_count);
