/*
 * compute.c - carries out what compute_plan.c decides and reports back what happened.
 *
 * Callbacks of children, jobs, calls and timers only store their result and post an event; events
 * are taken one at a time, so that an action that fails at once (a program that is missing) becomes
 * the next event and not a call within a call.
 */
#include "compute/agent/compute.h"

#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/parse.h"
#include "common/io/child.h"
#include "common/io/file.h"
#include "common/io/timer.h"
#include "compute/agent/backup_fetch.h"
#include "compute/agent/compute_sql.h"
#include "compute/agent/leftovers.h"
#include "compute/agent/postmaster_pid.h"
#include "compute/agent/statistics.h"
#include "compute/agent/wal_fetch.h"

METRIC_COUNTER(starts_total, "agent_compute_starts_total", "Computes that reached running.");
METRIC_COUNTER(retries_total, "agent_compute_retries_total", "Tries that ended before running.");
METRIC_HISTOGRAM(
    start_seconds, "agent_compute_start_seconds", "From the request to running, first try or not.");

#define EVENTS_MAX      8
#define PROBE_EVERY_MS  1
#define SOCKET_PATH_MAX 107 /* sizeof(sun_path) - 1 */
#define SYNC_OUTPUT_MAX 4096

#define VERIFIERS_FRESH_MS 2000 /* gateways remember what they were told for longer */

struct compute {
    struct compute_host *host;
    char id[COMPUTE_ID_SIZE];
    char dir[PATH_SIZE];
    struct log log;
    struct compute_spec *spec;
    struct compute_plan plan;

    struct compute_event events[EVENTS_MAX];
    size_t event_count;
    bool stepping;

    struct child_user sync, postgres, proposer;
    struct backup_fetch backup;
    err_t backup_result;      /* of the last fetch, when none runs */
    struct errmsg backup_msg; /* why it failed */
    bool backup_wanted;       /* it is its turn: before, one is fetched beside the election */
    struct wal_fetch wal_fetch;
    struct job job; /* prepare, bring back or clean up */
    struct job roles_job, remove_job;
    struct job apply_job; /* of a spec that came while it ran */
    struct compute_spec *applying;
    struct compute_waiter *waiter; /* of `applying` */
    bool unapplied;                /* roles and databases are not yet as the spec wants */
    bool sync_canceled, sync_late, synced, ready_late;
    bool removing, prepare_waits; /* an earlier data directory; a start waits for its end */
    bool clean_up_waits;
    struct errmsg sync_error;
    struct timer plan_timer, probe_timer, limit_timer;

    lsn_t start_lsn;
    uint16_t port;
    struct doc *verifiers; /* role: stored password, as they were at the start: roles_job's .. */
    mono_ns_t verifiers_until;         /* .. while it runs. To be told until then; 0: no more */
    uint64_t log_begin;                /* of this try */
    struct errmsg error, last_failure; /* the latter stays while it runs again */
    struct compute_size size;
    struct cage cage;
    uint64_t memory_kills; /* of the cage, when this try began */
    wall_us_t created_at;
    mono_ns_t asked_at, try_at, step_at; /* asked_at: of the request that led to this start */
    uint64_t sync_ms, backup_ms, postgres_ms, total_ms;
};

static void post(struct compute *compute, enum compute_event_kind kind, int exit_code);

static uint64_t lap_ms(struct compute *compute)
{
    mono_ns_t now = clock_mono();
    uint64_t lap = (now - compute->step_at) / NS_PER_MS;
    compute->step_at = now;
    return lap;
}

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

static void work_failed(struct compute *compute, const struct errmsg *why)
{
    if (compute->plan.phase != COMPUTE_PHASE_TEARDOWN) {
        compute->error = *why;
        log_warn(&compute->log, "%s", why->text);
    }
    post(compute, COMPUTE_EVENT_WORK_FAILED, 0);
}

/* A path in the compute's folder. The folder's name was checked to leave room. */
static const char *in_dir(const struct compute *compute, char *to, const char *name)
{
    struct errmsg msg;
    if (str_format(to, PATH_SIZE, &msg, "%s/%s", compute->dir, name) != ERR_OK) {
        fatal("%s", msg.text);
    }
    return to;
}

