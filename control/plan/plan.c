#include "control/plan/plan.h"

static void add(struct plan *plan, enum plan_step_kind kind)
{
    ASSERT(plan->count < PLAN_STEPS_MAX);
    plan->steps[plan->count++] = (struct plan_step){.kind = kind};
}

static void add_for_safekeeper(struct plan *plan, enum plan_step_kind kind, size_t index)
{
    add(plan, kind);
    plan->steps[plan->count - 1].safekeeper = (unsigned)index;
}

/* ---- project ---- */

static void plan_live_project(const struct plan_project_view *view, struct plan *plan)
{
    if (!view->image_known) {
        add(plan, PLAN_MAKE_IMAGE);
    }
    if (!view->incarnation_known) {
        plan->waits_for = "the pageserver to answer";
    } else if (!view->incarnation_matches) {
        /* A new generation first: the old one may have been used by the disk that is gone. */
        add(plan, PLAN_RENEW_GENERATION);
    } else if (view->on_pageserver != SEEN_PRESENT) {
        add(plan, PLAN_ATTACH_TENANT);
    }
    plan->reached = plan->count == 0 && plan->waits_for == NULL;
}

static void plan_leaving_project(const struct plan_project_view *view, struct plan *plan)
{
    if (view->endpoints_left > 0) {
        plan->waits_for = "its computes to stop";
    } else if (view->on_pageserver != SEEN_ABSENT) {
        add(plan, PLAN_DETACH_TENANT);
    } else if (view->branches_on_safekeepers > 0) {
        plan->waits_for = "a majority of its safekeepers to delete the WAL";
    } else {
        plan->reached = true;
    }
    if (plan->reached && view->state == PROJECT_DELETING) {
        add(plan, PLAN_COMMIT);
    } else if (plan->reached && !view->is_erased) {
        add(plan, PLAN_DETACH_TENANT); /* until it has nothing to erase, whatever disk it has */
    } else if (plan->reached && view->branches_left == 0 && !view->kept) {
        add(plan, PLAN_PURGE);
    }
}

void plan_project(const struct plan_project_view *view, struct plan *ret_plan)
{
    *ret_plan = (struct plan){0};
    if (view->state == PROJECT_ACTIVE) {
        plan_live_project(view, ret_plan);
    } else {
        plan_leaving_project(view, ret_plan);
    }
}

/* ---- branch ---- */

static size_t count_seen(const struct plan_branch_view *view, enum seen wanted)
{
    size_t count = 0;
    for (size_t i = 0; i < view->safekeeper_count; i++) {
        count += view->on_safekeeper[i] == wanted;
    }
    return count;
}

static bool is_majority(size_t count, size_t total)
{
    return count > total / 2;
}

/*
 * A safekeeper that never held the timeline gets it. One that did and lost it has forgotten what it
 * acknowledged and whom it voted for: filled again, it could elect a proposer that misses
 * acknowledged WAL. It stays out, and the majority of the others decides.
 */
static void plan_safekeepers(const struct plan_branch_view *view, struct plan *plan)
{
    bool more = false;
    for (size_t i = 0; i < view->safekeeper_count; i++) {
        bool present = view->on_safekeeper[i] == SEEN_PRESENT;
        if (!present && !view->confirmed[i] && !view->held[i]) {
            add_for_safekeeper(plan, PLAN_CREATE_ON_SAFEKEEPER, i);
            continue;
        }
        more = more || !view->confirmed[i];
        plan->lost += view->on_safekeeper[i] == SEEN_ABSENT;
    }
    if (more && view->state == BRANCH_READY) {
        add(plan, PLAN_CONFIRM);
    }
}

/*
 * The steps of docs/design/membership.md. The pageserver follows before the former members forget
 * their WAL; a former member that is away holds nobody up.
 */
static void plan_members(const struct plan_branch_view *view, struct plan *plan)
{
    bool all_came = true;
    for (size_t i = 0; i < view->member_count && view->is_changing; i++) {
        if (view->is_newcomer[i]) {
            all_came = false;
            add_for_safekeeper(plan, PLAN_JOIN_SAFEKEEPER, i);
        }
    }
    /* The first that is told ends what the old set alone could do: the new one must be there. */
    for (size_t i = 0; i < view->member_count && all_came; i++) {
        if (view->is_due[i]) {
            add_for_safekeeper(plan, PLAN_TELL_SAFEKEEPER, i);
        }
    }
    if (view->is_changing) {
        /* It may end before, but a member that leaves takes a copy along. */
        if (view->gives_up || (view->verdict == CHANGE_MAY_FINISH && !view->is_copying)) {
            add(plan, PLAN_END_CHANGE);
        } else if (view->verdict == CHANGE_SUPERSEDED) {
            plan->waits_for = "somebody to look: a safekeeper has a membership that is not ours";
        }
        return;
    }
    bool is_forgotten = false;
    for (size_t i = 0; i < view->left_count && !view->pageserver_is_behind; i++) {
        if (view->on_left[i] == SEEN_ABSENT) {
            is_forgotten = true;
        } else {
            add_for_safekeeper(plan, PLAN_DELETE_LEFT, i);
        }
    }
    if (is_forgotten) {
        add(plan, PLAN_FORGET_LEFT);
    }
}

