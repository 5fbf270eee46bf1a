#include "compute/agent/wal_files.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "common/base/mark.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "common/pg/cursor.h"
#include "common/pg/wal_page.h"

#define SEGMENT_SIZE    ((lsn_t)16 * MIB)
#define RECORD_SIZE_MAX (1 * GIB)

lsn_t wal_files_begin(lsn_t needed, lsn_t timeline_start)
{
    return MAX_OF(needed - needed % WAL_PAGE_SIZE, timeline_start);
}

lsn_t wal_files_piece_end(lsn_t begin, lsn_t end)
{
    lsn_t segment_end = begin - begin % SEGMENT_SIZE + SEGMENT_SIZE;
    return MIN_OF(MIN_OF(begin + WAL_FILES_PIECE, segment_end), end);
}

void wal_files_init(struct wal_files *files, lsn_t needed, lsn_t timeline_start)
{
    struct wal_reader_options options = {
        .start_lsn = needed,
        .segment_size = (uint32_t)SEGMENT_SIZE,
        .system_id = files->system_id,
        .record_size_max = RECORD_SIZE_MAX,
    };
    files->next_lsn = wal_files_begin(needed, timeline_start);
    files->reader = wal_reader_create(&options);
}

void wal_files_deinit(struct wal_files *files)
{
    wal_reader_destroy(files->reader);
    files->reader = NULL;
}

static err_t open_for(
    const struct wal_files *files, const char *path, int *ret_fd, struct errmsg *msg)
{
    int fd = -1;
    TRY(file_open(&fd, path, FILE_CREATE, msg));
    if (files->user->name[0] != '\0' && fchown(fd, files->user->uid, files->user->gid) != 0) {
        err_t err =
            err_set(msg, err_from_errno(errno), "give %s to %s: %m", path, files->user->name);
        file_close(&fd);
        return err;
    }
    *ret_fd = fd;
    return ERR_OK;
}

/* -- pg_wal -- */

/*
 * A segment begins with a header, and so does the page where our WAL begins; readers look at both.
 * What is between is never read.
 */
static err_t put_headers(
    const struct wal_files *files, int fd, const char *path, lsn_t begin, struct errmsg *msg)
{
    lsn_t places[] = {begin - begin % SEGMENT_SIZE, begin - begin % WAL_PAGE_SIZE};
    TRY(file_resize(fd, path, SEGMENT_SIZE, false, msg));
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        uint8_t header[WAL_PAGE_HEADER_LONG];
        struct wal_page_header fields = {
            .tli = 1,
            .lsn = places[i],
            .system_id = files->system_id,
            .segment_size = (uint32_t)SEGMENT_SIZE,
        };
        size_t size = wal_page_header_write(&fields, header);
        TRY(file_write_at(fd, path, bytes_of(header, size), places[i] % SEGMENT_SIZE, msg));
    }
    return ERR_OK;
}

static err_t put_wal(
    const struct wal_files *files, lsn_t begin, struct bytes wal, struct errmsg *msg)
{
    char path[PATH_SIZE];
    int fd = -1;
    TRY(str_format(
        path, sizeof(path), msg, "%s/pgdata/pg_wal/%s", files->dir,
        wal_segment_name(begin, (uint32_t)SEGMENT_SIZE).text));
    bool is_new = !file_exists(path);
    TRY(open_for(files, path, &fd, msg));
    err_t err = is_new ? put_headers(files, fd, path, begin, msg) : ERR_OK;
    if (err == ERR_OK) {
        err = file_write_at(fd, path, wal, begin % SEGMENT_SIZE, msg);
    }
    file_close(&fd);
    return err;
}

/* -- pg_logical/mappings -- */

/* rewriteheap.h of Postgres 17: xl_heap_rewrite_mapping, LogicalRewriteMappingData. */
enum { HEAP2_OP_REWRITE = 0x00, HEAP2_OP_MASK = 0x70, MAPPING_SIZE = 36 };

static err_t put_mapping(
    const struct wal_files *files, const struct wal_record *record, struct errmsg *msg)
{
    char path[PATH_SIZE];
    int fd = -1;
    struct cursor in = cursor_of(record->main_data);
    uint32_t mapped_xid = cursor_u32(&in);
    uint32_t db = cursor_u32(&in);
    uint32_t rel = cursor_u32(&in);
    cursor_skip(&in, 4);
    uint64_t offset = cursor_u64(&in);
    uint32_t count = cursor_u32(&in);
    cursor_skip(&in, 4);
    lsn_t start_lsn = cursor_u64(&in);
    struct bytes mappings = cursor_array(&in, count, MAPPING_SIZE);
    if (!cursor_is_good(&in) || offset > INT64_MAX - mappings.size) {
        MARK("wal_files.mapping_malformed");
        return err_set(
            msg, ERR_CORRUPT, "rewrite at " LSN_FMT " is malformed", LSN_ARGS(record->lsn));
    }
    TRY(str_format(
        path, sizeof(path), msg,
        "%s/pgdata/pg_logical/mappings/map-%" PRIx32 "-%" PRIx32 "-%" PRIX32 "_%" PRIX32 "-%" PRIx32
        "-%" PRIx32,
        files->dir, db, rel, (uint32_t)(start_lsn >> 32), (uint32_t)start_lsn, mapped_xid,
        record->xid));
    TRY(open_for(files, path, &fd, msg));
    err_t err = file_resize(fd, path, offset, false, msg);
    if (err == ERR_OK) {
        err = file_write_at(fd, path, mappings, offset, msg);
    }
    file_close(&fd);
    return err;
}

/* ERR_NOT_FOUND: all records were looked at. */
static err_t take_records(const struct wal_files *files, struct errmsg *msg)
{
    for (;;) {
        const struct wal_record *record = NULL;
        TRY(wal_reader_next(files->reader, &record, msg));
        if (record->rmgr == RM_HEAP2 && (record->info & HEAP2_OP_MASK) == HEAP2_OP_REWRITE) {
            TRY(put_mapping(files, record, msg));
        }
    }
}

static err_t look_for_mappings(
    struct wal_files *files, lsn_t begin, struct bytes wal, struct errmsg *msg)
{
    if (files->reader == NULL) {
        return ERR_OK;
    }
    lsn_t next = wal_reader_next_lsn(files->reader);
    if (begin != files->next_lsn || next < begin) {
        MARK("wal_files.gap");
        wal_files_deinit(files);
        return ERR_OK;
    }
    size_t skip = (size_t)MIN_OF(next - begin, (lsn_t)wal.size);
    err_t err = wal_reader_feed(files->reader, bytes_of(wal.data + skip, wal.size - skip), msg);
    if (err == ERR_OK) {
        err = take_records(files, msg);
    }
    files->next_lsn = begin + wal.size;
    if (err == ERR_CORRUPT || err == ERR_FULL) {
        MARK("wal_files.unreadable");
        wal_files_deinit(files);
        return ERR_OK;
    }
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

err_t wal_files_put(struct wal_files *files, lsn_t begin, struct bytes wal, struct errmsg *msg)
{
    if (wal.size == 0 || wal_files_piece_end(begin, begin + wal.size) != begin + wal.size) {
        return err_set(msg, ERR_CORRUPT, "%zu bytes of WAL at " LSN_FMT, wal.size, LSN_ARGS(begin));
    }
    TRY(put_wal(files, begin, wal, msg));
    return look_for_mappings(files, begin, wal, msg);
}
