#include "compute/agent/schema_dump.h"

#include <signal.h>
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/io/child.h"
#include "common/io/file.h"
#include "common/io/timer.h"

#define DUMPS_MAX    4 /* at once: each is a process and reads the whole catalog */
#define TIME_MS      40000
#define LOOK_MS      100
#define SQL_SIZE_MAX (16 * MIB)
#define ERROR_SIZE   (64 * KIB)

struct dump {
    struct child_user child;
    struct timer timer;
    struct compute_host *host;
    struct http_request *request;
    mono_ns_t deadline;
    bool too_large, too_slow;
    struct job quote;
    struct buf answer;
    char sql[PATH_SIZE], errors[PATH_SIZE];
};

static size_t running, started;

/* The last line of what pg_dump says; "pg_dump: error: " is no news. */
static void read_error(const struct dump *dump, struct errmsg *msg)
{
    struct buf text = {0};
    err_t err = file_read_all(dump->errors, ERROR_SIZE, &text, NULL);
    char *line = err == ERR_OK ? strstr((char *)buf_cstr(&text), "error: ") : NULL;
    line = line == NULL ? (char *)"pg_dump failed" : line + strlen("error: ");
    snprintf(msg->text, sizeof msg->text, "%.200s", line);
    msg->text[strcspn(msg->text, "\n")] = '\0';
    buf_deinit(&text);
}

static void respond_too_large(struct dump *dump)
{
    http_respond_problem(
        dump->request, 422, "SCHEMA_TOO_LARGE",
        "the schema is larger than 16 MiB of SQL, which is the limit");
}

static void end(struct dump *dump)
{
    err_ignore(file_remove(dump->sql, NULL), "overwritten by a later one of that name");
    err_ignore(file_remove(dump->errors, NULL), "overwritten by a later one of that name");
    buf_deinit(&dump->answer);
    running--;
    mem_free(dump);
}

/* ---- what it has written, which is megabytes to be read and quoted ---- */

static err_t run_quote(struct job *job)
{
    struct dump *dump = CONTAINER_OF(job, struct dump, quote);
    struct buf sql = {0};
    TRY(file_read_all(dump->sql, SQL_SIZE_MAX, &sql, &job->msg));
    struct doc *doc = doc_set_str(doc_object(), "sql", buf_cstr(&sql));
    buf_deinit(&sql);
    doc_print(doc, false, &dump->answer);
    doc_unref(doc);
    return ERR_OK;
}

static void on_quoted(struct job *job)
{
    struct dump *dump = CONTAINER_OF(job, struct dump, quote);
    if (job->result == ERR_FULL) { /* it ended before it was looked at again */
        respond_too_large(dump);
    } else if (job->result != ERR_OK) {
        http_respond_error(dump->request, job->result, &job->msg);
    } else {
        http_respond_buf(dump->request, 200, "application/json", &dump->answer);
    }
    end(dump);
}

static void on_exit_of_child(struct child_user *user, int exit_status, int signal)
{
    struct dump *dump = CONTAINER_OF(user, struct dump, child);
    struct errmsg msg = {0};
    (void)signal;
    timer_stop(&dump->timer);
    if (dump->too_large) {
        respond_too_large(dump);
    } else if (dump->too_slow || dump->host->sessions == NULL) { /* NULL: we have stopped */
        http_respond_problem(
            dump->request, 503, "SCHEMA_NOT_READ", "the schema was not read in time");
    } else if (exit_status != 0) {
        read_error(dump, &msg);
        bool absent = strstr(msg.text, "does not exist") != NULL;
        http_respond_problem(
            dump->request, absent ? 404 : 503, absent ? "DATABASE_NOT_FOUND" : "SCHEMA_NOT_READ",
            msg.text);
    } else {
        dump->quote = (struct job){.run = run_quote, .done = on_quoted};
        executor_submit(dump->host->sessions, &dump->quote);
        return;
    }
    end(dump);
}

