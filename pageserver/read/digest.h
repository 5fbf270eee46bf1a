/*
 * digest.h - one number over every page of every relation that is visible at an LSN, or of one
 * relation, or of one page; two stores with the same history agree on it. Blocking: on workers;
 * reads one page at a time.
 */
#pragma once

#include "pageserver/store/page_store.h"

struct digest {
    uint64_t relations, pages;
    uint64_t hash; /* chained over {relation, size, pages} in key order; pd_checksum left out */
};

/* What is asked for: everything, all forks of a relation, one fork, or one block of it. */
enum digest_scope { DIGEST_ALL, DIGEST_RELATION, DIGEST_FORK, DIGEST_BLOCK };

/* `key` names as much as the scope asks for. ERR_NOT_FOUND: there is no such fork or block. */
NODISCARD err_t digest_at(
    struct page_store *store,
    const struct page_path *path,
    lsn_t lsn,
    enum digest_scope scope,
    struct page_key key,
    struct digest *ret_digest,
    struct errmsg *msg);
