/*
 * decoded.h - replay through the pageserver's decoder: record -> versions -> pages and sizes.
 *
 * What the decoder asks for comes from the page map, from what it has put so far, and below that
 * from the files of the base directory. Versions are applied at once, in the order of the list, as
 * a read would that has no newer image. Threads: one owner.
 */
#pragma once

#include "common/pg/wal_record.h"
#include "tools/walreplay/page_map.h"

struct decoded;

struct decoded_version {
    struct page_key key;
    uint8_t tag, block_index;
    struct bytes value;
};

/* ERR_...: the base directory has no usable pg_control. */
NODISCARD err_t decoded_create(
    const char *base_dir, struct page_map *map, struct decoded **ret_decoded, struct errmsg *msg);
void decoded_destroy(struct decoded *decoded);

/* The versions that this record makes, valid until the next call. */
NODISCARD err_t decoded_record(
    struct decoded *decoded,
    const struct wal_record *record,
    const struct decoded_version **ret_versions,
    size_t *ret_count,
    struct errmsg *msg);

/* Sizes of relations and other state; pages are the caller's. */
void decoded_apply_state(struct decoded *decoded, const struct decoded_version *version);

/* How many blocks the fork has; ERR_NOT_FOUND when it does not exist. */
NODISCARD err_t decoded_rel_size(
    struct decoded *decoded, struct page_key rel, uint32_t *ret_blocks, struct errmsg *msg);

/*
 * Relation forks that exist but whose file in `twin_dir` is missing or has another size, and maps
 * of catalogs (pg_filenode.map) that differ or should be gone.
 */
NODISCARD err_t decoded_compare_sizes(
    struct decoded *decoded, const char *twin_dir, uint64_t *ret_different, struct errmsg *msg);
