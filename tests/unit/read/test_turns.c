#include "pageserver/read/turns.h"

#include <stdatomic.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "tests/unit/unit.h"

static struct errmsg msg;
static struct loop *loop;
static struct executor *executor;
static struct turns *turns;

static struct tenant_id tenant(uint8_t number)
{
    return (struct tenant_id){.bytes = {number}};
}

static void begin(void)
{
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    ck_assert_ok(executor_create(loop, 1, &executor, &msg), &msg);
    turns = turns_create(loop, executor, 2);
}

static void end(void)
{
    turns_destroy(turns);
    executor_destroy(executor);
    loop_destroy(loop);
}

START_TEST(test_shares_of_one_tenant_are_one)
{
    begin();
    struct turn_share *first = turns_join(turns, tenant(1));
    ck_assert_ptr_eq(turns_join(turns, tenant(1)), first);
    struct turn_share *other = turns_join(turns, tenant(2));
    ck_assert_ptr_ne(other, first);
    turns_leave(first);
    turns_leave(first);
    turns_leave(other);
    end();
}
END_TEST

static unsigned takes_until_held(struct turn_share *share, unsigned most)
{
    for (unsigned count = 1; count <= most; count++) {
        if (!turn_take(share)) {
            return count;
        }
    }
    return 0;
}

START_TEST(test_a_tenant_beside_another_gets_less_of_a_turn)
{
    begin();
    struct turn_share *flood = turns_join(turns, tenant(1));
    struct turn_share *quiet = turns_join(turns, tenant(2));
    unsigned alone = takes_until_held(flood, 100000);
    ck_assert_uint_gt(alone, 0); /* even alone there is an end: other things happen in a loop */
    struct turn_share *third = turns_join(turns, tenant(3));
    ck_assert(turn_take(quiet)); /* one request of somebody else */
    unsigned beside = takes_until_held(third, 100000);
    ck_assert_uint_gt(beside, 0);
    ck_assert_uint_lt(beside, alone);
    turns_leave(flood);
    turns_leave(quiet);
    turns_leave(third);
    end();
}
END_TEST

static void on_task(struct loop_task *task)
{
    (void)task;
    loop_stop(loop);
}

START_TEST(test_the_next_turn_of_the_loop_begins_to_count_anew)
{
    begin();
    struct turn_share *share = turns_join(turns, tenant(1));
    unsigned first = takes_until_held(share, 100000);
    ck_assert(!turn_take(share));
    struct loop_task task = {.run = on_task};
    loop_post(loop, &task);
    loop_run(loop);
    ck_assert_uint_eq(takes_until_held(share, 100000), first);
    turns_leave(share);
    end();
}
END_TEST

struct waiter {
    struct turn_wait wait;
    unsigned *order; /* where the next one notes itself */
    unsigned number, noted;
    bool stops;
};

static void on_turn(struct turn_wait *wait)
{
    struct waiter *waiter = CONTAINER_OF(wait, struct waiter, wait);
    waiter->noted = ++*waiter->order;
    if (waiter->stops) {
        loop_stop(loop);
    }
}

START_TEST(test_connections_go_on_in_the_order_in_which_they_were_held)
{
    begin();
    enum { COUNT = 50 };
    unsigned order = 0;
    struct turn_share *share = turns_join(turns, tenant(1));
    struct waiter waiters[COUNT] = {0};
    (void)takes_until_held(share, 100000);
    for (unsigned i = 0; i < COUNT; i++) {
        waiters[i] = (struct waiter){
            .wait.on_turn = on_turn, .order = &order, .number = i, .stops = i == COUNT - 1};
        turn_wait_start(&waiters[i].wait, share);
        turn_wait_start(&waiters[i].wait, share); /* it waits already */
    }
    turn_wait_stop(&waiters[7].wait); /* its connection is gone */
    loop_run(loop);
    for (unsigned i = 0; i < COUNT; i++) {
        ck_assert_uint_eq(waiters[i].noted, i == 7 ? 0 : i < 7 ? i + 1 : i);
    }
    turns_leave(share);
    end();
}
END_TEST

struct counted_job {
    struct turn_job turn;
    unsigned *done;
    unsigned position; /* in which order it was done */
    unsigned last;     /* how many there are */
};

static err_t run_nothing(struct job *job)
{
    (void)job;
    return ERR_OK;
}

static void on_done(struct turn_job *turn)
{
    struct counted_job *job = CONTAINER_OF(turn, struct counted_job, turn);
    job->position = ++*job->done;
    if (*job->done == job->last) {
        loop_stop(loop);
    }
}

START_TEST(test_a_job_waits_for_one_round_of_others_not_for_all_their_jobs)
{
    enum { FLOOD = 200 };
    begin();
    unsigned done = 0;
    struct turn_share *flood = turns_join(turns, tenant(1));
    struct turn_share *quiet = turns_join(turns, tenant(2));
    struct counted_job jobs[FLOOD + 1];
    for (unsigned i = 0; i <= FLOOD; i++) {
        jobs[i] = (struct counted_job){
            .turn = {.job = {.run = run_nothing}, .done = on_done},
            .done = &done,
            .last = FLOOD + 1};
        turn_submit(i == FLOOD ? quiet : flood, &jobs[i].turn);
    }
    loop_run(loop);
    ck_assert_uint_eq(done, FLOOD + 1);
    /* Two are with the executor, one of the flood stands in line before it. */
    ck_assert_uint_le(jobs[FLOOD].position, 5);
    turns_leave(flood);
    turns_leave(quiet);
    end();
}
END_TEST

UNIT_MAIN(
    "turns",
    test_shares_of_one_tenant_are_one,
    test_a_tenant_beside_another_gets_less_of_a_turn,
    test_the_next_turn_of_the_loop_begins_to_count_anew,
    test_connections_go_on_in_the_order_in_which_they_were_held,
    test_a_job_waits_for_one_round_of_others_not_for_all_their_jobs);
