/*
 * wal_recovery.c - what a start does with the WAL of a timeline: verify, cut a torn end, clean up.
 *
 * Every step may be repeated: a crash in the middle of a recovery is followed by another recovery
 * that comes to the same end.
 */
#include "safekeeper/disk/wal_store_private.h"

#include "common/base/log.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "safekeeper/disk/settle.h"

struct recovery {
    struct wal_store *store;
    lsn_t end_lsn;       /* of the verified groups so far */
    lsn_t certified_lsn; /* the log must reach at least this far */
    lsn_t suspect_lsn;   /* end of records behind the end that may have been acknowledged */
    struct wal_witness *witness;
    struct wal_damage_list *damage;
    struct sidecar_group torn; /* the last group, if it does not match */
    char torn_path[PATH_SIZE];
    struct errmsg first_damage;
    bool is_damaged, is_tail_given_up;
    lsn_t whole_record_lsn; /* last record end before the first damage */
    uint64_t last_sequence; /* of the segments so far */
    uint64_t truncate_sequence;
    bool is_end_found; /* whatever comes behind must be without a record */
};

/* ERR_OK and *ret_matches; other errors mean that the disk could not be read. */
static err_t group_matches(
    const struct wal_files *files,
    int fd,
    const char *path,
    const struct sidecar_group *group,
    bool *ret_matches,
    struct errmsg *msg)
{
    uint32_t crc = 0;
    if (fd < 0) {
        *ret_matches = false;
        return ERR_OK;
    }
    err_t err = wal_files_crc(files, fd, path, group->begin_lsn, group->end_lsn, &crc, msg);
    if (err != ERR_OK && err != ERR_CORRUPT) {
        return err;
    }
    *ret_matches = err == ERR_OK && crc == group->wal_crc;
    return ERR_OK;
}

static void note_damage(struct recovery *recovery, const struct sidecar_group *group)
{
    struct wal_damage_list *list = recovery->damage;
    if (list != NULL && list->count < WAL_DAMAGE_MAX) {
        list->items[list->count++] = (struct wal_damage){
            .begin_lsn = group->begin_lsn,
            .end_lsn = group->end_lsn,
            .wal_crc = group->wal_crc,
        };
    }
}

/* ERR_OK: the caller has a list, and wants to know of what is damaged behind, too. */
static err_t note_certified_damage(
    struct recovery *recovery,
    const struct sidecar_group *group,
    const char *path,
    struct errmsg *msg)
{
    MARK("wal_recovery.certified_damage");
    err_t err = err_set(
        msg, ERR_CORRUPT,
        "%s: checksum of " LSN_FMT ".." LSN_FMT ", which was durable, does not match", path,
        LSN_ARGS(group->begin_lsn), LSN_ARGS(group->end_lsn));
    if (recovery->damage == NULL) {
        return err;
    }
    if (!recovery->is_damaged) {
        recovery->is_damaged = true;
        recovery->first_damage = *msg;
        recovery->whole_record_lsn = recovery->store->record_lsn;
    }
    note_damage(recovery, group);
    recovery->end_lsn = group->end_lsn;
    recovery->store->record_lsn = group->record_lsn;
    return ERR_OK;
}

static err_t verify_groups(
    struct recovery *recovery,
    struct sidecar_log *log,
    int fd,
    const char *path,
    struct errmsg *msg)
{
    for (size_t i = 0; i < log->count; i++) {
        const struct sidecar_group *group = &log->groups[i];
        bool matches = false;
        TRY(group_matches(&recovery->store->files, fd, path, group, &matches, msg));
        if (!matches && group->end_lsn <= recovery->store->files.begin_lsn && i + 1 < log->count) {
            MARK("wal_recovery.forgotten_damage"); /* nobody will read that */
            matches = true;
        }
        if (matches) {
            recovery->end_lsn = group->end_lsn;
            recovery->store->record_lsn = group->record_lsn;
            continue;
        }
        /* The certified_lsn of the caller is judged at the end, when all segments were seen. */
        if (group->is_certified || i + 1 < log->count) {
            TRY(note_certified_damage(recovery, group, path, msg));
            continue;
        }
        MARK("wal_recovery.torn_group");
        recovery->is_end_found = true;
        recovery->torn = *group;
        TRY(str_copy(recovery->torn_path, sizeof(recovery->torn_path), path, msg));
        recovery->suspect_lsn = group->record_lsn;
        log->count--;
        log->slots--;
        log->last_sequence--;
    }
    return ERR_OK;
}