/* -- sync -- */

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

/* The line "LSN 0/16B3748" that walproposer --sync prints. */
static err_t read_sync_output(struct compute *compute, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    err_t err = file_read_all(in_dir(compute, path, "sync.out"), SYNC_OUTPUT_MAX, &text, msg);
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

/* What the walproposer logged last as an error is the best reason there is. */
static void describe_exit(
    const struct compute *compute, const char *what, int exit_status, int number, struct errmsg *to)
{
    struct buf fatal_line = {0};
    compute_files_last_fatal(compute->dir, compute->log_begin, &fatal_line);
    char how[60];
    if (exit_status >= 0) {
        (void)snprintf(how, sizeof(how), "ended with status %d", exit_status);
    } else {
        (void)snprintf(how, sizeof(how), "was ended by signal %d", number);
    }
    (void)snprintf(
        to->text, sizeof(to->text), "%s %s%s%s", what, how, fatal_line.size > 0 ? ": " : "",
        buf_cstr(&fatal_line));
    buf_deinit(&fatal_line);
}

/* Nobody waits for it: once the compute runs. One that is left is removed by the next start. */
static err_t run_remove_old(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, remove_job);
    return compute_files_remove_old(compute->dir, &job->msg);
}

/* Of an election that failed nothing may go on: what is fetched beside it ends first. */
static void sync_done(struct compute *compute)
{
    if (compute->sync.child != NULL) {
        return;
    }
    if (compute->synced) {
        post(compute, COMPUTE_EVENT_WORK_DONE, 0);
    } else if (compute->backup.is_running) {
        backup_fetch_cancel(&compute->backup);
    } else {
        work_failed(compute, &compute->sync_error);
    }
}

static void submit_prepare(struct compute *compute);
static void clean_up(struct compute *compute);

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
        clean_up(compute);
    }
}

static void on_sync_exit(struct child_user *user, int exit_status, int number)
{
    struct compute *compute = CONTAINER_OF(user, struct compute, sync);
    struct errmsg *error = &compute->sync_error;
    timer_stop(&compute->limit_timer);
    if (exit_status == 0 && !compute->sync_canceled) { /* it may have ended well just before */
        compute->synced = read_sync_output(compute, error) == ERR_OK;
        compute->sync_ms = lap_ms(compute);
    } else if (compute->sync_late) {
        (void)snprintf(
            error->text, sizeof(error->text),
            "no majority of the safekeepers answered within %" PRIu64 " ms",
            compute->host->conf->sync_timeout_ms);
    } else {
        describe_exit(compute, "walproposer --sync", exit_status, number, error);
    }
    sync_done(compute);
}

static err_t start_proposer(
    struct compute *compute,
    const char *flag,
    const char *stdout_path,
    struct child_user *user,
    struct errmsg *msg)
{
    char conf_path[PATH_SIZE];
    char log_path[PATH_SIZE];
    const char *const argv[] = {
        compute->host->walproposer, "--config", in_dir(compute, conf_path, "walproposer.conf"),
        flag, NULL};
    struct child_options options = {
        .argv = argv,
        .output_path = in_dir(compute, log_path, "log"),
        .stdout_path = stdout_path,
        .user_name = compute->host->user.name,
        /* leftovers.c knows the two that run for long; an election dies with the agent. */
        .dies_with_us = user == &compute->sync,
    };
    return child_start(compute->host->loop, &options, user, msg);
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
        err = start_proposer(
            compute, "--sync=true", in_dir(compute, path, "sync.out"), &compute->sync, &msg);
    }
    if (err != ERR_OK) {
        work_failed(compute, &msg);
        return;
    }
    timer_start(compute->host->loop, &compute->limit_timer, compute->host->conf->sync_timeout_ms);
    fetch_backup(compute, LSN_NONE); /* the one, if the log ends there */
}

static void submit_prepare(struct compute *compute)
{
    compute->job.run = run_prepare;
    compute->job.done = done_prepare;
    executor_submit(compute->host->files, &compute->job);
}

