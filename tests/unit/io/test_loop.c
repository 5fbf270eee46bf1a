/* The loop, its timers, and the hand-over of work to threads and back. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/io/executor.h"
#include "common/io/loop.h"
#include "common/io/timer.h"
#include "tests/unit/unit.h"

static struct loop *loop;
static struct errmsg msg;

static void open_loop(void)
{
    ck_assert_ok(loop_create(&loop, &msg), &msg);
}

/* A task that notes its number. */
#define TASKS 1000
struct numbered {
    struct loop_task task;
    int number;
};
static struct numbered numbered[TASKS];
static int order[TASKS];
static int order_count;
static pthread_t loop_thread;

static void note_task(struct loop_task *task)
{
    ck_assert(pthread_equal(pthread_self(), loop_thread));
    order[order_count++] = CONTAINER_OF(task, struct numbered, task)->number;
    if (order_count == TASKS) {
        loop_stop(loop);
    }
}

static void *post_all(void *unused)
{
    (void)unused;
    for (int i = 0; i < TASKS; i++) {
        numbered[i] = (struct numbered){.task.run = note_task, .number = i};
        loop_post(loop, &numbered[i].task);
    }
    return NULL;
}

START_TEST(test_tasks_of_another_thread_run_on_the_loop_in_order)
{
    open_loop();
    loop_thread = pthread_self();
    pthread_t poster;
    ck_assert_int_eq(pthread_create(&poster, NULL, post_all, NULL), 0);
    loop_run(loop);
    ck_assert_int_eq(pthread_join(poster, NULL), 0);
    for (int i = 0; i < TASKS; i++) {
        ck_assert_int_eq(order[i], i);
    }
    loop_destroy(loop);
}
END_TEST

/* Posted by a task, and by a timer: the sockets are looked at in between, and nobody waits there.
 */
static struct loop_task posting_task;
static struct timer posting_timer;
static int posts_left;

static void post_again(struct loop_task *task)
{
    if (--posts_left > 0) {
        loop_post(loop, task);
    } else {
        loop_stop(loop);
    }
}

static void on_posting_timer(struct timer *timer)
{
    (void)timer;
    loop_post(loop, &posting_task);
}

START_TEST(test_a_task_that_the_loop_posts_waits_for_no_event)
{
    open_loop();
    posting_timer.on_fire = on_posting_timer;
    posting_task.run = post_again;
    posts_left = 100;
    timer_start(loop, &posting_timer, 1);
    uint64_t turn = loop_turn(loop);
    loop_run(loop); /* until the test's limit, if one of them waited */
    ck_assert_int_eq(posts_left, 0);
    ck_assert_uint_ge(loop_turn(loop) - turn, 99);
    posts_left = 1;
    loop_post(loop, &posting_task); /* while it does not run */
    ck_assert_int_eq(posts_left, 1);
    loop_run(loop);
    ck_assert_int_eq(posts_left, 0);
    loop_destroy(loop);
}
END_TEST

START_TEST(test_stop_before_run_ends_the_run)
{
    open_loop();
    loop_stop(loop);
    loop_run(loop);
    loop_destroy(loop);
}
END_TEST

/* Timers. */

struct noted_timer {
    struct timer timer;
    int number;
};
static int fired[64];
static int fired_count;
static int fired_wanted;

static void note_timer(struct timer *timer)
{
    fired[fired_count++] = CONTAINER_OF(timer, struct noted_timer, timer)->number;
    if (fired_count == fired_wanted) {
        loop_stop(loop);
    }
}