/* ---- while it writes ---- */

static void on_look(struct timer *timer)
{
    struct dump *dump = CONTAINER_OF(timer, struct dump, timer);
    int fd = -1;
    uint64_t size = 0;
    if (file_open(&fd, dump->sql, FILE_READ, NULL) == ERR_OK) {
        err_ignore(file_size(fd, dump->sql, &size, NULL), "looked at again soon");
        file_close(&fd);
    }
    dump->too_large = size > SQL_SIZE_MAX;
    dump->too_slow = clock_mono() >= dump->deadline;
    if (dump->too_large || dump->too_slow) {
        child_signal_group(dump->child.child, SIGKILL); /* on_exit follows */
    } else {
        timer_start(dump->host->loop, timer, LOOK_MS);
    }
}

static err_t start(
    struct dump *dump,
    struct compute_host *host,
    const char *socket_dir,
    uint16_t port,
    struct errmsg *msg)
{
    struct doc *body = NULL;
    const char *database = NULL;
    char program[PATH_SIZE], port_text[8], host_env[PATH_SIZE + 8], port_env[16], name_env[160];
    TRY(http_request_json(dump->request, &body, msg));
    TRY(doc_get_str(body, "database", &database, msg));
    TRY(str_format(program, sizeof program, msg, "%s/bin/pg_dump", host->conf->postgres_dir));
    TRY(str_format(
        dump->sql, sizeof dump->sql, msg, "%s/../schema-%zu.sql", host->computes_dir, started));
    TRY(str_format(
        dump->errors, sizeof dump->errors, msg, "%s/../schema-%zu.err", host->computes_dir,
        started));
    TRY(str_format(port_text, sizeof port_text, msg, "%u", port));
    TRY(str_format(host_env, sizeof host_env, msg, "PGHOST=%s", socket_dir));
    TRY(str_format(port_env, sizeof port_env, msg, "PGPORT=%s", port_text));
    TRY(str_format(name_env, sizeof name_env, msg, "PGDATABASE=%s", database));
    /* The name of a database comes by the environment: as an argument it could be an option. */
    const char *const env[] = {
        host_env,
        port_env,
        name_env,
        "PGUSER=postgres",
        "PGCONNECT_TIMEOUT=10",
        "PGAPPNAME=compute-agent",
        "PGCLIENTENCODING=UTF8",
        "PGOPTIONS=-c default_transaction_read_only=on -c log_statement=none -c event_triggers=off",
        NULL};
    const char *const argv[] = {
        program, "--schema-only", "--no-password", "--lock-wait-timeout=10000",
        /* Else its first line is random, and two dumps of one schema differ. */
        "--restrict-key=anabranch", NULL};
    struct child_options options = {
        .argv = argv,
        .env = env,
        .output_path = dump->errors,
        .stdout_path = dump->sql,
        .user_name = host->user.name,
        .dies_with_us = true,
    };
    err_ignore(
        file_remove(dump->errors, NULL), "it is appended to, so at worst an old error leads");
    return child_start(host->loop, &options, &dump->child, msg);
}

void schema_dump_answer(
    struct compute_host *host, const char *socket_dir, uint16_t port, struct http_request *request)
{
    struct errmsg msg = {0};
    if (running >= DUMPS_MAX) {
        http_respond_problem(
            request, 503, "ERR_BUSY", "too many schemas are being read, try again");
        return;
    }
    struct dump *dump = MEM_NEW(struct dump);
    dump->host = host;
    dump->request = request;
    dump->deadline = clock_mono() + TIME_MS * NS_PER_MS;
    dump->child.on_exit = on_exit_of_child;
    dump->timer.on_fire = on_look;
    started++;
    err_t err = start(dump, host, socket_dir, port, &msg);
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        mem_free(dump);
        return;
    }
    running++;
    timer_start(host->loop, &dump->timer, LOOK_MS);
}
