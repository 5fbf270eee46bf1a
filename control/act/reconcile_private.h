/* reconcile_private.h - shared by reconcile.c, step.c and observe.c only. */
#pragma once

#include "control/act/reconcile.h"
#include "control/plan/plan.h"

struct reconciler {
    struct loop *loop;
    struct store *store;
    struct model *model;
    struct nodes *nodes;
    struct reconcile_options options;
    struct reconcile_user *user;
    struct store_watcher watcher;
    struct nodes_user nodes_user;
    bool stopping;

    /* Objects to plan, soon; objects to plan when their attempt is due; objects to commit. */
    struct list work_projects, work_branches, work_endpoints;
    struct list retry_projects, retry_branches, retry_endpoints;
    struct list commit_projects, commit_branches, commit_endpoints;
    struct list ending;   /* branches that time ends, or the last that hangs on them */
    struct list homeless; /* endpoints whose host is gone, to be planned again */
    struct list purges; /* objects whose rows go with the commit under way: nothing begins there */
    struct loop_task work;
    bool work_posted;
    struct timer retry, expiry;

    struct change commit;
    bool committing;

    struct list asks; /* steps that ask after a compute: they wait at the agent for it to change */

    struct attempt image_attempt;
    struct image_row image_made; /* to be committed; id is empty otherwise */
    size_t steps_running;
    bool orphan_running;
    wall_us_t clock_ahead;
};

/* What is planned or what a step is about. */
struct target {
    struct project *project;   /* always */
    struct branch *branch;     /* or NULL: the project itself */
    struct endpoint *endpoint; /* or NULL: the branch itself */
};

/* One step under way. */
struct step {
    struct node_call call;
    struct reconciler *reconciler;
    enum plan_step_kind kind;
    unsigned safekeeper;
    struct attempt *attempt;
    uint64_t wish;                  /* of the endpoint when it started */
    struct timeline_id timeline;    /* of the branch when it started */
    uint64_t generation;            /* of its newest membership when it started */
    uint64_t membership_generation; /* not of a joint one: what the pageserver is told */
    uint64_t node_id;
    struct target target;     /* empty for the image */
    struct list_link in_asks; /* of PLAN_ASK_COMPUTE */
    enum compute_seen seen;   /* of a compute when it began */
    mono_ns_t begun;
};

/* reconcile.c */
void work_project(struct reconciler *reconciler, struct project *project);
void work_branch(struct reconciler *reconciler, struct branch *branch);
void work_endpoint(struct reconciler *reconciler, struct endpoint *endpoint);
void work_children(struct reconciler *reconciler, struct branch *branch); /* and its computes */
void work_all_of(struct reconciler *reconciler, struct project *project);
void view_project(
    struct reconciler *reconciler, const struct project *project, struct plan_project_view *ret);
void view_branch(const struct branch *branch, struct plan_branch_view *ret);
void view_endpoint(
    const struct reconciler *reconciler,
    const struct endpoint *endpoint,
    struct plan_endpoint_view *ret);
wall_us_t reconciler_calendar(const struct reconciler *reconciler);
void commit_soon(struct reconciler *reconciler);
void mark_for_commit(struct reconciler *reconciler, const struct target *target);

/* step.c */
struct node *step_node(
    struct reconciler *reconciler, const struct plan_step *planned, const struct target *target);
void step_start(struct step *step); /* takes over `step`, which has everything but `call` */
/* Ends the questions after this compute, or after all (NULL): something else is to be done. */
void step_stop_asking(struct reconciler *reconciler, const struct endpoint *endpoint);
void image_ensure(struct reconciler *reconciler);

/* observe.c */
void observe_poll(struct nodes_user *user, struct node *node, const struct doc *body);
void observe_compute(struct endpoint *endpoint, const struct doc *status);

/* commit.c */
bool endpoint_may_sleep(const struct reconciler *reconciler, const struct endpoint *endpoint);
bool branch_has_an_end(const struct branch *branch); /* some day: else it has never expired */
bool branch_has_expired(const struct branch *branch, wall_us_t now);
bool project_has_expired(const struct project *project, wall_us_t now);
NODISCARD err_t commit_prepare(struct change *change, struct errmsg *msg);
