/*
 * wal_store_private.h - shared by wal_store.c (writing), wal_recovery.c and wal_store_reader.c.
 */
#pragma once

#include "common/pg/wal_reader.h"
#include "safekeeper/disk/wal_sidecar.h"
#include "safekeeper/disk/wal_store.h"

struct wal_files {
    char dir[PATH_SIZE];
    struct sidecar_identity identity;
    lsn_t start_lsn, begin_lsn;
    uint64_t system_id;
    unsigned recycled_max;
};

struct wal_store {
    struct wal_files files;
    lsn_t flush_lsn, record_lsn, commit_lsn;
    uint64_t sequence;    /* of the last record */
    uint64_t end_segment; /* that holds the last record */
    uint32_t end_slots;   /* in use in its sidecar, the header too; 0: there is no record at all */
    bool is_group_begun;  /* and not ended: its bytes and its record may be on disk or not */
    bool is_last_proven;  /* a record says that everything up to flush_lsn is durable */
    bool is_tail_dirty;   /* cut, but what lay behind the cut is not yet zeroed */

    /* Of write_segment. */
    int segment_fd;
    uint64_t segment_number;
    lsn_t reserved_lsn; /* zeros were written up to here */
    char segment_path[PATH_SIZE];

    /* Of write_sidecar. */
    int sidecar_fd;
    uint64_t sidecar_number;
    uint32_t sidecar_slots; /* zeros were written up to this slot */
    char sidecar_path[PATH_SIZE];
};

/* The segment that holds the byte before `lsn`; at the begin of the log, the first one. */
uint64_t wal_files_end_segment(const struct wal_files *files, lsn_t lsn);
lsn_t wal_files_segment_begin(const struct wal_files *files, uint64_t segment);
/* Where the checksummed bytes begin: that of the segment that holds begin_lsn. */
lsn_t wal_files_first_lsn(const struct wal_files *files);
NODISCARD err_t wal_files_path(
    const struct wal_files *files,
    uint64_t segment,
    const char *suffix,
    char path[PATH_SIZE],
    struct errmsg *msg);
NODISCARD err_t wal_files_init(
    struct wal_files *files, const struct wal_store_options *options, struct errmsg *msg);

/* CRC32C of [begin, end) of an open segment file. ERR_CORRUPT when the file is too short. */
NODISCARD err_t wal_files_crc(
    const struct wal_files *files,
    int fd,
    const char *path,
    lsn_t begin,
    lsn_t end,
    uint32_t *ret_crc,
    struct errmsg *msg);
/*
 * Make [at, end of file) zero, writing only what is not, and the whole file durable. A missing file
 * is ERR_OK.
 */
NODISCARD err_t file_zero_tail_and_sync(const char *path, uint64_t at, struct errmsg *msg);
/* The same for a segment; but pages of an old life of the file, which say so, may stay. */
NODISCARD err_t wal_files_zero_tail(
    const struct wal_files *files, uint64_t segment, lsn_t end_lsn, struct errmsg *msg);

/* recycled.N */
NODISCARD err_t wal_files_recycle(
    const struct wal_files *files, uint64_t segment, bool *ret_kept, struct errmsg *msg);
/* Make one the file `path`, which does not exist; false: there is none. */
bool wal_files_reuse(const struct wal_files *files, const char *path);
NODISCARD err_t wal_files_drop_recycled(const struct wal_files *files, struct errmsg *msg);

/* Sidecar first: a segment without one counts for nothing. */
NODISCARD err_t
wal_files_remove_segment(const struct wal_files *files, uint64_t segment, struct errmsg *msg);
/* Remove all segments behind `segment` and sync the folder. */
NODISCARD err_t
wal_files_remove_behind(const struct wal_files *files, uint64_t segment, struct errmsg *msg);
/* Numbers of the segments that have a file or a sidecar, ascending, each once; mem_free() them. */
NODISCARD err_t wal_files_list(
    const struct wal_files *files, uint64_t **ret_segments, size_t *ret_count, struct errmsg *msg);
/* Verify what is there and set the positions of `store`. */
NODISCARD err_t wal_store_recover(
    struct wal_store *store, const struct wal_store_options *options, struct errmsg *msg);
