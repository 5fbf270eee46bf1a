#include "pageserver/read/turns.h"

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metric.h"

METRIC_COUNTER(
    turns_waited, "pageserver_turns_waited_total", "times a connection had to wait for its turn");
METRIC_GAUGE(
    jobs_waiting, "pageserver_turn_jobs_waiting", "reads that wait for their turn on a worker");

/*
 * A request from the cache takes about 10 us. Beside others a tenant gets few of them a turn, so
 * that nobody waits longer than that for each of the others; alone it gets many, for the sake of
 * writes that are gathered. Each connection that goes on takes one request at least.
 */
#define TAKEN_MAX_ALONE  128
#define TAKEN_MAX_BESIDE 3
#define GO_ON_MAX        2 /* connections a turn */
#define RECENT_NS        NS_PER_S

struct turn_share {
    struct turns *turns;
    struct tenant_id tenant;
    unsigned members;
    unsigned taken; /* in turn `taken_in` */
    uint64_t taken_in;
    mono_ns_t taken_at;
    struct list waiting; /* turn_wait: connections */
    struct list jobs;    /* turn_job.job.link: not with the executor yet */
    bool in_line;
    struct list_link line; /* in turns->line while it has jobs */
    struct list_link link;
};

struct turns {
    struct loop *loop;
    struct executor *executor;
    size_t jobs_max, jobs_running;
    struct list shares;
    struct list line; /* of shares with jobs, whose turn is next first */
    struct loop_task next_turn;
    bool turn_comes; /* next_turn is posted */
};

struct turns *turns_create(struct loop *loop, struct executor *executor, size_t jobs_max)
{
    struct turns *turns = MEM_NEW(struct turns);
    turns->loop = loop;
    turns->executor = executor;
    turns->jobs_max = jobs_max;
    list_init(&turns->shares);
    list_init(&turns->line);
    return turns;
}

static void on_last_turn(struct loop_task *task)
{
    mem_free(CONTAINER_OF(task, struct turns, next_turn));
}

void turns_destroy(struct turns *turns)
{
    if (turns != NULL) {
        ASSERT(list_is_empty(&turns->shares));
        if (turns->turn_comes) {
            turns->next_turn.run = on_last_turn; /* it frees */
        } else {
            mem_free(turns);
        }
    }
}

struct turn_share *turns_join(struct turns *turns, struct tenant_id tenant)
{
    LIST_FOR_EACH(&turns->shares, link)
    {
        struct turn_share *share = CONTAINER_OF(link, struct turn_share, link);
        if (tenant_id_equal(share->tenant, tenant)) {
            share->members++;
            return share;
        }
    }
    struct turn_share *share = MEM_NEW(struct turn_share);
    share->turns = turns;
    share->tenant = tenant;
    share->members = 1;
    list_init(&share->waiting);
    list_init(&share->jobs);
    list_push_back(&turns->shares, &share->link);
    return share;
}

void turns_leave(struct turn_share *share)
{
    ASSERT(share->members > 0);
    if (--share->members > 0) {
        return;
    }
    ASSERT(list_is_empty(&share->waiting) && list_is_empty(&share->jobs));
    list_remove(&share->link);
    mem_free(share);
}

/* -- the loop -- */

static void on_turn(struct loop_task *task);

/* A timer would come a millisecond later; this comes with the next look at the sockets. */
static void want_turn(struct turns *turns)
{
    if (!turns->turn_comes) {
        turns->turn_comes = true;
        turns->next_turn.run = on_turn;
        loop_post(turns->loop, &turns->next_turn);
    }
}

/* Has another tenant asked for anything lately? */
static bool is_alone(const struct turn_share *share, mono_ns_t now)
{
    LIST_FOR_EACH(&share->turns->shares, link)
    {
        const struct turn_share *other = CONTAINER_OF(link, struct turn_share, link);
        if (other != share && other->taken_at != 0 && now - other->taken_at < RECENT_NS) {
            return false;
        }
    }
    return true;
}

static void serve_waiting(struct turn_share *share)
{
    for (unsigned i = 0; i < GO_ON_MAX; i++) {
        struct list_link *first = list_pop_front(&share->waiting);
        if (first == NULL) {
            return;
        }
        struct turn_wait *wait = CONTAINER_OF(first, struct turn_wait, link);
        wait->share = NULL;
        wait->on_turn(wait);
    }
}

static void on_turn(struct loop_task *task)
{
    struct turns *turns = CONTAINER_OF(task, struct turns, next_turn);
    bool some_wait = false;
    turns->turn_comes = false;
    LIST_FOR_EACH(&turns->shares, link)
    {
        struct turn_share *share = CONTAINER_OF(link, struct turn_share, link);
        serve_waiting(share);
        some_wait = some_wait || !list_is_empty(&share->waiting);
    }
    if (some_wait) {
        want_turn(turns);
    }
}

bool turn_take(struct turn_share *share)
{
    mono_ns_t now = clock_mono();
    uint64_t turn = loop_turn(share->turns->loop);
    share->taken = share->taken_in == turn ? share->taken + 1 : 1;
    share->taken_in = turn;
    share->taken_at = now;
    if (share->taken < TAKEN_MAX_BESIDE) {
        return true;
    }
    return share->taken < TAKEN_MAX_ALONE && is_alone(share, now);
}

void turn_wait_start(struct turn_wait *wait, struct turn_share *share)
{
    if (wait->share != NULL) {
        return;
    }
    metric_add(&turns_waited, 1);
    wait->share = share;
    list_push_back(&share->waiting, &wait->link);
    want_turn(share->turns);
}

void turn_wait_stop(struct turn_wait *wait)
{
    if (wait->share != NULL) {
        list_remove(&wait->link);
        wait->share = NULL;
    }
}

/* -- the workers -- */

static void start_job(struct turns *turns, struct turn_job *turn_job)
{
    turns->jobs_running++;
    executor_submit(turns->executor, &turn_job->job);
}

/* The next tenant's oldest job; a tenant with more goes to the end of the line. */
static void start_next(struct turns *turns)
{
    struct list_link *first = list_pop_front(&turns->line);
    if (first == NULL) {
        return;
    }
    struct turn_share *share = CONTAINER_OF(first, struct turn_share, line);
    struct job *job = CONTAINER_OF(list_pop_front(&share->jobs), struct job, link);
    metric_add(&jobs_waiting, -1);
    share->in_line = !list_is_empty(&share->jobs);
    if (share->in_line) {
        list_push_back(&turns->line, &share->line);
    }
    start_job(turns, CONTAINER_OF(job, struct turn_job, job));
}

static void on_job_done(struct job *job)
{
    struct turn_job *turn_job = CONTAINER_OF(job, struct turn_job, job);
    struct turns *turns = turn_job->share->turns;
    turns->jobs_running--;
    start_next(turns);
    turn_job->done(turn_job); /* it may leave */
}

void turn_submit(struct turn_share *share, struct turn_job *turn_job)
{
    struct turns *turns = share->turns;
    turn_job->share = share;
    turn_job->job.done = on_job_done;
    if (turns->jobs_running < turns->jobs_max) {
        start_job(turns, turn_job);
        return;
    }
    metric_add(&jobs_waiting, 1);
    list_push_back(&share->jobs, &turn_job->job.link);
    if (!share->in_line) {
        share->in_line = true;
        list_push_back(&turns->line, &share->line);
    }
}
