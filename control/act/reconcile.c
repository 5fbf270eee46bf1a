#include "control/act/reconcile.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "control/act/reconcile_private.h"
#include "control/model/members.h"

#define RETRY_TICK_MS            20
#define EXPIRY_TICK_MS           500
#define RETRIES_PER_TICK         500 /* of each kind: the rest comes at the next tick */
#define ERASURES_PER_PROJECT_MAX 32  /* the pageserver takes those of a tenant together */
#define STEPS_PER_NODE_MAX       64  /* and as many that only wait for a compute to change */

static void on_work(struct loop_task *task);
static void on_retry(struct timer *timer);
static void on_expiry(struct timer *timer);
static void on_applied(struct store_watcher *watcher, enum row_kind kind, void *object);
static void on_removed(struct store_watcher *watcher, enum row_kind kind, const union any_row *row);
static void on_commit_done(struct change *change, err_t result, const struct errmsg *msg);

struct reconciler *reconciler_create(
    struct loop *loop,
    struct store *store,
    const struct reconcile_options *options,
    struct reconcile_user *user)
{
    struct reconciler *reconciler = MEM_NEW(struct reconciler);
    reconciler->loop = loop;
    reconciler->store = store;
    reconciler->model = store_model(store);
    reconciler->options = *options;
    reconciler->user = user;
    reconciler->watcher.on_applied = on_applied;
    reconciler->watcher.on_removed = on_removed;
    reconciler->nodes_user.on_poll = observe_poll;
    reconciler->work.run = on_work;
    reconciler->retry.on_fire = on_retry;
    reconciler->expiry.on_fire = on_expiry;
    reconciler->commit = (struct change){.prepare = commit_prepare, .done = on_commit_done};
    list_init(&reconciler->asks);
    list_init(&reconciler->ending);
    list_init(&reconciler->homeless);
    list_init(&reconciler->purges);
    list_init(&reconciler->work_projects);
    list_init(&reconciler->work_branches);
    list_init(&reconciler->work_endpoints);
    list_init(&reconciler->retry_projects);
    list_init(&reconciler->retry_branches);
    list_init(&reconciler->retry_endpoints);
    list_init(&reconciler->commit_projects);
    list_init(&reconciler->commit_branches);
    list_init(&reconciler->commit_endpoints);
    store_watch(store, &reconciler->watcher);
    return reconciler;
}

struct nodes_user *reconciler_nodes_user(struct reconciler *reconciler)
{
    return &reconciler->nodes_user;
}

static void note_end(struct reconciler *reconciler, struct branch *branch)
{
    list_remove(&branch->in_ending);
    if (branch_has_an_end(branch)) {
        list_push_back(&reconciler->ending, &branch->in_ending);
    }
}

void reconciler_start(struct reconciler *reconciler, struct nodes *nodes)
{
    reconciler->nodes = nodes;
    FOR_EACH_PROJECT(reconciler->model, project)
    {
        work_all_of(reconciler, project);
        FOR_EACH_BRANCH(project, branch)
        {
            note_end(reconciler, branch);
        }
    }
    nodes_start_polls(nodes);
    timer_start(reconciler->loop, &reconciler->expiry, EXPIRY_TICK_MS);
}

void reconciler_stop(struct reconciler *reconciler)
{
    reconciler->stopping = true;
    timer_stop(&reconciler->retry);
    timer_stop(&reconciler->expiry);
    step_stop_asking(reconciler, NULL);
    if (reconciler->nodes != NULL) {
        nodes_stop_polls(reconciler->nodes);
    }
}

bool reconciler_is_idle(const struct reconciler *reconciler)
{
    return reconciler->steps_running == 0 && !reconciler->committing;
}

void reconciler_set_clock_ahead(struct reconciler *reconciler, wall_us_t ahead)
{
    reconciler->clock_ahead = ahead;
}

void reconciler_set_recovery_window(struct reconciler *reconciler, uint64_t window_ms)
{
    reconciler->options.recovery_window_ms = window_ms;
}

wall_us_t reconciler_calendar(const struct reconciler *reconciler)
{
    return clock_wall() + reconciler->clock_ahead;
}

