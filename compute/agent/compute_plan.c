#include "compute/agent/compute_plan.h"

#include "common/base/assert.h"

#define FAST_STOP_MS      10000 /* then immediate: committed WAL is safe, only sessions suffer */
#define IMMEDIATE_STOP_MS 5000  /* then SIGKILL */
#define KILL_AGAIN_MS     1000
#define STEADY_MS         10000 /* it ran so long: the next crash counts as the first */
#define BACKOFF_MS        100
#define BACKOFF_MAX_MS    5000

static void set_timer(struct compute_actions *actions, uint64_t delay_ms)
{
    actions->set |= COMPUTE_ACTION_TIMER;
    actions->set &= ~(unsigned)COMPUTE_ACTION_STOP_TIMER;
    actions->timer_ms = delay_ms;
}

static void begin(struct compute_plan *plan, struct compute_actions *actions)
{
    ASSERT(!plan->work && !plan->postgres && !plan->proposer);
    plan->phase = COMPUTE_PHASE_SYNC;
    plan->end = COMPUTE_END_NONE;
    plan->proposer_told = plan->start_again = false;
    plan->escalation = 0;
    plan->work = true;
    actions->set |= COMPUTE_ACTION_SYNC | COMPUTE_ACTION_STOP_TIMER;
}

static void come_to_rest(struct compute_plan *plan, struct compute_actions *actions)
{
    actions->set |= COMPUTE_ACTION_STOP_TIMER;
    if (plan->start_again && plan->end != COMPUTE_END_DELETED) {
        plan->failures = 0;
        begin(plan, actions);
        return;
    }
    if (plan->end == COMPUTE_END_RESTART && plan->failures < COMPUTE_FAILURES_MAX) {
        plan->phase = COMPUTE_PHASE_BACKOFF;
        uint64_t delay_ms =
            plan->failures <= 1 ? 0 : (uint64_t)BACKOFF_MS << MIN_OF(plan->failures, 10);
        set_timer(actions, MIN_OF(delay_ms, BACKOFF_MAX_MS));
        return;
    }
    if (plan->end == COMPUTE_END_RESTART) {
        plan->end = COMPUTE_END_FAILED;
    }
    plan->phase = COMPUTE_PHASE_OFF;
    if (plan->end == COMPUTE_END_DELETED) {
        actions->set |= COMPUTE_ACTION_CLEAN_UP;
    }
}

/* In a teardown: does what is due, and ends it when nothing is alive any more. */
static void settle(struct compute_plan *plan, struct compute_actions *actions)
{
    /* A fast stop needs the walproposer: it ships the last WAL, the shutdown checkpoint. */
    if (plan->proposer && !plan->proposer_told && (!plan->postgres || plan->escalation > 0)) {
        plan->proposer_told = true;
        actions->set |= COMPUTE_ACTION_STOP_PROPOSER;
    }
    if (!plan->work && !plan->postgres && !plan->proposer) {
        come_to_rest(plan, actions);
    }
}

static void signal_postgres(struct compute_plan *plan, struct compute_actions *actions)
{
    static const unsigned signals[] = {
        COMPUTE_ACTION_STOP_FAST, COMPUTE_ACTION_STOP_IMMEDIATE, COMPUTE_ACTION_KILL};
    static const uint64_t patience_ms[] = {FAST_STOP_MS, IMMEDIATE_STOP_MS, KILL_AGAIN_MS};
    if (plan->postgres || plan->proposer) {
        actions->set |= signals[plan->escalation];
    }
    set_timer(actions, patience_ms[plan->escalation]);
}

static void tear_down(
    struct compute_plan *plan,
    enum compute_end end,
    unsigned escalation,
    struct compute_actions *actions)
{
    bool first = plan->phase != COMPUTE_PHASE_TEARDOWN;
    plan->phase = COMPUTE_PHASE_TEARDOWN;
    plan->end = MAX_OF(plan->end, end);
    if (first) {
        plan->proposer_told = false;
        plan->escalation = escalation;
    }
    if (first || escalation > plan->escalation) {
        plan->escalation = MAX_OF(plan->escalation, escalation);
        signal_postgres(plan, actions);
    }
    if (first && plan->work) {
        actions->set |= COMPUTE_ACTION_CANCEL_WORK;
    }
    settle(plan, actions);
}

