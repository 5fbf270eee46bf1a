#include "common/pg/wal_page.h"

#include <stdio.h>

#include "common/base/mark.h"
#include "common/pg/cursor.h"

/* Offsets; four bytes of padding end the short header. */
enum {
    XLP_MAGIC = 0,
    XLP_INFO = 2,
    XLP_TLI = 4,
    XLP_PAGEADDR = 8,
    XLP_REM_LEN = 16,
    XLP_SYSID = 24,
    XLP_SEG_SIZE = 32,
    XLP_XLOG_BLCKSZ = 36
};

static err_t corrupt(lsn_t page_lsn, const char *field, uint64_t value, struct errmsg *msg)
{
    return err_set(
        msg, ERR_CORRUPT, "WAL page at " LSN_FMT ": %s is %#" PRIx64, LSN_ARGS(page_lsn), field,
        value);
}

static err_t check_long(
    const uint8_t *from,
    lsn_t page_lsn,
    uint32_t segment_size,
    uint64_t system_id,
    struct errmsg *msg)
{
    if (system_id != 0 && le_u64(from + XLP_SYSID) != system_id) {
        MARK("wal_page.other_system");
        return corrupt(page_lsn, "system identifier", le_u64(from + XLP_SYSID), msg);
    }
    if (le_u32(from + XLP_SEG_SIZE) != segment_size) {
        MARK("wal_page.other_segment_size");
        return corrupt(page_lsn, "segment size", le_u32(from + XLP_SEG_SIZE), msg);
    }
    if (le_u32(from + XLP_XLOG_BLCKSZ) != WAL_PAGE_SIZE) {
        MARK("wal_page.other_page_size");
        return corrupt(page_lsn, "page size", le_u32(from + XLP_XLOG_BLCKSZ), msg);
    }
    return ERR_OK;
}

err_t wal_page_header_parse(
    const uint8_t *from,
    lsn_t page_lsn,
    uint32_t segment_size,
    uint64_t system_id,
    struct wal_page_header *ret_header,
    struct errmsg *msg)
{
    uint16_t magic = le_u16(from + XLP_MAGIC), flags = le_u16(from + XLP_INFO);
    bool is_long = page_lsn % segment_size == 0;
    if (magic != WAL_PAGE_MAGIC) {
        MARK("wal_page.bad_magic");
        return corrupt(page_lsn, "magic", magic, msg);
    }
    if ((flags & ~WAL_PAGE_FLAGS_KNOWN) != 0 || ((flags & WAL_PAGE_LONG_HEADER) != 0) != is_long) {
        MARK("wal_page.bad_flags");
        return corrupt(page_lsn, "flags field", flags, msg);
    }
    if (le_u64(from + XLP_PAGEADDR) != page_lsn) {
        MARK("wal_page.other_address");
        return corrupt(page_lsn, "page address", le_u64(from + XLP_PAGEADDR), msg);
    }
    if (is_long) {
        TRY(check_long(from, page_lsn, segment_size, system_id, msg));
    }
    *ret_header = (struct wal_page_header){
        .flags = flags,
        .tli = le_u32(from + XLP_TLI),
        .lsn = page_lsn,
        .rest_size = le_u32(from + XLP_REM_LEN),
        .system_id = is_long ? le_u64(from + XLP_SYSID) : 0,
        .segment_size = segment_size,
    };
    return ERR_OK;
}

size_t wal_page_header_write(const struct wal_page_header *header, uint8_t *to)
{
    size_t size = wal_page_header_size(header->lsn, header->segment_size);
    uint16_t magic = WAL_PAGE_MAGIC, flags = header->flags;
    memset(to, 0, size);
    if (size == WAL_PAGE_HEADER_LONG) {
        uint32_t page_size = WAL_PAGE_SIZE;
        flags |= WAL_PAGE_LONG_HEADER;
        memcpy(to + XLP_SYSID, &header->system_id, sizeof(header->system_id));
        memcpy(to + XLP_SEG_SIZE, &header->segment_size, sizeof(header->segment_size));
        memcpy(to + XLP_XLOG_BLCKSZ, &page_size, sizeof(page_size));
    }
    memcpy(to + XLP_MAGIC, &magic, sizeof(magic));
    memcpy(to + XLP_INFO, &flags, sizeof(flags));
    memcpy(to + XLP_TLI, &header->tli, sizeof(header->tli));
    memcpy(to + XLP_PAGEADDR, &header->lsn, sizeof(header->lsn));
    memcpy(to + XLP_REM_LEN, &header->rest_size, sizeof(header->rest_size));
    return size;
}

lsn_t lsn_skip_header(lsn_t lsn, uint32_t segment_size)
{
    return lsn % WAL_PAGE_SIZE == 0 ? lsn + wal_page_header_size(lsn, segment_size) : lsn;
}

lsn_t lsn_canonical(lsn_t lsn, uint32_t segment_size)
{
    lsn_t aligned = lsn - lsn % 8;
    lsn_t page = aligned - aligned % WAL_PAGE_SIZE;
    return aligned - page <= wal_page_header_size(page, segment_size) ? page : aligned;
}

struct wal_segment_name wal_segment_name(lsn_t lsn, uint32_t segment_size)
{
    struct wal_segment_name name;
    uint64_t number = lsn / segment_size;
    uint64_t segments_per_id = ((uint64_t)1 << 32) / segment_size;
    snprintf(
        name.text, sizeof(name.text), "%08X%08X%08X", 1u, (unsigned)(number / segments_per_id),
        (unsigned)(number % segments_per_id));
    return name;
}
