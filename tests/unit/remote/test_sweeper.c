#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/io/file.h"
#include "pageserver/remote/sweeper.h"
#include "tests/unit/unit.h"

static char root[64], leftover[96];
static struct objstore *store;
static struct loop *loop;
static struct executor *executor;
static struct sweeper sweeper;
static struct timer watch;
static uint64_t sweeps_wanted;
static struct errmsg msg;

static void open_all(uint64_t interval_ms)
{
    unit_folder(root, sizeof(root), "test_sweeper");
    (void)snprintf(leftover, sizeof(leftover), "%s/.tmp/left", root);
    ck_assert_ok(objstore_open(root, &store, &msg), &msg);
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    ck_assert_ok(executor_create(loop, 1, &executor, &msg), &msg);
    struct sweeper_options options = {
        .loop = loop,
        .executor = executor,
        .objects = store,
        .interval_ms = interval_ms,
        .older_than_ms = 3600 * 1000,
    };
    sweeper_start(&sweeper, &options);
}

static void close_all(void)
{
    if (executor != NULL) {
        executor_destroy(executor);
    }
    loop_destroy(loop);
    objstore_close(store);
    ck_assert_ok(dir_remove(root, &msg), &msg);
}

static void leave_old_file(void)
{
    struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    ck_assert_ok(file_write_atomically(leftover, bytes_of_str("half"), &msg), &msg);
    ck_assert_int_eq(utimensat(AT_FDCWD, leftover, times, 0), 0);
}

/* Ends the loop after a sweep that began behind the call of run_one_sweep(). */
static void on_watch(struct timer *timer)
{
    if (sweeper.sweeps >= sweeps_wanted) {
        loop_stop(loop);
    } else {
        timer_start(loop, timer, 1);
    }
}

static void run_one_sweep(void)
{
    sweeps_wanted = sweeper.sweeps + (sweeper_is_idle(&sweeper) ? 1 : 2);
    watch.on_fire = on_watch;
    timer_start(loop, &watch, 1);
    loop_run(loop);
}

START_TEST(test_leftovers_are_removed_again_and_again)
{
    open_all(1);
    leave_old_file();
    run_one_sweep();
    ck_assert(!file_exists(leftover));
    leave_old_file();
    run_one_sweep();
    ck_assert(!file_exists(leftover));
    sweeper_stop(&sweeper);
    close_all();
}
END_TEST

START_TEST(test_sweep_that_failed_is_followed_by_another)
{
    char folder[96], aside[96];
    open_all(1);
    (void)snprintf(folder, sizeof(folder), "%s/.tmp", root);
    (void)snprintf(aside, sizeof(aside), "%s/.aside", root);
    leave_old_file();
    ck_assert_int_eq(rename(folder, aside), 0); /* what is not there cannot be listed */
    run_one_sweep();
    ck_assert_int_eq(rename(aside, folder), 0);
    ck_assert(file_exists(leftover));
    run_one_sweep();
    ck_assert(!file_exists(leftover));
    sweeper_stop(&sweeper);
    close_all();
}
END_TEST

static void on_end(struct timer *timer)
{
    (void)timer;
    loop_stop(loop);
}

START_TEST(test_nothing_is_swept_after_stop)
{
    open_all(1);
    leave_old_file();
    sweeper_stop(&sweeper);
    ck_assert(sweeper_is_idle(&sweeper));
    watch.on_fire = on_end;
    timer_start(loop, &watch, 2); /* behind the sweep, had it not been stopped */
    loop_run(loop);
    executor_destroy(executor); /* waits for what runs */
    executor = NULL;
    ck_assert(file_exists(leftover));
    close_all();
}
END_TEST

UNIT_MAIN(
    "sweeper",
    test_leftovers_are_removed_again_and_again,
    test_sweep_that_failed_is_followed_by_another,
    test_nothing_is_swept_after_stop);
