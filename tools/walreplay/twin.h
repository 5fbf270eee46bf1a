/*
 * twin.h - compare every page of a recovered data directory with the pages of a page map.
 *
 * Byte for byte; only pd_checksum is not looked at. Left out are free space maps (hints, never
 * logged), unlogged and temporary relations.
 */
#pragma once

#include "tools/walreplay/page_map.h"

struct twin_options {
    const char *twin_dir, *base_dir;
    bool commit_ts;      /* compare pg_commit_ts, too */
    bool ignores_vm_lsn; /* of visibility map pages */
    bool masks; /* it is a primary: hint bits, pd_lsn, sequences, SP-GiST's cache of pages */
};

struct twin_result {
    uint64_t files, pages, different;
};

NODISCARD err_t twin_compare(
    const struct twin_options *options,
    struct page_map *map,
    struct twin_result *ret_result,
    struct errmsg *msg);
