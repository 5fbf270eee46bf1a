/*
 * The reader is one position in the WAL and what is in progress there. At a page boundary a header
 * is gathered and checked; anywhere else the bytes belong to the record in progress, to the padding
 * behind it or to the unused rest of a segment. A record whole on one page and in one feed() is
 * decoded where it lies; any other is gathered in `gathered`.
 */
#include "common/pg/wal_reader.h"

#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/pg/cursor.h"
#include "common/pg/wal_page.h"

enum { XL_TOT_LEN = 0, XL_PREV = 8, XL_INFO = 16, XL_RMID = 17 };
enum { OP_MASK = 0xF0, OP_XLOG_SWITCH = 0x40 };

#define GATHERED_KEPT_MAX (1 * MIB) /* memory kept between records */

struct wal_reader {
    struct wal_reader_options options;
    err_t failed; /* sticky */
    bool at_zeros;

    lsn_t lsn; /* of *at */
    const uint8_t *at, *end;
    lsn_t record_lsn; /* end of the last complete record */
    lsn_t last_begin; /* its begin, for the prev-link; 0: none yet */
    uint32_t tli;     /* of the newest page header */

    size_t page_header_got; /* gathered in page_header; 0: none in progress */
    uint8_t page_header[WAL_PAGE_HEADER_LONG];

    /* The record in progress; record_begin 0: none. */
    lsn_t record_begin;
    uint32_t record_size; /* 0: xl_tot_len is not complete yet */
    uint32_t record_got;
    bool header_checked;
    bool is_switch;
    lsn_t record_end; /* all its bytes came: where it ends, behind padding; 0: not yet */
    uint8_t record_header[WAL_RECORD_HEADER_SIZE];
    struct buf gathered;         /* all bytes got, unless ends_only */
    const uint8_t *record_bytes; /* when record_end is set: in `gathered` or in the feed */

    struct wal_record record;
};

struct wal_reader *wal_reader_create(const struct wal_reader_options *options)
{
    ASSERT(options->segment_size >= WAL_PAGE_SIZE);
    ASSERT((options->segment_size & (options->segment_size - 1)) == 0);
    ASSERT(options->start_lsn % 8 == 0);
    struct wal_reader *reader = MEM_NEW(struct wal_reader);
    reader->options = *options;
    reader->lsn = reader->record_lsn = options->start_lsn;
    return reader;
}

void wal_reader_destroy(struct wal_reader *reader)
{
    if (reader != NULL) {
        buf_deinit(&reader->gathered);
        mem_free(reader);
    }
}