static void fail(
    struct compute_plan *plan, const struct compute_event *event, struct compute_actions *actions)
{
    if (plan->phase == COMPUTE_PHASE_TEARDOWN) {
        settle(plan, actions);
        return;
    }
    if (plan->phase == COMPUTE_PHASE_RUN && event->now_ms - plan->running_since_ms >= STEADY_MS) {
        plan->failures = 0;
    }
    plan->failures++;
    tear_down(plan, COMPUTE_END_RESTART, 1, actions);
}

static void work_done(struct compute_plan *plan, uint64_t now_ms, struct compute_actions *actions)
{
    ASSERT(plan->work);
    plan->work = false;
    switch (plan->phase) {
    case COMPUTE_PHASE_SYNC:
        plan->phase = COMPUTE_PHASE_BACKUP;
        plan->work = true;
        actions->set |= COMPUTE_ACTION_BACKUP;
        break;
    case COMPUTE_PHASE_BACKUP:
        plan->phase = COMPUTE_PHASE_UNPACK;
        plan->work = true;
        actions->set |= COMPUTE_ACTION_UNPACK;
        break;
    case COMPUTE_PHASE_UNPACK:
        plan->phase = COMPUTE_PHASE_LAUNCH;
        plan->postgres = plan->proposer = true;
        actions->set |= COMPUTE_ACTION_LAUNCH;
        break;
    case COMPUTE_PHASE_ROLES:
        plan->phase = COMPUTE_PHASE_RUN;
        plan->running_since_ms = now_ms;
        break;
    case COMPUTE_PHASE_TEARDOWN: settle(plan, actions); break;
    case COMPUTE_PHASE_OFF:
    case COMPUTE_PHASE_LAUNCH:
    case COMPUTE_PHASE_RUN:
    case COMPUTE_PHASE_BACKOFF: ASSERT(false);
    }
}

static void start(struct compute_plan *plan, struct compute_actions *actions)
{
    if (plan->phase == COMPUTE_PHASE_OFF && plan->end != COMPUTE_END_DELETED) {
        plan->failures = 0;
        begin(plan, actions);
    } else if (
        plan->phase == COMPUTE_PHASE_TEARDOWN && plan->end > COMPUTE_END_RESTART &&
        plan->end != COMPUTE_END_DELETED) {
        plan->start_again = true;
    }
}

static void stop(
    struct compute_plan *plan,
    enum compute_end end,
    unsigned escalation,
    struct compute_actions *actions)
{
    plan->start_again = false;
    if (plan->phase == COMPUTE_PHASE_OFF) {
        /* Fenced and failed stay visible after a stop: it is what happened. */
        if (end == COMPUTE_END_DELETED && plan->end != COMPUTE_END_DELETED) {
            plan->end = end;
            come_to_rest(plan, actions);
        }
        return;
    }
    tear_down(plan, end, escalation, actions);
}

static void on_timer(struct compute_plan *plan, struct compute_actions *actions)
{
    if (plan->phase == COMPUTE_PHASE_BACKOFF) {
        begin(plan, actions);
    } else if (plan->phase == COMPUTE_PHASE_TEARDOWN) {
        plan->escalation = MIN_OF(plan->escalation + 1, 2);
        signal_postgres(plan, actions);
        settle(plan, actions);
    }
}

static void proposer_exited(
    struct compute_plan *plan, const struct compute_event *event, struct compute_actions *actions)
{
    plan->proposer = false;
    if (event->exit_code == COMPUTE_EXIT_FENCED) {
        tear_down(plan, COMPUTE_END_FENCED, 1, actions); /* wins over a restart under way */
    } else {
        fail(plan, event, actions);
    }
}