/* What is in them lives in the model, which may live longer. */
static void empty_lists(struct reconciler *reconciler)
{
    struct list *const lists[] = {
        &reconciler->work_projects,   &reconciler->work_branches,   &reconciler->work_endpoints,
        &reconciler->retry_projects,  &reconciler->retry_branches,  &reconciler->retry_endpoints,
        &reconciler->commit_projects, &reconciler->commit_branches, &reconciler->commit_endpoints,
        &reconciler->homeless,        &reconciler->purges,          &reconciler->ending,
    };
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        while (list_pop_front(lists[i]) != NULL) { /* it has left the list */
        }
    }
}

void reconciler_destroy(struct reconciler *reconciler)
{
    if (reconciler != NULL) {
        empty_lists(reconciler);
        store_unwatch(&reconciler->watcher);
        mem_free(reconciler);
    }
}

/* ---- the queue of what is to be planned ---- */

static void post_work(struct reconciler *reconciler)
{
    if (!reconciler->work_posted && !reconciler->stopping && reconciler->nodes != NULL) {
        reconciler->work_posted = true;
        loop_post(reconciler->loop, &reconciler->work);
    }
}

static void enqueue(struct reconciler *reconciler, struct list *list, struct list_link *link)
{
    if (!list_link_is_in(link)) {
        list_push_back(list, link);
    }
    post_work(reconciler);
}

void work_project(struct reconciler *reconciler, struct project *project)
{
    enqueue(reconciler, &reconciler->work_projects, &project->in_work);
}

void work_branch(struct reconciler *reconciler, struct branch *branch)
{
    enqueue(reconciler, &reconciler->work_branches, &branch->in_work);
}

void work_endpoint(struct reconciler *reconciler, struct endpoint *endpoint)
{
    enqueue(reconciler, &reconciler->work_endpoints, &endpoint->in_work);
}

void work_children(struct reconciler *reconciler, struct branch *branch)
{
    FOR_EACH_CHILD(branch, child)
    {
        work_branch(reconciler, child);
    }
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        work_endpoint(reconciler, endpoint);
    }
}

void work_all_of(struct reconciler *reconciler, struct project *project)
{
    work_project(reconciler, project);
    FOR_EACH_BRANCH(project, branch)
    {
        work_branch(reconciler, branch);
    }
    FOR_EACH_ENDPOINT(project, endpoint)
    {
        work_endpoint(reconciler, endpoint);
    }
}

static void work_computes(struct reconciler *reconciler)
{
    FOR_EACH_PROJECT(reconciler->model, project)
    {
        FOR_EACH_ENDPOINT(project, endpoint)
        {
            work_endpoint(reconciler, endpoint);
            work_branch(reconciler, endpoint->branch);
        }
    }
}

static void on_applied(struct store_watcher *watcher, enum row_kind kind, void *object)
{
    struct reconciler *reconciler = CONTAINER_OF(watcher, struct reconciler, watcher);
    if (kind == ROW_HOST) {
        work_computes(reconciler); /* some may have waited for a host */
    } else if (kind == ROW_PROJECT) {
        work_all_of(reconciler, object);
    } else if (kind == ROW_BRANCH) {
        struct branch *branch = object;
        note_end(reconciler, branch);
        work_branch(reconciler, branch);
        work_children(reconciler, branch);
        work_project(reconciler, branch->project);
    } else if (kind == ROW_ENDPOINT) {
        struct endpoint *endpoint = object;
        endpoint->attempt.next = 0; /* whatever it backed off from: the wish is a new one */
        work_endpoint(reconciler, endpoint);
    } else if (kind == ROW_OPERATION) {
        struct operation *operation = object;
        if (operation->row.status != STATUS_RUNNING) {
            reconciler->user->on_operation_ended(reconciler->user, operation);
        }
    }
}

/* What waited for it to go. */
static void on_removed(struct store_watcher *watcher, enum row_kind kind, const union any_row *row)
{
    struct reconciler *reconciler = CONTAINER_OF(watcher, struct reconciler, watcher);
    if (kind == ROW_HOST) {
        work_computes(reconciler);
    }
    if (kind != ROW_BRANCH && kind != ROW_ENDPOINT) {
        return;
    }
    const char *above = kind == ROW_BRANCH ? row->branch.parent_id : row->endpoint.branch_id;
    struct branch *branch = model_branch(reconciler->model, above);
    struct project *project = model_project(reconciler->model, row->head.project_id);
    if (branch != NULL) {
        work_branch(reconciler, branch);
    }
    if (project != NULL) {
        work_project(reconciler, project);
    }
}