static void start_sync(struct compute *compute)
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

static void fetch_backup(struct compute *compute, lsn_t lsn);

/* One that was fetched beside the election may be of another LSN, or may have failed. */
static void take_backup(struct compute *compute)
{
    struct backup_fetch *backup = &compute->backup;
    if (compute->backup_result == ERR_OK && backup->lsn == compute->start_lsn) {
        post(compute, COMPUTE_EVENT_WORK_DONE, 0);
    } else if (backup->files.start_lsn == LSN_NONE && !backup->is_canceled) {
        fetch_backup(compute, compute->start_lsn);
    } else {
        work_failed(compute, &compute->backup_msg);
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

static void start_backup(struct compute *compute)
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
    compute->backup_ms = lap_ms(compute);
    post(compute, COMPUTE_EVENT_WORK_DONE, 0);
}

static void on_wal_fetched(struct wal_fetch *fetch, err_t result, const struct errmsg *msg)
{
    struct compute *compute = CONTAINER_OF(fetch, struct compute, wal_fetch);
    if (result != ERR_OK) {
        work_failed(compute, msg);
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

static void start_unpack(struct compute *compute)
{
    compute->job.run = run_bring_back;
    compute->job.done = done_bring_back;
    executor_submit(compute->host->files, &compute->job);
}

/* -- launch -- */

static void note_pids(struct compute *compute)
{
    struct errmsg msg;
    int postgres = compute->postgres.child != NULL ? child_pid(compute->postgres.child) : 0;
    int proposer = compute->proposer.child != NULL ? child_pid(compute->proposer.child) : 0;
    if (leftovers_note(compute->dir, postgres, proposer, &msg) != ERR_OK) {
        log_warn(&compute->log, "the next agent will not find its processes: %s", msg.text);
    }
}

static bool is_expected_end(const struct compute *compute)
{
    return compute->plan.phase == COMPUTE_PHASE_TEARDOWN;
}

/*
 * It ended before it wrote down its options: what it does until then depends on its settings, but
 * for what is tested here. Whoever starts it again without a change gets the same.
 */
static bool refuses_settings(const struct compute *compute, int exit_status)
{
    static const char *const elses[] = {"socket", "No space left"};
    char path[PATH_SIZE];
    bool refused = exit_status == 1 && compute->plan.phase == COMPUTE_PHASE_LAUNCH &&
                   !compute->ready_late &&
                   !file_exists(in_dir(compute, path, "pgdata/postmaster.opts"));
    for (size_t i = 0; i < ARRAY_LEN(elses); i++) {
        refused = refused && strstr(compute->error.text, elses[i]) == NULL;
    }
    return refused;
}

/* Postgres names the library, and not who asked for it. */
static void name_preload_setting(struct compute *compute)
{
    const char *value = doc_value_str(doc_get(compute->spec->settings, "shared_preload_libraries"));
    struct errmsg *error = &compute->error;
    if (value != NULL && (strstr(error->text, "could not access file") != NULL ||
                          strstr(error->text, "could not load library") != NULL)) {
        size_t size = strlen(error->text);
        (void)snprintf(
            error->text + size, sizeof(error->text) - size,
            " (setting shared_preload_libraries = '%s')", value);
    }
}

static void on_postgres_exit(struct child_user *user, int exit_status, int number)
{
    struct compute *compute = CONTAINER_OF(user, struct compute, postgres);
    char pgdata[PATH_SIZE];
    bool refused = false;
    postmaster_pid_drop_memory(in_dir(compute, pgdata, "pgdata"), compute->host->user.uid);
    timer_stop(&compute->probe_timer);
    timer_stop(&compute->limit_timer);
    if (!is_expected_end(compute)) {
        describe_exit(compute, "postgres", exit_status, number, &compute->error);
        if (compute->ready_late) {
            (void)snprintf(
                compute->error.text, sizeof(compute->error.text),
                "postgres was not ready within %" PRIu64 " ms",
                compute->host->conf->start_timeout_ms);
        }
        if (cage_memory_kills(&compute->cage) > compute->memory_kills) {
            (void)snprintf(
                compute->error.text, sizeof(compute->error.text),
                "out of memory: its size gives it %" PRIu64 " MB, and the system ended one of its "
                "processes",
                compute->size.memory_mb);
        }
        refused = refuses_settings(compute, exit_status);
        if (refused) {
            name_preload_setting(compute);
        }
        log_warn(&compute->log, "%s", compute->error.text);
    }
    post(compute, refused ? COMPUTE_EVENT_POSTGRES_REFUSED : COMPUTE_EVENT_POSTGRES_EXITED, 0);
}

static void on_proposer_exit(struct child_user *user, int exit_status, int number)
{
    struct compute *compute = CONTAINER_OF(user, struct compute, proposer);
    if (exit_status == COMPUTE_EXIT_FENCED) {
        (void)snprintf(
            compute->error.text, sizeof(compute->error.text),
            "another compute writes to this timeline now: this one is fenced");
        log_warn(&compute->log, "%s", compute->error.text);
    } else if (!is_expected_end(compute)) {
        describe_exit(compute, "walproposer", exit_status, number, &compute->error);
        log_warn(&compute->log, "%s", compute->error.text);
    }
    post(compute, COMPUTE_EVENT_PROPOSER_EXITED, exit_status);
}

static err_t start_postgres(struct compute *compute, struct errmsg *msg)
{
    char pgdata[PATH_SIZE];
    char log_path[PATH_SIZE];
    const char *const argv[] = {
        compute->host->postgres, "-D", in_dir(compute, pgdata, "pgdata"), NULL};
    struct child_options options = {
        .argv = argv,
        .working_dir = pgdata,
        .output_path = in_dir(compute, log_path, "log"),
        .user_name = compute->host->user.name,
        .limits = cage_limits(&compute->cage, &compute->size),
    };
    return child_start(compute->host->loop, &options, &compute->postgres, msg);
}

static void on_probe(struct timer *timer)
{
    struct compute *compute = CONTAINER_OF(timer, struct compute, probe_timer);
    char pgdata[PATH_SIZE];
    struct postmaster_pid info;
    if (postmaster_pid_read(in_dir(compute, pgdata, "pgdata"), &info) && info.ready) {
        post(compute, COMPUTE_EVENT_POSTGRES_READY, 0);
        return;
    }
    timer_start(compute->host->loop, timer, PROBE_EVERY_MS);
}

static void launch(struct compute *compute)
{
    struct errmsg msg;
    char flag[40];
    (void)snprintf(flag, sizeof(flag), "--start_lsn=" LSN_FMT, LSN_ARGS(compute->start_lsn));
    if (start_postgres(compute, &msg) != ERR_OK) {
        compute->error = msg;
        post(compute, COMPUTE_EVENT_POSTGRES_EXITED, 0);
    }
    if (start_proposer(compute, flag, NULL, &compute->proposer, &msg) != ERR_OK) {
        compute->error = msg;
        post(compute, COMPUTE_EVENT_PROPOSER_EXITED, 1);
    }
    note_pids(compute);
    timer_start(compute->host->loop, &compute->probe_timer, PROBE_EVERY_MS);
    timer_start(compute->host->loop, &compute->limit_timer, compute->host->conf->start_timeout_ms);
}

/* -- roles -- */

/* What cannot be dropped keeps no compute from starting; the one who wants it gone is told. */
static err_t run_roles(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, roles_job);
    char path[PATH_SIZE];
    struct errmsg msg;
    struct compute_sql sql = {
        .spec = compute->spec,
        .socket_dir = in_dir(compute, path, "s"),
        .port = compute->port,
        .quarantine = compute->spec->quarantine,
        .ret_verifiers = &compute->verifiers};
    TRY(compute_sql_try_settings(&sql, &job->msg));
    TRY(compute_sql_apply(&sql, &job->msg));
    err_t err = compute_sql_drop(&sql, &msg);
    compute->unapplied = err != ERR_OK;
    if (err != ERR_OK) {
        log_warn(&compute->log, "%s", msg.text);
    }
    return ERR_OK;
}

static void done_roles(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, roles_job);
    if (job->result == ERR_INVALID && !is_expected_end(compute)) {
        compute->error = job->msg;
        log_warn(&compute->log, "%s", job->msg.text);
        post(compute, COMPUTE_EVENT_WORK_REFUSED, 0);
        return;
    }
    if (job->result != ERR_OK) {
        work_failed(compute, &job->msg);
        return;
    }
    compute->spec->quarantine = false; /* from now on what is there is its own */
    compute->verifiers_until = clock_mono() + VERIFIERS_FRESH_MS * NS_PER_MS;
    compute->postgres_ms = lap_ms(compute);
    post(compute, COMPUTE_EVENT_WORK_DONE, 0);
}

static void start_roles(struct compute *compute)
{
    timer_stop(&compute->limit_timer);
    doc_unref(compute->verifiers);
    compute->verifiers = NULL;
    compute->roles_job.run = run_roles;
    compute->roles_job.done = done_roles;
    executor_submit(compute->host->sessions, &compute->roles_job);
}

static err_t run_apply(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, apply_job);
    char path[PATH_SIZE];
    struct compute_sql sql = {
        .spec = compute->applying, .socket_dir = in_dir(compute, path, "s"), .port = compute->port};
    TRY(compute_sql_drop(&sql, &job->msg));
    return compute_sql_apply(&sql, &job->msg);
}

