/* Processes of an earlier agent: ended when they are the same, never when only the number is. */
#include "compute/agent/leftovers.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/io/file.h"
#include "compute/agent/postmaster_pid.h"
#include "tests/unit/unit.h"

static struct errmsg msg;
static const struct cage_host no_cages;
static char folder[UNIT_FOLDER_SIZE];
static char dir[PATH_SIZE];
static char pids[PATH_SIZE];

/* A signal that comes before the child has its handlers waits for them. */
static pid_t sleeper(void)
{
    sigset_t ends, before;
    (void)sigemptyset(&ends);
    (void)sigaddset(&ends, SIGTERM);
    (void)sigaddset(&ends, SIGQUIT);
    (void)sigprocmask(SIG_BLOCK, &ends, &before);
    pid_t pid = fork();
    if (pid == 0) {
        (void)signal(SIGTERM, SIG_DFL); /* the test library handles it in its children */
        (void)signal(SIGQUIT, SIG_DFL);
        (void)sigprocmask(SIG_UNBLOCK, &ends, NULL);
        for (;;) {
            (void)pause();
        }
    }
    ck_assert_int_gt(pid, 0);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static void open_folder(void)
{
    unit_folder(folder, sizeof(folder), "anabranch-left");
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
    ck_assert_ok(leftovers_clear(folder, geteuid(), &no_cages, &msg), &msg);
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
    ck_assert_ok(leftovers_clear(folder, geteuid(), &no_cages, &msg), &msg);
    int status = 0;
    ck_assert_int_eq(waitpid(other, &status, WNOHANG), 0);
    (void)kill(other, SIGKILL);
    (void)waitpid(other, &status, 0);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

static bool segment_exists(int id)
{
    struct shmid_ds segment;
    return shmctl(id, IPC_STAT, &segment) == 0;
}

static int write_postmaster_pid(void)
{
    char path[PATH_SIZE];
    char text[200];
    int id = shmget(IPC_PRIVATE, 56, IPC_CREAT | 0600);
    ck_assert_int_ge(id, 0);
    ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/pgdata", dir), &msg);
    ck_assert_ok(dir_create(path, &msg), &msg);
    ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/pgdata/postmaster.pid", dir), &msg);
    (void)snprintf(text, sizeof(text), "1\n/d\n1\n5432\n/s\n*\n  5432001 %9d\nready   \n", id);
    ck_assert_ok(file_write_atomically(path, bytes_of_str(text), &msg), &msg);
    return id;
}

START_TEST(test_memory_segment_of_a_killed_postgres_is_removed)
{
    open_folder();
    int id = write_postmaster_pid();
    ck_assert_ok(leftovers_clear(folder, geteuid(), &no_cages, &msg), &msg);
    ck_assert(!segment_exists(id));
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_memory_segment_of_another_user_is_left_alone)
{
    open_folder();
    int id = write_postmaster_pid();
    ck_assert_ok(leftovers_clear(folder, geteuid() + 1, &no_cages, &msg), &msg);
    ck_assert(segment_exists(id));
    (void)shmctl(id, IPC_RMID, NULL);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_postmaster_pid_is_ready_only_when_its_last_line_says_so)
{
    struct postmaster_pid info;
    char path[PATH_SIZE];
    open_folder();
    ck_assert(!postmaster_pid_read(dir, &info));
    static const char whole[] = "1\n/d\n1\n5432\n/s\n*\n  5432001 7\nready   \n";
    ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/postmaster.pid", dir), &msg);
    for (size_t size = 0; size <= strlen(whole); size++) {
        ck_assert_ok(file_write_atomically(path, bytes_of(whole, size), &msg), &msg);
        ck_assert(postmaster_pid_read(dir, &info));
        ck_assert_int_eq(info.ready, size == strlen(whole));
    }
    ck_assert_int_eq(info.shared_memory_id, 7);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_nothing_to_clear_is_fine)
{
    ck_assert_ok(leftovers_clear("/nowhere/computes", geteuid(), &no_cages, &msg), &msg);
}
END_TEST

UNIT_MAIN(
    "leftovers",
    test_noted_processes_are_ended_and_folders_removed,
    test_another_process_with_the_same_number_is_left_alone,
    test_memory_segment_of_a_killed_postgres_is_removed,
    test_memory_segment_of_another_user_is_left_alone,
    test_postmaster_pid_is_ready_only_when_its_last_line_says_so,
    test_nothing_to_clear_is_fine);