/* ---- views: what plan.h wants to know ---- */

void view_project(
    struct reconciler *reconciler, const struct project *project, struct plan_project_view *ret)
{
    const struct node *node =
        nodes_find(reconciler->nodes, NODE_PAGESERVER, project->row.pageserver);
    wall_us_t keep_us = (wall_us_t)reconciler->options.project_keep_ms * 1000;
    *ret = (struct plan_project_view){
        .state = project->row.state,
        .image_known = project->row.system_id[0] != '\0',
        .incarnation_known = node != NULL && node->answered,
        .incarnation_matches =
            node != NULL && strcmp(node->incarnation, project->row.incarnation) == 0,
        .on_pageserver = project->on_pageserver,
        .is_erased = project->is_erased,
        .branches_left = project->branch_count,
        .endpoints_left = project->endpoint_count,
        .kept = reconciler_calendar(reconciler) - project->row.deleted_at < keep_us,
    };
    if (project->row.state != PROJECT_ACTIVE) {
        FOR_EACH_BRANCH(project, branch)
        {
            ret->branches_on_safekeepers += branch->row.state != BRANCH_DELETED;
        }
    }
}

/* Generation 1 is what the timelines were created with: nobody has to be told. */
static void view_members(const struct branch *branch, struct plan_branch_view *ret)
{
    struct membership membership = branch_membership(&branch->row);
    struct change_judgement judged = {0};
    uint64_t left[LEFT_MAX];
    ret->left_count = branch_left(branch, left);
    memcpy(ret->on_left, branch->on_left, sizeof(ret->on_left));
    ret->is_changing = membership_is_joint(&membership);
    ret->gives_up = branch->row.change_given_up;
    ret->member_count = membership.count;
    ret->pageserver_is_behind = branch->row.membership_generation > 1 &&
                                branch->pageserver_generation != branch->row.membership_generation;
    if (ret->is_changing) {
        judged = branch_judge(branch);
        ret->verdict = judged.verdict;
    }
    for (uint32_t i = 0; i < membership.count; i++) {
        bool is_known =
            membership.generation <= 1 || branch->reports[i].generation == membership.generation;
        bool is_newcomer = membership_is_newcomer(&membership, i);
        bool is_judged = judged.verdict == CHANGE_WAIT_NEW ||
                         (judged.verdict == CHANGE_MAY_FINISH && is_newcomer);
        bool is_behind = ret->is_changing && is_judged && (judged.behind & 1u << i) != 0;
        ret->is_newcomer[i] = is_newcomer && !branch->reports[i].answered;
        ret->is_copying = ret->is_copying || (is_newcomer && is_behind);
        ret->is_due[i] = !is_known || is_behind;
    }
}

static bool works_on_another_timeline(const struct endpoint *endpoint)
{
    return endpoint->seen != COMPUTE_UNKNOWN && endpoint->seen != COMPUTE_ABSENT &&
           !timeline_id_is_none(endpoint->seen_timeline) &&
           !timeline_id_equal(endpoint->seen_timeline, endpoint->branch->row.timeline);
}

/* Its first compute runs: it was in quarantine, the next ones need not be. */
static bool is_being_cut_off(const struct branch *branch)
{
    bool runs = false;
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        runs = runs || (endpoint->seen == COMPUTE_RUNNING && !works_on_another_timeline(endpoint));
    }
    return runs && branch->parent != NULL && !branch->row.is_cut_off;
}

void view_branch(const struct branch *branch, struct plan_branch_view *ret)
{
    *ret = (struct plan_branch_view){
        .state = branch->row.state,
        .is_root = branch->parent == NULL,
        .is_found = branch->row.is_found,
        .start_known = branch->row.start_lsn != LSN_NONE,
        .tenant = branch->project->on_pageserver,
        .tenant_leaves = branch->project->row.state != PROJECT_ACTIVE,
        .parent = branch->parent == NULL ? SEEN_PRESENT : branch->parent->on_pageserver,
        .on_pageserver = branch->on_pageserver,
        .may_come_back = branch->project->row.state == PROJECT_ACTIVE && !branch->is_forgotten,
        .safekeeper_count = branch->row.safekeepers.count,
    };
    for (size_t i = 0; i < ret->safekeeper_count; i++) {
        ret->on_safekeeper[i] = branch->on_safekeeper[i];
        ret->held[i] = branch->held[i];
        ret->confirmed[i] = node_set_has(&branch->row.confirmed, branch->row.safekeepers.ids[i]);
    }
    view_members(branch, ret);
    ret->cuts_off = is_being_cut_off(branch);
    if (branch_is_live(branch)) {
        return; /* the rest is only asked when it goes */
    }
    FOR_EACH_CHILD(branch, child)
    {
        ret->children_left += child->on_pageserver != SEEN_ABSENT;
        ret->rows_left++;
    }
    FOR_EACH_ENDPOINT_OF(branch, endpoint)
    {
        ret->endpoints_left += endpoint->seen != COMPUTE_ABSENT;
        ret->rows_left++;
    }
}