static void done_apply(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, apply_job);
    struct compute_waiter *waiter = compute->waiter;
    if (job->result != ERR_OK) {
        log_warn(&compute->log, "roles and databases of the new spec: %s", job->msg.text);
    }
    compute->unapplied = job->result != ERR_OK;
    compute_spec_destroy(compute->applying);
    compute->applying = NULL;
    compute->waiter = NULL;
    waiter->done(waiter, job->result, &job->msg);
    if (compute->clean_up_waits) {
        clean_up(compute);
    }
}

/* -- ends -- */

static void on_limit(struct timer *timer)
{
    struct compute *compute = CONTAINER_OF(timer, struct compute, limit_timer);
    if (compute->sync.child != NULL) {
        compute->sync_late = true;
        child_signal_group(compute->sync.child, SIGKILL);
    } else if (compute->postgres.child != NULL) {
        compute->ready_late = true;
        child_signal(compute->postgres.child, SIGQUIT);
    }
}

static void cancel_work(struct compute *compute)
{
    compute->sync_canceled = true;
    timer_stop(&compute->limit_timer);
    if (compute->sync.child != NULL) {
        child_signal_group(compute->sync.child, SIGKILL); /* an election may be cut at any point */
    }
    backup_fetch_cancel(&compute->backup);
    wal_fetch_cancel(&compute->wal_fetch);
}

