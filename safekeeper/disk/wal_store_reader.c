/* wal_store_reader.c - verified reads of durable WAL, beside the writer. */
#include "safekeeper/disk/wal_store_private.h"

#include "common/base/checksum.h"
#include "common/base/fault.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/io/file.h"

struct wal_store_reader {
    struct wal_files files;
    struct errmsg init_msg;
    err_t init_err;
    bool is_loaded;
    uint64_t segment;
    int fd;
    char path[PATH_SIZE];
    struct sidecar_log log; /* may be older than the file: loaded again when it does not fit */
    struct buf span;
};

struct wal_store_reader *wal_store_reader_create(const struct wal_store_options *options)
{
    struct wal_store_reader *reader = MEM_NEW(struct wal_store_reader);
    reader->fd = -1;
    reader->init_err = wal_files_init(&reader->files, options, &reader->init_msg);
    return reader;
}

static void unload(struct wal_store_reader *reader)
{
    file_close(&reader->fd);
    sidecar_log_deinit(&reader->log);
    reader->is_loaded = false;
}

void wal_store_reader_destroy(struct wal_store_reader *reader)
{
    if (reader != NULL) {
        unload(reader);
        buf_deinit(&reader->span);
        mem_free(reader);
    }
}

static err_t load(struct wal_store_reader *reader, uint64_t segment, struct errmsg *msg)
{
    char sidecar_path[PATH_SIZE];
    unload(reader);
    TRY(wal_files_path(&reader->files, segment, ".crc", sidecar_path, msg));
    TRY(wal_files_path(&reader->files, segment, "", reader->path, msg));
    TRY(sidecar_log_read(
        sidecar_path, &reader->files.identity, segment, UINT64_MAX, &reader->log, msg));
    TRY(file_open(&reader->fd, reader->path, FILE_READ, msg));
    reader->segment = segment;
    reader->is_loaded = true;
    return ERR_OK;
}

/* Index of the group that holds `lsn`; log->count when there is none. */
static size_t find_group(const struct sidecar_log *log, lsn_t lsn)
{
    size_t low = 0, high = log->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (log->groups[middle].end_lsn <= lsn) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < log->count && log->groups[low].begin_lsn <= lsn ? low : log->count;
}

/* One try within one segment: whole groups are read and checked, the wanted part is appended. */
static err_t read_groups(
    struct wal_store_reader *reader,
    lsn_t begin_lsn,
    lsn_t end_lsn,
    struct buf *to,
    struct errmsg *msg)
{
    const struct sidecar_log *log = &reader->log;
    size_t first = find_group(log, begin_lsn);
    size_t last = find_group(log, end_lsn - 1);
    if (first == log->count || last == log->count) {
        return err_set(
            msg, ERR_CORRUPT, "%s: no checksum for " LSN_FMT ".." LSN_FMT, reader->path,
            LSN_ARGS(begin_lsn), LSN_ARGS(end_lsn));
    }
    lsn_t span_begin = log->groups[first].begin_lsn;
    size_t size = (size_t)(log->groups[last].end_lsn - span_begin);
    buf_clear(&reader->span);
    uint8_t *span = buf_extend(&reader->span, size);
    TRY(file_read_at(
        reader->fd, reader->path, span, size, span_begin % reader->files.identity.segment_size,
        msg));
    for (size_t i = first; i <= last; i++) {
        const struct sidecar_group *group = &log->groups[i];
        const uint8_t *bytes = span + (group->begin_lsn - span_begin);
        if (crc32c(0, bytes, (size_t)(group->end_lsn - group->begin_lsn)) != group->wal_crc) {
            return err_set(
                msg, ERR_CORRUPT, "%s: checksum of " LSN_FMT ".." LSN_FMT " does not match",
                reader->path, LSN_ARGS(group->begin_lsn), LSN_ARGS(group->end_lsn));
        }
    }
    buf_append(to, span + (begin_lsn - span_begin), (size_t)(end_lsn - begin_lsn));
    return ERR_OK;
}

static err_t read_in_segment(
    struct wal_store_reader *reader,
    lsn_t begin_lsn,
    lsn_t end_lsn,
    struct buf *to,
    struct errmsg *msg)
{
    uint64_t segment = begin_lsn / reader->files.identity.segment_size;
    if (reader->is_loaded && reader->segment == segment) {
        err_t err = read_groups(reader, begin_lsn, end_lsn, to, msg);
        if (err != ERR_CORRUPT) {
            return err;
        }
        MARK("wal_store_reader.reload"); /* groups were added, or one was cut by a truncation */
    }
    TRY(load(reader, segment, msg));
    return read_groups(reader, begin_lsn, end_lsn, to, msg);
}

err_t wal_store_reader_read(
    struct wal_store_reader *reader,
    lsn_t begin_lsn,
    lsn_t end_lsn,
    struct buf *to,
    struct errmsg *msg)
{
    uint32_t segment_size = reader->files.identity.segment_size;
    TRY(FAULT("wal_store.before_read"));
    if (reader->init_err != ERR_OK) {
        return err_set(msg, reader->init_err, "%s", reader->init_msg.text);
    }
    lsn_t first_lsn = MAX_OF(reader->files.start_lsn, wal_files_first_lsn(&reader->files));
    if (begin_lsn < first_lsn || begin_lsn > end_lsn) {
        return err_set(
            msg, ERR_RANGE, "the WAL of this timeline begins at " LSN_FMT, LSN_ARGS(first_lsn));
    }
    while (begin_lsn < end_lsn) {
        lsn_t segment_end = begin_lsn - begin_lsn % segment_size + segment_size;
        lsn_t piece_end = MIN_OF(end_lsn, segment_end);
        TRY(read_in_segment(reader, begin_lsn, piece_end, to, msg));
        begin_lsn = piece_end;
    }
    return ERR_OK;
}
