#include "control/act/sizes.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "control/plan/stored.h"
#include "control/plan/usage.h"

#define ASKS_MAX       4 /* pageservers at a time */
#define ASK_TIMEOUT_MS 50000
#define QUICK_NS       (5 * NS_PER_MS) /* the next may follow at once */

METRIC_COUNTER(measured_total, "control_sizes_measured_total", "sizes of projects that were asked");
METRIC_COUNTER(failed_total, "control_sizes_failed_total", "sizes of projects without an answer");

struct ask {
    struct node_call call;
    struct sizes *sizes;
    bool is_running;
    row_id_t project_id;
    uint64_t stamp; /* stored_seen when it began */
    mono_ns_t began;
};

struct sizes {
    struct model *model;
    struct nodes *nodes;
    struct ask asks[ASKS_MAX];
    wall_us_t now; /* when sizes_look() was called last: answers are of then */
    bool stopping;
};

/* ---- what polls say ---- */

void sizes_listed(struct project *project)
{
    project->stored_seen = 1;
}

/* A sum, so that the order in which they are listed says nothing. */
void sizes_listed_timeline(const struct branch *branch, lsn_t cutoff_lsn, lsn_t durable_lsn)
{
    uint64_t id, mixed;
    memcpy(&id, &branch->row.timeline, sizeof id);
    mixed = (id ^ durable_lsn) * UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 29 ^ cutoff_lsn) * UINT64_C(0xbf58476d1ce4e5b9);
    branch->project->stored_seen += mixed ^ mixed >> 32;
}

/* ---- an answer ---- */

/* Of one timeline of the answer. False: it says something else. */
static bool read_end(const struct doc *doc, struct stored_end *ret_end)
{
    struct stored_end end;
    if (doc_get_lsn(doc, "start_lsn", &end.start_lsn, NULL) != ERR_OK ||
        doc_get_lsn(doc, "cutoff_lsn", &end.cutoff_lsn, NULL) != ERR_OK ||
        doc_get_lsn(doc, "end_lsn", &end.end_lsn, NULL) != ERR_OK ||
        doc_get_u64(doc, "logical_bytes", &end.logical_bytes, NULL) != ERR_OK) {
        return false;
    }
    *ret_end = end;
    return true;
}

/* Compared with what is on record, if this process has recorded nothing of it yet. */
static void take(struct measured *measured, const struct list *usages, const struct stored *stored)
{
    if (!measured->is_known) {
        measured->recorded = usage_stored(usages);
    }
    measured->is_known = true;
    measured->stored = *stored;
    measured->is_due |= memcmp(stored, &measured->recorded, sizeof *stored) != 0;
}

struct taking {
    struct project *project;
    struct stored sum;
    struct stored_snapshot *snapshots;
    size_t snapshot_count;
};

/* A snapshot costs what its parent keeps for it; what it shows belongs to the project. */
static void take_branch(struct taking *taking, struct branch *branch, const struct stored_end *end)
{
    if (branch->row.is_snapshot) {
        const struct branch *parent = branch->parent;
        taking->snapshots[taking->snapshot_count++] = (struct stored_snapshot){
            .of = parent == NULL ? branch->row.timeline : parent->row.timeline,
            .lsn = end->start_lsn,
            .cutoff_lsn = parent == NULL ? end->end_lsn : parent->cutoff_lsn,
            .logical_bytes = end->logical_bytes,
        };
        return;
    }
    struct stored stored = stored_of_branch(end, branch->parent != NULL);
    stored_add(&taking->sum, &stored);
    stored.of[STORED_LOGICAL] = 0; /* or each fresh branch would have rows, for nothing */
    take(&branch->measured, &branch->usages, &stored);
    branch->logical_bytes = end->logical_bytes;
}

static struct branch *branch_of(const struct ask *ask, const struct project *project, size_t i)
{
    const struct doc *said = doc_at(doc_get(ask->call.body, "branches"), i);
    const char *timeline = doc_value_str(doc_get(said, "timeline"));
    struct branch *branch =
        timeline == NULL ? NULL : model_branch_of_timeline(ask->sizes->model, timeline);
    return branch != NULL && branch->project == project ? branch : NULL;
}