static void signal_postgres(struct compute *compute, int number)
{
    timer_stop(&compute->probe_timer);
    timer_stop(&compute->limit_timer);
    if (compute->postgres.child != NULL) {
        child_signal(compute->postgres.child, number);
    }
}

static err_t run_clean_up(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, job);
    cage_remove(&compute->host->cages, compute->id);
    return dir_remove(compute->dir, &job->msg);
}

static void compute_free(struct compute *compute)
{
    timer_stop(&compute->plan_timer);
    timer_stop(&compute->probe_timer);
    timer_stop(&compute->limit_timer);
    backup_fetch_deinit(&compute->backup);
    doc_unref(compute->verifiers);
    compute_spec_destroy(compute->spec);
    mem_free(compute);
}

static void done_clean_up(struct job *job)
{
    struct compute *compute = CONTAINER_OF(job, struct compute, job);
    if (job->result != ERR_OK) {
        log_error(&compute->log, "its folder stays: %s", job->msg.text);
    }
    log_info(&compute->log, "deleted");
    compute->host->on_deleted(compute->host, compute);
    compute_free(compute);
}

static void clean_up(struct compute *compute)
{
    compute->clean_up_waits = compute->applying != NULL || compute->removing;
    if (compute->clean_up_waits) {
        return; /* its session is just ending; no job must outlive the compute */
    }
    compute->job.run = run_clean_up;
    compute->job.done = done_clean_up;
    executor_submit(compute->host->files, &compute->job);
}

