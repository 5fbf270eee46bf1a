#include "compute/walproposer/wal_source.h"

#include <endian.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/parse.h"

#define RETRY_FIRST_MS   10
#define RETRY_MAX_MS     100
#define ATTEMPT_MAX_MS   10000
#define REPLY_EVERY_MS   3000 /* also while we do not read: the server has a time limit for us */
#define XLOG_HEADER_SIZE 25
#define KEEPALIVE_SIZE   18
#define REPLY_SIZE       34

/* Microseconds from 1970-01-01 to 2000-01-01, where the time of Postgres begins. */
#define POSTGRES_EPOCH_US INT64_C(946684800000000)

/* The header calls it pg_conn, as libpq itself does: PGconn is a typedef of that struct. */

static void close_connection(struct wal_source *source)
{
    poll_close(source->poll_user.poll);
    source->socket = -1;
    if (source->conn != NULL) {
        PQfinish(source->conn);
        source->conn = NULL;
    }
}

/* The connection is of no use any more; try again after a while. */
static void retry(struct wal_source *source, const char *what)
{
    const char *why = source->conn == NULL ? "out of memory" : PQerrorMessage(source->conn);
    err_t err = err_set(&source->last_error, ERR_IO, "%s: %s", what, why);
    err_ignore(err, "we come again; the text is for the status page");
    if (source->state == SOURCE_STREAMING || source->attempts % 100 == 20) {
        log_warn(source->log, "replication from Postgres: %s", source->last_error.text);
    }
    close_connection(source);
    source->state = SOURCE_WAITING;
    uint64_t shift = MIN_OF(source->attempts, 6);
    source->attempts++;
    uint64_t delay_ms = MIN_OF((uint64_t)RETRY_FIRST_MS << shift, RETRY_MAX_MS);
    timer_start(source->loop, &source->timer, delay_ms);
}

/* libpq may change its socket while it connects. */
static bool watch_socket(struct wal_source *source, bool readable, bool writable)
{
    int fd = PQsocket(source->conn);
    if (fd < 0) {
        return false;
    }
    if (fd != source->socket || source->poll_user.poll == NULL) {
        poll_close(source->poll_user.poll);
        source->socket = fd;
        if (poll_open(source->loop, fd, &source->poll_user, &source->last_error) != ERR_OK) {
            return false;
        }
    }
    poll_want(source->poll_user.poll, readable, writable);
    return true;
}

/* Send what is queued and wait for what comes next. */
static void flush_and_wait(struct wal_source *source)
{
    int rc = PQflush(source->conn);
    bool streaming = source->state == SOURCE_STREAMING;
    bool readable = !streaming || source->user->callbacks->wants_wal(source->user);
    source->is_held = source->is_held || !readable;
    if (rc < 0 || !watch_socket(source, readable, rc > 0)) {
        retry(source, "send");
    }
}

static void send_query(struct wal_source *source, const char *query, enum wal_source_state next)
{
    if (PQsendQuery(source->conn, query) != 1) {
        retry(source, query);
        return;
    }
    source->state = next;
    flush_and_wait(source);
}

static void connect_now(struct wal_source *source)
{
    static const char *const names[] = {
        "dbname", "replication", "application_name", "fallback_application_name", NULL};
    const char *const values[] = {source->conninfo, "true", "walproposer", "walproposer", NULL};
    source->conn = PQconnectStartParams(names, values, /* expand_dbname */ 1);
    if (source->conn == NULL || PQstatus(source->conn) == CONNECTION_BAD) {
        retry(source, "connect");
        return;
    }
    source->state = SOURCE_CONNECTING;
    timer_start(source->loop, &source->timer, ATTEMPT_MAX_MS);
    if (!watch_socket(source, false, true)) {
        retry(source, "connect");
    }
}

static void go_on_connecting(struct wal_source *source)
{
    switch (PQconnectPoll(source->conn)) {
    case PGRES_POLLING_READING:
        if (!watch_socket(source, true, false)) {
            retry(source, "connect");
        }
        break;
    case PGRES_POLLING_WRITING:
        if (!watch_socket(source, false, true)) {
            retry(source, "connect");
        }
        break;
    case PGRES_POLLING_OK:
        if (PQsetnonblocking(source->conn, 1) != 0) {
            retry(source, "connect");
            break;
        }
        send_query(source, "IDENTIFY_SYSTEM", SOURCE_IDENTIFYING);
        break;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE: retry(source, "connect"); break;
    }
}

static void start_replication(struct wal_source *source)
{
    char query[96];
    lsn_t lsn = source->user->callbacks->next_lsn(source->user);
    (void)snprintf(
        query, sizeof(query), "START_REPLICATION PHYSICAL " LSN_FMT " TIMELINE 1", LSN_ARGS(lsn));
    send_query(source, query, SOURCE_STARTING);
}