void compute_plan_step(
    struct compute_plan *plan,
    const struct compute_event *event,
    struct compute_actions *ret_actions)
{
    *ret_actions = (struct compute_actions){0};
    switch (event->kind) {
    case COMPUTE_EVENT_START: start(plan, ret_actions); break;
    case COMPUTE_EVENT_STOP_FAST: stop(plan, COMPUTE_END_STOPPED, 0, ret_actions); break;
    case COMPUTE_EVENT_STOP_IMMEDIATE: stop(plan, COMPUTE_END_STOPPED, 1, ret_actions); break;
    case COMPUTE_EVENT_DELETE: stop(plan, COMPUTE_END_DELETED, 1, ret_actions); break;
    case COMPUTE_EVENT_WORK_DONE: work_done(plan, event->now_ms, ret_actions); break;
    case COMPUTE_EVENT_WORK_FAILED:
        ASSERT(plan->work);
        plan->work = false;
        fail(plan, event, ret_actions);
        break;
    case COMPUTE_EVENT_WORK_REFUSED:
        ASSERT(plan->work);
        plan->work = false;
        tear_down(plan, COMPUTE_END_REFUSED, 1, ret_actions);
        break;
    case COMPUTE_EVENT_POSTGRES_READY:
        if (plan->phase == COMPUTE_PHASE_LAUNCH) {
            plan->phase = COMPUTE_PHASE_ROLES;
            plan->work = true;
            ret_actions->set |= COMPUTE_ACTION_ROLES;
        }
        break;
    case COMPUTE_EVENT_POSTGRES_EXITED:
        plan->postgres = false;
        fail(plan, event, ret_actions);
        break;
    case COMPUTE_EVENT_POSTGRES_REFUSED:
        plan->postgres = false;
        tear_down(plan, COMPUTE_END_REFUSED, 1, ret_actions);
        break;
    case COMPUTE_EVENT_PROPOSER_EXITED: proposer_exited(plan, event, ret_actions); break;
    case COMPUTE_EVENT_TIMER: on_timer(plan, ret_actions); break;
    }
    ASSERT(IMPLIES(plan->phase == COMPUTE_PHASE_SYNC, !plan->postgres && !plan->proposer));
}

const char *compute_plan_state(const struct compute_plan *plan)
{
    switch (plan->phase) {
    case COMPUTE_PHASE_RUN: return "running";
    case COMPUTE_PHASE_TEARDOWN:
        /* What follows is not told before everything has ended. */
        return plan->end > COMPUTE_END_RESTART && !plan->start_again ? "stopping" : "starting";
    case COMPUTE_PHASE_SYNC:
    case COMPUTE_PHASE_BACKUP:
    case COMPUTE_PHASE_UNPACK:
    case COMPUTE_PHASE_LAUNCH:
    case COMPUTE_PHASE_ROLES:
    case COMPUTE_PHASE_BACKOFF: return "starting";
    case COMPUTE_PHASE_OFF: break;
    }
    switch (plan->end) {
    case COMPUTE_END_FAILED: return "failed";
    case COMPUTE_END_REFUSED: return "refused";
    case COMPUTE_END_FENCED: return "fenced";
    case COMPUTE_END_DELETED: return "stopping";
    case COMPUTE_END_NONE:
    case COMPUTE_END_RESTART:
    case COMPUTE_END_STOPPED: break;
    }
    return "stopped";
}

const char *compute_plan_step_name(const struct compute_plan *plan)
{
    static const char *const names[] = {
        [COMPUTE_PHASE_OFF] = "",
        [COMPUTE_PHASE_SYNC] = "sync",
        [COMPUTE_PHASE_BACKUP] = "base_backup",
        [COMPUTE_PHASE_UNPACK] = "unpack",
        [COMPUTE_PHASE_LAUNCH] = "postgres",
        [COMPUTE_PHASE_ROLES] = "roles",
        [COMPUTE_PHASE_RUN] = "",
        [COMPUTE_PHASE_TEARDOWN] = "stop",
        [COMPUTE_PHASE_BACKOFF] = "backoff",
    };
    return names[plan->phase];
}