static void on_plan_timer(struct timer *timer)
{
    post(CONTAINER_OF(timer, struct compute, plan_timer), COMPUTE_EVENT_TIMER, 0);
}

static void remove_old(struct compute *compute)
{
    compute->removing = true;
    compute->remove_job.run = run_remove_old;
    compute->remove_job.done = done_remove_old;
    executor_submit(compute->host->files, &compute->remove_job);
}

/* -- the plan put into deeds -- */

static void carry_out_stops(struct compute *compute, unsigned actions)
{
    if ((actions & COMPUTE_ACTION_CANCEL_WORK) != 0) {
        cancel_work(compute);
    }
    if ((actions & COMPUTE_ACTION_STOP_FAST) != 0) {
        signal_postgres(compute, SIGINT);
    }
    if ((actions & COMPUTE_ACTION_STOP_IMMEDIATE) != 0) {
        signal_postgres(compute, SIGQUIT);
    }
    if ((actions & COMPUTE_ACTION_STOP_PROPOSER) != 0 && compute->proposer.child != NULL) {
        child_signal(compute->proposer.child, SIGTERM);
    }
    if ((actions & COMPUTE_ACTION_KILL) != 0) {
        signal_postgres(compute, SIGKILL);
        if (compute->proposer.child != NULL) {
            child_signal(compute->proposer.child, SIGKILL);
        }
    }
}

static void carry_out_starts(struct compute *compute, unsigned actions)
{
    if ((actions & COMPUTE_ACTION_SYNC) != 0) {
        start_sync(compute);
    }
    if ((actions & COMPUTE_ACTION_BACKUP) != 0) {
        start_backup(compute);
    }
    if ((actions & COMPUTE_ACTION_UNPACK) != 0) {
        start_unpack(compute);
    }
    if ((actions & COMPUTE_ACTION_LAUNCH) != 0) {
        launch(compute);
    }
    if ((actions & COMPUTE_ACTION_ROLES) != 0) {
        start_roles(compute);
    }
    if ((actions & COMPUTE_ACTION_CLEAN_UP) != 0) {
        clean_up(compute);
    }
}

static void report_change(struct compute *compute, enum compute_phase before)
{
    const struct compute_plan *plan = &compute->plan;
    if (plan->phase == before) {
        return;
    }
    if (plan->phase == COMPUTE_PHASE_RUN) {
        mono_ns_t now = clock_mono();
        compute->total_ms = (now - compute->try_at) / NS_PER_MS;
        metric_add(&starts_total, 1);
        metric_observe_ns(&start_seconds, now - compute->asked_at);
        compute->last_failure = compute->error;
        compute->error.text[0] = '\0';
        log_info(
            &compute->log,
            "running on port %u from " LSN_FMT ": sync %" PRIu64 " ms, base backup %" PRIu64
            " ms, postgres %" PRIu64 " ms",
            compute->port, LSN_ARGS(compute->start_lsn), compute->sync_ms, compute->backup_ms,
            compute->postgres_ms);
        remove_old(compute);
    } else if (plan->phase == COMPUTE_PHASE_BACKOFF) {
        metric_add(&retries_total, 1);
    } else if (plan->phase == COMPUTE_PHASE_OFF) {
        cage_remove(&compute->host->cages, compute->id);
        log_info(&compute->log, "%s", compute_plan_state(plan));
    }
    compute->host->on_change(compute->host, compute);
}

static void step(struct compute *compute, const struct compute_event *event)
{
    struct compute_actions actions;
    enum compute_phase before = compute->plan.phase;
    compute_plan_step(&compute->plan, event, &actions);
    report_change(compute, before);
    carry_out_stops(compute, actions.set);
    if ((actions.set & COMPUTE_ACTION_TIMER) != 0) {
        timer_start(compute->host->loop, &compute->plan_timer, actions.timer_ms);
    }
    if ((actions.set & COMPUTE_ACTION_STOP_TIMER) != 0) {
        timer_stop(&compute->plan_timer);
    }
    carry_out_starts(compute, actions.set);
}

