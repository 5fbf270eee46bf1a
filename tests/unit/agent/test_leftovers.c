/* Processes of an earlier agent: ended when they are the same, never when only the number is. */
#include "compute/agent/leftovers.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/io/file.h"
#include "tests/unit/unit.h"

static struct errmsg msg;
static char folder[] = "/tmp/anabranch-left-XXXXXX";
static char dir[PATH_SIZE];
static char pids[PATH_SIZE];

static pid_t sleeper(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)signal(SIGTERM, SIG_DFL); /* the test library handles it in its children */
        (void)signal(SIGQUIT, SIG_DFL);
        for (;;) {
            (void)pause();
        }
    }
    ck_assert_int_gt(pid, 0);
    return pid;
}

static void open_folder(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_ok(str_format(dir, sizeof(dir), &msg, "%s/ep-1", folder), &msg);
    ck_assert_ok(dir_create(dir, &msg), &msg);
    ck_assert_ok(str_format(pids, sizeof(pids), &msg, "%s/pids", dir), &msg);
}

START_TEST(test_noted_processes_are_ended_and_folders_removed)
{
    open_folder();
    pid_t postgres = sleeper();
    pid_t proposer = sleeper();
    ck_assert_ok(leftovers_note(dir, postgres, proposer, &msg), &msg);
    ck_assert_ok(leftovers_clear(folder, &msg), &msg);
    int status = 0;
    ck_assert_int_eq(waitpid(postgres, &status, WNOHANG), postgres);
    ck_assert_int_eq(WTERMSIG(status), SIGQUIT);
    ck_assert_int_eq(waitpid(proposer, &status, WNOHANG), proposer);
    ck_assert_int_eq(WTERMSIG(status), SIGTERM);
    ck_assert(!file_exists(dir));
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_another_process_with_the_same_number_is_left_alone)
{
    char text[100];
    open_folder();
    pid_t other = sleeper();
    (void)snprintf(text, sizeof(text), "postgres %d 1\nwalproposer x y\njunk\n\n", other);
    ck_assert_ok(file_write_atomically(pids, bytes_of_str(text), &msg), &msg);
    ck_assert_ok(leftovers_clear(folder, &msg), &msg);
    int status = 0;
    ck_assert_int_eq(waitpid(other, &status, WNOHANG), 0);
    (void)kill(other, SIGKILL);
    (void)waitpid(other, &status, 0);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_nothing_to_clear_is_fine)
{
    ck_assert_ok(leftovers_clear("/nowhere/computes", &msg), &msg);
}
END_TEST

UNIT_MAIN(
    "leftovers",
    test_noted_processes_are_ended_and_folders_removed,
    test_another_process_with_the_same_number_is_left_alone,
    test_nothing_to_clear_is_fine);
