#include "control/api/branch_start.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/pg/wal_reader.h"
#include "control/act/head.h"

#define PARENT_WAIT_MS   15000 /* a parent that is being created itself */
#define PARENT_PAUSE_MS  20
#define WAL_SEGMENT_SIZE (16 * 1024 * 1024)

enum branch_start_state {
    START_WAIT_PARENT, /* until it is ready: its safekeepers know it */
    START_ASK_HEAD,    /* and the LSN of the time, if one was given */
};

struct branch_start {
    enum branch_start_state state;
    struct mutation *mutation;
    const struct branch_start_keys *keys; /* as the caller named them, for what is refused */
    struct head_query head;
    struct timer timer;
    mono_ns_t began;
    lsn_t wanted_lsn;      /* canonical; LSN_NONE: head or time */
    wall_us_t wanted_time; /* 0: none */
};

static void advance(struct branch_start *start);

static void fail(struct branch_start *start, err_t err, const struct errmsg *msg)
{
    mutation_fail(start->mutation, err, msg);
    mem_free(start);
}

static void refuse(
    struct branch_start *start, unsigned status, const char *code, const struct errmsg *text)
{
    struct errmsg msg = {0};
    err_t err = mutation_refuse(start->mutation, status, code, &msg, "%s", text->text);
    fail(start, err, &msg);
}

#define REFUSE(start, status, code, ...)                                                           \
    do {                                                                                           \
        struct errmsg refuse_msg = {0};                                                            \
        err_ignore(err_set(&refuse_msg, ERR_INVALID, __VA_ARGS__), "only its text is used");       \
        refuse((start), (status), (code), &refuse_msg);                                            \
    } while (0)

static struct branch *parent_of(const struct branch_start *start)
{
    const struct mutation *mutation = start->mutation;
    struct branch *branch = NULL;
    err_t err =
        find_branch(mutation->api, mutation->project_id, mutation->parent_id, &branch, NULL);
    return err == ERR_OK ? branch : NULL;
}

/* The branch itself or the nearest ancestor whose own history holds `lsn`; NULL: none does. */
static const struct branch *covering(const struct branch *branch, lsn_t lsn)
{
    while (branch != NULL && lsn < branch->row.start_lsn) {
        branch = branch->parent;
    }
    return branch;
}

static void submit(struct branch_start *start, const struct branch *parent, lsn_t lsn)
{
    struct mutation *mutation = start->mutation;
    const struct branch *source = covering(parent, lsn);
    if (source == NULL) {
        const struct branch *root = parent;
        while (root->parent != NULL) {
            root = root->parent;
        }
        REFUSE(
            start, 400, "LSN_NOT_RETAINED",
            "%s " LSN_FMT " is older than the history of the project, which begins at " LSN_FMT,
            start->keys->lsn, LSN_ARGS(lsn), LSN_ARGS(root->row.start_lsn));
        return;
    }
    memcpy(mutation->parent_id, source->row.id, sizeof mutation->parent_id);
    mutation->parent_timeline = source->row.timeline;
    mutation->start_lsn = lsn;
    mutation->parent_timestamp = start->wanted_time;
    mem_free(start);
    mutation_submit(mutation);
}

static err_t refuse_changed(
    struct mutation *mutation, const struct branch *branch, struct errmsg *msg)
{
    return mutation_refuse(
        mutation, 409, "PARENT_CHANGED", msg,
        "branch %s was restored or reset while this was under way, and where it was to begin lies "
        "in the history before: ask again; the history before is kept under the name that "
        "preserve_under_name gave it",
        branch->row.id);
}

err_t branch_start_parent(struct mutation *mutation, struct branch **ret_parent, struct errmsg *msg)
{
    struct branch *parent = NULL;
    TRY(find_history(mutation->api, mutation->project_id, mutation->parent_id, &parent, msg));
    if (!timeline_id_equal(parent->row.timeline, mutation->parent_timeline)) {
        return refuse_changed(mutation, parent, msg);
    }
    *ret_parent = parent;
    return ERR_OK;
}

static void on_head(struct head_query *query, err_t result)
{
    struct branch_start *start = CONTAINER_OF(query, struct branch_start, head);
    const struct branch *parent = parent_of(start);
    if (parent == NULL) {
        REFUSE(start, 404, "BRANCH_NOT_FOUND", "the parent branch was deleted meanwhile");
        return;
    }
    if (!timeline_id_equal(parent->row.timeline, query->timeline)) {
        struct errmsg msg = {0};
        err_t err = refuse_changed(start->mutation, parent, &msg);
        fail(start, err, &msg);
        return;
    }
    if (result != ERR_OK) {
        bool is_range = result == ERR_RANGE;
        if (is_range) {
            err_ignore(
                err_wrap(&query->msg, result, "%s", start->keys->time), "only its text is used");
        }
        refuse(
            start, is_range ? 400 : 503, is_range ? "TIME_NOT_RETAINED" : "TRY_AGAIN", &query->msg);
        return;
    }
    if (start->wanted_lsn > query->head) {
        REFUSE(
            start, 400, "LSN_AHEAD_OF_PARENT",
            "%s " LSN_FMT " is ahead of the branch, whose head is " LSN_FMT, start->keys->lsn,
            LSN_ARGS(start->wanted_lsn), LSN_ARGS(query->head));
        return;
    }
    lsn_t lsn = query->head;
    if (start->wanted_time != 0) {
        lsn = lsn_canonical(query->time_lsn, WAL_SEGMENT_SIZE);
    } else if (start->wanted_lsn != LSN_NONE) {
        lsn = start->wanted_lsn;
    }
    submit(start, parent, lsn);
}

