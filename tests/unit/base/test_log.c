#include "common/base/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/metric.h"
#include "tests/unit/unit.h"

#define LINES 5000 /* far more than a pipe or a socket holds */

/* What a process does whose log nobody reads: it ends, and it has counted. */
static void log_into(int fd)
{
    struct buf metrics = {0};
    (void)alarm(60); /* it stands still: the test fails */
    (void)dup2(fd, STDERR_FILENO);
    log_init("test_log", LOG_LEVEL_INFO);
    for (int i = 0; i < LINES; i++) {
        log_info(NULL, "line %d of many", i);
    }
    int64_t dropped = -1;
    metric_print_all(&metrics);
    const char *at = strstr(buf_cstr(&metrics), "\nlog_lines_dropped_total ");
    bool is_known = at != NULL && sscanf(at + 1, "log_lines_dropped_total %" SCNd64, &dropped) == 1;
    _exit(is_known && dropped > 0 && dropped < LINES ? 0 : 1);
}

static void expect_exit(pid_t pid, int expected)
{
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), expected);
}

static void check_that_nobody_waits(const int ends[2])
{
    pid_t pid = fork();
    if (pid == 0) {
        log_into(ends[1]);
    }
    expect_exit(pid, 0);
    ck_assert_int_eq(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0); /* ours, as it was */
    (void)close(ends[0]);
    (void)close(ends[1]);
}

START_TEST(test_text_of_a_peer_stays_in_its_line)
{
    int ends[2];
    char said[512];
    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        log_init("test_log", LOG_LEVEL_INFO);
        log_info(NULL, "role \"%s\" refused", "a\nb\x1b[2J\x7f");
        _exit(0);
    }
    expect_exit(pid, 0);
    (void)close(ends[1]);
    ssize_t size = read(ends[0], said, sizeof said - 1);
    ck_assert_int_gt(size, 0);
    said[size] = '\0';
    ck_assert_ptr_nonnull(strstr(said, "role \"a b [2J \" refused\n"));
    (void)close(ends[0]);
}
END_TEST

START_TEST(test_a_full_pipe_is_not_waited_for)
{
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    check_that_nobody_waits(ends);
}
END_TEST

START_TEST(test_a_full_socket_is_not_waited_for)
{
    int ends[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    check_that_nobody_waits(ends);
}
END_TEST

static void log_when_told(int log, int go, int done)
{
    char byte = 0;
    (void)dup2(log, STDERR_FILENO);
    log_init("test_log", LOG_LEVEL_INFO);
    for (int i = 0; i < LINES; i++) {
        log_info(NULL, "line %d of many", i);
    }
    bool is_heard = write(done, &byte, 1) == 1 && read(go, &byte, 1) == 1;
    log_info(NULL, "and on");
    _exit(is_heard ? 0 : 1);
}

START_TEST(test_the_next_line_says_how_many_are_missing)
{
    static char text[4 * LINES * 64];
    size_t used = 0;
    int log[2], go[2], done[2], missing = 0;
    char byte = 0;
    ck_assert(pipe2(log, O_CLOEXEC) == 0 && pipe(go) == 0 && pipe(done) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        log_when_told(log[1], go[0], done[1]);
    }
    (void)close(log[1]);
    ck_assert_int_eq(read(done[0], &byte, 1), 1);
    ck_assert_int_eq(fcntl(log[0], F_SETFL, O_NONBLOCK), 0);
    ssize_t more;
    while ((more = read(log[0], text + used, sizeof(text) - used - 1)) > 0) {
        used += (size_t)more;
    }
    int taken = 0;
    for (size_t i = 0; i < used; i++) {
        taken += text[i] == '\n';
    }
    ck_assert_int_eq(write(go[1], &byte, 1), 1);
    expect_exit(pid, 0);
    more = read(log[0], text, sizeof(text) - 1);
    ck_assert_int_gt(more, 0);
    text[more] = '\0';
    const char *at = strstr(text, "test_log ");
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(sscanf(at, "test_log %d lines of the log are missing here", &missing), 1);
    ck_assert_int_eq(taken + missing, LINES);
    ck_assert_ptr_nonnull(strstr(at, "and on\n"));
    (void)close(log[0]);
}
END_TEST

UNIT_MAIN(
    "log",
    test_text_of_a_peer_stays_in_its_line,
    test_a_full_pipe_is_not_waited_for,
    test_a_full_socket_is_not_waited_for,
    test_the_next_line_says_how_many_are_missing);