static err_t take_answer(const struct ask *ask, struct project *project, struct errmsg *msg)
{
    const struct doc *branches = doc_get(ask->call.body, "branches");
    struct taking taking = {.project = project};
    struct stored_end end;
    TRY(doc_get_u64(ask->call.body, "synthetic_bytes", &taking.sum.of[STORED_SYNTHETIC], msg));
    for (size_t i = 0; i < doc_count(branches); i++) {
        struct branch *branch = branch_of(ask, project, i);
        if (branch != NULL && read_end(doc_at(branches, i), &end)) {
            branch->cutoff_lsn = end.cutoff_lsn;
        }
    }
    taking.snapshots = MEM_ARRAY(struct stored_snapshot, doc_count(branches) + 1);
    for (size_t i = 0; i < doc_count(branches); i++) {
        struct branch *branch = branch_of(ask, project, i);
        if (branch != NULL && read_end(doc_at(branches, i), &end)) {
            take_branch(&taking, branch, &end);
        }
    }
    taking.sum.of[STORED_SNAPSHOT] = stored_of_snapshots(taking.snapshots, taking.snapshot_count);
    mem_free(taking.snapshots);
    take(&project->measured, &project->usages, &taking.sum);
    return ERR_OK;
}

static void on_answer(struct node_call *call)
{
    struct ask *ask = CONTAINER_OF(call, struct ask, call);
    struct sizes *sizes = ask->sizes;
    struct project *project = model_project(sizes->model, ask->project_id);
    mono_ns_t now = clock_mono(), took = now - ask->began;
    ask->is_running = false;
    call->node->size_at = took > QUICK_NS ? now + (SIZES_SHARE - 1) * took : now;
    if (project == NULL || sizes->stopping) {
        return;
    }
    err_t err = call->status / 100 == 2 ? take_answer(ask, project, &call->msg) : ERR_FAILED;
    metric_add(err == ERR_OK ? &measured_total : &failed_total, 1);
    project->measuring = false;
    project->measure_at = sizes->now + SIZES_EVERY_US;
    if (err == ERR_OK) {
        project->measured_at = sizes->now;
        project->stored_measured = ask->stamp;
    } else {
        log_debug(NULL, "project %s: size: %s", project->row.id, call->msg.text);
    }
    sizes_look(sizes, sizes->now);
}

/* ---- questions ---- */

static bool is_due(const struct project *project, wall_us_t now)
{
    bool is_there = project->row.state == PROJECT_ACTIVE && project->stored_seen != 0 &&
                    project->on_pageserver == SEEN_PRESENT;
    bool has_changed = project->stored_seen != project->stored_measured;
    bool is_old = now >= project->measured_at + SIZES_ALWAYS_US || now < project->measured_at;
    return is_there && !project->measuring &&
           (has_changed ? now >= project->measure_at || now < project->measured_at : is_old);
}

/* Where the project lies, if that may be asked now. */
static struct node *free_node(const struct sizes *sizes, const struct project *project)
{
    struct node *node = nodes_find(sizes->nodes, NODE_PAGESERVER, project->row.pageserver);
    for (size_t i = 0; i < ASKS_MAX && node != NULL; i++) {
        const struct ask *ask = &sizes->asks[i];
        node = ask->is_running && ask->call.node == node ? NULL : node;
    }
    bool may_ask = node != NULL && node->reachable && clock_mono() >= node->size_at;
    return may_ask ? node : NULL;
}

static void ask_for(struct ask *ask, struct project *project, struct node *node)
{
    struct buf path = {0};
    rpc_path(&path, RPC_PAGESERVER_SIZE, tenant_id_text(project->row.tenant).text);
    ask->is_running = project->measuring = true;
    ask->stamp = project->stored_seen;
    ask->began = clock_mono();
    memcpy(ask->project_id, project->row.id, sizeof ask->project_id);
    ask->call = (struct node_call){.done = on_answer};
    node_call_start(&ask->call, node, RPC_PAGESERVER_SIZE, buf_cstr(&path), NULL, ASK_TIMEOUT_MS);
    buf_deinit(&path);
}

void sizes_look(struct sizes *sizes, wall_us_t now)
{
    sizes->now = now;
    for (size_t i = 0; i < ASKS_MAX && !sizes->stopping; i++) {
        struct project *first = NULL;
        if (sizes->asks[i].is_running) {
            continue;
        }
        FOR_EACH_PROJECT(sizes->model, project)
        {
            bool is_earlier = first == NULL || project->measure_at < first->measure_at;
            if (is_earlier && is_due(project, now) && free_node(sizes, project) != NULL) {
                first = project;
            }
        }
        if (first == NULL) {
            return;
        }
        ask_for(&sizes->asks[i], first, free_node(sizes, first));
    }
}

struct sizes *sizes_create(struct model *model, struct nodes *nodes)
{
    struct sizes *sizes = MEM_NEW(struct sizes);
    *sizes = (struct sizes){.model = model, .nodes = nodes};
    for (size_t i = 0; i < ASKS_MAX; i++) {
        sizes->asks[i].sizes = sizes;
    }
    return sizes;
}

void sizes_stop(struct sizes *sizes)
{
    sizes->stopping = true;
}
