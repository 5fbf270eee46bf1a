#include "control/act/head.h"

#include "common/base/clock.h"

#define ASK_TIMEOUT_MS      3000
#define GRACE_MS            150 /* for the last ones, once a majority has answered */
#define SETTLE_MS           300 /* how long a commit's news may take to reach the safekeepers */
#define ROUND_PAUSE_MS      3
#define TIME_TIMEOUT_MS     30000
#define CATCH_UP_TIMEOUT_MS 20000
#define CATCH_UP_PAUSE_MS   20

/* ---- pure ---- */

/* How many hold WAL up to `lsn` in the term `term`. */
static size_t holders(const struct head_position *positions, size_t count, term_t term, lsn_t lsn)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        found += positions[i].answered && positions[i].tail_term == term &&
                 positions[i].record_lsn >= lsn;
    }
    return found;
}

lsn_t head_of(const struct head_position *positions, size_t count, bool *ret_settled)
{
    size_t answered = 0;
    term_t term = 0;
    lsn_t head = LSN_NONE, end = LSN_NONE;
    for (size_t i = 0; i < count; i++) {
        if (positions[i].answered) {
            answered++;
            term = MAX_OF(term, positions[i].tail_term);
            head = MAX_OF(head, positions[i].commit_lsn);
            end = MAX_OF(end, positions[i].record_lsn);
        }
    }
    *ret_settled = false;
    if (answered <= count / 2) {
        return LSN_NONE;
    }
    /* What a majority holds of the newest term is committed, whether they know it or not. */
    for (size_t i = 0; i < count; i++) {
        lsn_t lsn = positions[i].record_lsn;
        if (positions[i].answered && lsn > head &&
            holders(positions, count, term, lsn) > count / 2) {
            head = lsn;
        }
    }
    /* A silent member may have been the second holder of what one of the others has. */
    *ret_settled = answered == count || head >= end;
    return head;
}

/* ---- asking ---- */

static void start_round(struct head_query *query);
static void advance(struct head_query *query);

static void finish(struct head_query *query, err_t result)
{
    timer_stop(&query->timer);
    query->done(query, result);
}

static void take_history(struct head_answer *answer, const struct doc *body)
{
    const struct doc *history = doc_get(body, "history");
    uint64_t term = 0;
    if (doc_count(history) > 0) {
        const struct doc *last = doc_at(history, doc_count(history) - 1);
        err_ignore(doc_opt_u64(last, "term", &term, NULL), "0: then only commit_lsn counts");
    }
    answer->tail_term = term;
}

static size_t count_answered(const struct head_query *query)
{
    size_t answered = 0;
    for (size_t i = 0; i < query->members; i++) {
        answered += query->answers[i].answered;
    }
    return answered;
}

/* A hung safekeeper must not hold up what a majority can answer. */
static void on_grace_over(struct timer *timer)
{
    struct head_query *query = CONTAINER_OF(timer, struct head_query, timer);
    for (size_t i = 0; i < query->members; i++) {
        if (query->answers[i].running) {
            node_call_cancel(&query->answers[i].call); /* on_answer follows */
        }
    }
}

static void on_answer(struct node_call *call)
{
    struct head_answer *answer = CONTAINER_OF(call, struct head_answer, call);
    struct head_query *query = answer->query;
    answer->running = false;
    query->outstanding--;
    query->msg = call->status / 100 == 2 ? query->msg : call->msg;
    if (call->status / 100 == 2) { /* without positions: its log is not verified yet */
        err_t err = doc_get_lsn(call->body, "record_lsn", &answer->record_lsn, &query->msg);
        if (err == ERR_OK) {
            err = doc_get_lsn(call->body, "commit_lsn", &answer->commit_lsn, &query->msg);
        }
        answer->answered = err == ERR_OK;
        take_history(answer, call->body);
    }
    if (query->outstanding == 0) {
        timer_stop(&query->timer);
        advance(query);
    } else if (count_answered(query) > query->members / 2 && !timer_is_started(&query->timer)) {
        query->timer.on_fire = on_grace_over;
        timer_start(query->loop, &query->timer, GRACE_MS);
    }
}

static void on_pause_over(struct timer *timer)
{
    struct head_query *query = CONTAINER_OF(timer, struct head_query, timer);
    start_round(query);
}

static void timeline_path(const struct head_query *query, enum rpc_id id, struct buf *to)
{
    rpc_path(to, id, tenant_id_text(query->tenant).text, timeline_id_text(query->timeline).text);
}

static void start_round(struct head_query *query)
{
    struct buf path = {0};
    timeline_path(query, RPC_SAFEKEEPER_GET_TIMELINE, &path);
    query->outstanding = query->members;
    query->round++;
    for (size_t i = 0; i < query->members; i++) {
        struct head_answer *answer = &query->answers[i];
        struct node *node = answer->call.node;
        *answer = (struct head_answer){.query = query, .running = true};
        answer->call.done = on_answer;
        node_call_start(
            &answer->call, node, RPC_SAFEKEEPER_GET_TIMELINE, buf_cstr(&path), NULL,
            ASK_TIMEOUT_MS);
    }
    buf_deinit(&path);
}

/* ---- the LSN of a time: when the pageserver has seen all that was committed before ---- */

static void ask_progress(struct head_query *query);

