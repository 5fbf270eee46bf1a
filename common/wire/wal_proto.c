#include "common/wire/wal_proto.h"

size_t size_term_history(struct term_history value)
{
    return sizeof(uint32_t) + value.count * (sizeof(uint64_t) + sizeof(uint64_t));
}

void put_term_history(struct writer *out, struct term_history value)
{
    ASSERT(value.count <= TERM_HISTORY_MAX);
    put_u32(out, value.count);
    for (uint32_t i = 0; i < value.count; i++) {
        put_u64(out, value.items[i].term);
        put_u64(out, value.items[i].lsn);
    }
}

struct term_history get_term_history(struct reader *in)
{
    struct term_history value = {.count = get_u32(in)};
    if (value.count > TERM_HISTORY_MAX) {
        in->bad = true;
        value.count = 0;
    }
    for (uint32_t i = 0; i < value.count; i++) {
        value.items[i].term = get_u64(in);
        value.items[i].lsn = get_u64(in);
        bool ascends = i == 0 || (value.items[i].term > value.items[i - 1].term &&
                                  value.items[i].lsn >= value.items[i - 1].lsn);
        in->bad = in->bad || !ascends;
    }
    if (in->bad) {
        value.count = 0;
    }
    return value;
}

void print_term_history(struct buf *to, const char *name, struct term_history value)
{
    buf_printf(to, " %s=[", name);
    for (uint32_t i = 0; i < value.count; i++) {
        buf_printf(
            to, "%s%" PRIu64 "@" LSN_FMT, i > 0 ? " " : "", value.items[i].term,
            LSN_ARGS(value.items[i].lsn));
    }
    buf_printf(to, "]");
}

enum { SET_OLD = 1, SET_NEW = 2 };

size_t size_member_list(struct member_list value)
{
    size_t size = sizeof(uint32_t);
    for (uint32_t i = 0; i < value.count; i++) {
        size += sizeof(uint64_t) + sizeof(uint8_t) + size_bytes(bytes_of_str(value.items[i].host)) +
                sizeof(uint16_t);
    }
    return size;
}

void put_member_list(struct writer *out, struct member_list value)
{
    ASSERT(value.count <= MEMBER_LIST_MAX);
    put_u32(out, value.count);
    for (uint32_t i = 0; i < value.count; i++) {
        const struct member_entry *item = &value.items[i];
        put_u64(out, item->id);
        put_u8(out, (uint8_t)((item->is_old ? SET_OLD : 0) | (item->is_new ? SET_NEW : 0)));
        put_bytes(out, bytes_of_str(item->host));
        put_u16(out, item->port);
    }
}

struct member_list get_member_list(struct reader *in)
{
    struct member_list value = {.count = get_u32(in)};
    if (value.count > MEMBER_LIST_MAX) {
        in->bad = true;
    }
    for (uint32_t i = 0; i < value.count && !in->bad; i++) {
        struct member_entry *item = &value.items[i];
        item->id = get_u64(in);
        uint8_t sets = get_u8(in);
        struct bytes host = get_bytes(in);
        item->port = get_u16(in);
        item->is_old = (sets & SET_OLD) != 0;
        item->is_new = (sets & SET_NEW) != 0;
        bool has_end = host.size > 0 && memchr(host.data, 0, host.size) != NULL;
        if (in->bad || sets > (SET_OLD | SET_NEW) || host.size >= MEMBER_HOST_SIZE || has_end) {
            in->bad = true;
        } else if (host.size > 0) {
            memcpy(item->host, host.data, host.size);
        }
    }
    if (in->bad) {
        value.count = 0;
    }
    return value;
}

void print_member_list(struct buf *to, const char *name, struct member_list value)
{
    buf_printf(to, " %s=[", name);
    for (uint32_t i = 0; i < value.count; i++) {
        const struct member_entry *item = &value.items[i];
        buf_printf(
            to, "%s%s%" PRIu64 "@%s:%u", i > 0 ? " " : "",
            item->is_old == item->is_new ? ""
            : item->is_old               ? "-"
                                         : "+",
            item->id, item->host, item->port);
    }
    buf_printf(to, "]");
}

WIRE_DEFINE(vote_request, VOTE_REQUEST_FIELDS)
WIRE_DEFINE(vote_reply, VOTE_REPLY_FIELDS)
WIRE_DEFINE(elected, ELECTED_FIELDS)
WIRE_DEFINE(append, APPEND_FIELDS)
WIRE_DEFINE(append_reply, APPEND_REPLY_FIELDS)
WIRE_DEFINE(read_wal, READ_WAL_FIELDS)
WIRE_DEFINE(read_wal_reply, READ_WAL_REPLY_FIELDS)
WIRE_DEFINE(membership_notice, MEMBERSHIP_NOTICE_FIELDS)
