/*
 * index.h - one moment of a tenant in the object store: what a pageserver with an empty disk needs
 * to become the one that wrote it.
 *
 * It names the sorted files with size and hash, holds the small files of RocksDB whole (MANIFEST,
 * CURRENT, the log of the rows), and says how far each timeline's WAL is in them. It is put after
 * everything that it names, and it alone moves remote_consistent_lsn. Format: docs/protocol/
 * remote_index.md; golden files tests/data/remote_index*.bin.
 *
 * Every index that comes from the store is checked: names are file names and nothing else, counts
 * and sizes are within limits. Threads: [any].
 */
#pragma once

#include "pageserver/remote/names.h"

#define REMOTE_FILES_MAX       1000000
#define REMOTE_POSITIONS_MAX   1000000
#define REMOTE_SMALL_FILES_MAX 64
#define REMOTE_INDEX_BYTES_MAX (256 * MIB)
#define REMOTE_MEMBERS_MAX     9

struct remote_file {
    char name[REMOTE_FILE_SIZE]; /* as RocksDB knows it */
    generation_t generation;     /* that uploaded it: part of the object's name */
    uint64_t size;
    struct hash128 hash;
};

struct remote_small_file {
    char name[REMOTE_FILE_SIZE];
    struct bytes content; /* a view into `bytes` of the index */
};

/* Where a timeline comes from and who has its WAL: for a control that lost the branch. */
struct remote_lineage {
    struct timeline_id parent; /* none: a root */
    lsn_t start_lsn;
    generation_t membership_generation;
    bool is_deleted; /* children live on what is left of it */
    uint8_t member_count;
    uint64_t members[REMOTE_MEMBERS_MAX]; /* ids of its safekeepers */
};

struct remote_position {
    struct timeline_id timeline;
    uint32_t number; /* in the store's keys */
    lsn_t lsn;       /* WAL from here on is not in the files */
    struct remote_lineage lineage;
};

struct remote_index {
    struct tenant_id tenant;
    generation_t generation;
    uint64_t sequence;
    wall_us_t created;
    bool has_lineage; /* not of the first format, and then no position's counts */
    struct remote_position *positions;
    size_t position_count;
    struct remote_file *files; /* in order of name (strcmp), each once */
    size_t file_count;
    struct remote_small_file *small_files;
    size_t small_file_count;
    struct buf bytes; /* what the small files' contents point into */
};

void remote_index_deinit(struct remote_index *index); /* frees the arrays and `bytes` */
void remote_index_encode(const struct remote_index *index, struct buf *to);
/*
 * Takes `bytes` over, whatever the result; the index owns its memory. ERR_CORRUPT says what does
 * not fit and where.
 */
NODISCARD err_t
remote_index_decode(struct buf *bytes, struct remote_index *ret_index, struct errmsg *msg);

/* NULL: the index names no such file. */
const struct remote_file *remote_index_file(const struct remote_index *index, const char *name);
