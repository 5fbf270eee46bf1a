/*
 * wal_sidecar.h - `SEGMENT.crc`: one 64-byte record for each commit group of a segment file.
 *
 * The records stand in slots in the order in which they were written. A record is written only
 * after the group before it is durable, so every record certifies all groups before it: only the
 * bytes of the very last group may be torn by a crash, anything else that does not match is damage.
 *
 * Slot 0 is a header that says whose file this is. Every checksum is seeded with tenant, timeline
 * and segment, so that a record that strayed from another file does not count.
 * See docs/protocol/safekeeper_disk.md. Threads: no state, [any].
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/id.h"

#define SIDECAR_SLOT_SIZE 64

enum sidecar_kind {
    /* WAL of [begin, end) was written. */
    SIDECAR_GROUP = 1,
    /* The log was cut to `end`; [begin, end) is what is left of its last group. */
    SIDECAR_TRUNCATE = 2,
    /* begin == end: everything before is durable and nothing was in flight. */
    SIDECAR_CERTIFY = 3,
};

struct sidecar_record {
    uint8_t kind;
    uint32_t slot;
    uint32_t wal_crc;  /* CRC32C of [begin, end) */
    uint64_t sequence; /* of the whole timeline: grows by one with every record */
    lsn_t begin_lsn, end_lsn;
    lsn_t record_lsn; /* end of the last whole record at or before end_lsn */
    lsn_t commit_lsn; /* what was known when the record was written */
};

struct sidecar_identity {
    struct tenant_id tenant;
    struct timeline_id timeline;
    uint32_t segment_size;
};

void sidecar_header_encode(
    const struct sidecar_identity *identity, uint64_t segment, uint8_t to[SIDECAR_SLOT_SIZE]);
void sidecar_record_encode(
    const struct sidecar_identity *identity,
    uint64_t segment,
    const struct sidecar_record *record,
    uint8_t to[SIDECAR_SLOT_SIZE]);

/* A part of the segment that one checksum covers. */
struct sidecar_group {
    lsn_t begin_lsn, end_lsn;
    lsn_t record_lsn;
    uint32_t wal_crc;
    bool is_certified; /* a later record, or a truncation, says that it was durable */
};

/* What a sidecar says, after truncations were applied. Ascending, without gaps. */
struct sidecar_log {
    struct sidecar_group *groups;
    size_t count, capacity;
    uint32_t slots;                         /* in use, the header too */
    uint64_t first_sequence, last_sequence; /* 0: no record */
    uint64_t truncate_sequence;             /* of the last truncation; 0: none */
    lsn_t truncated_record_lsn;             /* meaningful when the log was cut to nothing */
    lsn_t commit_lsn;
    uint64_t sequence_max;   /* as asked for */
    bool has_trailing_bytes; /* something that is no record stands behind the last one */
};

void sidecar_log_deinit(struct sidecar_log *log);

/*
 * Read `path`. A missing file is an empty log. A bad record with good ones behind it, records out
 * of order and gaps are ERR_CORRUPT, and so are two bad ones; a bad last one was torn and is only
 * reported as trailing bytes.
 */
NODISCARD err_t sidecar_log_read(
    const char *path,
    const struct sidecar_identity *identity,
    uint64_t segment,
    uint64_t sequence_max,
    struct sidecar_log *ret_log,
    struct errmsg *msg);

/*
 * Of a file that may be damaged anywhere: the newest commit_lsn that a readable record carries, and
 * where the log may have ended at most when this is its last segment: at the end of the last record
 * if it can be read, and of the segment if not. A missing file is one of which nothing can be read.
 */
NODISCARD err_t sidecar_survey(
    const char *path,
    const struct sidecar_identity *identity,
    uint64_t segment,
    lsn_t *ret_commit_lsn,
    lsn_t *ret_end_lsn,
    struct errmsg *msg);
