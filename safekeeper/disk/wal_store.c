#include "safekeeper/disk/wal_store_private.h"

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/fault.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/file.h"
#include "safekeeper/disk/wal_preamble.h"

/*
 * Syncing bytes that lie over blocks which were written before needs no journal commit of the file
 * system, so zeros are written ahead, this many at a time. Large groups pay for their own blocks.
 */
#define RESERVE_SIZE       (256 * KIB)
#define RESERVE_GROUP_MAX  (64 * KIB)
#define SIDECAR_SLOTS_STEP 1024u

METRIC_COUNTER(groups, "safekeeper_wal_groups_total", "commit groups written");
METRIC_COUNTER(group_bytes, "safekeeper_wal_bytes_total", "WAL bytes written");
METRIC_COUNTER(
    certifications,
    "safekeeper_wal_certifications_total",
    "last groups proven by a record of its own");
METRIC_COUNTER(removed, "safekeeper_wal_removed_segments_total", "segments that nobody needs");
METRIC_COUNTER(reused, "safekeeper_wal_recycled_segments_total", "segments begun in an old file");
METRIC_COUNTER(truncations, "safekeeper_wal_truncations_total", "divergent tails cut");

static const uint8_t zeros[RESERVE_SIZE];

lsn_t wal_store_flush_lsn(const struct wal_store *store)
{
    return store->flush_lsn;
}

lsn_t wal_store_record_lsn(const struct wal_store *store)
{
    return store->record_lsn;
}

lsn_t wal_store_commit_lsn(const struct wal_store *store)
{
    return store->commit_lsn;
}

static uint32_t segment_size(const struct wal_store *store)
{
    return store->files.identity.segment_size;
}

err_t wal_store_open(
    const struct wal_store_options *options, struct wal_store **ret_store, struct errmsg *msg)
{
    struct wal_store *store = MEM_NEW(struct wal_store);
    store->segment_fd = store->sidecar_fd = -1;
    err_t err = wal_files_init(&store->files, options, msg);
    if (err == ERR_OK) {
        err = FAULT("wal_store.before_open");
    }
    if (err == ERR_OK) {
        err = dir_create_durably(options->dir, msg);
    }
    if (err == ERR_OK) {
        err = wal_store_recover(store, options, msg);
    }
    if (err != ERR_OK) {
        wal_store_close(store);
        return err;
    }
    *ret_store = store;
    return ERR_OK;
}

void wal_store_close(struct wal_store *store)
{
    if (store != NULL) {
        file_close(&store->segment_fd);
        file_close(&store->sidecar_fd);
        mem_free(store);
    }
}

bool wal_store_is_at_rest(const struct wal_store *store)
{
    return !store->is_group_begun && !store->is_tail_dirty && store->segment_fd < 0 &&
           store->sidecar_fd < 0;
}

struct wal_store_position wal_store_position(const struct wal_store *store)
{
    ASSERT(wal_store_is_at_rest(store));
    return (struct wal_store_position){
        .flush_lsn = store->flush_lsn,
        .record_lsn = store->record_lsn,
        .commit_lsn = store->commit_lsn,
        .sequence = store->sequence,
        .end_segment = store->end_segment,
        .end_slots = store->end_slots,
        .is_last_proven = store->is_last_proven,
    };
}

err_t wal_store_open_at(
    const struct wal_store_options *options,
    const struct wal_store_position *position,
    struct wal_store **ret_store,
    struct errmsg *msg)
{
    struct wal_store *store = MEM_NEW(struct wal_store);
    store->segment_fd = store->sidecar_fd = -1;
    err_t err = wal_files_init(&store->files, options, msg);
    if (err != ERR_OK) {
        wal_store_close(store);
        return err;
    }
    store->flush_lsn = position->flush_lsn;
    store->record_lsn = position->record_lsn;
    store->commit_lsn = position->commit_lsn;
    store->sequence = position->sequence;
    store->end_segment = position->end_segment;
    store->end_slots = position->end_slots;
    store->is_last_proven = position->is_last_proven;
    *ret_store = store;
    return ERR_OK;
}

