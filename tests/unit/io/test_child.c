/* Children: how they end is reported, their group is their own, a program that is missing is said.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/child.h"
#include "common/io/file.h"
#include "common/io/timer.h"
#include "tests/unit/unit.h"

static struct loop *loop;
static struct errmsg msg;
static int exits, exits_wanted = 1;
static int last_status, last_signal;
static char folder[UNIT_FOLDER_SIZE];

static void on_exit_of_child(struct child_user *user, int exit_status, int number)
{
    ck_assert_ptr_null(user->child);
    last_status = exit_status;
    last_signal = number;
    if (++exits == exits_wanted) {
        loop_stop(loop);
    }
}

static struct child_user user = {.on_exit = on_exit_of_child};

static void start(const struct child_options *options)
{
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    unit_folder(folder, sizeof(folder), "anabranch-child");
    ck_assert_ok(child_start(loop, options, &user, &msg), &msg);
}

static void finish(void)
{
    loop_destroy(loop);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}

START_TEST(test_exit_status_is_reported)
{
    const char *const argv[] = {"/bin/sh", "-c", "exit 3", NULL};
    start(&(struct child_options){.argv = argv});
    ck_assert_int_gt(child_pid(user.child), 0);
    loop_run(loop);
    ck_assert_int_eq(last_status, 3);
    ck_assert_int_eq(last_signal, 0);
    finish();
}
END_TEST

START_TEST(test_signal_reaches_the_whole_group)
{
    /* The shell waits for a grandchild; both belong to the child's group. */
    const char *const argv[] = {"/bin/sh", "-c", "sleep 1000 & wait", NULL};
    start(&(struct child_options){.argv = argv});
    child_signal_group(user.child, SIGKILL);
    loop_run(loop);
    ck_assert_int_eq(last_status, -1);
    ck_assert_int_eq(last_signal, SIGKILL);
    finish();
}
END_TEST

/* Of private memory and of files; the shell says what holds for it (in KiB and blocks of 512). */
START_TEST(test_limits_hold_for_the_child)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    const char *const argv[] = {"/bin/sh", "-c", "ulimit -d; ulimit -f", NULL};
    unit_folder(folder, sizeof(folder), "anabranch-child");
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    (void)snprintf(path, sizeof(path), "%s/out", folder);
    struct child_options options = {
        .argv = argv,
        .output_path = path,
        .limits = {.data_size_max = 64 * MIB, .file_size_max = 1 * MIB}};
    ck_assert_ok(child_start(loop, &options, &user, &msg), &msg);
    loop_run(loop);
    ck_assert_ok(file_read_all(path, 100, &text, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&text), "65536\n2048\n");
    buf_deinit(&text);
    finish();
}
END_TEST

START_TEST(test_cgroup_that_is_missing_fails_at_once)
{
    const char *const argv[] = {"/bin/true", NULL};
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    struct child_options options = {
        .argv = argv, .limits = {.cgroup_procs = {"/nowhere/cgroup.procs"}}};
    ck_assert_int_eq(child_start(loop, &options, &user, &msg), ERR_NOT_FOUND);
    ck_assert_ptr_null(user.child);
    loop_destroy(loop);
}
END_TEST

START_TEST(test_missing_program_fails_at_once)
{
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    const char *const argv[] = {"/nowhere/postgres", NULL};
    ck_assert_int_eq(
        child_start(loop, &(struct child_options){.argv = argv}, &user, &msg), ERR_NOT_FOUND);
    ck_assert_str_eq(msg.text, "execute /nowhere/postgres: No such file or directory");
    ck_assert_ptr_null(user.child);
    loop_destroy(loop);
}
END_TEST

START_TEST(test_missing_folder_and_user_fail_at_once)
{
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    const char *const argv[] = {"/bin/true", NULL};
    struct child_options options = {.argv = argv, .working_dir = "/nowhere"};
    ck_assert_int_eq(child_start(loop, &options, &user, &msg), ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(msg.text, "enter the folder"));
    options = (struct child_options){.argv = argv, .user_name = "nobody-of-this-name"};
    if (geteuid() == 0) {
        ck_assert_int_eq(child_start(loop, &options, &user, &msg), ERR_NOT_FOUND);
    }
    loop_destroy(loop);
}
END_TEST

