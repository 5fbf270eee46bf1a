/*
 * wal_decode_slots.c - logical messages: those of a compute's library that carry a replication
 * slot.
 *
 * A slot that is still being made is kept, too: from its restart_lsn on WAL is needed. If its
 * server dies, nobody says that it is gone; but the next one begins with a shutdown checkpoint. So
 * the key 0/0 has the LSN of the first such slot since the last one, and is empty without any.
 *
 * Source: replication/message.h of Postgres 17; common/pg/slot_message.h.
 */
#include "pageserver/ingest/wal_decode_private.h"

#include "common/base/checksum.h"
#include "common/pg/slot_message.h"

enum { LOGICAL_OP_MESSAGE = 0x00 };

static struct page_key reservations_key(void)
{
    return page_key_state(STATE_SLOT, 0, 0);
}

/* Never 0/0. */
static struct page_key slot_key(const char *name)
{
    uint64_t hash = hash64(name, strlen(name), 0);
    return page_key_state(STATE_SLOT, (uint32_t)(hash >> 32), (uint32_t)hash | 1);
}

/* In state->room: the LSN that 0/0 has, or nothing. */
static err_t load_reservations(struct decoding *decoding)
{
    err_t err = load_state(decoding, reservations_key());
    if (err == ERR_NOT_FOUND) {
        buf_clear(&decoding->state->room);
        return ERR_OK;
    }
    return err;
}

err_t end_reservations(struct decoding *decoding)
{
    TRY(load_reservations(decoding));
    if (decoding->state->room.size > 0) {
        put_state(decoding, reservations_key(), (struct bytes){.data = NULL, .size = 0});
    }
    return ERR_OK;
}

static err_t note_reservation(struct decoding *decoding)
{
    TRY(load_reservations(decoding));
    if (decoding->state->room.size == 0) {
        lsn_t lsn = decoding->record->end_lsn;
        put_state(decoding, reservations_key(), bytes_of(&lsn, sizeof(lsn)));
    }
    return ERR_OK;
}

static err_t put_slot(struct decoding *decoding, struct bytes message)
{
    struct slot_message head;
    if (message.size < sizeof(head)) {
        MARK("wal_decode.slot_short");
        return decode_refuse(decoding, "a slot's state is too short");
    }
    memcpy(&head, message.data, sizeof(head));
    uint64_t size = (uint64_t)sizeof(head) + head.state_size + head.snapshot_size;
    if (head.version != SLOT_MESSAGE_VERSION || head.name[0] == '\0' ||
        strnlen(head.name, SLOT_NAME_SIZE) == SLOT_NAME_SIZE || size != message.size) {
        MARK("wal_decode.slot_malformed");
        return decode_refuse(decoding, "a slot's state is malformed");
    }
    if ((head.flags & SLOT_MESSAGE_RESERVES) != 0) {
        TRY(note_reservation(decoding));
    }
    struct bytes nothing = {.data = NULL, .size = 0};
    put_state(decoding, slot_key(head.name), head.state_size == 0 ? nothing : message);
    return ERR_OK;
}

/*
 * xl_logical_message: u32 database, u8 transactional (padded to 8), u64 prefix size, u64 message
 * size; prefix with its NUL, message. Those of users have a database, and pass by.
 */
err_t decode_logical_message(struct decoding *decoding)
{
    struct cursor fields = cursor_of(decoding->record->main_data);
    uint32_t database = cursor_u32(&fields);
    cursor_skip(&fields, 4);
    uint64_t prefix_size = cursor_u64(&fields);
    uint64_t message_size = cursor_u64(&fields);
    if (!cursor_is_good(&fields) || decoding->op != LOGICAL_OP_MESSAGE) {
        MARK("wal_decode.message_short");
        return decode_refuse(decoding, "too short");
    }
    if (database != 0 || prefix_size != sizeof(SLOT_MESSAGE_PREFIX)) {
        return ERR_OK;
    }
    struct bytes prefix = cursor_bytes(&fields, (size_t)prefix_size);
    struct bytes message = cursor_bytes(&fields, (size_t)message_size);
    if (!cursor_is_good(&fields)) {
        MARK("wal_decode.message_cut");
        return decode_refuse(decoding, "too short");
    }
    if (memcmp(prefix.data, SLOT_MESSAGE_PREFIX, sizeof(SLOT_MESSAGE_PREFIX)) != 0) {
        return ERR_OK;
    }
    return put_slot(decoding, message);
}
