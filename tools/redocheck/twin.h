/*
 * twin.h - compare every page of a recovered data directory with the pages of a page map.
 *
 * Byte for byte; only pd_checksum is not looked at. Free space maps are left out (hints, never
 * logged), so are unlogged and temporary relations and files that the map's base does not have and
 * no record touched is reported like any other difference.
 */
#pragma once

#include "tools/redocheck/page_map.h"

struct twin_result {
    uint64_t files, pages, different;
};

NODISCARD err_t twin_compare(
    const char *twin_dir,
    struct page_map *map,
    const char *base_dir,
    bool commit_ts,
    bool ignores_vm_lsn,
    struct twin_result *ret_result,
    struct errmsg *msg);