static void expect_file(const char *path, const char *text)
{
    struct buf data = {0};
    ck_assert_ok(file_read_all(path, KIB, &data, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&data), text);
    buf_deinit(&data);
}

START_TEST(test_output_environment_and_folder_are_as_asked)
{
    char out[PATH_SIZE];
    char log[PATH_SIZE];
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    unit_folder(folder, sizeof(folder), "anabranch-child");
    ck_assert_ok(str_format(out, sizeof(out), &msg, "%s/out", folder), &msg);
    ck_assert_ok(str_format(log, sizeof(log), &msg, "%s/log", folder), &msg);
    ck_assert_int_eq(setenv("COLOR", "red", 1), 0);
    const char *const argv[] = {
        "/bin/sh", "-c", "printf \"$COLOR $(pwd)\"; printf trouble >&2; cat", NULL};
    const char *const env[] = {"COLOR=blue", NULL};
    struct child_options options = {
        .argv = argv, .env = env, .working_dir = "/", .output_path = log, .stdout_path = out};
    for (int i = 0; i < 2; i++) {
        exits = 0;
        ck_assert_ok(child_start(loop, &options, &user, &msg), &msg);
        loop_run(loop); /* ends, because stdin is empty */
        ck_assert_int_eq(last_status, 0);
    }
    expect_file(out, "blue /");
    expect_file(log, "troubletrouble"); /* appended */
    struct stat seen;
    ck_assert_int_eq(stat(log, &seen), 0);
    ck_assert_uint_eq(seen.st_mode & 0777, 0600); /* statements of people, with what they hold */
    ck_assert_int_eq(stat(out, &seen), 0);
    ck_assert_uint_eq(seen.st_mode & 0777, 0600);
    finish();
}
END_TEST

START_TEST(test_child_runs_as_the_given_user)
{
    if (geteuid() != 0) {
        return;
    }
    char out[PATH_SIZE];
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    unit_folder(folder, sizeof(folder), "anabranch-child");
    ck_assert_ok(str_format(out, sizeof(out), &msg, "%s/out", folder), &msg);
    const char *const argv[] = {"/usr/bin/id", "-un", NULL};
    struct child_options options = {
        .argv = argv, .stdout_path = out, .user_name = "nobody", .dies_with_us = true};
    ck_assert_ok(child_start(loop, &options, &user, &msg), &msg);
    loop_run(loop);
    ck_assert_int_eq(last_status, 0);
    expect_file(out, "nobody\n");
    finish();
}
END_TEST

/* Every exit starts the next child with the same user. */
static void start_next(struct child_user *ended, int exit_status, int number)
{
    (void)exit_status;
    (void)number;
    if (++exits >= 20) {
        loop_stop(loop);
        return;
    }
    const char *const argv[] = {"/bin/true", NULL};
    ck_assert_ok(child_start(loop, &(struct child_options){.argv = argv}, ended, &msg), &msg);
}

START_TEST(test_exit_callback_may_start_the_next)
{
    ck_assert_ok(loop_create(&loop, &msg), &msg);
    struct child_user users[3];
    const char *const argv[] = {"/bin/true", NULL};
    for (size_t i = 0; i < ARRAY_LEN(users); i++) {
        users[i] = (struct child_user){.on_exit = start_next};
        ck_assert_ok(
            child_start(loop, &(struct child_options){.argv = argv}, &users[i], &msg), &msg);
    }
    loop_run(loop);
    ck_assert_int_ge(exits, 20);
    loop_destroy(loop);
}
END_TEST

UNIT_MAIN(
    "child",
    test_exit_status_is_reported,
    test_signal_reaches_the_whole_group,
    test_limits_hold_for_the_child,
    test_cgroup_that_is_missing_fails_at_once,
    test_missing_program_fails_at_once,
    test_missing_folder_and_user_fail_at_once,
    test_output_environment_and_folder_are_as_asked,
    test_child_runs_as_the_given_user,
    test_exit_callback_may_start_the_next);