static void on_time_lsn(struct node_call *call)
{
    struct head_query *query = CONTAINER_OF(call, struct head_query, page_call);
    err_t err = ERR_RANGE;
    if (call->status / 100 == 2) {
        err = doc_get_lsn(call->body, "lsn", &query->time_lsn, &query->msg);
    } else {
        query->msg = call->msg;
        err = call->status == 0 || call->status >= 500 ? ERR_BUSY : ERR_RANGE;
    }
    finish(query, err);
}

static void ask_time(struct head_query *query, struct node *node)
{
    struct buf path = {0};
    timeline_path(query, RPC_PAGESERVER_LSN_AT_TIME, &path);
    query->page_call.done = on_time_lsn;
    node_call_start(
        &query->page_call, node, RPC_PAGESERVER_LSN_AT_TIME, buf_cstr(&path),
        doc_set_time(doc_object(), "time", query->time), TIME_TIMEOUT_MS);
    buf_deinit(&path);
}

static void on_progress_pause_over(struct timer *timer)
{
    ask_progress(CONTAINER_OF(timer, struct head_query, timer));
}

static void on_progress(struct node_call *call)
{
    struct head_query *query = CONTAINER_OF(call, struct head_query, page_call);
    lsn_t last = LSN_NONE;
    if (call->status / 100 == 2) {
        err_ignore(
            doc_opt_lsn(call->body, "last_record_lsn", &last, NULL), "0: it has not caught up");
    }
    if (last >= query->head) {
        ask_time(query, call->node);
    } else if (clock_mono() - query->began > CATCH_UP_TIMEOUT_MS * NS_PER_MS) {
        finish(
            query, err_set(
                       &query->msg, ERR_BUSY,
                       "the pageserver has not read the WAL up to " LSN_FMT " yet, try again",
                       LSN_ARGS(query->head)));
    } else {
        query->timer.on_fire = on_progress_pause_over;
        timer_start(query->loop, &query->timer, CATCH_UP_PAUSE_MS);
    }
}

static void ask_progress(struct head_query *query)
{
    struct node *node = nodes_find(query->nodes, NODE_PAGESERVER, query->pageserver);
    if (node == NULL) {
        finish(query, err_set(&query->msg, ERR_BUSY, "there is no pageserver"));
        return;
    }
    struct buf path = {0};
    timeline_path(query, RPC_PAGESERVER_GET_TIMELINE, &path);
    query->page_call.done = on_progress;
    node_call_start(
        &query->page_call, node, RPC_PAGESERVER_GET_TIMELINE, buf_cstr(&path), NULL,
        ASK_TIMEOUT_MS);
    buf_deinit(&path);
}

static void advance(struct head_query *query)
{
    struct head_position positions[SAFEKEEPERS_MAX];
    for (size_t i = 0; i < query->members; i++) {
        positions[i] = (struct head_position){
            .answered = query->answers[i].answered,
            .tail_term = query->answers[i].tail_term,
            .record_lsn = query->answers[i].record_lsn,
            .commit_lsn = query->answers[i].commit_lsn};
    }
    bool settled = false;
    lsn_t head = head_of(positions, query->members, &settled);
    size_t answered = count_answered(query);
    if (answered <= query->members / 2) {
        struct errmsg why = query->msg;
        finish(
            query,
            err_set(
                &query->msg, ERR_BUSY,
                "a majority of the branch's safekeepers must answer, %zu of %zu did (%.200s)",
                answered, query->members, why.text));
        return;
    }
    if (!settled && clock_mono() - query->began < SETTLE_MS * NS_PER_MS) {
        query->timer.on_fire = on_pause_over;
        timer_start(query->loop, &query->timer, ROUND_PAUSE_MS);
        return;
    }
    query->head = MAX_OF(head, query->start_lsn); /* nothing was written yet: where it starts */
    if (query->time == 0) {
        finish(query, ERR_OK);
    } else {
        ask_progress(query);
    }
}

static void on_nothing_to_ask(struct timer *timer)
{
    advance(CONTAINER_OF(timer, struct head_query, timer));
}

void head_query_start(
    struct head_query *query,
    struct loop *loop,
    struct nodes *nodes,
    const struct branch *branch,
    wall_us_t time)
{
    query->loop = loop;
    query->nodes = nodes;
    query->timeline = branch->row.timeline;
    query->tenant = branch->project->row.tenant;
    query->pageserver = branch->project->row.pageserver;
    query->start_lsn = branch->row.start_lsn;
    query->time = time;
    query->began = clock_mono();
    query->members = 0;
    query->head = query->time_lsn = LSN_NONE;
    for (size_t i = 0; i < branch->row.safekeepers.count; i++) {
        struct node *node = nodes_find(nodes, NODE_SAFEKEEPER, branch->row.safekeepers.ids[i]);
        query->answers[i] = (struct head_answer){.query = query};
        query->answers[i].call.node = node;
        if (node != NULL) {
            query->members++;
        }
    }
    if (query->members < branch->row.safekeepers.count || query->members == 0) {
        query->members = 0; /* a member is in no setting: refused as "0 of 0" */
        query->timer.on_fire = on_nothing_to_ask;
        timer_start(loop, &query->timer, 0);
        return;
    }
    start_round(query);
}