static void post(struct compute *compute, enum compute_event_kind kind, int exit_code)
{
    ASSERT(compute->event_count < EVENTS_MAX);
    compute->events[compute->event_count++] = (struct compute_event){
        .kind = kind, .exit_code = exit_code, .now_ms = clock_mono() / NS_PER_MS};
    if (compute->stepping) {
        return; /* the loop below takes it */
    }
    compute->stepping = true;
    while (compute->event_count > 0) {
        struct compute_event event = compute->events[0];
        compute->event_count--;
        for (size_t i = 0; i < compute->event_count; i++) {
            compute->events[i] = compute->events[i + 1];
        }
        step(compute, &event);
    }
    compute->stepping = false;
}

/* -- what the agent calls -- */

err_t compute_create(
    struct compute_host *host,
    const char *id,
    struct compute_spec *spec,
    struct compute **ret_compute,
    struct errmsg *msg)
{
    char dir[PATH_SIZE];
    TRY(compute_id_check(id, msg));
    TRY(str_format(dir, sizeof(dir), msg, "%s/%s", host->computes_dir, id));
    size_t socket_size = strlen(dir) + strlen("/s/.s.PGSQL.65535");
    if (socket_size > SOCKET_PATH_MAX) {
        return err_set(
            msg, ERR_INVALID,
            "data_dir is too long: the socket of this compute would have %zu bytes, %d are "
            "possible",
            socket_size, SOCKET_PATH_MAX);
    }
    struct compute *compute = MEM_NEW(struct compute);
    compute->host = host;
    compute->spec = spec;
    compute->created_at = clock_wall();
    memcpy(compute->dir, dir, sizeof(dir));
    (void)snprintf(compute->id, sizeof(compute->id), "%s", id);
    log_name(&compute->log, "compute %s", id);
    compute->sync.on_exit = on_sync_exit;
    compute->postgres.on_exit = on_postgres_exit;
    compute->proposer.on_exit = on_proposer_exit;
    compute->plan_timer.on_fire = on_plan_timer;
    compute->probe_timer.on_fire = on_probe;
    compute->limit_timer.on_fire = on_limit;
    *ret_compute = compute;
    return ERR_OK;
}

void compute_set_spec(struct compute *compute, struct compute_spec *spec)
{
    ASSERT(compute_is_off(compute));
    compute_spec_destroy(compute->spec);
    compute->spec = spec;
}

bool compute_is_unapplied(const struct compute *compute)
{
    return compute->unapplied || compute->applying != NULL;
}

bool compute_apply_spec(
    struct compute *compute, struct compute_spec *spec, struct compute_waiter *waiter)
{
    ASSERT(compute_is_running(compute));
    if (compute->applying != NULL) {
        return false;
    }
    /* The job keeps a spec of its own: the compute's may be replaced while it works. */
    struct errmsg msg;
    err_t err = compute_spec_parse(spec->body, &compute->applying, &msg);
    ASSERT(err == ERR_OK);
    compute_spec_destroy(compute->spec);
    compute->spec = spec;
    compute->waiter = waiter;
    compute->verifiers_until = 0; /* it may change them */
    compute->apply_job.run = run_apply;
    compute->apply_job.done = done_apply;
    executor_submit(compute->host->sessions, &compute->apply_job);
    return true;
}

void compute_start(struct compute *compute)
{
    compute->asked_at = clock_mono();
    post(compute, COMPUTE_EVENT_START, 0);
}

void compute_stop(struct compute *compute, bool fast)
{
    post(compute, fast ? COMPUTE_EVENT_STOP_FAST : COMPUTE_EVENT_STOP_IMMEDIATE, 0);
}

void compute_delete(struct compute *compute)
{
    post(compute, COMPUTE_EVENT_DELETE, 0);
}

const char *compute_id(const struct compute *compute)
{
    return compute->id;
}

const struct compute_spec *compute_spec_of(const struct compute *compute)
{
    return compute->spec;
}

