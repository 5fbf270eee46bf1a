/*
 * index_store.h - find, load and put the indexes of a tenant in the object store. Blocking; [any].
 */
#pragma once

#include "common/objstore/objstore.h"
#include "pageserver/remote/index.h"

/* The generation and sequence of one index. */
struct index_id {
    generation_t generation;
    uint64_t sequence;
};

/*
 * All indexes of the tenant whose generation is not above `generation_max`, oldest first; the
 * caller frees *ret_ids with mem_free. Objects that are no index are passed over.
 */
NODISCARD err_t index_list(
    struct objstore *objects,
    struct tenant_id tenant,
    generation_t generation_max,
    struct index_id **ret_ids,
    size_t *ret_count,
    struct errmsg *msg);

/* ERR_CORRUPT: damaged, or another tenant's or moment's. */
NODISCARD err_t index_load(
    struct objstore *objects,
    struct tenant_id tenant,
    struct index_id id,
    struct remote_index *ret_index,
    struct errmsg *msg);

NODISCARD err_t
index_put(struct objstore *objects, const struct remote_index *index, struct errmsg *msg);
