/*
 * wal_decode_xact.c - the end of transactions: CLOG and commit_ts pages, dropped relations,
 * two-phase state, replication origins, the index from time to LSN.
 *
 * Source: src/include/access/xact.h, src/backend/access/transam (xact.c, twophase.c, commit_ts.c)
 * of Postgres 17.
 */
#include "common/base/checksum.h"
#include "pageserver/ingest/wal_decode_private.h"

enum {
    XACT_OP_MASK = 0x70,
    XACT_OP_COMMIT = 0x00,
    XACT_OP_PREPARE = 0x10,
    XACT_OP_ABORT = 0x20,
    XACT_OP_COMMIT_PREPARED = 0x30,
    XACT_OP_ABORT_PREPARED = 0x40,
    XACT_OP_ASSIGNMENT = 0x50,
    XACT_OP_INVALIDATIONS = 0x60,
    XACT_HAS_INFO = 0x80
};

/* Which parts follow, in this order. */
enum {
    XINFO_DBINFO = 1 << 0,
    XINFO_SUBXACTS = 1 << 1,
    XINFO_RELFILELOCATORS = 1 << 2,
    XINFO_DROPPED_STATS = 1 << 8,
    XINFO_INVALS = 1 << 3,
    XINFO_TWOPHASE = 1 << 4,
    XINFO_GID = 1 << 7,
    XINFO_ORIGIN = 1 << 5
};

enum { XID_SIZE = 4, LOCATOR_SIZE = 12, STATS_ITEM_SIZE = 12, INVAL_SIZE = 16 };

struct xact_end {
    uint64_t time;
    uint32_t xinfo;
    uint32_t xid; /* of the transaction, which a prepared one names itself */
    struct bytes subxids, rels;
    lsn_t origin_lsn;
};

/* u32 count, then so many elements. */
static struct bytes counted(struct cursor *fields, size_t size)
{
    uint32_t count = cursor_u32(fields);
    return cursor_array(fields, count, size);
}

static void skip_text(struct cursor *fields)
{
    const uint8_t *end = fields->left > 0 ? memchr(fields->at, 0, fields->left) : NULL;
    cursor_skip(fields, end != NULL ? (size_t)(end - fields->at) + 1 : fields->left + 1);
}

static err_t parse_end(
    const struct decoding *decoding, bool is_commit, bool is_prepared, struct xact_end *ret_end)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    struct xact_end end = {.xid = decoding->record->xid};
    end.time = cursor_u64(&fields);
    end.xinfo = (decoding->op & XACT_HAS_INFO) != 0 ? cursor_u32(&fields) : 0;
    if ((end.xinfo & XINFO_DBINFO) != 0) {
        cursor_skip(&fields, 8);
    }
    if ((end.xinfo & XINFO_SUBXACTS) != 0) {
        end.subxids = counted(&fields, XID_SIZE);
    }
    if ((end.xinfo & XINFO_RELFILELOCATORS) != 0) {
        end.rels = counted(&fields, LOCATOR_SIZE);
    }
    if ((end.xinfo & XINFO_DROPPED_STATS) != 0) {
        (void)counted(&fields, STATS_ITEM_SIZE);
    }
    if (is_commit && (end.xinfo & XINFO_INVALS) != 0) { /* the bit means nothing in an abort */
        (void)counted(&fields, INVAL_SIZE);
    }
    if ((end.xinfo & XINFO_TWOPHASE) != 0) {
        uint32_t xid = cursor_u32(&fields);
        end.xid = is_prepared ? xid : end.xid;
        if ((end.xinfo & XINFO_GID) != 0) {
            skip_text(&fields);
        }
    }
    if ((end.xinfo & XINFO_ORIGIN) != 0) {
        end.origin_lsn = cursor_u64(&fields);
        cursor_skip(&fields, 8);
    }
    if (!cursor_is_good(&fields)) {
        MARK("wal_decode.short_xact");
        return decode_refuse(decoding, "too short for its parts");
    }
    if (end.xid < PG_XID_FIRST_NORMAL || (is_prepared && (end.xinfo & XINFO_TWOPHASE) == 0)) {
        MARK("wal_decode.xact_without_xid");
        return decode_refuse(decoding, "no transaction id");
    }
    *ret_end = end;
    return ERR_OK;
}

