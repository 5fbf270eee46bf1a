/*
 * tenant_size.h - how large a tenant is: what its branches show, and what their tree is worth
 * (tree_size.h). Blocking.
 */
#pragma once

#include "pageserver/timeline/history.h"

#define TENANT_SIZE_LISTINGS_MAX 5000 /* 15 ms each, of an empty cluster */

/* What a branch shows at its end, as far as that is durable. */
struct tenant_size_end {
    uint32_t number; /* of its timeline */
    lsn_t start_lsn, cutoff_lsn, end_lsn;
    uint64_t logical_bytes;
};

struct tenant_size {
    uint64_t logical_bytes;   /* of all branches at their ends */
    uint64_t synthetic_bytes; /* of the tree */
    size_t timelines;
    struct tenant_size_end *ends; /* so many, in order of their numbers; owned */
    size_t listings;              /* that it took */
};

/*
 * ERR_BUSY: it would take more than TENANT_SIZE_LISTINGS_MAX. A state is listed once, however many
 * branches begin with it.
 */
NODISCARD err_t tenant_size_measure(
    struct history *history,
    struct page_store *store,
    struct tenant_size *ret_size, /* deinit it */
    struct errmsg *msg);
void tenant_size_deinit(struct tenant_size *size);
