/*
 * downloader.h - a tenant on an empty disk, from the object store.
 *
 * The newest index that this generation may use is taken; one that is damaged, or whose files are,
 * is passed over for the one before it. All files are downloaded and checked before the store sees
 * any of them: to RocksDB a file that cannot be read looks like one that has ended.
 *
 * Blocking: from a worker.
 */
#pragma once

#include "common/objstore/objstore.h"
#include "pageserver/remote/index.h"

struct download_result {
    bool found; /* false: the object store knows no such tenant; the folder was not made */
    generation_t generation;
    uint64_t sequence;
    size_t files;
    uint64_t bytes;
};

/*
 * Makes `folder`, which does not exist, or fails and leaves none. ERR_CORRUPT: there are indexes,
 * and none of them can be used.
 */
NODISCARD err_t downloader_restore(
    struct objstore *objects,
    struct tenant_id tenant,
    generation_t generation,
    const char *folder,
    struct download_result *ret_result,
    struct errmsg *msg);
