/*
 * compute_prepare.c - what is done before Postgres runs: folder and settings, the election that
 * tells the LSN (a base backup is fetched beside it), the base backup of that LSN, and what else
 * belongs into the data directory.
 */
#include "compute/agent/compute_private.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/parse.h"
#include "common/io/file.h"
#include "compute/agent/statistics.h"

#define SYNC_OUTPUT_MAX 4096

static struct compute_files files_of(const struct compute *compute)
{
    return (struct compute_files){
        .spec = compute->spec,
        .conf = compute->host->conf,
        .user = &compute->host->user,
        .dir = compute->dir,
        .start_lsn = compute->start_lsn,
        .port = compute->port,
    };
}

/* -- prepare: the folder -- */

static err_t pick_port(uint16_t *ret_port, struct errmsg *msg)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    err_t err = ERR_OK;
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        err = err_set(msg, err_from_errno(errno), "find a free port: %m");
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    *ret_port = ntohs(address.sin_port);
    return err;
}

/* Sessions, workers and Postgres' own, with room for what COPY FROM PROGRAM and the like start. */
static uint64_t processes_of(const struct compute_spec *spec)
{
    uint64_t sessions = 100;
    struct errmsg msg;
    err_ignore(
        doc_opt_u64(spec->settings, "max_connections", &sessions, &msg),
        "a text: Postgres may take it, and then its own limit is the smaller one");
    return sessions + 200;
}

static void make_cage(struct compute *compute)
{
    const struct compute_spec *spec = compute->spec;
    compute->size = (struct compute_size){
        .memory_mb = spec->memory_mb,
        .cpu_milli = spec->cpu_milli,
        .processes = spec->memory_mb != 0 ? processes_of(spec) : 0,
        .file_size_mb = compute->host->conf->file_size_max_mb};
    cage_make(&compute->host->cages, compute->id, &compute->size, &compute->cage);
    compute->memory_kills = cage_memory_kills(&compute->cage);
}

static err_t run_prepare(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, job);
    make_cage(compute);
    if (compute->port == 0) {
        TRY(pick_port(&compute->port, &job->msg));
    }
    struct compute_files files = files_of(compute);
    TRY(compute_files_prepare(&files, &job->msg));
    compute->log_begin = compute_files_log_size(compute->dir);
    return ERR_OK;
}

static void done_prepare(struct job *job);

static void submit_prepare(struct compute *compute)
{
    compute->job.run = run_prepare;
    compute->job.done = done_prepare;
    executor_submit(compute->host->files, &compute->job);
}

/* -- what an earlier try left -- */

/* Nobody waits for it: once the compute runs. One that is left is removed by the next start. */
static err_t run_remove_old(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, remove_job);
    return compute_files_remove_old(compute->dir, &job->msg);
}

static void done_remove_old(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, remove_job);
    compute->removing = false;
    if (job->result != ERR_OK) {
        log_warn(&compute->log, "the old data directory stays: %s", job->msg.text);
    }
    if (compute->prepare_waits) {
        compute->prepare_waits = false;
        submit_prepare(compute);
    } else if (compute->clean_up_waits) {
        compute_clean_up(compute);
    }
}

void compute_remove_old(struct compute *compute)
{
    compute->removing = true;
    compute->remove_job.run = run_remove_old;
    compute->remove_job.done = done_remove_old;
    executor_submit(compute->host->files, &compute->remove_job);
}

/* -- sync: the election -- */

/* The line "LSN 0/16B3748" that walproposer --sync prints. */
static err_t read_sync_output(struct compute *compute, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    err_t err = file_read_all(compute_path(compute, path, "sync.out"), SYNC_OUTPUT_MAX, &text, msg);
    if (err == ERR_OK) {
        char *line = strstr(buf_cstr(&text), "LSN ");
        err =
            line == NULL ? err_set(msg, ERR_CORRUPT, "walproposer --sync printed no LSN") : ERR_OK;
        if (err == ERR_OK) {
            line[strcspn(line, "\r\n")] = '\0';
            err = parse_lsn(line + strlen("LSN "), &compute->start_lsn, msg);
        }
    }
    buf_deinit(&text);
    return err;
}

/* Of an election that failed nothing may go on: what is fetched beside it ends first. */
static void sync_done(struct compute *compute)
{
    if (compute->sync.child != NULL) {
        return;
    }
    if (compute->synced) {
        compute_post(compute, COMPUTE_EVENT_WORK_DONE, 0);
    } else if (compute->backup.is_running) {
        backup_fetch_cancel(&compute->backup);
    } else {
        compute_work_failed(compute, &compute->sync_error);
    }
}

void compute_on_sync_exit(struct child_user *user, int exit_status, int number)
{
    struct compute *compute = CONTAINER_OF(user, struct compute, sync);
    struct errmsg *error = &compute->sync_error;
    timer_stop(&compute->limit_timer);
    if (exit_status == 0 && !compute->sync_canceled) { /* it may have ended well just before */
        compute->synced = read_sync_output(compute, error) == ERR_OK;
        compute->sync_ms = compute_lap_ms(compute);
    } else if (compute->sync_late) {
        (void)snprintf(
            error->text, sizeof(error->text),
            "no majority of the safekeepers answered within %" PRIu64 " ms",
            compute->host->conf->sync_timeout_ms);
    } else {
        compute_describe_exit(compute, "walproposer --sync", exit_status, number, error);
    }
    sync_done(compute);
}

