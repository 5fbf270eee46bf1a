/*
 * wal_decode_xlog.c - checkpoints, counters and settings of the whole cluster; replication origins.
 *
 * Sources: xlog.c (xlog_redo), commit_ts.c, replication/logical/origin.c of Postgres 17.
 */
#include "pageserver/ingest/wal_decode_private.h"

enum {
    XLOG_OP_CHECKPOINT_SHUTDOWN = 0x00,
    XLOG_OP_CHECKPOINT_ONLINE = 0x10,
    XLOG_OP_NEXTOID = 0x30,
    XLOG_OP_PARAMETER_CHANGE = 0x60,
    XLOG_OP_FPW_CHANGE = 0x80,
    XLOG_OP_END_OF_RECOVERY = 0x90
};

enum { ORIGIN_OP_SET = 0x00, ORIGIN_OP_DROP = 0x10 };
#define ORIGIN_DO_NOT_REPLICATE 0xFFFF

static err_t refuse_short(const struct decoding *decoding)
{
    MARK("wal_decode.short_xlog");
    return decode_refuse(decoding, "too short");
}

/* Nothing ran when it was written: its counters are exact, even when ours went further. */
static err_t decode_shutdown_checkpoint(struct decoding *decoding)
{
    struct wal_state *state = decoding->state;
    TRY(pg_checkpoint_parse(decoding->record->main_data, &state->checkpoint, decoding->msg));
    state->next_xid = state->checkpoint.next_xid;
    state->next_multi = state->checkpoint.next_multi;
    state->next_offset = state->checkpoint.next_multi_offset;
    decoding->checkpoint_changed = decoding->multi_changed = true;
    return end_reservations(decoding);
}

/*
 * Its values were gathered while the server went on: a counter only moves forward, and the next oid
 * is not taken from it, because records of its own say it later.
 */
static err_t decode_online_checkpoint(struct decoding *decoding)
{
    struct wal_state *state = decoding->state;
    struct pg_checkpoint now, *before = &state->checkpoint;
    TRY(pg_checkpoint_parse(decoding->record->main_data, &now, decoding->msg));
    state->next_xid = MAX_OF(state->next_xid, now.next_xid);
    if (precedes(state->next_multi, now.next_multi)) {
        state->next_multi = now.next_multi;
        decoding->multi_changed = true;
    }
    if (precedes(state->next_offset, now.next_multi_offset)) {
        state->next_offset = now.next_multi_offset;
        decoding->multi_changed = true;
    }
    now.next_oid = before->next_oid;
    if (precedes(now.oldest_xid, before->oldest_xid)) {
        now.oldest_xid = before->oldest_xid;
        now.oldest_xid_db = before->oldest_xid_db;
    }
    if (precedes(now.oldest_multi, before->oldest_multi)) {
        now.oldest_multi = before->oldest_multi;
        now.oldest_multi_db = before->oldest_multi_db;
    }
    if (now.oldest_commit_ts_xid != 0 && before->oldest_commit_ts_xid != 0 &&
        precedes(now.oldest_commit_ts_xid, before->oldest_commit_ts_xid)) {
        now.oldest_commit_ts_xid = before->oldest_commit_ts_xid;
    }
    if (precedes(now.newest_commit_ts_xid, before->newest_commit_ts_xid)) {
        now.newest_commit_ts_xid = before->newest_commit_ts_xid;
    }
    *before = now;
    decoding->checkpoint_changed = true;
    return ERR_OK;
}

/*
 * Commit timestamps are kept from now on, or no more. The server makes the page of the next
 * transaction itself, without a record, and forgets all older ones.
 */
static void switch_commit_ts(struct decoding *decoding, bool on)
{
    struct wal_state *state = decoding->state;
    struct pg_checkpoint *checkpoint = &state->checkpoint;
    uint32_t next = (uint32_t)state->next_xid;
    MARK("wal_decode.commit_ts_switched");
    if (on) {
        put_zero_page(
            decoding, page_key_state(STATE_COMMIT_TS, 0, next / PG_COMMIT_TS_XIDS_PER_PAGE));
        if (checkpoint->oldest_commit_ts_xid == 0) {
            checkpoint->oldest_commit_ts_xid = checkpoint->newest_commit_ts_xid = next;
        }
    } else {
        checkpoint->oldest_commit_ts_xid = checkpoint->newest_commit_ts_xid = 0;
    }
    decoding->checkpoint_changed = true;
}

