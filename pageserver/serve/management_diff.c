/*
 * management_diff.c - what compares two branches, or one branch at two moments.
 *
 * Both sides are waited for, one after the other, then a worker compares.
 */
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/pg/wal_reader.h"
#include "pageserver/read/diff.h"
#include "pageserver/serve/management_private.h"

struct side {
    struct diff_call *call;
    struct timeline *timeline; /* between timeline_read_begin and _end; NULL: not yet */
    lsn_t lsn;                 /* LSN_HEAD until it is reached */
    struct lsn_wait wait;
    struct history_hold hold; /* while the pages are compared */
};

struct diff_call {
    struct server *server;
    struct http_request *http;
    struct side sides[2];
    unsigned waiting_for; /* index of a side */
    struct job job;
    struct diff diff;
};

static void diff_free(struct diff_call *call)
{
    for (unsigned i = 0; i < 2; i++) {
        if (call->sides[i].timeline != NULL) {
            timeline_release_lsn(call->sides[i].timeline, &call->sides[i].hold);
            timeline_read_end(call->sides[i].timeline);
        }
    }
    diff_deinit(&call->diff);
    mem_free(call);
}

static void diff_fail(struct diff_call *call, err_t err, const struct errmsg *msg)
{
    http_respond_error(call->http, err, msg);
    diff_free(call);
}

static struct doc *relation_doc(const struct diff_relation *relation)
{
    static const char *const names[] = {"blocks", "other_blocks"};
    struct doc *doc = doc_set_int(doc_object(), "spc", relation->rel.spc);
    doc_set_int(doc, "db", relation->rel.db);
    doc_set_int(doc, "rel", relation->rel.rel);
    doc_set_int(doc, "fork", relation->rel.fork);
    for (unsigned i = 0; i < 2; i++) {
        const struct fork_size *size = &relation->sizes[i];
        doc_set(doc, names[i], size->exists ? doc_int(size->blocks) : doc_null());
    }
    doc_set_int(doc, "pages", (int64_t)relation->pages);
    struct doc *blocks = doc_array();
    for (uint64_t i = 0; i < relation->pages && i < DIFF_BLOCKS_KEPT; i++) {
        doc_push(blocks, doc_int(relation->blocks[i]));
    }
    return doc_set(doc, "first_pages", blocks);
}

static void on_compared(struct job *job)
{
    struct diff_call *call = CONTAINER_OF(job, struct diff_call, job);
    walk_ended(call->server);
    if (job->result != ERR_OK) {
        diff_fail(call, job->result, &job->msg);
        return;
    }
    struct doc *relations = doc_array();
    int64_t pages = 0;
    for (size_t i = 0; i < call->diff.count; i++) {
        doc_push(relations, relation_doc(&call->diff.relations[i]));
        pages += (int64_t)call->diff.relations[i].pages;
    }
    struct doc *doc = doc_set_lsn(doc_object(), "lsn", call->sides[0].lsn);
    doc_set_lsn(doc, "other_lsn", call->sides[1].lsn);
    doc_set_int(doc, "pages", pages);
    doc_set_int(doc, "pages_compared", (int64_t)call->diff.pages_compared);
    http_respond_json(call->http, 200, doc_set(doc, "relations", relations));
    diff_free(call);
}

static err_t compare(struct job *job)
{
    struct diff_call *call = CONTAINER_OF(job, struct diff_call, job);
    struct diff_side sides[2];
    for (unsigned i = 0; i < 2; i++) {
        sides[i] = (struct diff_side){
            .path = timeline_path(call->sides[i].timeline), .lsn = call->sides[i].lsn};
    }
    return diff_at(timeline_store(call->sides[0].timeline), sides, &call->diff, &job->msg);
}

static void wait_for_side(struct diff_call *call);

