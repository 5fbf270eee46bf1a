/*
 * digest.h - one number over every page of every relation that is visible at an LSN; two stores
 * with the same history agree on it. Blocking: on workers; reads one page at a time.
 */
#pragma once

#include "pageserver/store/page_store.h"

struct digest {
    uint64_t relations, pages;
    uint64_t hash; /* chained over {relation, size, pages} in key order; pd_checksum left out */
};

NODISCARD err_t digest_at(
    struct page_store *store,
    const struct page_path *path,
    lsn_t lsn,
    struct digest *ret_digest,
    struct errmsg *msg);