size_t wal_store_group_room(const struct wal_store *store)
{
    size_t left = segment_size(store) - (size_t)(store->flush_lsn % segment_size(store));
    return MIN_OF(left, WAL_GROUP_MAX);
}

void wal_store_group_begin(struct wal_store *store, struct wal_group *group)
{
    ASSERT(!store->is_tail_dirty); /* a truncation is repeated until it is done */
    ASSERT(group->wal.size > 0 && group->wal.size <= wal_store_group_room(store));
    bool is_new_segment =
        store->end_slots == 0 || store->flush_lsn / segment_size(store) != store->end_segment;
    group->begin_lsn = store->flush_lsn;
    group->end_lsn = store->flush_lsn + group->wal.size;
    group->slot = is_new_segment ? 1 : store->end_slots;
    group->sequence = store->sequence + 1;
    ASSERT(group->record_lsn <= group->end_lsn);
    store->is_group_begun = true;
}

void wal_store_group_end(struct wal_store *store, const struct wal_group *group)
{
    ASSERT(store->is_group_begun && group->begin_lsn == store->flush_lsn);
    store->is_group_begun = false;
    store->is_last_proven = false;
    store->flush_lsn = group->end_lsn;
    store->record_lsn = MAX_OF(store->record_lsn, group->record_lsn);
    store->commit_lsn = MAX_OF(store->commit_lsn, group->commit_lsn);
    store->sequence = group->sequence;
    store->end_segment = group->begin_lsn / segment_size(store);
    store->end_slots = group->slot + 1;
    metric_add(&groups, 1);
    metric_add(&group_bytes, (int64_t)group->wal.size);
}

/* The very first group of a log carries what stands before its begin in the segment file. */
static bool has_preamble(const struct wal_store *store, const struct wal_group *group)
{
    return store->end_slots == 0 && group->begin_lsn == store->files.begin_lsn;
}

static void make_preamble(const struct wal_files *files, struct buf *to)
{
    struct wal_preamble_options options = {
        .start_lsn = files->begin_lsn,
        .segment_size = files->identity.segment_size,
        .system_id = files->system_id,
    };
    wal_preamble_append(&options, to);
}

static err_t open_segment(
    struct wal_store *store, uint64_t segment, lsn_t begin_lsn, struct errmsg *msg)
{
    if (store->segment_fd >= 0 && store->segment_number == segment) {
        return ERR_OK;
    }
    int fd = -1;
    bool is_reused = false;
    file_close(&store->segment_fd);
    err_t err = wal_files_path(&store->files, segment, "", store->segment_path, msg);
    if (err != ERR_OK) {
        goto out;
    }
    is_reused =
        !file_exists(store->segment_path) && wal_files_reuse(&store->files, store->segment_path);
    metric_add(&reused, is_reused ? 1 : 0);
    err = file_open(&fd, store->segment_path, FILE_CREATE, msg);
    if (err != ERR_OK) {
        goto out;
    }
    /* Always: an attempt that ran out of space may have left a file that is not complete. */
    err = file_resize(fd, store->segment_path, segment_size(store), /* reserve */ false, msg);
    if (err == ERR_OK) {
        err = file_sync_dir(store->files.dir, msg);
    }
out:
    if (err != ERR_OK) {
        file_close(&fd);
        return err;
    }
    store->segment_fd = fd;
    store->segment_number = segment;
    store->reserved_lsn = begin_lsn;
    if (is_reused) { /* it has all its blocks */
        MARK("wal_store.reused_segment");
        store->reserved_lsn = wal_files_segment_begin(&store->files, segment) + segment_size(store);
    }
    return ERR_OK;
}

/* Zeros behind the group, so that the groups after it fall on blocks that exist. */
static err_t reserve(struct wal_store *store, const struct wal_group *group, struct errmsg *msg)
{
    if (group->end_lsn <= store->reserved_lsn) {
        return ERR_OK;
    }
    lsn_t segment_end =
        wal_files_segment_begin(&store->files, store->segment_number) + segment_size(store);
    lsn_t reserved = group->end_lsn;
    if (group->wal.size < RESERVE_GROUP_MAX) {
        reserved += RESERVE_SIZE - group->end_lsn % RESERVE_SIZE;
        reserved = MIN_OF(reserved, segment_end);
    }
    struct bytes ahead = bytes_of(zeros, (size_t)(reserved - group->end_lsn));
    if (ahead.size > 0) {
        TRY(file_write_at(
            store->segment_fd, store->segment_path, ahead, group->end_lsn % segment_size(store),
            msg));
    }
    store->reserved_lsn = reserved;
    return ERR_OK;
}

