/*
 * management_read.c - what is read at an LSN: base backup, list of relations, single pages and
 * sizes.
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/parse.h"
#include "pageserver/read/base_backup.h"
#include "pageserver/read/relation_list.h"
#include "pageserver/serve/management_private.h"

/* A root that begins with an image which cannot be imported says why, for a start fails of it. */
static err_t not_reached(const struct call *call, struct errmsg *msg)
{
    const struct attachment *attachment = attachment_find(call->timeline);
    const char *import_error = attachment != NULL ? attachment_import_error(attachment) : NULL;
    return import_error != NULL
               ? err_set(
                     msg, ERR_RANGE, "LSN " LSN_FMT " was not reached in time: %s",
                     LSN_ARGS(call->lsn), import_error)
               : err_set(
                     msg, ERR_RANGE,
                     "LSN " LSN_FMT " was not reached in time: the timeline is at " LSN_FMT,
                     LSN_ARGS(call->lsn), LSN_ARGS(timeline_last_lsn(call->timeline)));
}

static err_t wait_error(struct call *call, err_t result, struct errmsg *msg)
{
    struct timeline *tl = call->timeline;
    switch ((int)result) {
    case ERR_TIMEOUT: return not_reached(call, msg);
    case ERR_FAILED: return err_set(msg, ERR_FAILED, "ingest stopped: %s", timeline_failure(tl));
    case ERR_NOT_FOUND: return err_set(msg, ERR_NOT_FOUND, "the timeline was deleted");
    default: return err_set(msg, result, "the wait for an LSN was given up");
    }
}

static void on_lsn_reached(struct lsn_wait *wait, err_t result)
{
    struct call *call = CONTAINER_OF(wait, struct call, wait);
    struct timeline *tl = call->timeline;
    struct errmsg msg;
    if (result == ERR_OK) {
        call->lsn = call->lsn == LSN_HEAD ? timeline_last_lsn(tl) : call->lsn;
        result = timeline_hold_lsn(tl, call->lsn, &call->hold, &msg); /* the job takes its time */
    } else {
        result = wait_error(call, result, &msg);
    }
    if (result != ERR_OK) {
        call_fail(call, result, &msg);
        return;
    }
    if (call->lsn == timeline_last_lsn(tl)) {
        call->prev_record_lsn = timeline_prev_record_lsn(tl);
    }
    if (!call->is_walk) {
        executor_submit(call->server->options.executor, &call->job);
        return;
    }
    result = walk_submit(call->server, &call->job, &msg);
    if (result != ERR_OK) {
        call_fail(call, result, &msg);
    }
}

struct call *management_start_at_lsn(
    struct http_context *context, struct http_request *http, struct job job)
{
    struct errmsg msg;
    lsn_t lsn;
    err_t err = management_query_lsn(http, &lsn, &msg);
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return NULL;
    }
    struct call *call = call_begin(context, http);
    if (call == NULL) {
        return NULL;
    }
    call->lsn = lsn;
    call->job = job;
    lsn_wait_start(
        &call->wait, call->timeline, lsn == LSN_HEAD ? 0 : lsn,
        http_request_timeout_ms(http, call->server->options.wait_timeout_ms), on_lsn_reached);
    return call;
}

static err_t build_backup(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    const struct timeline_info *info = timeline_info(call->timeline);
    struct base_backup_options options = {
        .store = timeline_store(call->timeline),
        .path = timeline_path(call->timeline),
        .start_lsn = info->start_lsn,
        .lsn = call->lsn,
        .prev_record_lsn = call->prev_record_lsn,
        .pg_version = info->pg_version,
        .system_id = info->system_id,
        .cold_slrus = call->cold_slrus,
    };
    return base_backup_build(&options, &call->buf, &job->msg);
}

static void on_backup_built(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    if (job->result != ERR_OK) {
        call_fail(call, job->result, &job->msg);
        return;
    }
    http_respond_buf(call->http, 200, "application/x-tar", &call->buf);
    call_free(call);
}

/* A compute says that it fetches the segments of SLRUs that are missing; others are given them all.
 */
