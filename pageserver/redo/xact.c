/*
 * xact.c - the end of a transaction, on the pages of CLOG and commit_ts; and their own records.
 *
 * Source: src/backend/access/transam (xact.c, clog.c, commit_ts.c), rmgrdesc/xactdesc.c of Postgres
 * 17. These pages have no header: CLOG is two bits a transaction, commit_ts ten bytes. A commit
 * whose subtransactions lie on several pages marks them "subcommitted" in between; replay ends
 * where the last step ends, so each page gets the final state at once.
 */
#include "pageserver/redo/redo_private.h"

enum {
    XACT_OP_COMMIT = 0x00,
    XACT_OP_PREPARE = 0x10,
    XACT_OP_ABORT = 0x20,
    XACT_OP_COMMIT_PREPARED = 0x30,
    XACT_OP_ABORT_PREPARED = 0x40,
    XACT_OP_MASK = 0x70,
    XACT_OP_HAS_INFO = 0x80
};

enum {
    XINFO_HAS_DBINFO = 0x001,
    XINFO_HAS_SUBXACTS = 0x002,
    XINFO_HAS_RELFILELOCATORS = 0x004,
    XINFO_HAS_INVALS = 0x008,
    XINFO_HAS_TWOPHASE = 0x010,
    XINFO_HAS_ORIGIN = 0x020,
    XINFO_HAS_GID = 0x080,
    XINFO_HAS_DROPPED_STATS = 0x100
};

enum { CLOG_COMMITTED = 1, CLOG_ABORTED = 2 };
#define CLOG_XIDS_PER_PAGE      (PAGE_SIZE * 4u)
#define COMMIT_TS_ENTRY_SIZE    10u
#define COMMIT_TS_XIDS_PER_PAGE (PAGE_SIZE / COMMIT_TS_ENTRY_SIZE)

enum { SLRU_OP_ZERO_PAGE = 0x00 };

struct xact_end {
    uint32_t xid;
    struct bytes subxids; /* u32 */
    uint64_t time;
    unsigned status;
};

static err_t read_xact_end(struct redo *redo, struct xact_end *ret_end)
{
    unsigned op = redo->op & XACT_OP_MASK;
    bool commit = op == XACT_OP_COMMIT || op == XACT_OP_COMMIT_PREPARED;
    bool prepared = op == XACT_OP_COMMIT_PREPARED || op == XACT_OP_ABORT_PREPARED;
    struct cursor fields = cursor_of(redo->record->main_data);
    *ret_end = (struct xact_end){
        .xid = redo->record->xid,
        .time = cursor_u64(&fields),
        .status = commit ? CLOG_COMMITTED : CLOG_ABORTED,
    };
    uint32_t xinfo = redo->op & XACT_OP_HAS_INFO ? cursor_u32(&fields) : 0;
    if (xinfo & XINFO_HAS_DBINFO) {
        cursor_skip(&fields, 8);
    }
    if (xinfo & XINFO_HAS_SUBXACTS) {
        size_t count = cursor_u32(&fields);
        ret_end->subxids = cursor_array(&fields, count, 4);
    }
    if (xinfo & XINFO_HAS_RELFILELOCATORS) {
        size_t count = cursor_u32(&fields);
        (void)cursor_array(&fields, count, 12);
    }
    if (xinfo & XINFO_HAS_DROPPED_STATS) {
        size_t count = cursor_u32(&fields);
        (void)cursor_array(&fields, count, 12);
    }
    if (commit && xinfo & XINFO_HAS_INVALS) {
        size_t count = cursor_u32(&fields);
        (void)cursor_array(&fields, count, 16);
    }
    if (xinfo & XINFO_HAS_TWOPHASE) {
        uint32_t xid = cursor_u32(&fields);
        ret_end->xid = prepared ? xid : ret_end->xid;
        if (xinfo & XINFO_HAS_GID) {
            size_t size = fields.left > 0 ? strnlen((const char *)fields.at, fields.left) : 0;
            cursor_skip(&fields, size + 1); /* Postgres keeps 199 bytes, but skips all */
        }
    }
    if (xinfo & XINFO_HAS_ORIGIN) {
        cursor_skip(&fields, 8); /* LSN at the origin */
        ret_end->time = cursor_u64(&fields);
    }
    if (!cursor_is_good(&fields) || (prepared && !(xinfo & XINFO_HAS_TWOPHASE))) {
        return redo_refuse_short(redo);
    }
    return ERR_OK;
}

static void clog_set(struct redo *redo, uint32_t xid, unsigned status)
{
    if (xid / CLOG_XIDS_PER_PAGE != redo->key.block) {
        return;
    }
    uint8_t *byte = redo->page + xid % CLOG_XIDS_PER_PAGE / 4;
    unsigned shift = xid % 4 * 2;
    *byte = (uint8_t)((*byte & ~(3u << shift)) | status << shift);
}

static void commit_ts_set(struct redo *redo, uint32_t xid, uint64_t time)
{
    if (xid / COMMIT_TS_XIDS_PER_PAGE != redo->key.block) {
        return;
    }
    uint8_t *entry = redo->page + (size_t)(xid % COMMIT_TS_XIDS_PER_PAGE) * COMMIT_TS_ENTRY_SIZE;
    memcpy(entry, &time, sizeof(time));
    memcpy(entry + sizeof(time), &redo->record->origin, sizeof(uint16_t));
}

err_t xact_redo(struct redo *redo)
{
    struct xact_end end;
    unsigned op = redo->op & XACT_OP_MASK;
    if (redo->key.spc != KEY_SPC_STATE || op == XACT_OP_PREPARE || op > XACT_OP_ABORT_PREPARED) {
        return redo_refuse_block(redo);
    }
    TRY(read_xact_end(redo, &end));
    if (redo->key.db == STATE_CLOG) {
        clog_set(redo, end.xid, end.status);
        for (size_t at = 0; at < end.subxids.size; at += 4) {
            clog_set(redo, le_u32(end.subxids.data + at), end.status);
        }
        return ERR_OK;
    }
    if (redo->key.db == STATE_COMMIT_TS && end.status == CLOG_COMMITTED) {
        commit_ts_set(redo, end.xid, end.time);
        for (size_t at = 0; at < end.subxids.size; at += 4) {
            commit_ts_set(redo, le_u32(end.subxids.data + at), end.time);
        }
        return ERR_OK;
    }
    return redo_refuse_block(redo);
}

/* A new page, or a truncation, which changes which pages exist but none of them. */
static err_t slru_redo(struct redo *redo, enum state_kind kind)
{
    if (redo->key.spc != KEY_SPC_STATE || redo->key.db != (uint32_t)kind) {
        return redo_refuse_block(redo);
    }
    if (redo->op == SLRU_OP_ZERO_PAGE) {
        memset(redo->page, 0, PAGE_SIZE);
    }
    return ERR_OK;
}

err_t clog_redo(struct redo *redo)
{
    return slru_redo(redo, STATE_CLOG);
}

err_t commit_ts_redo(struct redo *redo)
{
    return slru_redo(redo, STATE_COMMIT_TS);
}
