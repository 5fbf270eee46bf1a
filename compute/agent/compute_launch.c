/*
 * compute_launch.c - the processes of a compute: Postgres and the walproposer, from their start to
 * their exit and the reason of it.
 */
#include "compute/agent/compute_private.h"

#include <signal.h>
#include <stdio.h>

#include "common/io/file.h"
#include "compute/agent/leftovers.h"
#include "compute/agent/postmaster_pid.h"

#define PROBE_EVERY_MS 1

/* -- starts -- */

static err_t start_postgres(struct compute *compute, struct errmsg *msg)
{
    char pgdata[PATH_SIZE];
    char log_path[PATH_SIZE];
    const char *const argv[] = {
        compute->host->postgres, "-D", compute_path(compute, pgdata, "pgdata"), NULL};
    struct child_options options = {
        .argv = argv,
        .working_dir = pgdata,
        .output_path = compute_path(compute, log_path, "log"),
        .user_name = compute->host->user.name,
        .limits = cage_limits(&compute->cage, &compute->size),
    };
    return child_start(compute->host->loop, &options, &compute->postgres, msg);
}

err_t compute_start_proposer(
    struct compute *compute,
    const char *flag,
    const char *stdout_path,
    struct child_user *user,
    struct errmsg *msg)
{
    char conf_path[PATH_SIZE];
    char log_path[PATH_SIZE];
    const char *const argv[] = {
        compute->host->walproposer, "--config",
        compute_path(compute, conf_path, "walproposer.conf"), flag, NULL};
    struct child_options options = {
        .argv = argv,
        .output_path = compute_path(compute, log_path, "log"),
        .stdout_path = stdout_path,
        .user_name = compute->host->user.name,
        /* leftovers.c knows the two that run for long; an election dies with the agent. */
        .dies_with_us = user == &compute->sync,
    };
    return child_start(compute->host->loop, &options, user, msg);
}

static void note_pids(struct compute *compute)
{
    struct errmsg msg;
    int postgres = compute->postgres.child != NULL ? child_pid(compute->postgres.child) : 0;
    int proposer = compute->proposer.child != NULL ? child_pid(compute->proposer.child) : 0;
    if (leftovers_note(compute->dir, postgres, proposer, &msg) != ERR_OK) {
        log_warn(&compute->log, "the next agent will not find its processes: %s", msg.text);
    }
}

void compute_on_probe(struct timer *timer)
{
    struct compute *compute = CONTAINER_OF(timer, struct compute, probe_timer);
    char pgdata[PATH_SIZE];
    struct postmaster_pid info;
    if (postmaster_pid_read(compute_path(compute, pgdata, "pgdata"), &info) && info.ready) {
        compute_post(compute, COMPUTE_EVENT_POSTGRES_READY, 0);
        return;
    }
    timer_start(compute->host->loop, timer, PROBE_EVERY_MS);
}

void compute_launch(struct compute *compute)
{
    struct errmsg msg;
    char flag[40];
    (void)snprintf(flag, sizeof(flag), "--start_lsn=" LSN_FMT, LSN_ARGS(compute->start_lsn));
    if (start_postgres(compute, &msg) != ERR_OK) {
        compute->error = msg;
        compute_post(compute, COMPUTE_EVENT_POSTGRES_EXITED, 0);
    }
    if (compute_start_proposer(compute, flag, NULL, &compute->proposer, &msg) != ERR_OK) {
        compute->error = msg;
        compute_post(compute, COMPUTE_EVENT_PROPOSER_EXITED, 1);
    }
    note_pids(compute);
    timer_start(compute->host->loop, &compute->probe_timer, PROBE_EVERY_MS);
    timer_start(compute->host->loop, &compute->limit_timer, compute->host->conf->start_timeout_ms);
}

/* -- exits -- */

void compute_describe_exit(
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
                   !file_exists(compute_path(compute, path, "pgdata/postmaster.opts"));
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

void compute_on_postgres_exit(struct child_user *user, int exit_status, int number)
{
    struct compute *compute = CONTAINER_OF(user, struct compute, postgres);
    char pgdata[PATH_SIZE];
    bool refused = false;
    postmaster_pid_drop_memory(compute_path(compute, pgdata, "pgdata"), compute->host->user.uid);
    timer_stop(&compute->probe_timer);
    timer_stop(&compute->limit_timer);
    if (!compute_is_expected_end(compute)) {
        compute_describe_exit(compute, "postgres", exit_status, number, &compute->error);
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
    compute_post(
        compute, refused ? COMPUTE_EVENT_POSTGRES_REFUSED : COMPUTE_EVENT_POSTGRES_EXITED, 0);
}

void compute_on_proposer_exit(struct child_user *user, int exit_status, int number)
{
    struct compute *compute = CONTAINER_OF(user, struct compute, proposer);
    if (exit_status == COMPUTE_EXIT_FENCED) {
        (void)snprintf(
            compute->error.text, sizeof(compute->error.text),
            "another compute writes to this timeline now: this one is fenced");
        log_warn(&compute->log, "%s", compute->error.text);
    } else if (!compute_is_expected_end(compute)) {
        compute_describe_exit(compute, "walproposer", exit_status, number, &compute->error);
        log_warn(&compute->log, "%s", compute->error.text);
    }
    compute_post(compute, COMPUTE_EVENT_PROPOSER_EXITED, exit_status);
}