START_TEST(test_timers_fire_in_order_of_time)
{
    open_loop();
    static const unsigned delays[] = {30, 5, 20, 1, 25, 10, 15};
    static const int expected[] = {3, 1, 5, 6, 2, 4, 0};
    struct noted_timer timers[ARRAY_LEN(delays)] = {0};
    fired_wanted = ARRAY_LEN(delays);
    for (int i = 0; i < fired_wanted; i++) {
        timers[i] = (struct noted_timer){.timer.on_fire = note_timer, .number = i};
        timer_start(loop, &timers[i].timer, delays[i]);
    }
    mono_ns_t begin = clock_mono();
    loop_run(loop);
    ck_assert_uint_ge(clock_mono() - begin, 29 * NS_PER_MS);
    ck_assert_mem_eq(fired, expected, sizeof(expected));
    loop_destroy(loop);
}
END_TEST

START_TEST(test_stopped_timer_may_be_freed_at_once)
{
    open_loop();
    struct noted_timer *many[200];
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        many[i] = MEM_NEW(struct noted_timer);
        *many[i] = (struct noted_timer){.timer.on_fire = note_timer, .number = -1};
        timer_start(loop, &many[i]->timer, (i * 37) % 7);
    }
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        timer_stop(&many[(i * 61) % ARRAY_LEN(many)]->timer);
        ck_assert(!timer_is_started(&many[(i * 61) % ARRAY_LEN(many)]->timer));
    }
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        mem_free(many[i]);
    }
    struct noted_timer last = {.timer.on_fire = note_timer, .number = 7};
    fired_wanted = 1;
    timer_start(loop, &last.timer, 10);
    loop_run(loop);
    ck_assert_int_eq(fired[0], 7);
    ck_assert(!timer_is_started(&last.timer));
    loop_destroy(loop);
}
END_TEST

static void restart_timer(struct timer *timer)
{
    if (++fired_count == 50) {
        loop_stop(loop);
        return;
    }
    timer_start(loop, timer, 0);
}

START_TEST(test_timer_that_restarts_without_delay_lets_the_loop_turn)
{
    open_loop();
    struct noted_timer timer = {.timer.on_fire = restart_timer};
    timer_start(loop, &timer.timer, 0);
    loop_run(loop);
    ck_assert_int_eq(fired_count, 50);
    ck_assert_uint_ge(loop_turn(loop), 49);
    loop_destroy(loop);
}
END_TEST

/* Executor and lanes. */

struct counted_job {
    struct job job;
    int number;
};
static struct counted_job jobs[TASKS];
static struct executor *executor;
static struct lane lane;
static _Atomic int in_lane;
static _Atomic bool overlapped;

static err_t run_job(struct job *job)
{
    ck_assert(!pthread_equal(pthread_self(), loop_thread));
    if (atomic_fetch_add(&in_lane, 1) != 0 && job->lane != NULL) {
        atomic_store(&overlapped, true);
    }
    atomic_fetch_sub(&in_lane, 1);
    return err_set(
        &job->msg, ERR_BUSY, "job %d", CONTAINER_OF(job, struct counted_job, job)->number);
}

static void note_job(struct job *job)
{
    ck_assert(pthread_equal(pthread_self(), loop_thread));
    ck_assert_int_eq(job->result, ERR_BUSY);
    order[order_count++] = CONTAINER_OF(job, struct counted_job, job)->number;
    if (order_count == TASKS) {
        loop_stop(loop);
    }
}

static void open_executor(void)
{
    open_loop();
    loop_thread = pthread_self();
    ck_assert_ok(executor_create(loop, 4, &executor, &msg), &msg);
    lane_init(&lane, executor);
    for (int i = 0; i < TASKS; i++) {
        jobs[i] = (struct counted_job){.job = {.run = run_job, .done = note_job}, .number = i};
    }
}

START_TEST(test_job_runs_on_a_worker_and_is_done_on_the_loop)
{
    open_executor();
    for (int i = 0; i < TASKS; i++) {
        executor_submit(executor, &jobs[i].job);
    }
    ck_assert_int_eq(order_count, 0);
    loop_run(loop);
    ck_assert_int_eq(order_count, TASKS);
    ck_assert_str_eq(jobs[17].job.msg.text, "job 17");
    ck_assert_uint_eq(executor_queued(executor), 0);
    executor_destroy(executor);
    loop_destroy(loop);
}
END_TEST

