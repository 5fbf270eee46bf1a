/*
 * page_reader_private.h - shared by page_reader.c (versions of one key) and page_listing.c (which
 * keys there are).
 */
#pragma once

#include "pageserver/store/path_view.h"

/*
 * One iterator that walks over the pages of a request on one timeline, instead of a seek for each
 * of them.
 */
struct page_walk {
    uint32_t timeline;
    struct kv_iter *iter; /* NULL: not in use */
    bool is_begun;
    uint8_t page[PAGE_KEY_PREFIX_SIZE]; /* that it was asked for last */
};

#define WALKS_MAX 4 /* timelines of one request; on more of them there are seeks */

struct page_reader {
    struct page_store *store;
    const struct page_path *path;
    struct path_view *view;
    uint64_t key_hash;                /* of the key that is walked, for filters */
    int64_t seeks_saved, spans_asked; /* not in the metrics yet */
    bool in_memory;                   /* no I/O: `versions` ends with ERR_BUSY */
    struct kv_iter *versions;         /* within one page's prefix; filters answer misses */
    struct kv_iter *keys;             /* total order: for listings; both are made on first use */
    struct page_key expected;         /* the first of the pages that will be read in order */
    uint32_t expected_count;          /* 0: none */
    struct page_walk walks[WALKS_MAX];
};

/* A version, wherever it lies; `value` is a view into a layer, or until the iterator moves. */
struct found_version {
    uint32_t timeline;
    struct page_key key;
    lsn_t lsn;
    uint8_t tag, block_index;
    struct bytes value;
};

NODISCARD err_t version_malformed(const struct found_version *found, struct errmsg *msg);
/* What the iterator stands on. */
NODISCARD err_t
found_in_kv(const struct kv_iter *iter, struct found_version *ret_found, struct errmsg *msg);
