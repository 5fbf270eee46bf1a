#include "safekeeper/disk/wal_repair.h"

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/fault.h"
#include "common/base/mark.h"
#include "common/base/metric.h"
#include "common/io/file.h"
#include "safekeeper/disk/wal_preamble.h"
#include "safekeeper/disk/wal_store_private.h"

METRIC_COUNTER(groups, "safekeeper_wal_repaired_groups_total", "damaged groups put back");
METRIC_COUNTER(group_bytes, "safekeeper_wal_repaired_bytes_total", "bytes of them");

lsn_t wal_repair_begin_lsn(const struct wal_store_options *options, const struct wal_damage *damage)
{
    return MAX_OF(damage->begin_lsn, options->start_lsn);
}

/*
 * The first group covers what stands before the begin of the log, too: before the start of the
 * timeline, or where the log has begun anew.
 */
static void complete(
    const struct wal_store_options *options,
    const struct wal_damage *damage,
    lsn_t begin_lsn,
    struct bytes wal,
    struct buf *to)
{
    lsn_t fetched_lsn = wal_repair_begin_lsn(options, damage);
    buf_clear(to);
    if (damage->begin_lsn < begin_lsn && begin_lsn <= damage->end_lsn) {
        struct wal_preamble_options preamble = {
            .start_lsn = begin_lsn,
            .segment_size = options->segment_size,
            .system_id = options->system_id,
        };
        wal_preamble_append(&preamble, to);
        wal.data += begin_lsn - fetched_lsn;
        wal.size -= begin_lsn - fetched_lsn;
    }
    buf_append(to, wal.data, wal.size);
}

static bool is_whole(const struct wal_damage *damage, const struct buf *group)
{
    return group->size == damage->end_lsn - damage->begin_lsn &&
           crc32c(0, group->data, group->size) == damage->wal_crc;
}

static err_t write_group(
    const struct wal_files *files,
    const struct wal_damage *damage,
    struct bytes group,
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    int fd = -1;
    uint32_t segment_size = files->identity.segment_size;
    TRY(wal_files_path(files, damage->begin_lsn / segment_size, "", path, msg));
    TRY(FAULT("wal_repair.before_write"));
    err_t err = file_open(&fd, path, FILE_CREATE, msg); /* it may have been removed */
    if (err == ERR_OK) {
        err = file_resize(fd, path, segment_size, /* reserve */ false, msg);
    }
    if (err == ERR_OK) {
        err = file_write_at(fd, path, group, damage->begin_lsn % segment_size, msg);
    }
    if (err == ERR_OK) {
        err = file_sync(fd, path, msg);
    }
    file_close(&fd);
    return err == ERR_OK ? file_sync_dir(files->dir, msg) : err;
}

err_t wal_repair_put(
    const struct wal_store_options *options,
    const struct wal_damage *damage,
    struct bytes wal,
    struct errmsg *msg)
{
    struct wal_files files;
    struct buf group = {0};
    TRY(wal_files_init(&files, options, msg));
    err_t err = ERR_OK;
    if (wal.size == damage->end_lsn - wal_repair_begin_lsn(options, damage)) {
        complete(options, damage, options->start_lsn, wal, &group);
        if (!is_whole(damage, &group) && files.begin_lsn > options->start_lsn) {
            MARK("wal_repair.begun_anew");
            complete(options, damage, files.begin_lsn, wal, &group);
        }
    }
    if (!is_whole(damage, &group)) {
        MARK("wal_repair.other_bytes");
        err = err_set(
            msg, ERR_CORRUPT, "these are not the bytes of " LSN_FMT ".." LSN_FMT " that were here",
            LSN_ARGS(damage->begin_lsn), LSN_ARGS(damage->end_lsn));
    }
    if (err == ERR_OK) {
        err = write_group(&files, damage, buf_view(&group), msg);
    }
    if (err == ERR_OK) {
        metric_add(&groups, 1);
        metric_add(&group_bytes, (int64_t)group.size);
    }
    buf_deinit(&group);
    return err;
}
