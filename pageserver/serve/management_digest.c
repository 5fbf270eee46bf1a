/*
 * management_digest.c - GET .../timelines/TL/digest: a hash over all pages at an LSN, or over those
 * of one relation, one fork or one block.
 */
#include <stdio.h>

#include "pageserver/serve/management_private.h"

#define WALKS_MAX 16 /* that run or wait */

err_t walk_submit(struct server *server, struct job *job, struct errmsg *msg)
{
    if (server->walk_count >= WALKS_MAX) {
        return err_set(
            msg, ERR_BUSY, "%d digests and differences are being made, try again", WALKS_MAX);
    }
    server->walk_count++;
    executor_submit(server->walks, job);
    return ERR_OK;
}

void walk_ended(struct server *server)
{
    server->walk_count--;
}

static err_t compute(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    return digest_at(
        timeline_store(call->timeline), timeline_path(call->timeline), call->lsn,
        call->digest_scope, call->key, &call->digest, &job->msg);
}

static void on_computed(struct job *job)
{
    struct call *call = CONTAINER_OF(job, struct call, job);
    walk_ended(call->server);
    if (job->result != ERR_OK) {
        call_fail(call, job->result, &job->msg);
        return;
    }
    char hash[17];
    (void)snprintf(hash, sizeof(hash), "%016" PRIx64, call->digest.hash);
    struct doc *doc = doc_object();
    doc_set_lsn(doc, "lsn", call->lsn);
    doc_set_int(doc, "relations", (int64_t)call->digest.relations);
    doc_set_int(doc, "pages", (int64_t)call->digest.pages);
    doc_set_str(doc, "hash", hash);
    http_respond_json(call->http, 200, doc);
    call_free(call);
}

static err_t query_scope(
    struct http_request *http,
    enum digest_scope *ret_scope,
    struct page_key *ret_key,
    struct errmsg *msg)
{
    bool has_rel = http_request_query(http, "rel") != NULL;
    bool has_fork = http_request_query(http, "fork") != NULL;
    bool has_block = http_request_query(http, "block") != NULL;
    if (!has_rel && !has_fork && !has_block) {
        *ret_scope = DIGEST_ALL;
        *ret_key = (struct page_key){0};
        return ERR_OK;
    }
    *ret_scope = has_block ? DIGEST_BLOCK : has_fork ? DIGEST_FORK : DIGEST_RELATION;
    return management_query_key(http, ret_key, msg);
}

void handle_get_digest(struct http_context *context, struct http_request *http)
{
    struct errmsg msg;
    enum digest_scope scope;
    struct page_key key;
    err_t err = query_scope(http, &scope, &key, &msg);
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    struct call *call =
        management_start_at_lsn(context, http, (struct job){.run = compute, .done = on_computed});
    if (call != NULL) {
        call->is_walk = true;
        call->digest_scope = scope;
        call->key = key;
    }
}
