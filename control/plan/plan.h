/*
 * plan.h - what to do next: wanted state and observed state in, steps that can run now out.
 *
 * Pure: no clock, no I/O, no allocation. Every step is idempotent on its node, so a plan may be
 * made again at any time, also from less knowledge: "unknown" is treated as missing when something
 * is wanted and as present when it is not. The caller runs the steps, observes, and plans again
 * until `reached`; there is no other state. The order of one object's life is in these functions
 * only.
 */
#pragma once

#include "control/model/model.h"

enum plan_step_kind {
    PLAN_MAKE_IMAGE,       /* agent: initdb into the object store */
    PLAN_RENEW_GENERATION, /* catalog: the pageserver's disk is a new one */
    PLAN_ATTACH_TENANT,    /* pageserver */
    PLAN_DETACH_TENANT,    /* pageserver: delete all of it, there and in the object store */
    PLAN_CREATE_ON_PAGESERVER,
    PLAN_CREATE_ON_SAFEKEEPER,
    PLAN_DELETE_ON_PAGESERVER,
    PLAN_DELETE_ON_SAFEKEEPER,
    PLAN_JOIN_SAFEKEEPER, /* create the timeline on a newcomer, empty, under the joint membership */
    PLAN_TELL_SAFEKEEPER, /* who votes, and what to promise */
    PLAN_DELETE_LEFT,     /* on a safekeeper that was a member */
    PLAN_START_COMPUTE,
    PLAN_STOP_COMPUTE,
    PLAN_DELETE_COMPUTE,
    PLAN_ASK_COMPUTE,  /* it is on its way: look again soon */
    PLAN_MOVE_COMPUTE, /* catalog: its host is gone, another one gets it */
    PLAN_GIVE_WAY,     /* catalog: fenced by another writer, or refused: no longer wanted */
    PLAN_CONFIRM,      /* catalog: more safekeepers hold the timeline, or it is cut off */
    PLAN_END_CHANGE,   /* catalog: the new set stands alone, or the change is given up */
    PLAN_FORGET_LEFT,  /* catalog: a former member has deleted the timeline */
    PLAN_COMMIT,       /* catalog: the goal is reached, say so durably */
    PLAN_PURGE,        /* catalog: nothing is left anywhere, drop the row */
};

struct plan_step {
    enum plan_step_kind kind;
    unsigned safekeeper; /* index in the branch's safekeepers, its members, or those that left */
};

#define PLAN_STEPS_MAX (6 + SAFEKEEPERS_MAX + MEMBERS_MAX + LEFT_MAX)

struct plan {
    struct plan_step steps[PLAN_STEPS_MAX];
    size_t count;
    bool reached;          /* the goal of the row's state */
    size_t lost;           /* safekeepers that held it and do not any more */
    const char *waits_for; /* for people, when there is nothing to do yet; NULL otherwise */
};

struct plan_project_view {
    enum project_state state;
    bool image_known;         /* start LSN and system id */
    bool incarnation_known;   /* of the pageserver's disk */
    bool incarnation_matches; /* the generation was issued for this disk */
    enum seen on_pageserver;
    bool is_erased;       /* it is deleted there, and has left nothing in the object store */
    size_t branches_left; /* rows of branches, in any state */
    size_t branches_on_safekeepers; /* of those: not yet deleted on a majority */
    size_t endpoints_left;          /* computes that may still run */
    bool kept; /* a deleted project stays for a while: clients poll its operations */
};

struct plan_branch_view {
    enum branch_state state;
    bool is_root;
    bool is_found; /* by a rebuild: it is there, or it was deleted */
    bool start_known;
    enum seen tenant;   /* on the pageserver */
    bool tenant_leaves; /* the project is being deleted: its tenant goes as a whole */
    enum seen parent;   /* on the pageserver; of a root: present */
    enum seen on_pageserver;
    bool may_come_back; /* when the pageserver's disk is lost: the object store still has it */
    enum seen on_safekeeper[SAFEKEEPERS_MAX];
    bool confirmed[SAFEKEEPERS_MAX]; /* it has held the timeline: durable knowledge */
    bool held[SAFEKEEPERS_MAX];      /* ... that is not durable yet, as long as no store answers */
    size_t safekeeper_count;
    size_t children_left; /* rows of children, in any state, that may be on the pageserver */
    /* The newest membership: joint while `is_changing`. */
    bool is_changing, gives_up;
    enum change_verdict verdict; /* while it is */
    size_t member_count;
    bool is_newcomer[MEMBERS_MAX]; /* that has not answered yet */
    bool is_due[MEMBERS_MAX];      /* has not answered, or must do more */
    bool is_copying;               /* a newcomer has not everything yet */
    bool pageserver_is_behind;     /* it was not told the newest safekeepers */
    enum seen on_left[LEFT_MAX];
    size_t left_count; /* in the row: of a branch that goes also the newcomers */

    bool cuts_off; /* its first compute runs, and that is not recorded yet */
    size_t endpoints_left;
    size_t rows_left; /* children and endpoints that still refer to the row */
};

struct plan_endpoint_view {
    enum endpoint_wanted wanted;
    bool branch_ready;
    bool host_is_gone; /* nobody knows its agent: its lease is over, or the setting lost it */
    bool recreate;
    bool told;     /* the agent has had the newest wish: a start, roles, databases, generation */
    bool recorded; /* the row already says that it is started or suspended */
    enum compute_seen seen;
};

void plan_project(const struct plan_project_view *view, struct plan *ret_plan);
void plan_branch(const struct plan_branch_view *view, struct plan *ret_plan);
void plan_endpoint(const struct plan_endpoint_view *view, struct plan *ret_plan);

/*
 * An answer about a compute that brought no news and was not waited for (the agent has too many who
 * wait): the next question is asked after a pause.
 */
bool plan_asks_in_vain(
    enum plan_step_kind kind, enum compute_seen before, enum compute_seen after, bool waited);

/* Port for a new compute: the first of [first, last] that is not in `taken`; 0: none is free. */
uint64_t plan_port(uint64_t first, uint64_t last, const uint64_t *taken, size_t taken_count);