/* Each page of an SLRU that holds a bit of the transaction or of its children, once a run. */
static void put_slru_pages(
    struct decoding *decoding,
    enum state_kind kind,
    uint32_t xids_per_page,
    const struct xact_end *end)
{
    uint32_t first = end->xid / xids_per_page, last = first;
    put_implied(decoding, page_key_state(kind, 0, first));
    for (size_t at = 0; at < end->subxids.size; at += XID_SIZE) {
        uint32_t page = le_u32(end->subxids.data + at) / xids_per_page;
        if (page != last && page != first) { /* they are sorted */
            put_implied(decoding, page_key_state(kind, 0, page));
        }
        last = page;
    }
}

static void note_xids(struct decoding *decoding, struct bytes xids)
{
    for (size_t at = 0; at < xids.size; at += XID_SIZE) {
        note_xid(decoding, le_u32(xids.data + at));
    }
}

static err_t drop_rel(struct decoding *decoding, struct page_key rel)
{
    struct wal_state_source *source = decoding->state->source;
    for (unsigned fork = 0; fork < FORK_COUNT; fork++) {
        uint32_t blocks;
        rel.fork = (uint8_t)fork;
        rel = page_key_size_of(rel);
        err_t err = source->rel_size(source, rel, &blocks, decoding->msg);
        if (err == ERR_OK) {
            put_rel_size(decoding, rel, false, 0);
        } else if (err != ERR_NOT_FOUND) {
            return err;
        }
    }
    return ERR_OK;
}

static err_t drop_rels(struct decoding *decoding, struct bytes locators)
{
    for (size_t at = 0; at < locators.size; at += LOCATOR_SIZE) {
        struct page_key rel = {
            .spc = le_u32(locators.data + at),
            .db = le_u32(locators.data + at + 4),
            .rel = le_u32(locators.data + at + 8),
        };
        if (rel.spc == KEY_SPC_STATE) {
            MARK("wal_decode.drop_of_state");
            return decode_refuse(decoding, "drops a relation of no tablespace");
        }
        TRY(drop_rel(decoding, rel));
    }
    return ERR_OK;
}

/*
 * The first record whose time is later than T is where history at T ends: only a record that is
 * later than all before it can be that, so only those get a key. Times before 2000 are nonsense.
 */
static void note_commit_time(struct decoding *decoding, uint64_t time)
{
    struct wal_state *state = decoding->state;
    if (time <= state->newest_commit_time || time > (uint64_t)INT64_MAX) {
        return;
    }
    state->newest_commit_time = time;
    struct page_key key = page_key_state(STATE_COMMIT_TIME, (uint32_t)(time >> 32), (uint32_t)time);
    lsn_t lsn = decoding->record->lsn;
    put_state(decoding, key, bytes_of(&lsn, sizeof(lsn)));
}

static struct page_key twophase_key(const struct wal_state *state, uint32_t xid)
{
    uint64_t full = full_xid(state, xid);
    return page_key_state(STATE_TWOPHASE, (uint32_t)(full >> 32), (uint32_t)full);
}

static void put_commit_ts(struct decoding *decoding, const struct xact_end *end)
{
    struct wal_state *state = decoding->state;
    if (!state->has_control || !state->control.track_commit_timestamp) {
        return;
    }
    put_slru_pages(decoding, STATE_COMMIT_TS, PG_COMMIT_TS_XIDS_PER_PAGE, end);
    uint32_t newest =
        end->subxids.size > 0 ? le_u32(end->subxids.data + end->subxids.size - XID_SIZE) : end->xid;
    if (precedes(state->checkpoint.newest_commit_ts_xid, newest)) {
        state->checkpoint.newest_commit_ts_xid = newest; /* later ones would not be looked up */
        decoding->checkpoint_changed = true;
    }
}

