/*
 * tenant_size.h - how large a tenant is: what its branches show, and what their tree is worth
 * (tree_size.h). Blocking.
 */
#pragma once

#include "pageserver/timeline/history.h"

#define TENANT_SIZE_NODES_MAX 5000 /* one listing of relations each */

struct tenant_size {
    uint64_t logical_bytes;   /* of all branches at their ends */
    uint64_t synthetic_bytes; /* of the tree */
    size_t timelines;
};

/* ERR_BUSY: the tree has more than TENANT_SIZE_NODES_MAX nodes. */
NODISCARD err_t tenant_size_measure(
    struct history *history,
    struct page_store *store,
    struct tenant_size *ret_size,
    struct errmsg *msg);
