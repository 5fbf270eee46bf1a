#include "compute/agent/wal_fetch.h"

#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/metric.h"
#include "common/rpc/rpc.h"

METRIC_COUNTER(
    fetched_bytes, "agent_slot_wal_fetched_bytes_total", "WAL brought for logical slots");
METRIC_COUNTER(
    missing_bytes, "agent_slot_wal_missing_bytes_total", "WAL for slots that no safekeeper had");

#define PIECE_TIMEOUT_MS 20000

static void next_piece(struct wal_fetch *fetch);
static void ask(struct wal_fetch *fetch);

static void finish(struct wal_fetch *fetch, err_t result, const struct errmsg *msg)
{
    wal_files_deinit(&fetch->files);
    http_call_deinit(&fetch->call);
    fetch->done(fetch, result, msg);
}

static err_t run_put(struct job *job)
{
    struct wal_fetch *fetch = CONTAINER_OF(job, struct wal_fetch, job);
    struct bytes wal = buf_view(&fetch->call.response);
    if (wal.size != fetch->piece_end_lsn - fetch->begin_lsn) {
        return err_set(
            &job->msg, ERR_CORRUPT, "WAL at " LSN_FMT " was cut short", LSN_ARGS(fetch->begin_lsn));
    }
    return wal_files_put(&fetch->files, fetch->begin_lsn, wal, &job->msg);
}

static void done_put(struct job *job)
{
    struct wal_fetch *fetch = CONTAINER_OF(job, struct wal_fetch, job);
    if (job->result != ERR_OK) {
        finish(fetch, job->result, &job->msg);
        return;
    }
    metric_add(&fetched_bytes, (int64_t)(fetch->piece_end_lsn - fetch->begin_lsn));
    fetch->begin_lsn = fetch->piece_end_lsn;
    next_piece(fetch);
}

/* ERR_RANGE is the answer of a safekeeper that has given it up. */
static err_t answer_of(struct wal_fetch *fetch)
{
    struct doc *unused = NULL;
    if (fetch->call.result != ERR_OK) {
        fetch->last_error = fetch->call.msg;
        return fetch->call.result;
    }
    if (fetch->call.status == 200) {
        return ERR_OK;
    }
    err_t err = http_call_json(&fetch->call, &unused, &fetch->last_error);
    doc_unref(unused);
    return err == ERR_OK ? ERR_INVALID : err;
}

/* Nobody has the piece. */
static void do_without(struct wal_fetch *fetch)
{
    if (!fetch->is_gone) {
        struct errmsg msg = fetch->last_error;
        err_t err = err_wrap(
            &msg, ERR_IO, "WAL that slots need, from " LSN_FMT, LSN_ARGS(fetch->begin_lsn));
        finish(fetch, err, &msg);
        return;
    }
    log_warn(
        fetch->log, "a logical slot needs WAL that no safekeeper has any more: " LSN_FMT,
        LSN_ARGS(fetch->begin_lsn));
    metric_add(&missing_bytes, (int64_t)(fetch->piece_end_lsn - fetch->begin_lsn));
    fetch->begin_lsn = fetch->piece_end_lsn;
    next_piece(fetch);
}

static void on_answer(struct http_call *call)
{
    struct wal_fetch *fetch = CONTAINER_OF(call, struct wal_fetch, call);
    err_t answer = answer_of(fetch);
    if (fetch->is_canceled) {
        finish(fetch, ERR_CANCELED, &fetch->last_error);
        return;
    }
    if (answer == ERR_OK) {
        fetch->job.run = run_put;
        fetch->job.done = done_put;
        executor_submit(fetch->executor, &fetch->job);
        return;
    }
    fetch->is_gone |= answer == ERR_RANGE;
    fetch->keeper = (fetch->keeper + 1) % fetch->spec->safekeeper_count;
    if (++fetch->tried < fetch->spec->safekeeper_count) {
        ask(fetch);
    } else {
        do_without(fetch);
    }
}

static void ask(struct wal_fetch *fetch)
{
    const struct compute_spec *spec = fetch->spec;
    const struct compute_safekeeper *keeper = &spec->safekeepers[fetch->keeper];
    struct buf url = {0};
    /* The HTTP ports of all nodes speak TLS, or of none. */
    const char *scheme = str_starts_with(spec->pageserver_url, "https:") ? "https" : "http";
    bool is_v6 = strchr(keeper->host, ':') != NULL;
    buf_printf(
        &url, "%s://%s%s%s:%u", scheme, is_v6 ? "[" : "", keeper->host, is_v6 ? "]" : "",
        keeper->http_port);
    rpc_path(
        &url, RPC_SAFEKEEPER_WAL, tenant_id_text(spec->tenant).text,
        timeline_id_text(spec->timeline).text);
    buf_printf(
        &url, "?from=" LSN_FMT "&to=" LSN_FMT, LSN_ARGS(fetch->begin_lsn),
        LSN_ARGS(fetch->piece_end_lsn));
    (void)snprintf(fetch->url, sizeof(fetch->url), "%s", buf_cstr(&url));
    buf_deinit(&url);
    http_call_deinit(&fetch->call);
    fetch->call = (struct http_call){
        .method = rpc_method(RPC_SAFEKEEPER_WAL)->verb,
        .url = fetch->url,
        .token = fetch->token,
        .timeout_ms = PIECE_TIMEOUT_MS,
        .done = on_answer,
    };
    http_call_start(fetch->http, &fetch->call);
}

static void next_piece(struct wal_fetch *fetch)
{
    if (fetch->is_canceled) {
        finish(fetch, ERR_CANCELED, &fetch->last_error);
        return;
    }
    if (fetch->begin_lsn >= fetch->end_lsn) {
        finish(fetch, ERR_OK, &fetch->last_error);
        return;
    }
    fetch->piece_end_lsn = wal_files_piece_end(fetch->begin_lsn, fetch->end_lsn);
    fetch->tried = 0;
    fetch->is_gone = false;
    ask(fetch);
}

void wal_fetch_start(struct wal_fetch *fetch)
{
    ASSERT(fetch->needed_lsn < fetch->end_lsn);
    fetch->is_canceled = false;
    fetch->keeper = 0;
    fetch->call = (struct http_call){.method = NULL};
    (void)snprintf(fetch->last_error.text, sizeof(fetch->last_error.text), "canceled");
    fetch->begin_lsn = wal_files_begin(fetch->needed_lsn, fetch->timeline_start_lsn);
    wal_files_init(&fetch->files, fetch->needed_lsn, fetch->timeline_start_lsn);
    next_piece(fetch);
}

void wal_fetch_cancel(struct wal_fetch *fetch)
{
    fetch->is_canceled = true;
    if (fetch->call.client_private != NULL) {
        http_call_cancel(&fetch->call);
    }
}
