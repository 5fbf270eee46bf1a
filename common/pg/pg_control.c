#include "common/pg/pg_control.h"

#include "common/base/checksum.h"
#include "common/base/mark.h"
#include "common/pg/page.h"
#include "common/pg/pg_version.h"
#include "common/pg/wal_page.h"

static uint32_t crc_of(const struct pg_control *control)
{
    return crc32c(0, control, offsetof(struct pg_control, crc));
}

/* Does a server like ours understand what this file belongs to? */
static err_t check_compatible(const struct pg_control *control, struct errmsg *msg)
{
    const struct {
        const char *name;
        uint64_t got, wanted;
    } fields[] = {
        {"control version", control->control_version, PG_CONTROL_VERSION},
        {"catalog version", control->catalog_version, PG_CATALOG_VERSION},
        {"page size", control->page_size, PAGE_SIZE},
        {"WAL page size", control->wal_page_size, WAL_PAGE_SIZE},
        {"alignment", control->max_align, 8},
        {"floating point format", control->float_format == 1234567.0, 1},
        {"float8 by value", control->float8_by_value, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (fields[i].got != fields[i].wanted) {
            MARK("pg_control.incompatible");
            return err_set(
                msg, ERR_UNSUPPORTED, "pg_control: %s is %" PRIu64 ", we need %" PRIu64,
                fields[i].name, fields[i].got, fields[i].wanted);
        }
    }
    return ERR_OK;
}

static bool is_segment_size(uint32_t size)
{
    return size >= MIB && size <= GIB && (size & (size - 1)) == 0;
}

err_t pg_control_parse(struct bytes file, struct pg_control *ret_control, struct errmsg *msg)
{
    struct pg_control control;
    if (file.size < sizeof(control)) {
        MARK("pg_control.short");
        return err_set(msg, ERR_CORRUPT, "pg_control has only %zu bytes", file.size);
    }
    memcpy(&control, file.data, sizeof(control));
    if (control.control_version != PG_CONTROL_VERSION) {
        return check_compatible(&control, msg); /* its CRC stands elsewhere */
    }
    if (crc_of(&control) != control.crc) {
        MARK("pg_control.bad_crc");
        return err_set(
            msg, ERR_CORRUPT, "pg_control: checksum is %08" PRIx32 ", computed %08" PRIx32,
            control.crc, crc_of(&control));
    }
    TRY(check_compatible(&control, msg));
    if (!is_segment_size(control.wal_segment_size)) {
        MARK("pg_control.bad_segment_size");
        return err_set(
            msg, ERR_UNSUPPORTED, "pg_control: WAL segment size %" PRIu32,
            control.wal_segment_size);
    }
    *ret_control = control;
    return ERR_OK;
}

void pg_control_write(const struct pg_control *control, uint8_t to[PG_CONTROL_FILE_SIZE])
{
    struct pg_control sealed = *control;
    sealed.crc = crc_of(&sealed);
    memset(to, 0, PG_CONTROL_FILE_SIZE);
    memcpy(to, &sealed, sizeof(sealed));
}

err_t pg_checkpoint_parse(
    struct bytes main_data, struct pg_checkpoint *ret_checkpoint, struct errmsg *msg)
{
    if (main_data.size != PG_CHECKPOINT_SIZE) {
        MARK("pg_control.checkpoint_size");
        return err_set(
            msg, ERR_CORRUPT, "checkpoint of %zu bytes instead of %d", main_data.size,
            PG_CHECKPOINT_SIZE);
    }
    memcpy(ret_checkpoint, main_data.data, PG_CHECKPOINT_SIZE);
    return ERR_OK;
}

enum {
    MAIN_HEADER_SIZE = 2, /* id 255, u8 size */
    CHECKPOINT_RECORD_SIZE = WAL_RECORD_HEADER_SIZE + MAIN_HEADER_SIZE + PG_CHECKPOINT_SIZE
};

static void build_checkpoint_record(
    const struct pg_checkpoint *checkpoint, lsn_t prev_lsn, uint8_t *to)
{
    memset(
        to, 0, WAL_RECORD_HEADER_SIZE); /* info 0 of resource manager 0 is a shutdown checkpoint */
    page_set_u32(to, 0, CHECKPOINT_RECORD_SIZE);
    memcpy(to + 8, &prev_lsn, sizeof(prev_lsn));
    to[WAL_RECORD_HEADER_SIZE] = 255;
    to[WAL_RECORD_HEADER_SIZE + 1] = PG_CHECKPOINT_SIZE;
    memcpy(to + WAL_RECORD_HEADER_SIZE + MAIN_HEADER_SIZE, checkpoint, PG_CHECKPOINT_SIZE);
    page_set_u32(to, 20, wal_record_crc(bytes_of(to, CHECKPOINT_RECORD_SIZE)));
}

static void append_zeros(struct buf *to, size_t count)
{
    if (count > 0) {
        memset(buf_extend(to, count), 0, count);
    }
}

/* `rest_size` bytes behind the header belong to a record that began before the page. */
static void append_page_header(
    const struct pg_control *control, lsn_t page_lsn, size_t rest_size, struct buf *wal)
{
    struct wal_page_header header = {
        .flags = rest_size > 0 ? WAL_PAGE_FIRST_IS_CONTRECORD : 0,
        .tli = control->checkpoint.timeline,
        .lsn = page_lsn,
        .rest_size = (uint32_t)rest_size,
        .system_id = control->system_id,
        .segment_size = control->wal_segment_size,
    };
    uint8_t bytes[WAL_PAGE_HEADER_LONG];
    buf_append(wal, bytes, wal_page_header_write(&header, bytes));
}

static void append_wal_at(
    const struct pg_control *control, lsn_t begin, struct bytes record, struct buf *wal)
{
    lsn_t segment = begin - begin % control->wal_segment_size;
    lsn_t page = begin - begin % WAL_PAGE_SIZE;
    if (page != segment) {
        append_page_header(control, segment, 0, wal);
        append_zeros(wal, (size_t)(page - segment) - WAL_PAGE_HEADER_LONG);
    }
    size_t behind_header =
        (size_t)(begin - page) - wal_page_header_size(page, control->wal_segment_size);
    append_page_header(control, page, behind_header, wal);
    append_zeros(wal, behind_header);

    lsn_t lsn = begin;
    for (size_t done = 0; done < record.size;) {
        if (lsn % WAL_PAGE_SIZE == 0) {
            append_page_header(control, lsn, record.size - done, wal);
            lsn = lsn_skip_header(lsn, control->wal_segment_size);
        }
        size_t left_on_page = WAL_PAGE_SIZE - (size_t)(lsn % WAL_PAGE_SIZE);
        size_t part = MIN_OF(left_on_page, record.size - done);
        buf_append(wal, record.data + done, part);
        done += part;
        lsn += part;
    }
    append_zeros(wal, (size_t)(-lsn % 8));
}

err_t pg_control_start_at(
    struct pg_control *control,
    lsn_t lsn,
    lsn_t prev_lsn,
    struct buf *wal,
    lsn_t *ret_wal_lsn,
    struct errmsg *msg)
{
    uint32_t segment_size = control->wal_segment_size;
    ASSERT(is_segment_size(segment_size));
    if (lsn != lsn_canonical(lsn, segment_size) || lsn < segment_size || prev_lsn >= lsn) {
        MARK("pg_control.bad_start");
        return err_set(
            msg, ERR_INVALID, "cannot start at " LSN_FMT " behind " LSN_FMT, LSN_ARGS(lsn),
            LSN_ARGS(prev_lsn));
    }
    lsn_t begin = lsn_skip_header(lsn, segment_size);
    struct pg_checkpoint *checkpoint = &control->checkpoint;
    checkpoint->redo = begin;
    checkpoint->timeline = checkpoint->prev_timeline = 1;
    checkpoint->oldest_active_xid = 0;
    control->state = PG_CONTROL_SHUT_DOWN;
    control->checkpoint_lsn = begin;
    control->min_recovery_lsn = control->backup_start_lsn = control->backup_end_lsn = LSN_NONE;
    control->min_recovery_timeline = 0;
    control->backup_end_required = 0;

    uint8_t record[CHECKPOINT_RECORD_SIZE];
    build_checkpoint_record(checkpoint, prev_lsn, record);
    append_wal_at(control, begin, bytes_of(record, sizeof(record)), wal);
    *ret_wal_lsn = begin - begin % segment_size;
    return ERR_OK;
}
