#include "safekeeper/disk/wal_preamble.h"

#include "common/pg/wal_reader.h"
#include "common/wire/codec.h"

#define INFO_FIRST_IS_CONTINUED 1
#define INFO_LONG_HEADER        2
#define TIMELINE_OF_WAL         1

static size_t header_size(lsn_t page, lsn_t segment)
{
    return page == segment ? WAL_PAGE_HEADER_LONG : WAL_PAGE_HEADER_SHORT;
}

/* Bytes from behind the header of `page` up to the start, without the headers in between. */
static uint32_t continued_bytes(lsn_t page, lsn_t segment, lsn_t start_lsn)
{
    lsn_t left = start_lsn - page;
    size_t pages = (size_t)((left + WAL_PAGE_SIZE - 1) / WAL_PAGE_SIZE);
    size_t headers = header_size(page, segment) + (pages - 1) * WAL_PAGE_HEADER_SHORT;
    return left > headers ? (uint32_t)(left - headers) : 0;
}

void wal_preamble_append(const struct wal_preamble_options *options, struct buf *to)
{
    lsn_t segment = options->start_lsn - options->start_lsn % options->segment_size;
    size_t size = (size_t)(options->start_lsn - segment);
    if (size == 0) {
        return;
    }
    uint8_t *bytes = buf_extend(to, size);
    memset(bytes, 0, size);
    for (size_t at = 0; at < size; at += WAL_PAGE_SIZE) {
        uint8_t header[WAL_PAGE_HEADER_LONG] = {0};
        uint32_t continued = continued_bytes(segment + at, segment, options->start_lsn);
        struct writer out = {.next = header, .left = sizeof(header)};
        put_u16(&out, WAL_PAGE_MAGIC);
        put_u16(
            &out,
            (uint16_t)((at == 0 ? INFO_LONG_HEADER : 0) | (continued > 0 ? INFO_FIRST_IS_CONTINUED : 0)));
        put_u32(&out, TIMELINE_OF_WAL);
        put_u64(&out, segment + at);
        put_u32(&out, continued);
        put_u32(&out, 0); /* padding of the struct */
        put_u64(&out, options->system_id);
        put_u32(&out, options->segment_size);
        put_u32(&out, WAL_PAGE_SIZE);
        memcpy(bytes + at, header, MIN_OF(header_size(segment + at, segment), size - at));
    }
}
