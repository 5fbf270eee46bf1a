/*
 * pg_control.h - pg_control and the checkpoint of Postgres 17, and the start of a compute at any
 * LSN.
 *
 * Source: src/include/catalog/pg_control.h. The structs are laid out as in the file (little-endian,
 * 64-bit); padding is spelled out, so that writing one makes no uninitialised bytes. [any]
 */
#pragma once

#include "common/base/assert.h"
#include "common/base/bytes.h"

struct pg_checkpoint {
    lsn_t redo;
    uint32_t timeline, prev_timeline; /* 1 for ever */
    uint8_t full_page_writes, padding_1[3];
    int32_t wal_level;
    uint64_t next_xid; /* with its epoch */
    uint32_t next_oid;
    uint32_t next_multi, next_multi_offset;
    uint32_t oldest_xid, oldest_xid_db;
    uint32_t oldest_multi, oldest_multi_db, padding_2;
    int64_t time; /* seconds since 1970 */
    uint32_t oldest_commit_ts_xid, newest_commit_ts_xid;
    uint32_t oldest_active_xid, padding_3;
};

#define PG_CHECKPOINT_SIZE 88
static_assert(sizeof(struct pg_checkpoint) == PG_CHECKPOINT_SIZE, "as in WAL");
static_assert(offsetof(struct pg_checkpoint, next_xid) == 24, "as in WAL");
static_assert(offsetof(struct pg_checkpoint, time) == 64, "as in WAL");
static_assert(offsetof(struct pg_checkpoint, oldest_active_xid) == 80, "as in WAL");

enum pg_control_state { PG_CONTROL_SHUT_DOWN = 1, PG_CONTROL_IN_PRODUCTION = 6 };
enum pg_wal_level { PG_WAL_LEVEL_MINIMAL = 0, PG_WAL_LEVEL_REPLICA = 1, PG_WAL_LEVEL_LOGICAL = 2 };

struct pg_control {
    uint64_t system_id;
    uint32_t control_version, catalog_version;
    uint32_t state, padding_1; /* enum pg_control_state */
    int64_t time;
    lsn_t checkpoint_lsn; /* begin of the record */
    struct pg_checkpoint checkpoint;
    lsn_t unlogged_lsn;
    lsn_t min_recovery_lsn;
    uint32_t min_recovery_timeline, padding_2;
    lsn_t backup_start_lsn, backup_end_lsn;
    uint8_t backup_end_required, padding_3[3];
    int32_t wal_level;
    uint8_t wal_log_hints, padding_4[3];
    int32_t max_connections, max_worker_processes, max_wal_senders;
    int32_t max_prepared_transactions, max_locks_per_transaction;
    uint8_t track_commit_timestamp, padding_5[3];
    uint32_t max_align;
    double float_format;
    uint32_t page_size, relation_segment_pages;
    uint32_t wal_page_size, wal_segment_size;
    uint32_t name_size, index_keys_max;
    uint32_t toast_chunk_size, large_object_chunk_size;
    uint8_t float8_by_value, padding_6[3];
    uint32_t data_checksum_version;
    uint8_t mock_nonce[32];
    uint32_t crc, padding_7;
};

static_assert(sizeof(struct pg_control) == 296, "as in the file");
static_assert(offsetof(struct pg_control, checkpoint) == 40, "as in the file");
static_assert(offsetof(struct pg_control, wal_level) == 172, "as in the file");
static_assert(offsetof(struct pg_control, float_format) == 208, "as in the file");
static_assert(offsetof(struct pg_control, mock_nonce) == 256, "as in the file");
static_assert(offsetof(struct pg_control, crc) == 288, "as in the file");

#define PG_CONTROL_FILE_SIZE 8192

/*
 * Parse the file global/pg_control. ERR_CORRUPT: too short or a wrong CRC. ERR_UNSUPPORTED: another
 * version, page size, or a machine unlike ours; it names the field.
 */
NODISCARD err_t
pg_control_parse(struct bytes file, struct pg_control *ret_control, struct errmsg *msg);

/* The file, with its CRC: PG_CONTROL_FILE_SIZE bytes. */
void pg_control_write(const struct pg_control *control, uint8_t to[PG_CONTROL_FILE_SIZE]);

/* The main data of a checkpoint record. ERR_CORRUPT: not PG_CHECKPOINT_SIZE bytes. */
NODISCARD err_t pg_checkpoint_parse(
    struct bytes main_data, struct pg_checkpoint *ret_checkpoint, struct errmsg *msg);

/*
 * Make a cluster that starts at `lsn` (a record end): one shutdown-checkpoint record is synthesized
 * at lsn_skip_header(lsn), and *control says that the server was shut down there.
 *
 * In: control as initdb left it, with control->checkpoint brought up to date by the caller (next
 * xid, oid, multixact, the oldest ones); its redo, timelines and oldest_active_xid are set here.
 * prev_lsn is the begin of the last record before `lsn`; the record carries it as prev-link.
 *
 * Out: the WAL from the begin of a segment (*ret_wal_lsn) to the end of the record is appended to
 * `wal`; it may end in a second segment. Before the record there is only what Postgres and
 * pg_waldump look at: the header of the segment and that of the page, which claims that the bytes
 * up to `lsn` are the rest of an older record, so that readers skip them.
 *
 * The record is genuine WAL: a compute ships it as the first of its term. ERR_INVALID: `lsn` is no
 * record end or prev_lsn does not lie before it.
 */
NODISCARD err_t pg_control_start_at(
    struct pg_control *control,
    lsn_t lsn,
    lsn_t prev_lsn,
    struct buf *wal,
    lsn_t *ret_wal_lsn,
    struct errmsg *msg);
