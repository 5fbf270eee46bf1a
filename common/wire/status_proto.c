#include "common/wire/status_proto.h"

WIRE_DEFINE(status_watch, STATUS_WATCH_FIELDS)
WIRE_DEFINE(status_unwatch, STATUS_UNWATCH_FIELDS)
WIRE_DEFINE(status_report, STATUS_REPORT_FIELDS)
WIRE_DEFINE(status_list, STATUS_LIST_FIELDS)

void status_watch_append(struct buf *to, const struct status_watch *watch)
{
    struct writer out = {.next = buf_extend(to, STATUS_WATCH_SIZE), .left = STATUS_WATCH_SIZE};
    status_watch_encode(watch, &out);
    ASSERT(out.left == 0);
}

void status_report_append(struct buf *to, const struct status_report *report)
{
    struct writer out = {.next = buf_extend(to, STATUS_REPORT_SIZE), .left = STATUS_REPORT_SIZE};
    status_report_encode(report, &out);
    ASSERT(out.left == 0);
}

static err_t take(struct bytes *entries, size_t size, struct reader *ret_entry)
{
    if (entries->size == 0) {
        return ERR_NOT_FOUND;
    }
    if (entries->size < size) {
        return ERR_CORRUPT;
    }
    *ret_entry = reader_of(bytes_of(entries->data, size));
    *entries = bytes_of(entries->data + size, entries->size - size);
    return ERR_OK;
}

err_t status_watch_take(struct bytes *entries, struct status_watch *ret_watch)
{
    struct reader entry;
    TRY(take(entries, STATUS_WATCH_SIZE, &entry));
    return status_watch_decode(ret_watch, &entry);
}

err_t status_report_take(struct bytes *entries, struct status_report *ret_report)
{
    struct reader entry;
    TRY(take(entries, STATUS_REPORT_SIZE, &entry));
    return status_report_decode(ret_report, &entry);
}
