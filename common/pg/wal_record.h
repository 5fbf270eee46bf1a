/*
 * wal_record.h - one WAL record of Postgres 17, taken apart without copying.
 *
 * Source: src/include/access/xlogrecord.h, src/backend/access/transam/xlogreader.c
 * (DecodeXLogRecord). Record bytes are untrusted even when their CRC is right: every length is
 * checked against what is left. The result points into the record's bytes. Pure; threads: [any].
 */
#pragma once

#include "common/pg/page_key.h"

#define WAL_RECORD_HEADER_SIZE 24
#define WAL_RECORD_SIZE_MAX    0x3FC00000u /* 1020 MiB: XLogRecordMaxSize */
#define WAL_BLOCKS_MAX         33          /* XLR_MAX_BLOCK_ID + 1 */

/* Resource manager ids: src/include/access/rmgrlist.h of 17, in its order. */
#define WAL_RMGRS(X)                                                                               \
    X(RM_XLOG, "XLOG")                                                                             \
    X(RM_XACT, "Transaction")                                                                      \
    X(RM_SMGR, "Storage")                                                                          \
    X(RM_CLOG, "CLOG")                                                                             \
    X(RM_DBASE, "Database")                                                                        \
    X(RM_TBLSPC, "Tablespace")                                                                     \
    X(RM_MULTIXACT, "MultiXact")                                                                   \
    X(RM_RELMAP, "RelMap")                                                                         \
    X(RM_STANDBY, "Standby")                                                                       \
    X(RM_HEAP2, "Heap2")                                                                           \
    X(RM_HEAP, "Heap")                                                                             \
    X(RM_BTREE, "Btree")                                                                           \
    X(RM_HASH, "Hash")                                                                             \
    X(RM_GIN, "Gin")                                                                               \
    X(RM_GIST, "Gist")                                                                             \
    X(RM_SEQ, "Sequence")                                                                          \
    X(RM_SPGIST, "SPGist")                                                                         \
    X(RM_BRIN, "BRIN")                                                                             \
    X(RM_COMMIT_TS, "CommitTs")                                                                    \
    X(RM_REPLORIGIN, "ReplicationOrigin")                                                          \
    X(RM_GENERIC, "Generic")                                                                       \
    X(RM_LOGICALMSG, "LogicalMessage")

enum wal_rmgr {
#define X(id, name) id,
    WAL_RMGRS(X)
#undef X
        RM_COUNT
};

#define RM_CUSTOM_MIN 128

/* One block reference of a record. */
struct wal_block {
    struct bytes data;   /* rmgr-specific data of this block */
    struct bytes image;  /* as stored: without the hole, maybe compressed */
    struct page_key key; /* spc, db, rel, fork, block */
    uint16_t hole_offset, hole_size;
    uint8_t image_flags; /* BKPIMAGE_* */
    bool in_use;
    bool will_init; /* BKPBLOCK_WILL_INIT: the record makes the page from nothing */
    bool has_image;
    bool apply_image; /* the image is the page (BKPIMAGE_APPLY); else only for checking */
    bool has_data;
};

struct wal_record {
    lsn_t lsn;     /* begin */
    lsn_t end_lsn; /* EndRecPtr: what pd_lsn becomes */
    uint32_t total_size;
    uint32_t xid;
    uint32_t top_xid; /* 0: none */
    lsn_t prev_lsn;
    uint8_t info; /* rmgr's high 4 bits and XLR_SPECIAL_REL_UPDATE, XLR_CHECK_CONSISTENCY */
    uint8_t rmgr;
    uint16_t origin;
    struct bytes bytes;     /* the whole record as in WAL, page headers removed */
    struct bytes main_data; /* rmgr-specific */
    size_t block_count;     /* highest used index + 1 */
    struct wal_block blocks[WAL_BLOCKS_MAX];
};

/*
 * Take `bytes` apart (exactly one record, xl_tot_len bytes). ERR_CORRUPT names the block reference
 * and what is wrong with it; *ret_record is garbage then. Blocks from block_count on are not
 * written. A block reference never names spc 0 (KEY_SPC_STATE), relation 0, a fork from FORK_COUNT
 * on or block KEY_BLOCK_SIZE. The CRC is not checked here: wal_reader does that.
 */
NODISCARD err_t wal_record_decode(
    struct bytes bytes,
    lsn_t lsn,
    lsn_t end_lsn,
    struct wal_record *ret_record,
    struct errmsg *msg);

/* The CRC that belongs into xl_crc: over the data, then over the header before that field. */
uint32_t wal_record_crc(struct bytes bytes);

/* xl_crc over the record as in WAL. */
NODISCARD err_t wal_record_check_crc(struct bytes bytes, struct errmsg *msg);

/*
 * The page in a block's image: hole filled with zeros, pglz, lz4 or zstd undone.
 * `to` is written whole (8192 bytes) or not at all. pd_lsn is left as it was in the image.
 */
NODISCARD err_t
wal_block_restore_image(const struct wal_block *block, uint8_t *to, struct errmsg *msg);

const char *wal_rmgr_name(uint8_t rmgr);

/* "Heap/INSERT", "Btree/0x30"; a static text per thread is not used: the caller gives the room. */
struct wal_record_text {
    char text[64];
};
struct wal_record_text wal_record_text(const struct wal_record *record);