err_t wal_store_write_segment(
    struct wal_store *store, const struct wal_group *group, struct errmsg *msg)
{
    TRY(FAULT("wal_store.before_write"));
    TRY(open_segment(store, group->begin_lsn / segment_size(store), group->begin_lsn, msg));
    if (has_preamble(store, group)) {
        struct buf preamble = {0};
        make_preamble(&store->files, &preamble);
        err_t err =
            file_write_at(store->segment_fd, store->segment_path, buf_view(&preamble), 0, msg);
        buf_deinit(&preamble);
        TRY(err);
    }
    TRY(file_write_at(
        store->segment_fd, store->segment_path, group->wal, group->begin_lsn % segment_size(store),
        msg));
    TRY(reserve(store, group, msg));
    TRY(FAULT("wal_store.before_sync"));
    TRY(file_sync(store->segment_fd, store->segment_path, msg));
    return FAULT("wal_store.after_sync");
}

static err_t open_sidecar(struct wal_store *store, uint64_t segment, struct errmsg *msg)
{
    if (store->sidecar_fd >= 0 && store->sidecar_number == segment) {
        return ERR_OK;
    }
    int fd = -1;
    uint64_t size = 0;
    file_close(&store->sidecar_fd);
    err_t err = wal_files_path(&store->files, segment, ".crc", store->sidecar_path, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_open(&fd, store->sidecar_path, FILE_CREATE, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_size(fd, store->sidecar_path, &size, msg);
    if (err == ERR_OK) {
        err = file_sync_dir(store->files.dir, msg);
    }
out:
    if (err != ERR_OK) {
        file_close(&fd);
        return err;
    }
    store->sidecar_fd = fd;
    store->sidecar_number = segment;
    store->sidecar_slots = (uint32_t)(size / SIDECAR_SLOT_SIZE);
    return ERR_OK;
}

/* Write a record into its slot and sync it. */
static err_t put_record(
    struct wal_store *store,
    uint64_t segment,
    const struct sidecar_record *record,
    struct errmsg *msg)
{
    TRY(open_sidecar(store, segment, msg));
    if (record->slot >= store->sidecar_slots) {
        uint32_t slots = record->slot + SIDECAR_SLOTS_STEP - record->slot % SIDECAR_SLOTS_STEP;
        static_assert((size_t)SIDECAR_SLOTS_STEP * SIDECAR_SLOT_SIZE <= sizeof(zeros), "one write");
        struct bytes ahead =
            bytes_of(zeros, (size_t)(slots - store->sidecar_slots) * SIDECAR_SLOT_SIZE);
        ASSERT(ahead.size <= sizeof(zeros));
        TRY(file_write_at(
            store->sidecar_fd, store->sidecar_path, ahead,
            (uint64_t)store->sidecar_slots * SIDECAR_SLOT_SIZE, msg));
        store->sidecar_slots = slots;
    }
    /* The header goes with the first record: both lie in one sector. */
    uint8_t image[2 * SIDECAR_SLOT_SIZE];
    bool is_first = record->slot == 1;
    sidecar_header_encode(&store->files.identity, segment, image);
    sidecar_record_encode(&store->files.identity, segment, record, image + SIDECAR_SLOT_SIZE);
    struct bytes bytes = is_first ? bytes_of(image, sizeof(image))
                                  : bytes_of(image + SIDECAR_SLOT_SIZE, SIDECAR_SLOT_SIZE);
    uint64_t at = is_first ? 0 : (uint64_t)record->slot * SIDECAR_SLOT_SIZE;
    TRY(file_write_at(store->sidecar_fd, store->sidecar_path, bytes, at, msg));
    TRY(FAULT("wal_sidecar.before_sync"));
    return file_sync(store->sidecar_fd, store->sidecar_path, msg);
}

static struct sidecar_record record_of_group(
    const struct wal_store *store, const struct wal_group *group)
{
    struct sidecar_record record = {
        .kind = SIDECAR_GROUP,
        .slot = group->slot,
        .sequence = group->sequence,
        .begin_lsn = group->begin_lsn,
        .end_lsn = group->end_lsn,
        .record_lsn = MAX_OF(store->record_lsn, group->record_lsn),
        .commit_lsn = group->commit_lsn,
    };
    if (has_preamble(store, group)) {
        struct buf preamble = {0};
        make_preamble(&store->files, &preamble);
        record.begin_lsn = wal_files_first_lsn(&store->files);
        record.wal_crc = crc32c(0, preamble.data, preamble.size);
        buf_deinit(&preamble);
    }
    record.wal_crc = crc32c(record.wal_crc, group->wal.data, group->wal.size);
    return record;
}

err_t wal_store_write_sidecar(
    struct wal_store *store, const struct wal_group *group, struct errmsg *msg)
{
    TRY(FAULT("wal_sidecar.before_write"));
    struct sidecar_record record = record_of_group(store, group);
    TRY(put_record(store, group->begin_lsn / segment_size(store), &record, msg));
    return FAULT("wal_sidecar.after_sync");
}

bool wal_store_is_in_place(const struct wal_store *store, const struct wal_group *group)
{
    uint64_t segment = group->begin_lsn / segment_size(store);
    return group->wal.size <= RESERVE_GROUP_MAX && store->segment_fd >= 0 &&
           store->segment_number == segment && group->end_lsn <= store->reserved_lsn &&
           store->sidecar_fd >= 0 && store->sidecar_number == segment && group->slot > 1 &&
           group->slot < store->sidecar_slots;
}

err_t wal_store_write_in_place(
    struct wal_store *store,
    const struct wal_group *group,
    struct wal_store_files *ret_files,
    struct errmsg *msg)
{
    uint8_t image[SIDECAR_SLOT_SIZE];
    if (!wal_store_is_in_place(store, group) || (fault_enabled && fault_is_armed())) {
        return ERR_UNSUPPORTED;
    }
    MARK("wal_store.in_place");
    struct sidecar_record record = record_of_group(store, group);
    sidecar_record_encode(&store->files.identity, store->segment_number, &record, image);
    TRY(file_write_at(
        store->segment_fd, store->segment_path, group->wal, group->begin_lsn % segment_size(store),
        msg));
    TRY(file_write_at(
        store->sidecar_fd, store->sidecar_path, bytes_of(image, sizeof(image)),
        (uint64_t)record.slot * SIDECAR_SLOT_SIZE, msg));
    *ret_files = (struct wal_store_files){
        .fds = {store->segment_fd, store->sidecar_fd},
        .paths = {store->segment_path, store->sidecar_path},
    };
    return ERR_OK;
}

/*
 * What is left of the group that `lsn` cuts gets a checksum of its own; the old one is checked
 * first, so that damage is not certified.
 */
static err_t recertify(
    struct wal_store *store,
    const struct sidecar_log *log,
    uint64_t segment,
    struct sidecar_record *record,
    struct errmsg *msg)
{
    record->begin_lsn = record->end_lsn;
    size_t i = log->count;
    while (i > 0 && log->groups[i - 1].begin_lsn >= record->end_lsn) {
        i--;
    }
    if (i == 0 || log->groups[i - 1].end_lsn <= record->end_lsn) {
        return ERR_OK;
    }
    const struct sidecar_group *group = &log->groups[i - 1];
    char path[PATH_SIZE];
    int fd = -1;
    uint32_t crc = 0;
    TRY(wal_files_path(&store->files, segment, "", path, msg));
    TRY(file_open(&fd, path, FILE_READ, msg));
    err_t err = wal_files_crc(&store->files, fd, path, group->begin_lsn, group->end_lsn, &crc, msg);
    /* A group that was never ended may have a record without its bytes; it is dropped whole. */
    if (err == ERR_OK && crc != group->wal_crc) {
        err = err_set(
            msg, ERR_CORRUPT, "%s: checksum of " LSN_FMT ".." LSN_FMT " does not match", path,
            LSN_ARGS(group->begin_lsn), LSN_ARGS(group->end_lsn));
    }
    if (err == ERR_OK) {
        record->begin_lsn = group->begin_lsn;
        err = wal_files_crc(
            &store->files, fd, path, record->begin_lsn, record->end_lsn, &record->wal_crc, msg);
    }
    file_close(&fd);
    return err;
}

/* Owed after a durable TRUNCATE record; a recovery does the same when a crash interrupts this. */
static err_t clear_behind(struct wal_store *store, struct errmsg *msg)
{
    file_close(&store->segment_fd);
    file_close(&store->sidecar_fd);
    TRY(FAULT("wal_store.truncate_before_zero"));
    TRY(wal_files_zero_tail(&store->files, store->end_segment, store->flush_lsn, msg));
    TRY(FAULT("wal_store.truncate_before_remove"));
    TRY(wal_files_remove_behind(&store->files, store->end_segment, msg));
    store->is_tail_dirty = false;
    return ERR_OK;
}

/* Nothing durable was ever written: drop what a group that was never ended may have left. */
static err_t truncate_empty(struct wal_store *store, struct errmsg *msg)
{
    file_close(&store->segment_fd);
    file_close(&store->sidecar_fd);
    TRY(wal_files_remove_segment(&store->files, store->end_segment, msg));
    TRY(file_sync_dir(store->files.dir, msg));
    store->is_group_begun = false;
    return ERR_OK;
}

/* From the moment the record is durable the log ends there, whatever happens to the rest. */
static err_t cut(struct wal_store *store, lsn_t lsn, struct errmsg *msg)
{
    uint64_t segment = wal_files_end_segment(&store->files, lsn);
    char path[PATH_SIZE];
    struct sidecar_log log = {0};
    TRY(wal_files_path(&store->files, segment, ".crc", path, msg));
    TRY(sidecar_log_read(path, &store->files.identity, segment, store->sequence, &log, msg));
    struct sidecar_record record = {
        .kind = SIDECAR_TRUNCATE,
        .slot = log.slots, /* over the record of a group that was never ended, if there is one */
        .sequence = store->sequence + 1,
        .end_lsn = lsn,
        .record_lsn = lsn,
        .commit_lsn = store->commit_lsn,
    };
    ASSERT(IMPLIES(segment == store->end_segment, record.slot == store->end_slots));
    err_t err = recertify(store, &log, segment, &record, msg);
    sidecar_log_deinit(&log);
    TRY(err);
    TRY(put_record(store, segment, &record, msg));
    metric_add(&truncations, 1);
    MARK("wal_store.truncated");
    store->flush_lsn = store->record_lsn = lsn;
    store->sequence = record.sequence;
    store->end_segment = segment;
    store->end_slots = record.slot + 1;
    store->is_group_begun = false;
    store->is_last_proven = true;
    store->is_tail_dirty = true;
    return ERR_OK;
}

err_t wal_store_truncate(struct wal_store *store, lsn_t lsn, struct errmsg *msg)
{
    ASSERT(lsn >= store->files.begin_lsn && lsn <= store->flush_lsn);
    TRY(FAULT("wal_store.before_truncate"));
    if (store->end_slots == 0) {
        return truncate_empty(store, msg);
    }
    if (lsn < store->flush_lsn || store->is_group_begun) {
        TRY(cut(store, lsn, msg));
    }
    store->record_lsn = lsn;
    return store->is_tail_dirty ? clear_behind(store, msg) : ERR_OK;
}

err_t wal_store_certify(struct wal_store *store, lsn_t commit_lsn, struct errmsg *msg)
{
    ASSERT(!store->is_tail_dirty);
    if (store->end_slots == 0 || store->is_group_begun) {
        return ERR_OK;
    }
    struct sidecar_record record = {
        .kind = SIDECAR_CERTIFY,
        .slot = store->end_slots,
        .sequence = store->sequence + 1,
        .begin_lsn = store->flush_lsn,
        .end_lsn = store->flush_lsn,
        .record_lsn = store->record_lsn,
        .commit_lsn = MAX_OF(commit_lsn, store->commit_lsn),
    };
    TRY(put_record(store, store->end_segment, &record, msg));
    metric_add(&certifications, 1);
    store->sequence = record.sequence;
    store->end_slots++;
    store->is_last_proven = true;
    store->commit_lsn = record.commit_lsn;
    return ERR_OK;
}

bool wal_store_is_proven(const struct wal_store *store)
{
    return store->is_last_proven;
}

err_t wal_store_rest(struct wal_store *store, lsn_t commit_lsn, struct errmsg *msg)
{
    err_t err = ERR_OK;
    if (!store->is_last_proven || commit_lsn > store->commit_lsn) {
        err = wal_store_certify(store, commit_lsn, msg);
    }
    file_close(&store->segment_fd);
    file_close(&store->sidecar_fd);
    return err == ERR_OK ? wal_files_drop_recycled(&store->files, msg) : err;
}

/* ---- the begin ---- */

err_t wal_store_empty(struct wal_store *store, lsn_t lsn, struct errmsg *msg)
{
    uint64_t *segments = NULL;
    size_t count = 0;
    file_close(&store->segment_fd);
    file_close(&store->sidecar_fd);
    TRY(FAULT("wal_store.before_empty"));
    TRY(wal_files_list(&store->files, &segments, &count, msg));
    err_t err = ERR_OK;
    for (size_t i = count; i > 0 && err == ERR_OK; i--) {
        err = wal_files_remove_segment(&store->files, segments[i - 1], msg);
    }
    mem_free(segments);
    TRY(err);
    TRY(file_sync_dir(store->files.dir, msg));
    store->files.begin_lsn = lsn;
    store->flush_lsn = store->record_lsn = store->commit_lsn = lsn;
    store->end_segment = wal_files_end_segment(&store->files, lsn);
    store->end_slots = 0;
    store->is_group_begun = store->is_tail_dirty = false;
    store->is_last_proven = true;
    return ERR_OK;
}

void wal_store_set_begin(struct wal_store *store, lsn_t begin_lsn)
{
    ASSERT(begin_lsn <= store->flush_lsn);
    store->files.begin_lsn = MAX_OF(store->files.begin_lsn, begin_lsn);
}

err_t wal_store_record_end(
    const struct wal_store_options *options, lsn_t lsn, lsn_t *ret_lsn, struct errmsg *msg)
{
    struct wal_files files;
    char path[PATH_SIZE];
    TRY(wal_files_init(&files, options, msg));
    uint64_t segment = lsn / files.identity.segment_size + 1;
    uint64_t first = wal_files_first_lsn(&files) / files.identity.segment_size;
    lsn_t best_lsn = files.begin_lsn;
    while (segment > first && best_lsn == files.begin_lsn) {
        struct sidecar_log log;
        TRY(wal_files_path(&files, --segment, ".crc", path, msg));
        TRY(sidecar_log_read(path, &files.identity, segment, UINT64_MAX, &log, msg));
        for (size_t i = 0; i < log.count; i++) {
            lsn_t end_lsn = log.groups[i].record_lsn;
            best_lsn = end_lsn <= lsn ? MAX_OF(best_lsn, end_lsn) : best_lsn;
        }
        sidecar_log_deinit(&log);
    }
    *ret_lsn = best_lsn;
    return ERR_OK;
}

/* Oldest first. The control file says where the log begins, so an interruption leaves no hole. */
err_t wal_store_remove(
    const struct wal_store_options *options, uint64_t *ret_removed, struct errmsg *msg)
{
    struct wal_files files;
    uint64_t *segments = NULL;
    size_t count = 0;
    bool is_kept = false;
    *ret_removed = 0;
    TRY(wal_files_init(&files, options, msg));
    TRY(FAULT("wal_store.before_remove"));
    TRY(wal_files_list(&files, &segments, &count, msg));
    err_t err = ERR_OK;
    uint64_t first = wal_files_first_lsn(&files) / files.identity.segment_size;
    for (size_t i = 0; i < count && segments[i] < first && err == ERR_OK; i++) {
        err = wal_files_recycle(&files, segments[i], &is_kept, msg);
        *ret_removed += err == ERR_OK;
    }
    mem_free(segments);
    metric_add(&removed, (int64_t)*ret_removed);
    return err == ERR_OK && *ret_removed > 0 ? file_sync_dir(files.dir, msg) : err;
}
