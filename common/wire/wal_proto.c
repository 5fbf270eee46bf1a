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

WIRE_DEFINE(vote_request, VOTE_REQUEST_FIELDS)
WIRE_DEFINE(vote_reply, VOTE_REPLY_FIELDS)
WIRE_DEFINE(elected, ELECTED_FIELDS)
WIRE_DEFINE(append, APPEND_FIELDS)
WIRE_DEFINE(append_reply, APPEND_REPLY_FIELDS)
WIRE_DEFINE(read_wal, READ_WAL_FIELDS)
WIRE_DEFINE(read_wal_reply, READ_WAL_REPLY_FIELDS)