static err_t decode_end(struct decoding *decoding, bool is_commit, bool is_prepared)
{
    struct xact_end end = {0};
    TRY(parse_end(decoding, is_commit, is_prepared, &end));
    note_xid(decoding, end.xid);
    note_xids(decoding, end.subxids);
    put_slru_pages(decoding, STATE_CLOG, PG_CLOG_XIDS_PER_PAGE, &end);
    if (is_commit) {
        put_commit_ts(decoding, &end);
    }
    if (is_prepared) {
        put_state(
            decoding, twophase_key(decoding->state, end.xid),
            (struct bytes){.data = NULL, .size = 0});
    }
    if ((end.xinfo & XINFO_ORIGIN) != 0) {
        TRY(put_origin(decoding, decoding->record->origin, end.origin_lsn, false));
    }
    TRY(drop_rels(decoding, end.rels));
    note_commit_time(decoding, end.time);
    return ERR_OK;
}

/* Header of a two-phase state file, which a PREPARE record is but for the checksum behind it. */
enum {
    TWOPHASE_MAGIC = 0x57F94534,
    TWOPHASE_SUBXACTS_AT = 28,
    TWOPHASE_GID_SIZE_AT = 54,
    TWOPHASE_ORIGIN_LSN_AT = 56,
    TWOPHASE_HEADER_SIZE = 72
};

static size_t align_8(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

static err_t decode_prepare(struct decoding *decoding)
{
    const struct wal_record *record = decoding->record;
    struct bytes file = record->main_data;
    bool is_file = file.size >= TWOPHASE_HEADER_SIZE && le_u32(file.data) == TWOPHASE_MAGIC &&
                   le_u32(file.data + 4) == file.size + sizeof(uint32_t);
    if (!is_file || le_u32(file.data + 8) < PG_XID_FIRST_NORMAL) {
        MARK("wal_decode.bad_prepare");
        return decode_refuse(decoding, "no two-phase state");
    }
    uint32_t xid = le_u32(file.data + 8);
    struct cursor fields = cursor_of(file);
    cursor_skip(&fields, TWOPHASE_HEADER_SIZE);
    cursor_skip(&fields, align_8(le_u16(file.data + TWOPHASE_GID_SIZE_AT)));
    struct bytes subxids =
        cursor_array(&fields, le_u32(file.data + TWOPHASE_SUBXACTS_AT), XID_SIZE);
    if (!cursor_is_good(&fields)) {
        MARK("wal_decode.short_prepare");
        return decode_refuse(decoding, "two-phase state too short");
    }
    note_xid(decoding, xid);
    note_xids(decoding, subxids);

    struct buf *room = &decoding->state->room;
    uint32_t crc = crc32c(0, file.data, file.size);
    buf_clear(room);
    buf_append(room, file.data, file.size);
    buf_append(room, &crc, sizeof(crc));
    put_state(decoding, twophase_key(decoding->state, xid), buf_view(room));
    if (record->origin != 0) {
        return put_origin(
            decoding, record->origin, le_u64(file.data + TWOPHASE_ORIGIN_LSN_AT), false);
    }
    return ERR_OK;
}

/* Which top-level transaction some children belong to: only their ids matter here. */
static err_t decode_assignment(struct decoding *decoding)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint32_t top = cursor_u32(&fields);
    struct bytes subxids = counted(&fields, XID_SIZE);
    if (!cursor_is_good(&fields)) {
        MARK("wal_decode.short_assignment");
        return decode_refuse(decoding, "too short");
    }
    note_xid(decoding, top);
    note_xids(decoding, subxids);
    return ERR_OK;
}

err_t decode_xact(struct decoding *decoding)
{
    switch (decoding->op & XACT_OP_MASK) {
    case XACT_OP_COMMIT: return decode_end(decoding, true, false);
    case XACT_OP_ABORT: return decode_end(decoding, false, false);
    case XACT_OP_COMMIT_PREPARED: return decode_end(decoding, true, true);
    case XACT_OP_ABORT_PREPARED: return decode_end(decoding, false, true);
    case XACT_OP_PREPARE: return decode_prepare(decoding);
    case XACT_OP_ASSIGNMENT: return decode_assignment(decoding);
    case XACT_OP_INVALIDATIONS: return ERR_OK; /* caches of running servers */
    default: MARK("wal_decode.unknown_xact"); return decode_refuse(decoding, "unknown operation");
    }
}