/* The last group of a segment looked torn; a record of the next segment proves that it was not. */
static err_t judge_torn_group(
    struct recovery *recovery, const struct sidecar_log *log, struct errmsg *msg)
{
    bool is_proven = recovery->is_end_found && log->count > 0 &&
                     log->groups[0].begin_lsn == recovery->torn.end_lsn &&
                     log->first_sequence == recovery->last_sequence + 2;
    if (!is_proven || recovery->damage == NULL) {
        return ERR_OK;
    }
    recovery->is_end_found = false;
    recovery->last_sequence++;
    return note_certified_damage(recovery, &recovery->torn, recovery->torn_path, msg);
}

static err_t check_order(
    const struct recovery *recovery,
    const struct sidecar_log *log,
    const char *path,
    struct errmsg *msg)
{
    bool follows = log->count == 0 || log->groups[0].begin_lsn == recovery->end_lsn;
    bool counts =
        recovery->last_sequence == 0 || log->first_sequence == recovery->last_sequence + 1;
    if (recovery->is_end_found || !follows || !counts) {
        return err_set(
            msg, ERR_CORRUPT,
            "%s has durable WAL, but the log before it ends at " LSN_FMT " with sequence %" PRIu64,
            path, LSN_ARGS(recovery->end_lsn), recovery->last_sequence);
    }
    return ERR_OK;
}

/* A segment whose records are all older than the truncation of one before it was cut off. */
static bool is_leftover(const struct recovery *recovery, const struct sidecar_log *log)
{
    return log->last_sequence <= recovery->truncate_sequence;
}

/*
 * A record that cannot be read stood behind the end, of a group that we know no more about than its
 * greatest possible size.
 */
static void suspect_unreadable(struct recovery *recovery, uint64_t segment)
{
    lsn_t begin = wal_files_segment_begin(&recovery->store->files, segment);
    lsn_t segment_end = begin + recovery->store->files.identity.segment_size;
    lsn_t end_lsn = MAX_OF(recovery->end_lsn, recovery->suspect_lsn);
    end_lsn = MAX_OF(end_lsn, recovery->store->files.begin_lsn);
    if (end_lsn >= begin && end_lsn < segment_end) {
        MARK("wal_recovery.unreadable_record");
        lsn_t group_end = MIN_OF(segment_end, end_lsn + WAL_GROUP_MAX);
        recovery->suspect_lsn = group_end;
    }
}

/* Only the last two can hold anything that was not durable: a group never crosses segments. */
static err_t settle_segment(const struct wal_files *files, uint64_t segment, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(wal_files_path(files, segment, ".crc", path, msg));
    TRY(file_settle(path, msg));
    TRY(wal_files_path(files, segment, "", path, msg));
    return file_settle(path, msg);
}

static err_t recover_segment(struct recovery *recovery, uint64_t segment, struct errmsg *msg)
{
    struct wal_store *store = recovery->store;
    char path[PATH_SIZE], sidecar_path[PATH_SIZE];
    struct sidecar_log log = {0};
    int fd = -1;
    TRY(wal_files_path(&store->files, segment, "", path, msg));
    TRY(wal_files_path(&store->files, segment, ".crc", sidecar_path, msg));
    TRY(sidecar_log_read(sidecar_path, &store->files.identity, segment, UINT64_MAX, &log, msg));
    err_t err = ERR_OK;
    if (log.last_sequence == 0 && log.has_trailing_bytes) {
        suspect_unreadable(recovery, segment);
    }
    if (log.last_sequence == 0 || is_leftover(recovery, &log)) {
        goto out; /* nothing that counts; the segments before it hold the end */
    }
    err = judge_torn_group(recovery, &log, msg);
    if (err == ERR_OK) {
        err = check_order(recovery, &log, sidecar_path, msg);
    }
    if (err != ERR_OK) {
        goto out;
    }
    err = file_open(&fd, path, FILE_READ, msg);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        goto out;
    }
    uint64_t first_sequence = log.first_sequence;
    if (log.count == 0 && log.truncated_record_lsn != LSN_NONE) {
        store->record_lsn = log.truncated_record_lsn;
    }
    err = verify_groups(recovery, &log, fd, path, msg);
    if (err != ERR_OK) {
        goto out;
    }
    if (log.has_trailing_bytes) {
        suspect_unreadable(recovery, segment);
    }
    if (log.last_sequence < first_sequence) {
        goto out; /* its only group was torn: as if the segment had never been begun */
    }
    recovery->last_sequence = log.last_sequence;
    recovery->truncate_sequence = MAX_OF(recovery->truncate_sequence, log.truncate_sequence);
    store->end_segment = segment;
    store->end_slots = log.slots;
    store->commit_lsn = MAX_OF(store->commit_lsn, log.commit_lsn);
    store->is_last_proven = log.count == 0 || log.groups[log.count - 1].is_certified;
out:
    file_close(&fd);
    sidecar_log_deinit(&log);
    return err;
}