/*
 * A root gets its safekeepers first, so that the pageserver can follow its WAL from the first byte.
 * A branch gets its pageserver row first: from then on its parent's history at the branch LSN is
 * held, and nobody writes to the branch before. Once it is ready, the order no longer matters and
 * each node is repaired on its own.
 */
static void plan_live_branch(const struct plan_branch_view *view, struct plan *plan)
{
    bool majority = is_majority(count_seen(view, SEEN_PRESENT), view->safekeeper_count);
    bool on_pageserver = view->on_pageserver == SEEN_PRESENT;
    bool ready = view->state == BRANCH_READY;
    if (!view->start_known) {
        plan->waits_for = "the bootstrap image";
        return;
    }
    if (view->is_found && !ready) {
        /* Made again, one that was deleted would be back without its WAL. */
        plan->reached = on_pageserver && majority;
        plan->waits_for = "the pageserver and a majority of its safekeepers to hold it";
        if (plan->reached) {
            plan->waits_for = NULL;
            add(plan, PLAN_COMMIT);
        }
        return;
    }
    bool has_news = ready && on_pageserver && !view->is_changing && view->pageserver_is_behind;
    if (has_news || (!on_pageserver && (ready || majority || !view->is_root))) {
        if (view->tenant != SEEN_PRESENT) {
            plan->waits_for = "its tenant on the pageserver";
        } else if (view->parent != SEEN_PRESENT) {
            plan->waits_for = "its parent on the pageserver";
        } else {
            add(plan, PLAN_CREATE_ON_PAGESERVER);
        }
    }
    if (!view->is_changing && (ready || view->is_root || on_pageserver)) {
        plan_safekeepers(view, plan);
    }
    if (ready && view->cuts_off) {
        add(plan, PLAN_CONFIRM);
    }
    if (ready) {
        plan_members(view, plan);
    }
    plan->reached = on_pageserver && majority;
    if (plan->reached && !ready) {
        add(plan, PLAN_COMMIT);
    }
}

/*
 * Computes, then pages, then WAL: each still needs the next one while it goes. The row stays until
 * no lost disk can bring the timeline back: whoever has the row deletes it again.
 */
static void plan_leaving_branch(const struct plan_branch_view *view, struct plan *plan)
{
    size_t gone = count_seen(view, SEEN_ABSENT);
    if (view->endpoints_left > 0) {
        plan->waits_for = "its computes to stop";
        return;
    }
    if (view->on_pageserver != SEEN_ABSENT) {
        if (view->children_left > 0) {
            plan->waits_for = "its children on the pageserver to go";
        } else if (view->tenant_leaves) {
            plan->waits_for = "its tenant on the pageserver to go";
        } else {
            add(plan, PLAN_DELETE_ON_PAGESERVER);
        }
        return;
    }
    for (size_t i = 0; i < view->safekeeper_count; i++) {
        if (view->on_safekeeper[i] != SEEN_ABSENT) {
            add_for_safekeeper(plan, PLAN_DELETE_ON_SAFEKEEPER, i);
        }
    }
    size_t left_over = 0;
    for (size_t i = 0; i < view->left_count; i++) {
        if (view->on_left[i] != SEEN_ABSENT) {
            add_for_safekeeper(plan, PLAN_DELETE_LEFT, i);
            left_over++;
        }
    }
    plan->reached = is_majority(gone, view->safekeeper_count);
    if (plan->reached && view->state == BRANCH_DELETING) {
        add(plan, PLAN_COMMIT);
    } else if (
        gone == view->safekeeper_count && left_over == 0 && view->rows_left == 0 &&
        !view->may_come_back) {
        add(plan, PLAN_PURGE);
    }
}

void plan_branch(const struct plan_branch_view *view, struct plan *ret_plan)
{
    *ret_plan = (struct plan){0};
    if (view->state == BRANCH_INIT || view->state == BRANCH_READY) {
        plan_live_branch(view, ret_plan);
    } else {
        plan_leaving_branch(view, ret_plan);
    }
}

