#include "common/pg/page_key.h"

#include <stdio.h>

#include "common/base/assert.h"

static_assert(PAGE_KEY_PREFIX_SIZE == 4 + 4 + 4 + 4 + 1 + 4, "timeline and key");
static_assert(PAGE_KEY_SIZE == PAGE_KEY_PREFIX_SIZE + sizeof(lsn_t), "and the LSN");

bool page_key_equal(struct page_key a, struct page_key b)
{
    return a.rel == b.rel && a.block == b.block && a.fork == b.fork && a.db == b.db &&
           a.spc == b.spc;
}

static void put_u32(uint8_t *to, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(to, &value, sizeof(value));
}

static uint32_t get_u32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof(value));
    return __builtin_bswap32(value);
}

void page_key_encode(uint32_t timeline, struct page_key key, lsn_t lsn, uint8_t to[PAGE_KEY_SIZE])
{
    uint64_t newest_first = __builtin_bswap64(~lsn);
    put_u32(to, timeline);
    put_u32(to + 4, key.spc);
    put_u32(to + 8, key.db);
    put_u32(to + 12, key.rel);
    to[16] = key.fork;
    put_u32(to + 17, key.block);
    memcpy(to + PAGE_KEY_PREFIX_SIZE, &newest_first, sizeof(newest_first));
}

err_t page_key_decode(
    struct bytes from, uint32_t *ret_timeline, struct page_key *ret_key, lsn_t *ret_lsn)
{
    if (from.size != PAGE_KEY_SIZE) {
        return ERR_CORRUPT;
    }
    uint64_t newest_first;
    memcpy(&newest_first, from.data + PAGE_KEY_PREFIX_SIZE, sizeof(newest_first));
    *ret_timeline = get_u32(from.data);
    *ret_key = (struct page_key){
        .spc = get_u32(from.data + 4),
        .db = get_u32(from.data + 8),
        .rel = get_u32(from.data + 12),
        .fork = from.data[16],
        .block = get_u32(from.data + 17),
    };
    *ret_lsn = ~__builtin_bswap64(newest_first);
    return ERR_OK;
}

static const char *state_name(uint32_t kind)
{
    switch (kind) {
    case STATE_INGEST_LSN: return "ingest lsn";
    case STATE_CONTROL: return "pg_control";
    case STATE_CHECKPOINT: return "checkpoint";
    case STATE_NEXT_XID: return "next xid";
    case STATE_NEXT_MULTI: return "next multixact";
    case STATE_DATABASE: return "database";
    case STATE_RELMAP: return "relmap";
    case STATE_TWOPHASE: return "two-phase";
    case STATE_COMMIT_TIME: return "commit time";
    case STATE_ORIGIN: return "origin";
    case STATE_SLOT: return "slot";
    case STATE_TABLESPACE: return "tablespace";
    case STATE_CLOG: return "clog";
    case STATE_MULTI_OFFSETS: return "multixact offsets";
    case STATE_MULTI_MEMBERS: return "multixact members";
    case STATE_COMMIT_TS: return "commit_ts";
    default: return NULL;
    }
}

static struct page_key_text state_text(struct page_key key)
{
    struct page_key_text text;
    const char *name = state_name(key.db);
    if (name == NULL) {
        snprintf(
            text.text, sizeof(text.text), "state %" PRIu32 " %" PRIu32 " %" PRIu32, key.db, key.rel,
            key.block);
    } else if (key.db >= STATE_CLOG && key.block == KEY_BLOCK_SIZE) {
        snprintf(text.text, sizeof(text.text), "%s size", name);
    } else if (key.db >= STATE_CLOG) {
        snprintf(text.text, sizeof(text.text), "%s page %" PRIu32, name, key.block);
    } else if (key.rel == 0 && key.block == 0) {
        snprintf(text.text, sizeof(text.text), "%s", name);
    } else {
        snprintf(text.text, sizeof(text.text), "%s %" PRIu32 "/%" PRIu32, name, key.rel, key.block);
    }
    return text;
}

struct page_key_text page_key_text(struct page_key key)
{
    static const char *const fork_names[FORK_COUNT] = {"main", "fsm", "vm", "init"};
    if (key.spc == KEY_SPC_STATE) {
        return state_text(key);
    }
    struct page_key_text text;
    const char *fork = key.fork < FORK_COUNT ? fork_names[key.fork] : "fork?";
    int used = snprintf(
        text.text, sizeof(text.text), "rel %" PRIu32 "/%" PRIu32 "/%" PRIu32 " %s ", key.spc,
        key.db, key.rel, fork);
    size_t left = sizeof(text.text) - (size_t)used;
    if (key.block == KEY_BLOCK_SIZE) {
        snprintf(text.text + used, left, "size");
    } else {
        snprintf(text.text + used, left, "block %" PRIu32, key.block);
    }
    return text;
}