static void on_pause_over(struct timer *timer)
{
    advance(CONTAINER_OF(timer, struct branch_start, timer));
}

static void wait_for_parent(struct branch_start *start, const struct branch *parent)
{
    if (clock_mono() - start->began > PARENT_WAIT_MS * NS_PER_MS) {
        REFUSE(
            start, 423, "BRANCH_NOT_READY", "branch %s is still being created, try again",
            parent->row.id);
        return;
    }
    start->timer.on_fire = on_pause_over;
    timer_start(start->mutation->api->loop, &start->timer, PARENT_PAUSE_MS);
}

static void advance(struct branch_start *start)
{
    const struct api *api = start->mutation->api;
    const struct branch *parent = parent_of(start);
    if (parent == NULL) {
        REFUSE(start, 404, "BRANCH_NOT_FOUND", "branch %s not found", start->mutation->parent_id);
        return;
    }
    switch (start->state) {
    case START_WAIT_PARENT:
        if (parent->row.state != BRANCH_READY) {
            wait_for_parent(start, parent);
            return;
        }
        if (start->wanted_lsn != LSN_NONE && start->wanted_lsn <= parent->row.start_lsn) {
            submit(start, parent, start->wanted_lsn); /* no head can lie below it */
            return;
        }
        start->state = START_ASK_HEAD;
        start->head.done = on_head;
        head_query_start(&start->head, api->loop, api->nodes, parent, start->wanted_time);
        break;
    case START_ASK_HEAD: ASSERT(false); /* on_head ends it */
    }
}

/* ---- the request ---- */

static err_t read_time(
    struct branch_start *start, const struct project *project, const char *text, struct errmsg *msg)
{
    const char *name = start->keys->time;
    if (parse_time(text, &start->wanted_time, msg) != ERR_OK) {
        return err_wrap(msg, ERR_INVALID, "%s", name);
    }
    if (start->wanted_time > clock_wall()) {
        return mutation_refuse(
            start->mutation, 400, "TIME_IN_FUTURE", msg, "%s %s lies in the future", name, text);
    }
    if (start->wanted_time < project->row.created_at) {
        return mutation_refuse(
            start->mutation, 400, "TIME_NOT_RETAINED", msg,
            "%s %s is older than the history of the project, which begins at %s", name, text,
            time_text(project->row.created_at).text);
    }
    return ERR_OK;
}

static err_t read_position(
    struct branch_start *start,
    const struct project *project,
    const struct doc *wish,
    const struct branch_start_keys *keys,
    struct errmsg *msg)
{
    const struct doc *lsn = doc_get(wish, keys->lsn);
    const char *time = NULL;
    TRY(doc_opt_str(wish, keys->time, &time, msg));
    if (lsn != NULL && !doc_is_null(lsn)) {
        TRY(doc_get_lsn(wish, keys->lsn, &start->wanted_lsn, msg));
        start->wanted_lsn = MAX_OF(lsn_canonical(start->wanted_lsn, WAL_SEGMENT_SIZE), 8);
    }
    if (time != NULL && start->wanted_lsn != LSN_NONE) {
        return mutation_refuse(
            start->mutation, 400, "BAD_REQUEST", msg, "%s and %s exclude each other", keys->lsn,
            keys->time);
    }
    return time == NULL ? ERR_OK : read_time(start, project, time, msg);
}

static err_t read_wish(
    struct branch_start *start, const struct branch_start_keys *keys, struct errmsg *msg)
{
    struct mutation *mutation = start->mutation;
    const struct doc *wish = mutation->body;
    const char *parent_id = NULL;
    struct project *project = NULL;
    struct branch *parent = NULL;
    TRY(find_project(mutation->api, mutation->project_id, &project, msg));
    if (keys->object != NULL) {
        TRY(wish_of(mutation->body, keys->object, &wish, msg));
    }
    TRY(doc_opt_str(wish, keys->parent, &parent_id, msg));
    TRY(read_position(start, project, wish, keys, msg));
    if (parent_id != NULL) {
        TRY(find_branch(mutation->api, mutation->project_id, parent_id, &parent, msg));
    } else {
        parent = project_default_branch(project);
    }
    if (parent == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "branch: the project has no default branch");
    }
    memcpy(mutation->parent_id, parent->row.id, sizeof mutation->parent_id);
    return ERR_OK;
}

void branch_start_find(struct mutation *mutation, const struct branch_start_keys *keys)
{
    struct branch_start *start = MEM_NEW(struct branch_start);
    struct errmsg msg = {0};
    start->mutation = mutation;
    start->keys = keys;
    start->began = clock_mono();
    start->state = START_WAIT_PARENT;
    err_t err = read_wish(start, keys, &msg);
    if (err != ERR_OK) {
        fail(start, err, &msg);
        return;
    }
    advance(start);
}