/* Zeros behind the end, in both files, durably; and no segments behind it. */
static err_t clean_up(struct recovery *recovery, struct errmsg *msg)
{
    struct wal_store *store = recovery->store;
    const struct wal_files *files = &store->files;
    char path[PATH_SIZE];
    TRY(wal_files_remove_behind(files, store->end_segment, msg));
    if (store->end_slots == 0) { /* nothing was ever durable */
        TRY(wal_files_remove_segment(files, store->end_segment, msg));
        return file_sync_dir(files->dir, msg);
    }
    TRY(wal_files_path(files, store->end_segment, ".crc", path, msg));
    TRY(file_zero_tail_and_sync(path, (uint64_t)store->end_slots * SIDECAR_SLOT_SIZE, msg));
    TRY(wal_files_zero_tail(files, store->end_segment, recovery->end_lsn, msg));
    return file_sync_dir(files->dir, msg);
}

/* Nothing that is known to be committed is lost with it, and somebody is told what may be. */
static bool may_give_up(const struct recovery *recovery)
{
    lsn_t committed_lsn = MAX_OF(recovery->certified_lsn, recovery->store->commit_lsn);
    return recovery->is_damaged && recovery->is_tail_given_up && recovery->witness != NULL &&
           recovery->damage->items[0].begin_lsn >= committed_lsn &&
           recovery->whole_record_lsn >= committed_lsn;
}

static err_t settle(struct recovery *recovery, struct errmsg *msg)
{
    struct wal_store *store = recovery->store;
    lsn_t end_lsn = MAX_OF(recovery->end_lsn, store->files.begin_lsn);
    bool is_given_up = may_give_up(recovery);
    if (recovery->is_damaged && !is_given_up) {
        *msg = recovery->first_damage;
        return ERR_CORRUPT;
    }
    if (end_lsn < MAX_OF(recovery->certified_lsn, store->commit_lsn)) {
        MARK("wal_recovery.shorter_than_certified");
        if (recovery->torn.end_lsn > end_lsn) { /* so it was durable */
            note_damage(recovery, &recovery->torn);
        }
        return err_set(
            msg, ERR_CORRUPT, "%s: the log ends at " LSN_FMT ", but was durable up to " LSN_FMT,
            store->files.dir, LSN_ARGS(end_lsn),
            LSN_ARGS(MAX_OF(recovery->certified_lsn, store->commit_lsn)));
    }
    store->flush_lsn = end_lsn;
    store->sequence = recovery->last_sequence;
    if (store->record_lsn > store->flush_lsn || store->record_lsn < store->files.begin_lsn) {
        return err_set(
            msg, ERR_CORRUPT, "%s: last record ends at " LSN_FMT ", the log at " LSN_FMT,
            store->files.dir, LSN_ARGS(store->record_lsn), LSN_ARGS(store->flush_lsn));
    }
    lsn_t suspect_lsn = MAX_OF(recovery->suspect_lsn, store->record_lsn);
    lsn_t record_lsn = is_given_up ? recovery->whole_record_lsn : store->record_lsn;
    if (suspect_lsn > record_lsn && recovery->witness != NULL) {
        struct wal_witness *witness = recovery->witness;
        TRY(witness->on_suspect(witness, record_lsn, suspect_lsn, msg));
    }
    TRY(clean_up(recovery, msg));
    if (is_given_up) {
        MARK("wal_recovery.tail_given_up");
        return wal_store_truncate(store, record_lsn, msg);
    }
    return ERR_OK;
}

err_t wal_store_recover(
    struct wal_store *store, const struct wal_store_options *options, struct errmsg *msg)
{
    struct recovery recovery = {
        .store = store,
        .certified_lsn = options->certified_lsn,
        .witness = options->witness,
        .damage = options->damage,
        .is_tail_given_up = options->is_tail_given_up,
        .end_lsn = wal_files_first_lsn(&store->files),
    };
    if (recovery.damage != NULL) {
        recovery.damage->count = 0;
    }
    store->record_lsn = store->files.begin_lsn;
    store->end_segment = wal_files_end_segment(&store->files, store->files.begin_lsn);
    store->end_slots = 0;
    store->is_last_proven = true;
    uint64_t *segments = NULL;
    size_t count = 0;
    TRY(wal_files_list(&store->files, &segments, &count, msg));
    err_t err = ERR_OK;
    uint64_t first = wal_files_first_lsn(&store->files) / store->files.identity.segment_size;
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        if (segments[i] < first || options->is_emptied) {
            MARK("wal_recovery.forgotten_segment"); /* its removal was interrupted */
            err = wal_files_remove_segment(&store->files, segments[i], msg);
            continue;
        }
        if (i + 2 >= count) {
            err = settle_segment(&store->files, segments[i], msg);
        }
        if (err == ERR_OK) {
            err = recover_segment(&recovery, segments[i], msg);
        }
    }
    mem_free(segments);
    return err != ERR_OK ? err : settle(&recovery, msg);
}