static size_t left_in_feed(const struct wal_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

lsn_t wal_reader_next_lsn(const struct wal_reader *reader)
{
    return reader->lsn + left_in_feed(reader);
}

lsn_t wal_reader_record_lsn(const struct wal_reader *reader)
{
    return reader->record_lsn;
}

bool wal_reader_at_zeros(const struct wal_reader *reader)
{
    return reader->at_zeros;
}

static void take(struct wal_reader *reader, size_t size)
{
    reader->at += size;
    reader->lsn += size;
}

static void drop_record(struct wal_reader *reader)
{
    reader->record_begin = reader->record_end = LSN_NONE;
    reader->record_size = reader->record_got = 0;
    reader->header_checked = reader->is_switch = false;
    reader->record_bytes = NULL;
    if (reader->gathered.capacity > GATHERED_KEPT_MAX) {
        buf_deinit(&reader->gathered);
    }
    buf_clear(&reader->gathered);
}

static err_t corrupt_record(
    const struct wal_reader *reader, const char *field, uint64_t value, struct errmsg *msg)
{
    return err_set(
        msg, ERR_CORRUPT, "WAL record at " LSN_FMT ": %s is %#" PRIx64,
        LSN_ARGS(reader->record_begin), field, value);
}

/*
 * xl_tot_len as soon as it is there: what follows is found with its help. Zero is what a
 * preallocated segment holds behind the end of the WAL.
 */
static err_t check_size(struct wal_reader *reader, uint32_t size, struct errmsg *msg)
{
    if (size == 0) {
        MARK("wal_reader.zeros");
        reader->at_zeros = true;
        return corrupt_record(reader, "length (nothing was written here?)", size, msg);
    }
    if (size < WAL_RECORD_HEADER_SIZE || size > WAL_RECORD_SIZE_MAX) {
        MARK("wal_reader.bad_length");
        return corrupt_record(reader, "length", size, msg);
    }
    if (!reader->options.ends_only && size > reader->options.record_size_max) {
        MARK("wal_reader.record_too_large");
        return err_set(
            msg, ERR_FULL, "WAL record at " LSN_FMT " has %" PRIu32 " bytes, the limit is %zu",
            LSN_ARGS(reader->record_begin), size, reader->options.record_size_max);
    }
    return ERR_OK;
}

/* The complete record header. The prev-link guards against older WAL that looks whole. */
static err_t check_header(struct wal_reader *reader, const uint8_t *header, struct errmsg *msg)
{
    uint8_t rmgr = header[XL_RMID];
    lsn_t prev = le_u64(header + XL_PREV);
    if (rmgr >= RM_COUNT && rmgr < RM_CUSTOM_MIN) {
        MARK("wal_reader.bad_rmgr");
        return corrupt_record(reader, "resource manager", rmgr, msg);
    }
    bool linked =
        reader->last_begin != LSN_NONE ? prev == reader->last_begin : prev < reader->record_begin;
    if (!linked) {
        MARK("wal_reader.bad_prev_link");
        return corrupt_record(reader, "prev-link", prev, msg);
    }
    reader->is_switch = rmgr == RM_XLOG && (header[XL_INFO] & OP_MASK) == OP_XLOG_SWITCH;
    reader->header_checked = true;
    return ERR_OK;
}

/* The last byte of the record has been taken; reader->lsn stands behind it. */
static err_t end_record(struct wal_reader *reader, const uint8_t *bytes, struct errmsg *msg)
{
    if (!reader->options.ends_only) {
        struct bytes record = bytes_of(bytes, reader->record_size);
        if (wal_record_check_crc(record, msg) != ERR_OK) {
            return err_wrap(
                msg, ERR_CORRUPT, "WAL record at " LSN_FMT, LSN_ARGS(reader->record_begin));
        }
    }
    lsn_t end = (reader->lsn + 7) & ~(lsn_t)7;
    if (reader->is_switch) {
        lsn_t mask = (lsn_t)reader->options.segment_size - 1;
        end = (end + mask) & ~mask;
    }
    reader->record_bytes = bytes;
    reader->record_end = end;
    return ERR_OK;
}

/* The header of the page that begins at `page` has been taken: does it fit what is in progress? */
static err_t enter_page(
    struct wal_reader *reader, const uint8_t *header_bytes, lsn_t page, struct errmsg *msg)
{
    struct wal_page_header header;
    TRY(wal_page_header_parse(
        header_bytes, page, reader->options.segment_size, reader->options.system_id, &header, msg));
    if (header.tli < reader->tli) {
        MARK("wal_reader.timeline_back");
        return err_set(
            msg, ERR_CORRUPT, "WAL page at " LSN_FMT ": timeline %" PRIu32 " after %" PRIu32,
            LSN_ARGS(page), header.tli, reader->tli);
    }
    reader->tli = header.tli;
    if ((header.flags & WAL_PAGE_FIRST_IS_OVERWRITE) != 0 && reader->record_begin != LSN_NONE) {
        /* A crash lost the rest of the record; the server that came back wrote over it. */
        MARK("wal_reader.overwritten_contrecord");
        drop_record(reader);
    }
    bool continues = (header.flags & WAL_PAGE_FIRST_IS_CONTRECORD) != 0;
    if (continues != (reader->record_begin != LSN_NONE)) {
        MARK("wal_reader.contrecord_mismatch");
        return err_set(
            msg, ERR_CORRUPT, "WAL page at " LSN_FMT " %s", LSN_ARGS(page),
            continues ? "continues a record, but none was begun" : "does not continue the record");
    }
    if (continues && header.rest_size != reader->record_size - reader->record_got) {
        MARK("wal_reader.bad_rest_size");
        return err_set(
            msg, ERR_CORRUPT,
            "WAL page at " LSN_FMT ": rest of %" PRIu32 " bytes instead of %" PRIu32,
            LSN_ARGS(page), header.rest_size, reader->record_size - reader->record_got);
    }
    return ERR_OK;
}

static err_t take_page_header(struct wal_reader *reader, struct errmsg *msg)
{
    lsn_t page = reader->lsn - reader->page_header_got;
    size_t size = wal_page_header_size(page, reader->options.segment_size);
    if (reader->page_header_got == 0 && left_in_feed(reader) >= size) {
        const uint8_t *header = reader->at;
        take(reader, size);
        return enter_page(reader, header, page, msg);
    }
    size_t part = MIN_OF(size - reader->page_header_got, left_in_feed(reader));
    memcpy(reader->page_header + reader->page_header_got, reader->at, part);
    reader->page_header_got += part;
    take(reader, part);
    if (reader->page_header_got < size) {
        return ERR_OK;
    }
    reader->page_header_got = 0;
    return enter_page(reader, reader->page_header, page, msg);
}

/* The whole record lies on this page and in this feed, as nearly all do: no copy. */
static err_t take_whole_record(struct wal_reader *reader, bool *ret_taken, struct errmsg *msg)
{
    size_t left_on_page = WAL_PAGE_SIZE - (size_t)(reader->lsn % WAL_PAGE_SIZE);
    size_t here = MIN_OF(left_on_page, left_in_feed(reader));
    *ret_taken = false;
    if (here < WAL_RECORD_HEADER_SIZE) {
        return ERR_OK;
    }
    uint32_t size = le_u32(reader->at + XL_TOT_LEN);
    TRY(check_size(reader, size, msg));
    if (size > here) {
        return ERR_OK;
    }
    reader->record_size = reader->record_got = size;
    const uint8_t *bytes = reader->at;
    TRY(check_header(reader, bytes, msg));
    take(reader, size);
    *ret_taken = true;
    return end_record(reader, bytes, msg);
}

/* How far to go before something can be checked: the length, the header, the record. */
static uint32_t next_stop(const struct wal_reader *reader)
{
    if (reader->record_size == 0) {
        return sizeof(uint32_t);
    }
    return reader->header_checked ? reader->record_size : WAL_RECORD_HEADER_SIZE;
}

static err_t take_part_of_record(struct wal_reader *reader, struct errmsg *msg)
{
    size_t left_on_page = WAL_PAGE_SIZE - (size_t)(reader->lsn % WAL_PAGE_SIZE);
    size_t part = MIN_OF(left_on_page, left_in_feed(reader));
    part = MIN_OF(part, next_stop(reader) - reader->record_got);
    if (reader->record_got < WAL_RECORD_HEADER_SIZE) {
        memcpy(reader->record_header + reader->record_got, reader->at, part);
    }
    if (!reader->options.ends_only) {
        buf_append(&reader->gathered, reader->at, part);
    }
    reader->record_got += (uint32_t)part;
    take(reader, part);
    if (reader->record_size == 0 && reader->record_got == sizeof(uint32_t)) {
        uint32_t size = le_u32(reader->record_header + XL_TOT_LEN);
        TRY(check_size(reader, size, msg));
        reader->record_size = size;
    }
    if (!reader->header_checked && reader->record_got == WAL_RECORD_HEADER_SIZE) {
        TRY(check_header(reader, reader->record_header, msg));
    }
    if (reader->record_size != 0 && reader->record_got == reader->record_size) {
        return end_record(reader, reader->gathered.data, msg);
    }
    return ERR_OK;
}

static err_t take_record_bytes(struct wal_reader *reader, struct errmsg *msg)
{
    if (reader->record_begin == LSN_NONE) {
        reader->record_begin = reader->lsn;
        bool taken;
        TRY(take_whole_record(reader, &taken, msg));
        if (taken) {
            return ERR_OK;
        }
    }
    return take_part_of_record(reader, msg);
}

/* One step: a page header, a piece of a record, or what is to be skipped. */
static err_t step(struct wal_reader *reader, struct errmsg *msg)
{
    if (reader->record_end != LSN_NONE) {
        /* Padding, or after XLOG_SWITCH the rest of the segment: zeros without page headers. */
        take(reader, MIN_OF((size_t)(reader->record_end - reader->lsn), left_in_feed(reader)));
        return ERR_OK;
    }
    if (reader->page_header_got > 0 || reader->lsn % WAL_PAGE_SIZE == 0) {
        return take_page_header(reader, msg);
    }
    return take_record_bytes(reader, msg);
}

/* Go on until a record is complete (ERR_OK) or the feed is used up (ERR_NOT_FOUND). */
static err_t find_record(struct wal_reader *reader, struct errmsg *msg)
{
    while (reader->record_end == LSN_NONE || reader->lsn < reader->record_end) {
        if (reader->at == reader->end) {
            return ERR_NOT_FOUND;
        }
        err_t err = step(reader, msg);
        if (err != ERR_OK) {
            reader->failed = err;
            return err;
        }
    }
    reader->last_begin = reader->record_begin;
    reader->record_lsn = reader->record_end;
    return ERR_OK;
}

/* A record that was found lies in the feed at times: copy it when the feed goes before it is out.
 */
static void keep_unpadded_record(struct wal_reader *reader)
{
    if (reader->record_bytes != NULL && reader->record_bytes != reader->gathered.data &&
        !reader->options.ends_only) {
        buf_clear(&reader->gathered);
        buf_append(&reader->gathered, reader->record_bytes, reader->record_size);
        reader->record_bytes = reader->gathered.data;
    }
}

static err_t still_failed(const struct wal_reader *reader, struct errmsg *msg)
{
    return err_set(
        msg, reader->failed, "the WAL could not be read beyond " LSN_FMT,
        LSN_ARGS(reader->record_lsn));
}

err_t wal_reader_feed(struct wal_reader *reader, struct bytes wal, struct errmsg *msg)
{
    if (reader->failed != ERR_OK) {
        MARK("wal_reader.sticky");
        return still_failed(reader, msg);
    }
    ASSERT(reader->at == reader->end); /* all records of the feed before were taken */
    reader->at = wal.data;
    reader->end = wal.size > 0 ? wal.data + wal.size : wal.data;
    if (!reader->options.ends_only) {
        return ERR_OK;
    }
    err_t err;
    while ((err = find_record(reader, msg)) == ERR_OK) {
        drop_record(reader);
    }
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

err_t wal_reader_next(
    struct wal_reader *reader, const struct wal_record **ret_record, struct errmsg *msg)
{
    ASSERT(!reader->options.ends_only);
    if (reader->failed != ERR_OK) {
        return still_failed(reader, msg);
    }
    if (reader->record_end != LSN_NONE && reader->record_lsn == reader->record_end) {
        drop_record(reader); /* the one that was handed out last */
    }
    err_t err = find_record(reader, msg);
    if (err == ERR_NOT_FOUND) {
        keep_unpadded_record(reader);
        return err;
    }
    if (err != ERR_OK) {
        return err;
    }
    err = wal_record_decode(
        bytes_of(reader->record_bytes, reader->record_size), reader->record_begin,
        reader->record_end, &reader->record, msg);
    if (err != ERR_OK) {
        reader->failed = err;
        return err;
    }
    *ret_record = &reader->record;
    return ERR_OK;
}
