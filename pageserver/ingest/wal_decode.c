#include "pageserver/ingest/wal_decode.h"

#include "common/base/mem.h"
#include "pageserver/ingest/wal_decode_private.h"

#define OP_MASK 0xF0 /* the rest of info belongs to the WAL machinery */

err_t decode_refuse(const struct decoding *decoding, const char *what)
{
    return err_set(decoding->msg, ERR_CORRUPT, "%s", what);
}

/* -- the state between records -- */

static err_t state_value(struct wal_state *state, enum state_kind kind, struct errmsg *msg)
{
    buf_clear(&state->room);
    return state->source->state(state->source, page_key_state(kind, 0, 0), &state->room, msg);
}

static err_t load_control(struct wal_state *state, struct errmsg *msg)
{
    err_t err = state_value(state, STATE_CONTROL, msg);
    if (err == ERR_NOT_FOUND) {
        return ERR_OK;
    }
    TRY(err);
    TRY(pg_control_parse(buf_view(&state->room), &state->control, msg));
    state->has_control = true;
    state->checkpoint = state->control.checkpoint;
    return ERR_OK;
}

static err_t load_checkpoint(struct wal_state *state, struct errmsg *msg)
{
    err_t err = state_value(state, STATE_CHECKPOINT, msg);
    if (err == ERR_NOT_FOUND && state->has_control) {
        err = ERR_OK;
    } else if (err == ERR_NOT_FOUND) {
        MARK("wal_decode.no_checkpoint");
        return err_set(msg, ERR_NOT_FOUND, "the timeline has no checkpoint to go on from");
    } else if (err == ERR_OK) {
        err = pg_checkpoint_parse(buf_view(&state->room), &state->checkpoint, msg);
    }
    return err;
}

static err_t load_counters(struct wal_state *state, struct errmsg *msg)
{
    state->next_xid = state->checkpoint.next_xid;
    state->next_multi = state->checkpoint.next_multi;
    state->next_offset = state->checkpoint.next_multi_offset;

    err_t err = state_value(state, STATE_NEXT_XID, msg);
    struct cursor fields = cursor_of(buf_view(&state->room));
    if (err == ERR_OK) {
        state->next_xid = cursor_u64(&fields);
    } else if (err != ERR_NOT_FOUND) {
        return err;
    }
    bool is_short = !cursor_is_good(&fields);

    err = state_value(state, STATE_NEXT_MULTI, msg);
    fields = cursor_of(buf_view(&state->room));
    if (err == ERR_OK) {
        state->next_multi = cursor_u32(&fields);
        state->next_offset = cursor_u32(&fields);
    } else if (err != ERR_NOT_FOUND) {
        return err;
    }
    if (is_short || !cursor_is_good(&fields)) {
        MARK("wal_decode.short_counter");
        return err_set(msg, ERR_CORRUPT, "the next xid or multixact in the store is malformed");
    }
    return ERR_OK;
}

