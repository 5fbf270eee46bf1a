#include "safekeeper/disk/wal_rebuild.h"

#include "common/base/assert.h"
#include "common/base/fault.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/file.h"
#include "safekeeper/disk/wal_store_private.h"

METRIC_COUNTER(copied, "safekeeper_wal_rebuilt_bytes_total", "WAL copied for logs made anew");

/* ---- survey ---- */

err_t wal_survey(
    const struct wal_store_options *options, struct wal_survey *ret_survey, struct errmsg *msg)
{
    struct wal_files files;
    uint64_t *segments = NULL;
    size_t count = 0;
    char path[PATH_SIZE];
    struct wal_survey survey = {0};
    TRY(wal_files_init(&files, options, msg));
    survey.commit_lsn = MAX_OF(options->certified_lsn, files.begin_lsn);
    TRY(wal_files_list(&files, &segments, &count, msg));
    err_t err = ERR_OK;
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        lsn_t commit_lsn = LSN_NONE;
        err = wal_files_path(&files, segments[i], ".crc", path, msg);
        if (err == ERR_OK) {
            err = sidecar_survey(
                path, &files.identity, segments[i], &commit_lsn, &survey.end_lsn, msg);
        }
        survey.commit_lsn = MAX_OF(survey.commit_lsn, commit_lsn);
    }
    mem_free(segments);
    if (survey.end_lsn < survey.commit_lsn) {
        MARK("wal_survey.end_unknown"); /* files are gone, nobody knows how many */
        survey.end_lsn = WAL_END_UNKNOWN;
    }
    *ret_survey = survey;
    return err;
}

/* ---- the copy ---- */

struct wal_rebuild {
    char dir[PATH_SIZE];
    lsn_t end_lsn;
    struct wal_store *store;
};

static err_t beside(const char *dir, const char *suffix, char path[PATH_SIZE], struct errmsg *msg)
{
    return str_format(path, PATH_SIZE, msg, "%s%s", dir, suffix);
}

err_t wal_rebuild_open(
    const struct wal_store_options *options,
    lsn_t begin_lsn,
    lsn_t end_lsn,
    struct wal_rebuild **ret_rebuild,
    struct errmsg *msg)
{
    struct wal_rebuild *rebuild = MEM_NEW(struct wal_rebuild);
    struct wal_store_options copy = *options;
    ASSERT(options->start_lsn <= begin_lsn && begin_lsn <= end_lsn);
    rebuild->end_lsn = end_lsn;
    copy.dir = rebuild->dir;
    copy.begin_lsn = begin_lsn;
    copy.certified_lsn = LSN_NONE;
    copy.damage = NULL;
    copy.witness = NULL;
    copy.is_emptied = copy.is_tail_given_up = false;
    copy.recycled_max = 0;
    err_t err = beside(options->dir, ".new", rebuild->dir, msg);
    if (err == ERR_OK) {
        err = dir_remove(rebuild->dir, msg);
    }
    if (err == ERR_OK) {
        err = wal_store_open(&copy, &rebuild->store, msg);
    }
    if (err != ERR_OK) {
        wal_rebuild_close(rebuild);
        return err;
    }
    *ret_rebuild = rebuild;
    return ERR_OK;
}

void wal_rebuild_close(struct wal_rebuild *rebuild)
{
    if (rebuild != NULL) {
        wal_store_close(rebuild->store);
        mem_free(rebuild);
    }
}

lsn_t wal_rebuild_next_lsn(const struct wal_rebuild *rebuild)
{
    return wal_store_flush_lsn(rebuild->store);
}

/* Where records end within it nobody says, but at its end one does. */
static err_t append_group(struct wal_rebuild *rebuild, struct bytes wal, struct errmsg *msg)
{
    struct wal_store *store = rebuild->store;
    bool is_last = wal_store_flush_lsn(store) + wal.size == rebuild->end_lsn;
    struct wal_group group = {
        .wal = wal,
        .record_lsn = is_last ? rebuild->end_lsn : wal_store_record_lsn(store),
        .commit_lsn = is_last ? rebuild->end_lsn : LSN_NONE,
    };
    wal_store_group_begin(store, &group);
    TRY(wal_store_write_segment(store, &group, msg));
    TRY(wal_store_write_sidecar(store, &group, msg));
    wal_store_group_end(store, &group);
    metric_add(&copied, (int64_t)wal.size);
    return is_last ? wal_store_rest(store, rebuild->end_lsn, msg) : ERR_OK;
}

err_t wal_rebuild_append(struct wal_rebuild *rebuild, struct bytes wal, struct errmsg *msg)
{
    ASSERT(wal.size <= rebuild->end_lsn - wal_rebuild_next_lsn(rebuild));
    TRY(FAULT("wal_rebuild.before_append"));
    while (wal.size > 0) {
        size_t size = MIN_OF(wal.size, wal_store_group_room(rebuild->store));
        TRY(append_group(rebuild, bytes_of(wal.data, size), msg));
        wal = bytes_of(wal.data + size, wal.size - size);
    }
    return ERR_OK;
}

/* ---- the swap ---- */

static err_t parent_of(const char *dir, char path[PATH_SIZE], struct errmsg *msg)
{
    TRY(str_copy(path, PATH_SIZE, dir, msg));
    char *slash = strrchr(path, '/');
    ASSERT(slash != NULL && slash != path);
    *slash = '\0';
    return ERR_OK;
}

static err_t rename_folder(const char *from, const char *to, struct errmsg *msg)
{
    return vfs.rename(from, to) == 0 ? ERR_OK
                                     : err_set(msg, ERR_FAILED, "rename %s to %s: %m", from, to);
}

err_t wal_rebuild_swap(const char *dir, struct errmsg *msg)
{
    char new_dir[PATH_SIZE], old_dir[PATH_SIZE], parent[PATH_SIZE];
    TRY(beside(dir, ".new", new_dir, msg));
    TRY(beside(dir, ".old", old_dir, msg));
    TRY(parent_of(dir, parent, msg));
    TRY(dir_remove(old_dir, msg));
    TRY(FAULT("wal_rebuild.before_swap"));
    if (file_exists(dir)) {
        TRY(rename_folder(dir, old_dir, msg));
    }
    TRY(FAULT("wal_rebuild.in_swap"));
    TRY(rename_folder(new_dir, dir, msg));
    TRY(file_sync_dir(parent, msg));
    TRY(FAULT("wal_rebuild.after_swap"));
    return dir_remove(old_dir, msg);
}

err_t wal_rebuild_clean(const char *dir, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(beside(dir, ".new", path, msg));
    TRY(dir_remove(path, msg));
    TRY(beside(dir, ".old", path, msg));
    return dir_remove(path, msg);
}
