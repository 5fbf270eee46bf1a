#include "pageserver/timeline/slots.h"

#include <string.h>

#include "common/base/mark.h"
#include "common/base/mem.h"

err_t slot_parse(struct bytes value, struct slot_view *ret_slot, struct errmsg *msg)
{
    struct slot_view slot;
    if (value.size < sizeof(slot.head)) {
        MARK("slots.short");
        return err_set(msg, ERR_CORRUPT, "slot: %zu bytes", value.size);
    }
    memcpy(&slot.head, value.data, sizeof(slot.head));
    size_t name_size = strnlen(slot.head.name, SLOT_NAME_SIZE);
    if (name_size == 0 || name_size == SLOT_NAME_SIZE ||
        strspn(slot.head.name, "abcdefghijklmnopqrstuvwxyz0123456789_") != name_size) {
        MARK("slots.name");
        return err_set(msg, ERR_CORRUPT, "slot: its name is none");
    }
    uint64_t size = (uint64_t)sizeof(slot.head) + slot.head.state_size + slot.head.snapshot_size;
    if (slot.head.version != SLOT_MESSAGE_VERSION || slot.head.state_size > SLOT_STATE_SIZE_MAX ||
        slot.head.snapshot_size > SLOT_SNAPSHOT_SIZE_MAX || size != value.size) {
        MARK("slots.sizes");
        return err_set(msg, ERR_CORRUPT, "slot %s: malformed", slot.head.name);
    }
    slot.state = bytes_of(value.data + sizeof(slot.head), slot.head.state_size);
    slot.snapshot = bytes_of(slot.state.data + slot.state.size, slot.head.snapshot_size);
    *ret_slot = slot;
    return ERR_OK;
}

struct search {
    struct page_reader *reader;
    lsn_t lsn;
    lsn_t reservations_lsn; /* those from here on count; LSN_NONE: none does */
    lsn_t needed_lsn;
    struct buf value;
};

/* The newest value, if there is one that is not empty. */
static err_t read_value(
    struct search *search, struct page_key key, lsn_t *ret_lsn, struct errmsg *msg)
{
    buf_clear(&search->value);
    err_t err = page_reader_state(search->reader, key, search->lsn, &search->value, ret_lsn, msg);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static err_t on_key(struct page_key key, void *context, struct errmsg *msg)
{
    struct search *search = context;
    lsn_t lsn = LSN_NONE;
    TRY(read_value(search, key, &lsn, msg));
    if (search->value.size == 0 || (key.rel == 0 && key.block == 0)) {
        return ERR_OK;
    }
    struct slot_view slot;
    TRY(slot_parse(buf_view(&search->value), &slot, msg));
    bool reserves = (slot.head.flags & SLOT_MESSAGE_RESERVES) != 0;
    if (slot.head.restart_lsn == LSN_NONE ||
        (reserves && (search->reservations_lsn == LSN_NONE || lsn < search->reservations_lsn))) {
        return ERR_OK;
    }
    search->needed_lsn = search->needed_lsn == LSN_NONE
                             ? slot.head.restart_lsn
                             : MIN_OF(search->needed_lsn, slot.head.restart_lsn);
    return ERR_OK;
}

static err_t find_needed(struct search *search, struct errmsg *msg)
{
    lsn_t lsn = LSN_NONE;
    TRY(read_value(search, page_key_state(STATE_SLOT, 0, 0), &lsn, msg));
    if (search->value.size == sizeof(search->reservations_lsn)) {
        memcpy(&search->reservations_lsn, search->value.data, sizeof(search->reservations_lsn));
    }
    return page_reader_state_keys(search->reader, STATE_SLOT, search->lsn, on_key, search, msg);
}

err_t slots_needed_lsn(
    struct page_store *store,
    uint32_t timeline,
    lsn_t lsn,
    lsn_t *ret_needed_lsn,
    struct errmsg *msg)
{
    struct page_path *path = mem_alloc(sizeof(*path) + sizeof(path->spans[0]));
    path->count = 1; /* none of its ancestors' */
    path->spans[0] = (struct page_span){.timeline = timeline, .max_lsn = UINT64_MAX};
    struct search search = {.reader = page_reader_create(store, path), .lsn = lsn};
    err_t err = find_needed(&search, msg);
    if (err == ERR_OK) {
        *ret_needed_lsn = search.needed_lsn;
    }
    page_reader_destroy(search.reader);
    buf_deinit(&search.value);
    mem_free(path);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "slots");
}