START_TEST(test_lane_runs_its_jobs_one_by_one_in_order)
{
    open_executor();
    for (int i = 0; i < TASKS; i++) {
        lane_submit(&lane, &jobs[i].job);
    }
    ck_assert(!lane_is_idle(&lane));
    loop_run(loop);
    ck_assert(lane_is_idle(&lane));
    ck_assert(!atomic_load(&overlapped));
    for (int i = 0; i < TASKS; i++) {
        ck_assert_int_eq(order[i], i);
    }
    executor_destroy(executor);
    loop_destroy(loop);
}
END_TEST

/* Each half of a pair waits for the other one, so they must run at the same time. */
struct half {
    struct job job;
    atomic_int *met;
    int number;
};
static int halves_done[2];
static int halves_done_count;

static err_t run_half(struct job *job)
{
    struct half *half = CONTAINER_OF(job, struct half, job);
    (void)atomic_fetch_add(half->met, 1);
    while (atomic_load(half->met) < 2) {
    }
    return half->number == 0 ? ERR_OK : ERR_FULL;
}

static void on_half_done(struct job *job)
{
    struct half *half = CONTAINER_OF(job, struct half, job);
    ck_assert_int_eq(job->result, half->number == 0 ? ERR_OK : ERR_FULL);
    halves_done[halves_done_count++] = half->number;
    if (halves_done_count == 2) {
        loop_stop(loop);
    }
}

START_TEST(test_a_pair_runs_at_once_and_is_done_in_order)
{
    atomic_int met;
    struct half halves[2];
    open_executor();
    for (int round = 0; round < 200; round++) {
        atomic_init(&met, 0);
        halves_done_count = 0;
        for (int i = 0; i < 2; i++) {
            halves[i] = (struct half){
                .job = {.run = run_half, .done = on_half_done}, .met = &met, .number = i};
        }
        executor_submit_pair(executor, &halves[0].job, &halves[1].job);
        loop_run(loop);
        ck_assert_int_eq(halves_done_count, 2);
        ck_assert_int_eq(halves_done[0], 0);
        ck_assert_int_eq(halves_done[1], 1);
    }
    executor_destroy(executor);
    loop_destroy(loop);
}
END_TEST

START_TEST(test_destroying_the_executor_drops_no_job)
{
    open_executor();
    for (int i = 0; i < TASKS / 2; i++) {
        lane_submit(&lane, &jobs[i].job);
        executor_submit(executor, &jobs[TASKS / 2 + i].job);
    }
    executor_destroy(executor);
    ck_assert_int_eq(order_count, TASKS);
    loop_destroy(loop);
}
END_TEST

static void destroy_from_inside(struct job *job)
{
    (void)job;
    executor_destroy(executor);
}

/* The jobs that end in the same moment would never be told: it would wait for them for ever. */
START_TEST(test_destroying_the_executor_from_inside_a_done_is_our_mistake)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        (void)alarm(5);
        open_executor();
        jobs[0].job.done = destroy_from_inside;
        executor_submit(executor, &jobs[0].job);
        loop_run(loop);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    ck_assert_int_eq(WTERMSIG(status), SIGABRT);
}
END_TEST

UNIT_MAIN(
    "loop",
    test_tasks_of_another_thread_run_on_the_loop_in_order,
    test_stop_before_run_ends_the_run,
    test_timers_fire_in_order_of_time,
    test_stopped_timer_may_be_freed_at_once,
    test_timer_that_restarts_without_delay_lets_the_loop_turn,
    test_a_task_that_the_loop_posts_waits_for_no_event,
    test_a_pair_runs_at_once_and_is_done_in_order,
    test_job_runs_on_a_worker_and_is_done_on_the_loop,
    test_lane_runs_its_jobs_one_by_one_in_order,
    test_destroying_the_executor_drops_no_job,
    test_destroying_the_executor_from_inside_a_done_is_our_mistake);
