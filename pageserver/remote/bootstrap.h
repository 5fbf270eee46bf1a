/*
 * bootstrap.h - the first versions of a root: a data directory as initdb made it, from the object
 * store into the page store, all at the timeline's start LSN.
 *
 * Blocking: on workers. Writing the same keys again is harmless: after a crash it is simply
 * repeated.
 */
#pragma once

#include "common/objstore/objstore.h"
#include "pageserver/store/page_store.h"

struct bootstrap_options {
    struct objstore *objects;
    const char *object; /* tar of the data directory */
    struct page_store *store;
    uint32_t timeline;
    lsn_t start_lsn;    /* end of initdb's shutdown checkpoint */
    uint64_t system_id; /* of the tenant: replaces the one that initdb chose */
};

#define BOOTSTRAP_BYTES_MAX (512 * MIB)

/*
 * Everything is durable when it returns, or nothing of it is there. ERR_CORRUPT: no data directory,
 * or one that does not fit start_lsn.
 */
NODISCARD err_t bootstrap_import(
    const struct bootstrap_options *options,
    struct ingest_position *ret_position,
    struct errmsg *msg);