void handle_get_base_backup(struct http_context *context, struct http_request *http)
{
    const char *slrus = http_request_query(http, "slrus");
    struct errmsg msg;
    if (slrus != NULL && strcmp(slrus, "whole") != 0 && strcmp(slrus, "on_demand") != 0) {
        err_t err = err_set(&msg, ERR_INVALID, "slrus: whole or on_demand");
        http_respond_error(http, err, &msg);
        return;
    }
    bool is_cold = slrus != NULL && strcmp(slrus, "on_demand") == 0;
    struct call *call = management_start_at_lsn(
        context, http, (struct job){.run = build_backup, .done = on_backup_built});
    if (call != NULL) {
        call->cold_slrus = is_cold;
    }
}

static err_t list_relations(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    struct timeline *tl = call->timeline;
    return relation_list_at(
        timeline_store(tl), timeline_path(tl), call->lsn, &call->buf, &job->msg);
}

static void on_relations(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    if (job->result != ERR_OK) {
        call_fail(call, job->result, &job->msg);
        return;
    }
    http_respond_buf(call->http, 200, "text/plain", &call->buf);
    call_free(call);
}

void handle_get_relations(struct http_context *context, struct http_request *http)
{
    (void)management_start_at_lsn(
        context, http, (struct job){.run = list_relations, .done = on_relations});
}

/* -- single pages and sizes, for people and tests -- */

static void on_page(struct page_read *read, err_t result)
{
    struct call *call = CONTAINER_OF(read, struct call, read);
    if (result != ERR_OK) {
        call_fail(call, result, &read->msg);
        return;
    }
    char lsn[LSN_TEXT_SIZE];
    (void)snprintf(lsn, sizeof(lsn), LSN_FMT, LSN_ARGS(read->read_lsn));
    if (read->kind == PAGE_READ_PAGES) {
        http_response_header(call->http, "X-Lsn", lsn);
        http_respond_bytes(call->http, 200, "application/octet-stream", buf_view(&read->pages));
    } else {
        struct doc *doc = doc_object();
        doc_set_str(doc, "lsn", lsn);
        doc_set_bool(doc, "exists", read->size.exists);
        doc_set_int(doc, "blocks", read->size.blocks);
        http_respond_json(call->http, 200, doc);
    }
    call_free(call);
}

static err_t query_u32(
    struct http_request *http,
    const char *name,
    bool required,
    uint32_t *ret_value,
    struct errmsg *msg)
{
    const char *text = http_request_query(http, name);
    if (text == NULL) {
        *ret_value = 0;
        return required ? err_set(msg, ERR_INVALID, "query parameter %s is missing", name) : ERR_OK;
    }
    err_t err = parse_u32(text, ret_value, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "query parameter %s", name);
}

err_t management_query_key(struct http_request *http, struct page_key *ret_key, struct errmsg *msg)
{
    uint32_t fork;
    TRY(query_u32(http, "spc", true, &ret_key->spc, msg));
    TRY(query_u32(http, "db", true, &ret_key->db, msg));
    TRY(query_u32(http, "rel", true, &ret_key->rel, msg));
    TRY(query_u32(http, "fork", false, &fork, msg));
    TRY(query_u32(http, "block", false, &ret_key->block, msg));
    if (ret_key->spc == KEY_SPC_STATE || fork >= FORK_COUNT || ret_key->block == KEY_BLOCK_SIZE) {
        return err_set(msg, ERR_INVALID, "no such relation fork or block");
    }
    ret_key->fork = (uint8_t)fork;
    return ERR_OK;
}

static void start_read(
    struct http_context *context, struct http_request *http, enum page_read_kind kind)
{
    struct errmsg msg;
    struct page_key key = {0};
    lsn_t lsn = LSN_HEAD;
    err_t err = management_query_key(http, &key, &msg);
    if (err == ERR_OK) {
        err = management_query_lsn(http, &lsn, &msg);
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call = call_begin(context, http);
    if (call == NULL) {
        return;
    }
    call->read.kind = kind;
    call->read.key = key;
    call->read.count = 1;
    call->read.lsn = lsn;
    call->read.not_modified_since = lsn == LSN_HEAD ? 0 : lsn;
    page_read_start(&call->read, &call->server->reads, call->timeline, on_page);
}

void handle_get_page_at(struct http_context *context, struct http_request *http)
{
    start_read(context, http, PAGE_READ_PAGES);
}

void handle_get_rel_size_at(struct http_context *context, struct http_request *http)
{
    start_read(context, http, PAGE_READ_REL_SIZE);
}