static void fetch_backup(struct compute *compute, lsn_t lsn);

static void done_prepare(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, job);
    struct errmsg msg = job->msg;
    err_t err = job->result;
    char path[PATH_SIZE];
    if (err == ERR_OK && compute->sync_canceled) {
        err = err_set(&msg, ERR_CANCELED, "canceled");
    }
    if (err == ERR_OK) {
        err = compute_start_proposer(
            compute, "--sync=true", compute_path(compute, path, "sync.out"), &compute->sync, &msg);
    }
    if (err != ERR_OK) {
        compute_work_failed(compute, &msg);
        return;
    }
    timer_start(compute->host->loop, &compute->limit_timer, compute->host->conf->sync_timeout_ms);
    fetch_backup(compute, LSN_NONE); /* the one, if the log ends there */
}

void compute_start_sync(struct compute *compute)
{
    compute->start_lsn = LSN_NONE;
    compute->port = compute->spec->port;
    compute->sync_canceled = compute->sync_late = compute->synced = compute->ready_late = false;
    compute->sync_ms = compute->backup_ms = compute->postgres_ms = compute->total_ms = 0;
    compute->backup_wanted = false;
    compute->try_at = compute->step_at = clock_mono();
    if (compute->removing) {
        compute->prepare_waits = true;
    } else {
        submit_prepare(compute);
    }
}

/* -- base backup -- */

/* One that was fetched beside the election may be of another LSN, or may have failed. */
static void take_backup(struct compute *compute)
{
    struct backup_fetch *backup = &compute->backup;
    if (compute->backup_result == ERR_OK && backup->lsn == compute->start_lsn) {
        compute_post(compute, COMPUTE_EVENT_WORK_DONE, 0);
    } else if (backup->files.start_lsn == LSN_NONE && !backup->is_canceled) {
        fetch_backup(compute, compute->start_lsn);
    } else {
        compute_work_failed(compute, &compute->backup_msg);
    }
}

static void on_backup_fetched(struct backup_fetch *fetch, err_t result, const struct errmsg *msg)
{
    struct compute *compute = CONTAINER_OF(fetch, struct compute, backup);
    compute->backup_result = result;
    if (result != ERR_OK) {
        compute->backup_msg = *msg;
    }
    if (compute->backup_wanted) {
        take_backup(compute);
    } else if (!compute->synced) {
        sync_done(compute);
    }
}

static void fetch_backup(struct compute *compute, lsn_t lsn)
{
    struct backup_fetch *backup = &compute->backup;
    backup->http = compute->host->http;
    backup->executor = compute->host->files;
    backup->files = files_of(compute);
    backup->files.start_lsn = lsn;
    backup->done = on_backup_fetched;
    backup_fetch_start(backup);
}

void compute_start_backup(struct compute *compute)
{
    compute->backup_wanted = true;
    if (!compute->backup.is_running) {
        take_backup(compute);
    }
}

/* -- unpack: what else belongs into the data directory -- */

static err_t run_bring_back(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, job);
    statistics_bring_back(compute->dir, compute->start_lsn);
    return ERR_OK;
}

static void finish_unpack(struct compute *compute)
{
    compute->backup_ms = compute_lap_ms(compute);
    compute_post(compute, COMPUTE_EVENT_WORK_DONE, 0);
}

static void on_wal_fetched(struct wal_fetch *fetch, err_t result, const struct errmsg *msg)
{
    struct compute *compute = CONTAINER_OF(fetch, struct compute, wal_fetch);
    if (result != ERR_OK) {
        compute_work_failed(compute, msg);
        return;
    }
    finish_unpack(compute);
}

static void fetch_wal(struct compute *compute)
{
    compute->wal_fetch = (struct wal_fetch){
        .http = compute->host->http,
        .executor = compute->host->files,
        .spec = compute->spec,
        .token = compute->host->conf->safekeeper_token,
        .log = &compute->log,
        .files =
            {
                .user = &compute->host->user,
                .dir = compute->dir,
                .system_id = compute->spec->system_id,
            },
        .needed_lsn = compute->backup.need.from_lsn,
        .timeline_start_lsn = compute->backup.need.timeline_start_lsn,
        .end_lsn = compute->start_lsn,
        .done = on_wal_fetched,
    };
    wal_fetch_start(&compute->wal_fetch);
}

static void done_bring_back(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, job);
    lsn_t from_lsn = compute->backup.need.from_lsn;
    if (from_lsn != LSN_NONE && from_lsn < compute->start_lsn) {
        fetch_wal(compute);
        return;
    }
    finish_unpack(compute);
}

void compute_start_unpack(struct compute *compute)
{
    compute->job.run = run_bring_back;
    compute->job.done = done_bring_back;
    executor_submit(compute->host->files, &compute->job);
}
