/*
 * base_backup.h - the data directory from which a compute starts at an LSN, as a tar archive.
 *
 * Everything but relation files: those are read page by page. Layout:
 * docs/design/walking-skeleton.md "The base backup tar". Blocking: on workers. The timeline has
 * ingested `lsn`.
 */
#pragma once

#include "pageserver/store/page_store.h"

struct base_backup_options {
    struct page_store *store;
    const struct page_path *path;
    lsn_t start_lsn;       /* of the timeline: slots from before are not its own */
    lsn_t lsn;             /* a record end */
    lsn_t prev_record_lsn; /* begin of the last record before it; 0: not known */
    uint32_t pg_version;
    uint64_t system_id;
    bool cold_slrus; /* SLRU_COLD_TEXT in place of segments that the start does not need */
};

#define BASE_BACKUP_BYTES_MAX (1 * GIB)

/* Appends the archive. ERR_CORRUPT: the state of the cluster at that LSN is incomplete. */
NODISCARD err_t
base_backup_build(const struct base_backup_options *options, struct buf *tar, struct errmsg *msg);
