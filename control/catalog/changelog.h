/*
 * changelog.h - the changes of a catalog in the object store, one object a commit.
 *
 *   catalog/owner/NUMBER        {opened_at, by}: one a start of a control, never removed
 *   catalog/log/SEQ             {seq, previous, written_at, entries: [{key, value}]}; null: deleted
 *   catalog/snapshot/SEQ/PIECE  {rows: [{key, value}]}
 *   catalog/snapshot/SEQ/end    {seq, hash, pieces, rows, written_at}, written last
 *
 * NUMBER, SEQ and PIECE are 16 hex digits. `previous` is the xxh3-128 of the object before, so that
 * the log is a chain: a copy that was changed by another control does not fit. Objects are
 * immutable, and the store refuses another content under a name that is taken: of two controls that
 * write one log, the later one is told (ERR_EXISTS). Names of the log become free again when a
 * snapshot covers them; the owners' do not, so who finds a higher number than his own was replaced.
 * `by` is random: two starts at the same moment do not write the same content.
 * Described in docs/protocol/catalog.md. Blocking. Threads: [any].
 */
#pragma once

#include "common/base/checksum.h"
#include "common/objstore/objstore.h"
#include "control/catalog/catalog.h"

#define OWNER_PREFIX    "catalog/owner/"
#define LOG_PREFIX      "catalog/log/"
#define SNAPSHOT_PREFIX "catalog/snapshot/"
#define LOG_NAME_SIZE   64
#define LOG_RECORD_MAX  ((size_t)256 << 20)

/* After the commit `seq`, whose object has this hash; zero: before the first. */
struct changelog_position {
    uint64_t seq;
    struct hash128 hash;
};

void changelog_name(uint64_t seq, char ret_name[LOG_NAME_SIZE]);

/* The record that follows `position`, and the position behind it. */
void changelog_encode(
    struct changelog_position position,
    const struct catalog_entry *entries,
    size_t count,
    struct buf *ret_record,
    struct changelog_position *ret_next);

/* A key with its value; empty: it was deleted. */
typedef void (*changelog_entry_fn)(void *context, struct bytes key, struct bytes value);
/*
 * Reads the record behind `*position` and moves it. ERR_NOT_FOUND: the log ends here. ERR_CORRUPT:
 * it is not what followed the one before, or not readable.
 */
NODISCARD err_t changelog_read(
    struct objstore *store,
    struct changelog_position *position,
    changelog_entry_fn visit,
    void *context,
    struct errmsg *msg);
/* The hash of the record, as it lies there. */
NODISCARD err_t
changelog_hash(struct objstore *store, uint64_t seq, struct hash128 *ret_hash, struct errmsg *msg);

/* The highest number in the log, and in whole snapshots; 0: none. */
NODISCARD err_t changelog_last(struct objstore *store, uint64_t *ret_seq, struct errmsg *msg);

/* The next number is ours: ERR_BUSY, another control opens the catalog at the same time. */
NODISCARD err_t changelog_own(struct objstore *store, uint64_t *ret_number, struct errmsg *msg);
/* Somebody has a higher one. */
NODISCARD err_t changelog_is_owned_anew(
    struct objstore *store, uint64_t number, bool *ret_anew, struct errmsg *msg);

/* Nobody needs what is before: snapshots, and records up to this one. */
NODISCARD err_t changelog_forget(struct objstore *store, uint64_t before, struct errmsg *msg);

/* For records and the store's own row of the position: "..." of 32 digits. */
void changelog_set_hash(struct doc *doc, const char *key, struct hash128 hash);
NODISCARD err_t changelog_get_hash(
    const struct doc *doc, const char *key, struct hash128 *ret_hash, struct errmsg *msg);
