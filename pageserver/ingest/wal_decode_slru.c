/*
 * wal_decode_slru.c - the pages of CLOG, multixacts and commit timestamps, and what is still needed
 * of them.
 *
 * Sources: clog.c, multixact.c, commit_ts.c in src/backend/access/transam of Postgres 17.
 * Truncation erases no version: it moves the oldest value in the checkpoint, and readers go by
 * that.
 */
#include "pageserver/ingest/wal_decode_private.h"

enum { SLRU_OP_ZERO_PAGE = 0x00, SLRU_OP_TRUNCATE = 0x10 };
enum {
    MULTI_OP_ZERO_OFFSETS_PAGE = 0x00,
    MULTI_OP_ZERO_MEMBERS_PAGE = 0x10,
    MULTI_OP_CREATE = 0x20,
    MULTI_OP_TRUNCATE = 0x30
};
enum { MEMBER_SIZE = 8, MEMBER_STATUS_MAX = 5 }; /* in the record: u32 xid, u32 status */

static err_t refuse_short(const struct decoding *decoding)
{
    MARK("wal_decode.short_slru");
    return decode_refuse(decoding, "too short");
}

/* The main data of a zero-page record is the i64 page number. */
static err_t read_page_number(const struct decoding *decoding, uint32_t max, uint32_t *ret_page)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint64_t page = cursor_u64(&fields);
    if (!cursor_is_good(&fields)) {
        return refuse_short(decoding);
    }
    if (page > max) {
        MARK("wal_decode.slru_page_number");
        return decode_refuse(decoding, "no such page");
    }
    *ret_page = (uint32_t)page;
    return ERR_OK;
}

static err_t decode_zero_page(
    struct decoding *decoding, enum state_kind kind, uint32_t entries_per_page)
{
    uint32_t page = 0;
    TRY(read_page_number(decoding, UINT32_MAX / entries_per_page, &page));
    put_zero_page(decoding, page_key_state(kind, 0, page));
    return ERR_OK;
}

err_t decode_clog(struct decoding *decoding)
{
    struct pg_checkpoint *checkpoint = &decoding->state->checkpoint;
    if (decoding->op == SLRU_OP_ZERO_PAGE) {
        return decode_zero_page(decoding, STATE_CLOG, PG_CLOG_XIDS_PER_PAGE);
    }
    if (decoding->op != SLRU_OP_TRUNCATE) {
        MARK("wal_decode.unknown_slru");
        return decode_refuse(decoding, "unknown operation");
    }
    struct cursor fields = cursor_of(decoding->record->main_data);
    cursor_skip(&fields, 8); /* page number */
    uint32_t oldest_xid = cursor_u32(&fields);
    uint32_t oldest_db = cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        return refuse_short(decoding);
    }
    if (precedes(checkpoint->oldest_xid, oldest_xid)) {
        checkpoint->oldest_xid = oldest_xid;
        checkpoint->oldest_xid_db = oldest_db;
        decoding->checkpoint_changed = true;
    }
    return ERR_OK;
}

err_t decode_commit_ts(struct decoding *decoding)
{
    struct pg_checkpoint *checkpoint = &decoding->state->checkpoint;
    if (decoding->op == SLRU_OP_ZERO_PAGE) {
        return decode_zero_page(decoding, STATE_COMMIT_TS, PG_COMMIT_TS_XIDS_PER_PAGE);
    }
    if (decoding->op != SLRU_OP_TRUNCATE) {
        MARK("wal_decode.unknown_slru");
        return decode_refuse(decoding, "unknown operation");
    }
    struct cursor fields = cursor_of(decoding->record->main_data);
    cursor_skip(&fields, 8); /* page number */
    uint32_t oldest_xid = cursor_u32(&fields);
    if (!cursor_is_good(&fields)) {
        return refuse_short(decoding);
    }
    if (checkpoint->oldest_commit_ts_xid != 0 &&
        precedes(checkpoint->oldest_commit_ts_xid, oldest_xid)) {
        checkpoint->oldest_commit_ts_xid = oldest_xid;
        decoding->checkpoint_changed = true;
    }
    return ERR_OK;
}

/* -- multixacts -- */

static err_t decode_zero_offsets_page(struct decoding *decoding)
{
    struct wal_state *state = decoding->state;
    uint32_t page = 0;
    TRY(read_page_number(decoding, UINT32_MAX / PG_MULTI_OFFSETS_PER_PAGE, &page));
    bool is_made = state->premade_offsets_page == page;
    state->premade_offsets_page = PAGE_NONE;
    if (is_made) {
        MARK("wal_decode.offsets_page_was_made");
        return ERR_OK;
    }
    state->zeroed_offsets_page = page;
    put_zero_page(decoding, page_key_state(STATE_MULTI_OFFSETS, 0, page));
    return ERR_OK;
}