/* ---- endpoint ---- */

static void plan_wanted_compute(const struct plan_endpoint_view *view, struct plan *plan)
{
    if (view->recreate) {
        add(plan, PLAN_DELETE_COMPUTE);
        return;
    }
    if (!view->branch_ready) {
        plan->waits_for = "its branch to be ready";
        return;
    }
    switch (view->seen) {
    case COMPUTE_UNKNOWN:
    case COMPUTE_ABSENT:
    case COMPUTE_STOPPED:
    case COMPUTE_FAILED: add(plan, PLAN_START_COMPUTE); break;
    case COMPUTE_STARTING:
    case COMPUTE_STOPPING: add(plan, PLAN_ASK_COMPUTE); break;
    case COMPUTE_REFUSED:
    case COMPUTE_FENCED:
        /* What was wanted since then is a try of its own. */
        add(plan, view->told ? PLAN_GIVE_WAY : PLAN_START_COMPUTE);
        break;
    case COMPUTE_RUNNING:
        if (view->told) {
            plan->reached = true;
        } else {
            add(plan, PLAN_START_COMPUTE); /* no start, if it has them already */
        }
        break;
    }
}

static void plan_idle_compute(const struct plan_endpoint_view *view, struct plan *plan)
{
    switch (view->seen) {
    case COMPUTE_UNKNOWN:
    case COMPUTE_STOPPING: add(plan, PLAN_ASK_COMPUTE); break;
    case COMPUTE_STARTING:
    case COMPUTE_RUNNING: add(plan, PLAN_STOP_COMPUTE); break;
    case COMPUTE_ABSENT:
    case COMPUTE_STOPPED:
    case COMPUTE_FAILED:
    case COMPUTE_REFUSED:
    case COMPUTE_FENCED: plan->reached = true; break;
    }
}

/*
 * A host that is gone is asked nothing. If the compute still runs there, the terms keep it from
 * committing as soon as the next one has been elected, and it is deleted when its host comes back.
 */
static void plan_abandoned_compute(const struct plan_endpoint_view *view, struct plan *plan)
{
    if (view->wanted == ENDPOINT_ACTIVE) {
        add(plan, PLAN_MOVE_COMPUTE);
        return;
    }
    if (view->wanted == ENDPOINT_RESTARTING) {
        add(plan, PLAN_COMMIT); /* half of it; whether anybody still waits for it or not */
        return;
    }
    plan->reached = true;
    if (view->wanted == ENDPOINT_DELETING) {
        add(plan, PLAN_PURGE);
    } else if (!view->recorded) {
        add(plan, PLAN_COMMIT);
    }
}

void plan_endpoint(const struct plan_endpoint_view *view, struct plan *ret_plan)
{
    *ret_plan = (struct plan){0};
    if (view->host_is_gone) {
        plan_abandoned_compute(view, ret_plan);
        return;
    }
    switch (view->wanted) {
    case ENDPOINT_ACTIVE: plan_wanted_compute(view, ret_plan); break;
    case ENDPOINT_IDLE: plan_idle_compute(view, ret_plan); break;
    case ENDPOINT_RESTARTING:
        plan_idle_compute(view, ret_plan);
        if (ret_plan->reached) {
            ret_plan->reached = false; /* half of it */
            add(ret_plan, PLAN_COMMIT);
        }
        return;
    case ENDPOINT_DELETING:
        if (view->seen == COMPUTE_ABSENT) {
            ret_plan->reached = true;
            add(ret_plan, PLAN_PURGE);
        } else {
            add(ret_plan, PLAN_DELETE_COMPUTE);
        }
        return;
    }
    if (ret_plan->reached && !view->recorded) {
        add(ret_plan, PLAN_COMMIT);
    }
}

bool plan_asks_in_vain(
    enum plan_step_kind kind, enum compute_seen before, enum compute_seen after, bool waited)
{
    bool is_in_vain = (kind == PLAN_ASK_COMPUTE && after == before) ||
                      (kind == PLAN_DELETE_COMPUTE && after != COMPUTE_ABSENT);
    return is_in_vain && !waited;
}

uint64_t plan_port(uint64_t first, uint64_t last, const uint64_t *taken, size_t taken_count)
{
    for (uint64_t port = first; port <= last; port++) {
        bool is_taken = false;
        for (size_t i = 0; i < taken_count && !is_taken; i++) {
            is_taken = taken[i] == port;
        }
        if (!is_taken) {
            return port;
        }
    }
    return 0;
}