/* True when the result is in; `*ret_result` is the caller's. */
static bool take_result(struct wal_source *source, PGresult **ret_result)
{
    if (PQconsumeInput(source->conn) != 1) {
        retry(source, "receive");
        return false;
    }
    if (PQisBusy(source->conn)) {
        flush_and_wait(source);
        return false;
    }
    *ret_result = PQgetResult(source->conn);
    return true;
}

/* False: it is not our cluster, or there is no telling; the connection is dealt with. */
static bool check_system(struct wal_source *source, const PGresult *result)
{
    uint64_t system_id = 0;
    bool good = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 &&
                parse_u64(PQgetvalue(result, 0, 0), 1, UINT64_MAX, &system_id, NULL) == ERR_OK;
    if (!good) {
        retry(source, "IDENTIFY_SYSTEM");
        return false;
    }
    if (source->system_id != 0 && system_id != source->system_id) {
        err_t err = err_set(
            &source->last_error, ERR_INVALID,
            "Postgres has the system identifier %" PRIu64 ", expected %" PRIu64, system_id,
            source->system_id);
        err_ignore(err, "told in the next line");
        source->user->callbacks->on_lost(source->user, &source->last_error);
        return false;
    }
    return true;
}

static void go_on_identifying(struct wal_source *source)
{
    PGresult *result = NULL;
    while (take_result(source, &result)) {
        if (result == NULL) { /* the end of the answer */
            start_replication(source);
            return;
        }
        bool good = check_system(source, result);
        PQclear(result);
        if (!good) {
            return;
        }
    }
}

static void send_reply(struct wal_source *source)
{
    uint8_t message[REPLY_SIZE] = {'r'};
    uint64_t lsn = htobe64(source->reply_lsn);
    uint64_t time = htobe64((uint64_t)(clock_wall() - POSTGRES_EPOCH_US));
    for (size_t i = 0; i < 3; i++) { /* write, flush, apply */
        memcpy(message + 1 + i * sizeof(lsn), &lsn, sizeof(lsn));
    }
    memcpy(message + 25, &time, sizeof(time));
    if (PQputCopyData(source->conn, (const char *)message, sizeof(message)) != 1) {
        retry(source, "reply");
        return;
    }
    if (!source->draining) {
        flush_and_wait(source);
    } else if (PQflush(source->conn) < 0) {
        retry(source, "reply");
    }
}

/* Did Postgres remove the WAL that we need? Its errors say so with this code and no other way. */
#define SQLSTATE_UNDEFINED_FILE "58P01"

/* The answer ended with an error; NULL: what it was is not known. */
static void on_error_result(struct wal_source *source, const PGresult *result, const char *what)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (state == NULL || strcmp(state, SQLSTATE_UNDEFINED_FILE) != 0) {
        retry(source, what);
        return;
    }
    err_t err = err_set(
        &source->last_error, ERR_RANGE, "Postgres does not have the WAL that comes next: %.200s",
        text == NULL ? "" : text);
    err_ignore(err, "told in the next line");
    source->user->callbacks->on_lost(source->user, &source->last_error);
}

static void go_on_starting(struct wal_source *source)
{
    PGresult *result = NULL;
    if (!take_result(source, &result)) {
        return;
    }
    if (result == NULL || PQresultStatus(result) != PGRES_COPY_BOTH) {
        on_error_result(source, result, "START_REPLICATION");
        PQclear(result);
        return;
    }
    PQclear(result);
    source->state = SOURCE_STREAMING;
    source->is_held = false;
    source->attempts = 0;
    source->connections++;
    source->last_error.text[0] = '\0';
    lsn_t lsn = source->user->callbacks->next_lsn(source->user);
    log_info(source->log, "receives the WAL of Postgres from " LSN_FMT, LSN_ARGS(lsn));
    timer_start(source->loop, &source->timer, REPLY_EVERY_MS);
    send_reply(source);
}

static uint64_t be64_at(const uint8_t *from)
{
    uint64_t value = 0;
    memcpy(&value, from, sizeof(value));
    return be64toh(value);
}

/* False: the connection is unusable. */
static bool take_message(struct wal_source *source, const uint8_t *message, size_t size)
{
    if (message[0] == 'w' && size >= XLOG_HEADER_SIZE) {
        if (be64_at(message + 1) != source->user->callbacks->next_lsn(source->user)) {
            return false;
        }
        source->server_lsn = MAX_OF(source->server_lsn, be64_at(message + 9));
        struct bytes wal = bytes_of(message + XLOG_HEADER_SIZE, size - XLOG_HEADER_SIZE);
        if (wal.size > 0) {
            source->user->callbacks->on_wal(source->user, wal);
        }
        return true;
    }
    if (message[0] == 'k' && size >= KEEPALIVE_SIZE) {
        source->server_lsn = MAX_OF(source->server_lsn, be64_at(message + 1));
        if (message[17] != 0) {
            send_reply(source);
        }
        return true;
    }
    return false;
}