static err_t side_error(const struct side *side, err_t result, struct errmsg *msg)
{
    const struct timeline *tl = side->timeline;
    switch ((int)result) {
    case ERR_TIMEOUT:
        return err_set(
            msg, ERR_RANGE, "LSN " LSN_FMT " was not reached in time: timeline %s is at " LSN_FMT,
            LSN_ARGS(side->lsn), timeline_id_text(timeline_info(tl)->id).text,
            LSN_ARGS(timeline_last_lsn(tl)));
    case ERR_FAILED: return err_set(msg, ERR_FAILED, "ingest stopped: %s", timeline_failure(tl));
    default: return err_set(msg, result, "the wait for an LSN was given up");
    }
}

static err_t side_reached(struct side *side, err_t result, struct errmsg *msg)
{
    if (result != ERR_OK) {
        return side_error(side, result, msg);
    }
    side->lsn = side->lsn == LSN_HEAD ? timeline_last_lsn(side->timeline) : side->lsn;
    return timeline_hold_lsn(side->timeline, side->lsn, &side->hold, msg);
}

static void on_reached(struct lsn_wait *wait, err_t result)
{
    struct side *side = CONTAINER_OF(wait, struct side, wait);
    struct diff_call *call = side->call;
    struct errmsg msg;
    err_t err = side_reached(side, result, &msg);
    if (err != ERR_OK) {
        diff_fail(call, err, &msg);
        return;
    }
    call->waiting_for++;
    if (call->waiting_for < 2) {
        wait_for_side(call);
        return;
    }
    call->job = (struct job){.run = compare, .done = on_compared};
    err = walk_submit(call->server, &call->job, &msg);
    if (err != ERR_OK) {
        diff_fail(call, err, &msg);
    }
}

static void wait_for_side(struct diff_call *call)
{
    struct side *side = &call->sides[call->waiting_for];
    lsn_wait_start(
        &side->wait, side->timeline, side->lsn == LSN_HEAD ? 0 : side->lsn,
        http_request_timeout_ms(call->http, call->server->options.wait_timeout_ms), on_reached);
}

static err_t query_side_lsn(
    struct http_request *http, const char *name, lsn_t *ret_lsn, struct errmsg *msg)
{
    const char *text = http_request_query(http, name);
    lsn_t lsn = LSN_HEAD;
    if (text != NULL) {
        TRY(parse_lsn(text, &lsn, msg));
        lsn = lsn_canonical(lsn, SEGMENT_SIZE);
    }
    *ret_lsn = lsn;
    return ERR_OK;
}

static err_t fill_side(
    struct diff_call *call,
    unsigned index,
    const char *timeline_text,
    const char *lsn_name,
    struct errmsg *msg)
{
    struct tenant_id tenant_id;
    struct timeline_id id;
    struct side *side = &call->sides[index];
    TRY(tenant_id_parse(http_request_param(call->http, "tenant"), &tenant_id, msg));
    TRY(timeline_id_parse(timeline_text, &id, msg));
    TRY(query_side_lsn(call->http, lsn_name, &side->lsn, msg));
    struct tenant *tenant = tenants_find(call->server->tenants, tenant_id);
    if (tenant == NULL) {
        return tenants_why_missing(call->server->tenants, tenant_id, msg);
    }
    struct timeline *tl = tenant_find_timeline(tenant, id);
    if (tl == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "no timeline %s here", timeline_id_text(id).text);
    }
    if (call->server->stopping) { /* nobody would cancel its wait any more */
        return err_set(msg, ERR_CANCELED, "the pageserver is stopping");
    }
    TRY(timeline_read_begin(tl, msg));
    side->timeline = tl;
    side->call = call;
    return ERR_OK;
}

void handle_get_diff(struct http_context *context, struct http_request *http)
{
    struct errmsg msg;
    struct diff_call *call = MEM_NEW(struct diff_call);
    const char *own = http_request_param(http, "timeline");
    const char *other = http_request_query(http, "other");
    call->server = management_server(context);
    call->http = http;
    err_t err = fill_side(call, 0, own, "lsn", &msg);
    if (err == ERR_OK) {
        err = fill_side(call, 1, other == NULL ? own : other, "other_lsn", &msg);
    }
    if (err != ERR_OK) {
        diff_fail(call, err, &msg);
        return;
    }
    wait_for_side(call);
}