/* Was the page that the next multixact begins on made already? See struct wal_state. */
static err_t offsets_page_is_made(
    const struct decoding *decoding, uint32_t page, struct page_key next_key, bool *ret_is_made)
{
    struct wal_state *state = decoding->state;
    if (state->zeroed_offsets_page != PAGE_NONE) {
        *ret_is_made = state->zeroed_offsets_page != page;
        return ERR_OK;
    }
    uint8_t content[PAGE_SIZE];
    err_t err = state->source->page(state->source, next_key, content, decoding->msg);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        return err;
    }
    *ret_is_made = err == ERR_OK;
    return ERR_OK;
}

static err_t put_offsets(struct decoding *decoding, uint32_t multi)
{
    struct wal_state *state = decoding->state;
    uint32_t next = multi == UINT32_MAX ? PG_MULTI_FIRST : multi + 1;
    uint32_t page = multi / PG_MULTI_OFFSETS_PER_PAGE;
    uint32_t next_page = next / PG_MULTI_OFFSETS_PER_PAGE;
    put_implied(decoding, page_key_state(STATE_MULTI_OFFSETS, 0, page));
    if (next_page == page) {
        return ERR_OK;
    }
    struct page_key next_key = page_key_state(STATE_MULTI_OFFSETS, 0, next_page);
    bool is_made;
    TRY(offsets_page_is_made(decoding, page, next_key, &is_made));
    if (is_made) {
        put_implied(decoding, next_key);
        return ERR_OK;
    }
    MARK("wal_decode.offsets_page_made_early");
    state->premade_offsets_page = state->zeroed_offsets_page = next_page;
    decoding->sink->put(
        decoding->sink, next_key, VALUE_INIT, VALUE_BLOCK_IMPLIED, decoding->record->bytes);
    return ERR_OK;
}

/* Members lie one after the other; offsets wrap around at 2^32. */
static void put_members(struct decoding *decoding, uint32_t offset, uint32_t count)
{
    uint32_t done = 0;
    while (done < count) {
        uint32_t at = offset + done;
        uint32_t page = at / PG_MULTI_MEMBERS_PER_PAGE;
        put_implied(decoding, page_key_state(STATE_MULTI_MEMBERS, 0, page));
        uint32_t left_on_page = PG_MULTI_MEMBERS_PER_PAGE - at % PG_MULTI_MEMBERS_PER_PAGE;
        uint32_t left_to_wrap = UINT32_MAX - at; /* one less than there are */
        uint32_t step = left_to_wrap < left_on_page ? left_to_wrap + 1 : left_on_page;
        done = count - done > step ? done + step : count;
    }
}

static void advance_multi(struct decoding *decoding, uint32_t next_multi, uint32_t next_offset)
{
    struct wal_state *state = decoding->state;
    next_multi = next_multi == 0 ? PG_MULTI_FIRST : next_multi;
    if (precedes(state->next_multi, next_multi)) {
        state->next_multi = next_multi;
        decoding->multi_changed = true;
    }
    if (precedes(state->next_offset, next_offset)) {
        state->next_offset = next_offset;
        decoding->multi_changed = true;
    }
}

static err_t decode_multi_create(struct decoding *decoding)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint32_t multi = cursor_u32(&fields);
    uint32_t offset = cursor_u32(&fields);
    uint32_t count = cursor_u32(&fields);
    struct bytes members = cursor_array(&fields, count, MEMBER_SIZE);
    if (!cursor_is_good(&fields)) {
        return refuse_short(decoding);
    }
    for (size_t at = 0; at < members.size; at += MEMBER_SIZE) {
        if (le_u32(members.data + at + 4) > MEMBER_STATUS_MAX) {
            MARK("wal_decode.member_status");
            return decode_refuse(decoding, "a member has no such status");
        }
        note_xid(decoding, le_u32(members.data + at));
    }
    decoding->state->premade_offsets_page = PAGE_NONE;
    TRY(put_offsets(decoding, multi));
    put_members(decoding, offset, count);
    advance_multi(decoding, multi + 1, offset + count);
    return ERR_OK;
}

static err_t decode_multi_truncate(struct decoding *decoding)
{
    struct pg_checkpoint *checkpoint = &decoding->state->checkpoint;
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint32_t oldest_db = cursor_u32(&fields);
    cursor_skip(&fields, 4); /* first multixact that goes */
    uint32_t oldest_multi = cursor_u32(&fields);
    cursor_skip(&fields, 8); /* range of members */
    if (!cursor_is_good(&fields)) {
        return refuse_short(decoding);
    }
    checkpoint->oldest_multi = oldest_multi;
    checkpoint->oldest_multi_db = oldest_db;
    decoding->checkpoint_changed = true;
    return ERR_OK;
}

err_t decode_multixact(struct decoding *decoding)
{
    switch (decoding->op) {
    case MULTI_OP_ZERO_OFFSETS_PAGE: return decode_zero_offsets_page(decoding);
    case MULTI_OP_ZERO_MEMBERS_PAGE:
        return decode_zero_page(decoding, STATE_MULTI_MEMBERS, PG_MULTI_MEMBERS_PER_PAGE);
    case MULTI_OP_CREATE: return decode_multi_create(decoding);
    case MULTI_OP_TRUNCATE: return decode_multi_truncate(decoding);
    default: MARK("wal_decode.unknown_slru"); return decode_refuse(decoding, "unknown operation");
    }
}