static bool has_no_host(const struct reconciler *reconciler, const struct endpoint *endpoint)
{
    return nodes_find(reconciler->nodes, NODE_AGENT, endpoint->row.agent) == NULL;
}

void view_endpoint(
    const struct reconciler *reconciler,
    const struct endpoint *endpoint,
    struct plan_endpoint_view *ret)
{
    *ret = (struct plan_endpoint_view){
        .wanted = endpoint->row.wanted,
        .branch_ready = endpoint->branch->row.state == BRANCH_READY,
        .host_is_gone = has_no_host(reconciler, endpoint),
        .recreate = endpoint->recreate || works_on_another_timeline(endpoint),
        .told = endpoint->told == endpoint->wish,
        .recorded = list_is_empty(&endpoint->running),
        .seen = endpoint->seen,
    };
}

/* ---- planning and starting ---- */

static struct attempt *attempt_of(const struct target *target, const struct plan_step *step)
{
    if (target->endpoint != NULL) {
        return &target->endpoint->attempt;
    }
    if (target->branch == NULL) {
        return &target->project->attempt;
    }
    if (step->kind == PLAN_JOIN_SAFEKEEPER || step->kind == PLAN_TELL_SAFEKEEPER) {
        return &target->branch->member_attempts[step->safekeeper];
    }
    if (step->kind == PLAN_DELETE_LEFT) {
        return &target->branch->left_attempts[step->safekeeper];
    }
    if (step->kind == PLAN_CREATE_ON_SAFEKEEPER || step->kind == PLAN_DELETE_ON_SAFEKEEPER) {
        return &target->branch->safekeeper_attempts[step->safekeeper];
    }
    return &target->branch->pageserver_attempt;
}

static void keep_for_retry(struct reconciler *reconciler, const struct target *target)
{
    struct list *list = &reconciler->retry_projects;
    struct list_link *link = &target->project->in_retry;
    if (target->endpoint != NULL) {
        list = &reconciler->retry_endpoints;
        link = &target->endpoint->in_retry;
    } else if (target->branch != NULL) {
        list = &reconciler->retry_branches;
        link = &target->branch->in_retry;
    }
    if (!list_link_is_in(link)) {
        list_push_back(list, link);
    }
    if (!timer_is_started(&reconciler->retry) && !reconciler->stopping) {
        timer_start(reconciler->loop, &reconciler->retry, RETRY_TICK_MS);
    }
}

void mark_for_commit(struct reconciler *reconciler, const struct target *target)
{
    struct list *list = &reconciler->commit_projects;
    struct list_link *link = &target->project->in_commit;
    if (target->endpoint != NULL) {
        list = &reconciler->commit_endpoints;
        link = &target->endpoint->in_commit;
    } else if (target->branch != NULL) {
        list = &reconciler->commit_branches;
        link = &target->branch->in_commit;
    }
    if (!list_link_is_in(link)) {
        list_push_back(list, link);
    }
    commit_soon(reconciler);
}

/* It may be planned once more meanwhile: of an old list of a node, say. */
static bool is_being_purged(const struct target *target)
{
    return list_link_is_in(&target->project->in_purge) ||
           (target->branch != NULL && list_link_is_in(&target->branch->in_purge)) ||
           (target->endpoint != NULL && list_link_is_in(&target->endpoint->in_purge));
}

