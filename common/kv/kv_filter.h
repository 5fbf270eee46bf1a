/*
 * kv_filter.h - entries that a compaction may leave out.
 *
 * RocksDB rewrites files in the background, when files pile up, every two days, and when
 * kv_compact() asks for it. Each such pass sees part of the entries of the store in key order, the
 * newest entry of a key only, on a thread of RocksDB. What it drops is gone for readers that come
 * later; an iterator that was made before still sees it. Entries in memory, in a file that is moved
 * as it is, and deletions are not shown.
 */
#pragma once

#include "common/base/bytes.h"

struct kv_filter_pass;

/* Threads: begin [any], several passes at once; one pass belongs to one thread. */
struct kv_filter {
    /* NULL: this pass drops nothing. Called from inside kv_open() already. */
    struct kv_filter_pass *(*begin)(struct kv_filter *filter);
};

struct kv_filter_pass {
    bool (*drops)(struct kv_filter_pass *pass, struct bytes key, struct bytes value);
    void (*end)(struct kv_filter_pass *pass); /* the pass is its maker's again */
};