static err_t decode_parameter_change(struct decoding *decoding)
{
    struct wal_state *state = decoding->state;
    struct pg_control *control = &state->control;
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint32_t values[6];
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        values[i] = cursor_u32(&fields);
    }
    uint8_t wal_log_hints = cursor_u8(&fields);
    uint8_t track_commit_timestamp = cursor_u8(&fields);
    if (!cursor_is_good(&fields)) {
        return refuse_short(decoding);
    }
    bool tracked = state->has_control && control->track_commit_timestamp != 0;
    if (tracked != (track_commit_timestamp != 0)) {
        switch_commit_ts(decoding, track_commit_timestamp != 0);
    }
    control->max_connections = (int32_t)values[0];
    control->max_worker_processes = (int32_t)values[1];
    control->max_wal_senders = (int32_t)values[2];
    control->max_prepared_transactions = (int32_t)values[3];
    control->max_locks_per_transaction = (int32_t)values[4];
    control->wal_level = (int32_t)values[5];
    control->wal_log_hints = wal_log_hints != 0;
    control->track_commit_timestamp = track_commit_timestamp != 0;
    if (state->has_control) {
        uint8_t file[PG_CONTROL_FILE_SIZE];
        pg_control_write(control, file);
        put_state(decoding, page_key_state(STATE_CONTROL, 0, 0), bytes_of(file, sizeof(file)));
    }
    return ERR_OK;
}

static err_t decode_checkpoint_field(struct decoding *decoding)
{
    struct pg_checkpoint *checkpoint = &decoding->state->checkpoint;
    struct cursor fields = cursor_of(decoding->record->main_data);
    switch (decoding->op) {
    case XLOG_OP_NEXTOID: {
        uint32_t next_oid = cursor_u32(&fields);
        checkpoint->next_oid = cursor_is_good(&fields) ? next_oid : checkpoint->next_oid;
        break;
    }
    case XLOG_OP_FPW_CHANGE: checkpoint->full_page_writes = cursor_u8(&fields) != 0; break;
    default: /* end of recovery: time, two timelines, wal_level */
        cursor_skip(&fields, 16);
        checkpoint->wal_level = (int32_t)cursor_u32(&fields);
    }
    decoding->checkpoint_changed = true;
    return cursor_is_good(&fields) ? ERR_OK : refuse_short(decoding);
}

err_t decode_xlog(struct decoding *decoding)
{
    switch (decoding->op) {
    case XLOG_OP_CHECKPOINT_SHUTDOWN: return decode_shutdown_checkpoint(decoding);
    case XLOG_OP_CHECKPOINT_ONLINE: return decode_online_checkpoint(decoding);
    case XLOG_OP_PARAMETER_CHANGE: return decode_parameter_change(decoding);
    case XLOG_OP_NEXTOID:
    case XLOG_OP_FPW_CHANGE:
    case XLOG_OP_END_OF_RECOVERY: return decode_checkpoint_field(decoding);
    default: return ERR_OK; /* page images were block references; the rest changes nothing */
    }
}

/* -- replication origins -- */

static struct page_key origin_key(uint16_t origin)
{
    return page_key_state(STATE_ORIGIN, origin, 0);
}

err_t put_origin(struct decoding *decoding, uint16_t origin, lsn_t remote_lsn, bool force)
{
    if (origin == 0 || origin == ORIGIN_DO_NOT_REPLICATE) {
        return ERR_OK;
    }
    err_t err = load_state(decoding, origin_key(origin));
    struct bytes before = buf_view(&decoding->state->room);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        return err;
    }
    bool known = err == ERR_OK && before.size == sizeof(lsn_t);
    if (known && !force && le_u64(before.data) >= remote_lsn) {
        return ERR_OK;
    }
    put_state(decoding, origin_key(origin), bytes_of(&remote_lsn, sizeof(remote_lsn)));
    return ERR_OK;
}

err_t decode_replorigin(struct decoding *decoding)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    if (decoding->op == ORIGIN_OP_DROP) {
        uint16_t origin = cursor_u16(&fields);
        if (!cursor_is_good(&fields)) {
            return refuse_short(decoding);
        }
        put_state(decoding, origin_key(origin), (struct bytes){.data = NULL, .size = 0});
        return ERR_OK;
    }
    lsn_t remote_lsn = cursor_u64(&fields);
    uint16_t origin = cursor_u16(&fields);
    uint8_t force = cursor_u8(&fields);
    if (!cursor_is_good(&fields) || decoding->op != ORIGIN_OP_SET) {
        return refuse_short(decoding);
    }
    return put_origin(decoding, origin, remote_lsn, force != 0);
}