static void start(
    struct reconciler *reconciler, const struct target *target, const struct plan_step *planned)
{
    struct attempt *attempt = attempt_of(target, planned);
    struct node *node = step_node(reconciler, planned, target);
    bool is_ask = planned->kind == PLAN_ASK_COMPUTE;
    if (attempt->running && target->endpoint != NULL && !is_ask) {
        step_stop_asking(reconciler, target->endpoint);
    }
    if (attempt->running) {
        return; /* planned again when it ends */
    }
    if (node == NULL || !node->reachable) {
        return; /* planned again when a poll is answered */
    }
    if (is_being_purged(target)) {
        return; /* planned again if the commit fails */
    }
    bool is_erasure = planned->kind == PLAN_DELETE_ON_PAGESERVER;
    size_t *running = is_ask ? &node->asks_running : &node->steps_running;
    if (clock_mono() < attempt->next || *running >= STEPS_PER_NODE_MAX ||
        (is_erasure && target->project->erasures_running >= ERASURES_PER_PROJECT_MAX)) {
        keep_for_retry(reconciler, target);
        return;
    }
    struct step *step = MEM_NEW(struct step);
    step->reconciler = reconciler;
    step->kind = planned->kind;
    step->safekeeper = planned->safekeeper;
    step->attempt = attempt;
    step->target = *target;
    if (target->endpoint != NULL) {
        step->wish = target->endpoint->wish;
    }
    if (target->branch != NULL) {
        step->timeline = target->branch->row.timeline;
        step->generation = branch_generation(&target->branch->row);
        step->membership_generation = target->branch->row.membership_generation;
        step->node_id = node->id;
    }
    attempt->running = true;
    reconciler->steps_running++;
    (*running)++;
    target->project->erasures_running += is_erasure;
    step_start(step);
}

static void run_plan(
    struct reconciler *reconciler, const struct target *target, const struct plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        switch (plan->steps[i].kind) {
        case PLAN_MAKE_IMAGE: image_ensure(reconciler); break;
        case PLAN_RENEW_GENERATION:
        case PLAN_GIVE_WAY:
        case PLAN_MOVE_COMPUTE:
        case PLAN_CONFIRM:
        case PLAN_END_CHANGE:
        case PLAN_FORGET_LEFT:
        case PLAN_COMMIT:
        case PLAN_PURGE: mark_for_commit(reconciler, target); break;
        case PLAN_ATTACH_TENANT:
        case PLAN_DETACH_TENANT:
        case PLAN_CREATE_ON_PAGESERVER:
        case PLAN_CREATE_ON_SAFEKEEPER:
        case PLAN_DELETE_ON_PAGESERVER:
        case PLAN_DELETE_ON_SAFEKEEPER:
        case PLAN_JOIN_SAFEKEEPER:
        case PLAN_TELL_SAFEKEEPER:
        case PLAN_DELETE_LEFT:
        case PLAN_START_COMPUTE:
        case PLAN_STOP_COMPUTE:
        case PLAN_DELETE_COMPUTE:
        case PLAN_ASK_COMPUTE: start(reconciler, target, &plan->steps[i]); break;
        }
    }
}

static void plan_and_run_project(struct reconciler *reconciler, struct project *project)
{
    struct plan_project_view view;
    struct plan plan;
    view_project(reconciler, project, &view);
    plan_project(&view, &plan);
    run_plan(reconciler, &(struct target){.project = project}, &plan);
}

static void plan_and_run_branch(struct reconciler *reconciler, struct branch *branch)
{
    struct plan_branch_view view;
    struct plan plan;
    view_branch(branch, &view);
    plan_branch(&view, &plan);
    run_plan(reconciler, &(struct target){.project = branch->project, .branch = branch}, &plan);
}

static void plan_and_run_endpoint(struct reconciler *reconciler, struct endpoint *endpoint)
{
    struct plan_endpoint_view view;
    struct plan plan;
    view_endpoint(reconciler, endpoint, &view);
    plan_endpoint(&view, &plan);
    struct target target = {
        .project = endpoint->project, .branch = endpoint->branch, .endpoint = endpoint};
    run_plan(reconciler, &target, &plan);
    reconciler->user->on_endpoint_changed(reconciler->user, endpoint);
}

static void on_work(struct loop_task *task)
{
    struct reconciler *reconciler = CONTAINER_OF(task, struct reconciler, work);
    reconciler->work_posted = false;
    struct list_link *link = NULL;
    while ((link = list_pop_front(&reconciler->work_projects)) != NULL) {
        plan_and_run_project(reconciler, CONTAINER_OF(link, struct project, in_work));
    }
    while ((link = list_pop_front(&reconciler->work_branches)) != NULL) {
        plan_and_run_branch(reconciler, CONTAINER_OF(link, struct branch, in_work));
    }
    while ((link = list_pop_front(&reconciler->work_endpoints)) != NULL) {
        plan_and_run_endpoint(reconciler, CONTAINER_OF(link, struct endpoint, in_work));
    }
}