const char *compute_verifier(const struct compute *compute, const char *role)
{
    bool is_fresh = compute_is_running(compute) && clock_mono() <= compute->verifiers_until;
    return is_fresh ? doc_value_str(doc_get(compute->verifiers, role)) : NULL;
}

bool compute_socket(const struct compute *compute, char dir[PATH_SIZE], uint16_t *ret_port)
{
    if (!compute_is_running(compute)) {
        return false;
    }
    (void)in_dir(compute, dir, "s");
    *ret_port = compute->port;
    return true;
}

const char *compute_state(const struct compute *compute)
{
    return compute_plan_state(&compute->plan);
}

bool compute_is_off(const struct compute *compute)
{
    return compute->plan.phase == COMPUTE_PHASE_OFF;
}

bool compute_is_running(const struct compute *compute)
{
    return compute->plan.phase == COMPUTE_PHASE_RUN;
}

bool compute_is_going(const struct compute *compute)
{
    return compute->plan.end == COMPUTE_END_DELETED;
}

static struct doc *limits_doc(const struct compute *compute)
{
    static const char *const names[] = {"memory_by", "cpu_by", "processes_by"};
    struct doc *limits = doc_object();
    (void)doc_set_int(limits, "memory_mb", (int64_t)compute->size.memory_mb);
    (void)doc_set_int(limits, "cpu_milli", (int64_t)compute->size.cpu_milli);
    (void)doc_set_int(limits, "processes", (int64_t)compute->size.processes);
    (void)doc_set_int(limits, "file_size_mb", (int64_t)compute->size.file_size_mb);
    for (enum cage_limit limit = 0; limit < CAGE_LIMIT_COUNT; limit++) {
        (void)doc_set_str(limits, names[limit], cage_holder(&compute->cage, &compute->size, limit));
    }
    return limits;
}

struct doc *compute_status(const struct compute *compute)
{
    struct doc *status = doc_object();
    struct doc *pids = doc_object();
    struct doc *laps = doc_object();
    struct buf uri = {0};
    (void)doc_set_str(status, "id", compute->id);
    (void)doc_set_tenant(status, "tenant", compute->spec->tenant);
    (void)doc_set_timeline(status, "timeline", compute->spec->timeline);
    (void)doc_set_str(status, "state", compute_plan_state(&compute->plan));
    (void)doc_set_str(status, "step", compute_plan_step_name(&compute->plan));
    (void)doc_set_int(status, "port", compute->port != 0 ? compute->port : compute->spec->port);
    if (compute->postgres.child != NULL) {
        (void)doc_set_int(pids, "postgres", child_pid(compute->postgres.child));
    }
    if (compute->proposer.child != NULL) {
        (void)doc_set_int(pids, "walproposer", child_pid(compute->proposer.child));
    }
    (void)doc_set(status, "pids", pids);
    (void)doc_set_lsn(status, "start_lsn", compute->start_lsn);
    (void)doc_set_str(status, "error", compute->error.text[0] != '\0' ? compute->error.text : NULL);
    (void)doc_set_str(
        status, "last_failure",
        compute->last_failure.text[0] != '\0' ? compute->last_failure.text : NULL);
    (void)doc_set(status, "limits", limits_doc(compute));
    buf_printf(
        &uri, "postgresql://postgres@/postgres?host=%s/s&port=%u", compute->dir, compute->port);
    (void)doc_set_str(status, "superuser_uri", buf_cstr(&uri));
    buf_deinit(&uri);
    (void)doc_set_int(laps, "sync", (int64_t)compute->sync_ms);
    (void)doc_set_int(laps, "base_backup", (int64_t)compute->backup_ms);
    (void)doc_set_int(laps, "postgres", (int64_t)compute->postgres_ms);
    (void)doc_set_int(laps, "total", (int64_t)compute->total_ms);
    (void)doc_set(status, "started_ms", laps);
    (void)doc_set_int(status, "failures", compute->plan.failures);
    (void)doc_set_time(status, "created_at", compute->created_at);
    return status;
}