static err_t load_commit_time(struct wal_state *state, struct errmsg *msg)
{
    struct wal_state_source *source = state->source;
    if (source->newest_commit_time == NULL) {
        return ERR_OK;
    }
    err_t err = source->newest_commit_time(source, &state->newest_commit_time, msg);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static err_t load(struct wal_state *state, struct errmsg *msg)
{
    TRY(load_control(state, msg));
    TRY(load_checkpoint(state, msg));
    TRY(load_counters(state, msg));
    return load_commit_time(state, msg);
}

err_t wal_state_create(
    struct wal_state_source *source, struct wal_state **ret_state, struct errmsg *msg)
{
    struct wal_state *state = MEM_NEW(struct wal_state);
    state->source = source;
    state->zeroed_offsets_page = state->premade_offsets_page = PAGE_NONE;
    err_t err = load(state, msg);
    if (err != ERR_OK) {
        wal_state_destroy(state);
        return err;
    }
    *ret_state = state;
    return ERR_OK;
}

void wal_state_destroy(struct wal_state *state)
{
    if (state != NULL) {
        buf_deinit(&state->room);
        mem_free(state->rels);
        mem_free(state);
    }
}

err_t load_state(struct decoding *decoding, struct page_key key)
{
    struct wal_state *state = decoding->state;
    buf_clear(&state->room);
    return state->source->state(state->source, key, &state->room, decoding->msg);
}

/* -- what everybody emits -- */

static void put(
    struct decoding *decoding,
    struct page_key key,
    uint8_t tag,
    uint8_t block_index,
    struct bytes value)
{
    decoding->sink->put(decoding->sink, key, tag, block_index, value);
}

void put_state(struct decoding *decoding, struct page_key key, struct bytes value)
{
    put(decoding, key, VALUE_STATE, 0, value);
}

void put_rel_size(struct decoding *decoding, struct page_key rel, bool exists, uint32_t blocks)
{
    uint8_t value[REL_SIZE_VALUE_SIZE - 1];
    value[0] = exists;
    memcpy(value + 1, &blocks, sizeof(blocks));
    put_state(decoding, page_key_size_of(rel), bytes_of(value, sizeof(value)));
}

void put_implied(struct decoding *decoding, struct page_key key)
{
    put(decoding, key, VALUE_DELTA, VALUE_BLOCK_IMPLIED, decoding->record->bytes);
}

void put_zero_page(struct decoding *decoding, struct page_key key)
{
    put(decoding, key, VALUE_ZERO, 0, (struct bytes){.data = NULL, .size = 0});
}

/* -- transaction ids -- */

void note_xid(struct decoding *decoding, uint32_t xid)
{
    struct wal_state *state = decoding->state;
    uint32_t next = (uint32_t)state->next_xid;
    if (xid < PG_XID_FIRST_NORMAL || precedes(xid, next)) {
        return;
    }
    uint64_t epoch = state->next_xid >> 32;
    uint32_t behind = xid == UINT32_MAX ? PG_XID_FIRST_NORMAL : xid + 1;
    if (behind < next) {
        MARK("wal_decode.xid_wraparound");
        epoch++;
    }
    state->next_xid = epoch << 32 | behind;
}

/* A xid in WAL is at most one epoch old: one above the next xid is of the epoch before. */
uint64_t full_xid(const struct wal_state *state, uint32_t xid)
{
    uint64_t epoch = state->next_xid >> 32;
    if (xid > (uint32_t)state->next_xid && epoch > 0) {
        epoch--;
    }
    return epoch << 32 | xid;
}

static void put_counters(struct decoding *decoding, uint64_t xid_before)
{
    struct wal_state *state = decoding->state;
    if (state->next_xid != xid_before) {
        put_state(
            decoding, page_key_state(STATE_NEXT_XID, 0, 0),
            bytes_of(&state->next_xid, sizeof(state->next_xid)));
    }
    if (decoding->multi_changed) {
        uint32_t value[2] = {state->next_multi, state->next_offset};
        put_state(decoding, page_key_state(STATE_NEXT_MULTI, 0, 0), bytes_of(value, sizeof(value)));
    }
    if (decoding->checkpoint_changed) {
        put_state(
            decoding, page_key_state(STATE_CHECKPOINT, 0, 0),
            bytes_of(&state->checkpoint, sizeof(state->checkpoint)));
    }
}

/* -- the record -- */

typedef err_t decode_function_t(struct decoding *decoding);

/* NULL: block references are all there is, or nothing that is kept (standby). */
static decode_function_t *const decode_functions[RM_COUNT] = {
    [RM_XLOG] = decode_xlog,
    [RM_XACT] = decode_xact,
    [RM_SMGR] = decode_smgr,
    [RM_CLOG] = decode_clog,
    [RM_DBASE] = decode_dbase,
    [RM_TBLSPC] = decode_tblspc,
    [RM_MULTIXACT] = decode_multixact,
    [RM_RELMAP] = decode_relmap,
    [RM_HEAP2] = decode_heap2,
    [RM_HEAP] = decode_heap,
    [RM_COMMIT_TS] = decode_commit_ts,
    [RM_REPLORIGIN] = decode_replorigin,
    [RM_LOGICALMSG] = decode_logical_message,
};

/*
 * What these records change is not a page of a relation, and they never name one. One that did
 * could make a fork longer and drop it at once.
 */
static bool names_no_blocks(uint8_t rmgr)
{
    return rmgr < RM_COUNT && decode_functions[rmgr] != NULL && rmgr != RM_XLOG &&
           rmgr != RM_HEAP && rmgr != RM_HEAP2;
}

static err_t decode(struct decoding *decoding)
{
    const struct wal_record *record = decoding->record;
    if (record->rmgr >= RM_COUNT && record->rmgr < RM_CUSTOM_MIN) {
        MARK("wal_decode.unknown_rmgr");
        return decode_refuse(decoding, "no such resource manager");
    }
    note_xid(decoding, record->xid);
    note_xid(decoding, record->top_xid);
    if (record->block_count > 0 && names_no_blocks(record->rmgr)) {
        MARK("wal_decode.unexpected_block");
        return decode_refuse(decoding, "a block reference where there can be none");
    }
    if (record->block_count > 0) {
        TRY(decode_blocks(decoding));
    }
    decode_function_t *function = record->rmgr < RM_COUNT ? decode_functions[record->rmgr] : NULL;
    if (function != NULL) {
        TRY(function(decoding));
    }
    return flush_forks(decoding);
}

err_t wal_decode(
    struct wal_state *state,
    const struct wal_record *record,
    struct wal_sink *sink,
    struct errmsg *msg)
{
    struct decoding decoding;
    decoding.state = state;
    decoding.record = record;
    decoding.sink = sink;
    decoding.msg = msg;
    decoding.op = record->info & OP_MASK;
    decoding.checkpoint_changed = decoding.multi_changed = false;
    decoding.fork_count = decoding.born_count = 0; /* the arrays stay as they are: speed */

    uint64_t xid_before = state->next_xid;
    err_t err = decode(&decoding);
    if (err != ERR_OK) {
        return err_wrap(
            msg, err, "%s at " LSN_FMT, wal_record_text(record).text, LSN_ARGS(record->lsn));
    }
    put_counters(&decoding, xid_before);
    return ERR_OK;
}