static bool has_retries(const struct reconciler *reconciler)
{
    return !list_is_empty(&reconciler->retry_projects) ||
           !list_is_empty(&reconciler->retry_branches) ||
           !list_is_empty(&reconciler->retry_endpoints);
}

/*
 * What backed off is planned again on each tick; what is not due comes back to its list, which
 * starts the timer again. With nothing to do control sleeps.
 */
static void on_retry(struct timer *timer)
{
    struct reconciler *reconciler = CONTAINER_OF(timer, struct reconciler, retry);
    struct list_link *link = NULL;
    for (size_t i = 0; i < RETRIES_PER_TICK; i++) {
        if ((link = list_pop_front(&reconciler->retry_projects)) != NULL) {
            work_project(reconciler, CONTAINER_OF(link, struct project, in_retry));
        }
        if ((link = list_pop_front(&reconciler->retry_branches)) != NULL) {
            work_branch(reconciler, CONTAINER_OF(link, struct branch, in_retry));
        }
        if ((link = list_pop_front(&reconciler->retry_endpoints)) != NULL) {
            work_endpoint(reconciler, CONTAINER_OF(link, struct endpoint, in_retry));
        }
    }
    if (has_retries(reconciler)) {
        timer_start(reconciler->loop, timer, RETRY_TICK_MS);
    }
}

/* ---- what time ends ---- */

static void mark_branches(struct reconciler *reconciler, wall_us_t now)
{
    LIST_FOR_EACH(&reconciler->ending, link)
    {
        struct branch *branch = CONTAINER_OF(link, struct branch, in_ending);
        if (branch_has_expired(branch, now)) {
            mark_for_commit(
                reconciler, &(struct target){.project = branch->project, .branch = branch});
        }
    }
}

/*
 * Operations whose target cannot even be tried (a node is away) end by their time limit too. And
 * branches whose time is up go, and what nobody can have back any more. No node has to answer for
 * that.
 */
static void mark_expired(struct reconciler *reconciler)
{
    wall_us_t oldest = clock_wall() - (wall_us_t)reconciler->options.operation_timeout_ms * 1000;
    wall_us_t now = reconciler_calendar(reconciler);
    mark_branches(reconciler, now);
    FOR_EACH_PROJECT(reconciler->model, project)
    {
        if (project_has_expired(project, now)) {
            mark_for_commit(reconciler, &(struct target){.project = project});
        }
        FOR_EACH_OPERATION(project, operation)
        {
            if (operation->row.status != STATUS_RUNNING || operation->row.created_at > oldest) {
                continue;
            }
            struct target target = {
                .project = project,
                .branch = model_branch(reconciler->model, operation->row.branch_id),
                .endpoint = model_endpoint(reconciler->model, operation->row.endpoint_id)};
            mark_for_commit(reconciler, &target);
        }
    }
}

static void on_expiry(struct timer *timer)
{
    struct reconciler *reconciler = CONTAINER_OF(timer, struct reconciler, expiry);
    mark_expired(reconciler);
    timer_start(reconciler->loop, timer, EXPIRY_TICK_MS);
}

/* ---- commits: see commit.c for what is written ---- */

void commit_soon(struct reconciler *reconciler)
{
    if (!reconciler->committing && !reconciler->stopping) {
        reconciler->committing = true;
        store_submit(reconciler->store, &reconciler->commit);
    }
}

static void on_commit_done(struct change *change, err_t result, const struct errmsg *msg)
{
    struct reconciler *reconciler = CONTAINER_OF(change, struct reconciler, commit);
    reconciler->committing = false;
    while (list_pop_front(&reconciler->purges) != NULL) { /* what went has left the list */
    }
    if (result != ERR_OK) {
        /* Nothing was applied; the next poll of any node plans the same again. */
        log_warn(
            NULL, "the state of operations could not be recorded, trying again: %s", msg->text);
        return;
    }
    if (!list_is_empty(&reconciler->commit_projects) ||
        !list_is_empty(&reconciler->commit_branches) ||
        !list_is_empty(&reconciler->commit_endpoints)) {
        commit_soon(reconciler);
    }
}