static void go_on_streaming(struct wal_source *source)
{
    if (PQconsumeInput(source->conn) != 1) {
        retry(source, "receive");
        return;
    }
    const char *broken = NULL;
    source->draining = true;
    source->is_held = true; /* until libpq says that there is nothing left */
    while (broken == NULL && source->state == SOURCE_STREAMING &&
           source->user->callbacks->wants_wal(source->user)) {
        char *message = NULL;
        int size = PQgetCopyData(source->conn, &message, /* async */ 1);
        if (size == 0) {
            source->is_held = false;
            break;
        }
        if (size < 0) {
            broken = "the stream ended";
        } else if (!take_message(source, (const uint8_t *)message, (size_t)size)) {
            broken = "a message out of order";
        }
        PQfreemem(message);
    }
    source->draining = false;
    if (source->state == SOURCE_STOPPED) {
        close_connection(source); /* stopped from inside on_wal */
    }
    if (source->state != SOURCE_STREAMING) {
        return;
    }
    source->user->callbacks->on_drained(source->user);
    if (source->state == SOURCE_STREAMING) {
        if (broken != NULL) {
            PGresult *result = PQisBusy(source->conn) ? NULL : PQgetResult(source->conn);
            on_error_result(source, result, broken);
            PQclear(result);
        } else {
            flush_and_wait(source);
        }
    }
}

static void advance(struct wal_source *source)
{
    switch (source->state) {
    case SOURCE_STOPPED:
    case SOURCE_WAITING: break;
    case SOURCE_CONNECTING: go_on_connecting(source); break;
    case SOURCE_IDENTIFYING: go_on_identifying(source); break;
    case SOURCE_STARTING:
        go_on_starting(source);
        if (source->state == SOURCE_STREAMING) { /* what came with the answer shows nowhere */
            go_on_streaming(source);
        }
        break;
    case SOURCE_STREAMING: go_on_streaming(source); break;
    }
}

static void on_ready(struct poll_user *user, bool readable, bool writable)
{
    (void)readable;
    (void)writable;
    advance(CONTAINER_OF(user, struct wal_source, poll_user));
}

static void on_timer(struct timer *timer)
{
    struct wal_source *source = CONTAINER_OF(timer, struct wal_source, timer);
    if (source->state == SOURCE_WAITING) {
        connect_now(source);
    } else if (source->state == SOURCE_STREAMING) {
        timer_start(source->loop, &source->timer, REPLY_EVERY_MS);
        send_reply(source);
    } else {
        retry(source, "no answer in time");
    }
}

void wal_source_init(
    struct wal_source *source,
    struct loop *loop,
    struct log *log,
    const char *conninfo,
    uint64_t system_id,
    struct wal_source_user *user)
{
    *source = (struct wal_source){
        .loop = loop,
        .log = log,
        .user = user,
        .conninfo = conninfo,
        .system_id = system_id,
        .socket = -1,
        .poll_user.on_ready = on_ready,
        .timer.on_fire = on_timer,
    };
}

void wal_source_start(struct wal_source *source)
{
    ASSERT(source->state == SOURCE_STOPPED);
    source->state = SOURCE_WAITING;
    timer_start(source->loop, &source->timer, 0);
}

void wal_source_stop(struct wal_source *source)
{
    source->state = SOURCE_STOPPED;
    timer_stop(&source->timer);
    if (!source->draining) {
        close_connection(source);
    }
}

void wal_source_resume(struct wal_source *source)
{
    /* Most who call this have nothing to resume, and a look at the socket is a system call. */
    if (source->state == SOURCE_STREAMING && !source->draining && source->is_held) {
        go_on_streaming(source); /* libpq may hold messages that the socket does not show */
    }
}

void wal_source_report(struct wal_source *source, lsn_t lsn)
{
    if (lsn <= source->reply_lsn) {
        return;
    }
    source->reply_lsn = lsn;
    if (source->state == SOURCE_STREAMING) {
        send_reply(source);
    }
}

const char *wal_source_state_name(enum wal_source_state state)
{
    switch (state) {
    case SOURCE_STOPPED: return "stopped";
    case SOURCE_WAITING: return "waiting";
    case SOURCE_CONNECTING: return "connecting";
    case SOURCE_IDENTIFYING: return "identifying";
    case SOURCE_STARTING: return "starting";
    case SOURCE_STREAMING: return "streaming";
    }
    return "unknown";
}
