#include "tests/lib/lossyfs/lossy_control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"

static struct lossy_tree tree;
static struct lossy_control control;
static struct lossy_inode *file;
static struct errmsg msg;

static void given_file(void)
{
    lossy_tree_init(&tree, LOSSY_NAMES_STRICT);
    control = (struct lossy_control){.tree = &tree};
    ck_assert_int_eq(lossy_tree_create(&tree, tree.root, "wal", S_IFREG, NULL, &file), 0);
    lossy_tree_sync(&tree, tree.root);
    ck_assert_int_eq(lossy_tree_write(&tree, file, 0, bytes_of_str("text")), 0);
}

static void run(const char *line)
{
    ck_assert_ok(lossy_control_run(&control, line, &msg), &msg);
}

START_TEST(test_sync_then_cut_keeps_and_counts)
{
    given_file();
    ck_assert_int_eq(lossy_control_sync(&control, file), 0);
    ck_assert_int_eq(lossy_tree_write(&tree, file, 10, bytes_of_str("lost")), 0);
    run("cut 1 0");
    struct buf status = {0};
    lossy_control_status(&control, &status);
    ck_assert_ptr_nonnull(strstr(buf_cstr(&status), "\"unsynced\": 0"));
    ck_assert_ptr_nonnull(strstr(buf_cstr(&status), "\"cuts\": 1"));
    ck_assert_ptr_nonnull(strstr(buf_cstr(&status), "\"lost\": 1"));
    buf_deinit(&status);
    ck_assert_uint_eq(file->file.cached.size, 4);
}
END_TEST

START_TEST(test_a_disk_that_lies_keeps_nothing)
{
    given_file();
    run("lie on");
    ck_assert_int_eq(lossy_control_sync(&control, file), 0);
    run("cut 1 0");
    ck_assert_uint_eq(file->file.cached.size, 0);
    ck_assert_int_eq(lossy_tree_write(&tree, file, 0, bytes_of_str("text")), 0);
    run("lie off");
    ck_assert_int_eq(lossy_control_sync(&control, file), 0);
    run("cut 1 0");
    ck_assert_uint_eq(file->file.cached.size, 4);
}
END_TEST

START_TEST(test_a_sync_fails_once_and_loses)
{
    given_file();
    run("fail sync EIO 1 /other");
    ck_assert_int_eq(lossy_control_sync(&control, file), 0);
    ck_assert_int_eq(lossy_tree_write(&tree, file, 0, bytes_of_str("more text")), 0);
    run("fail sync EIO 1 /w*");
    ck_assert_int_eq(lossy_control_sync(&control, file), EIO);
    ck_assert_int_eq(lossy_control_sync(&control, file), 0);
    ck_assert_uint_eq(file->file.cached.size, 4);
}
END_TEST

START_TEST(test_reads_and_writes_fail_as_often_as_asked)
{
    given_file();
    run("fail read EIO 2 *");
    run("fail write ENOSPC 1 /wal");
    ck_assert_int_eq(lossy_control_on_call(&control, LOSSY_READ, file), EIO);
    ck_assert_int_eq(lossy_control_on_call(&control, LOSSY_WRITE, file), ENOSPC);
    ck_assert_int_eq(lossy_control_on_call(&control, LOSSY_WRITE, file), 0);
    ck_assert_int_eq(lossy_control_on_call(&control, LOSSY_READ, file), EIO);
    ck_assert_int_eq(lossy_control_on_call(&control, LOSSY_READ, file), 0);
    run("fail read EIO 2 *");
    run("heal");
    ck_assert_int_eq(lossy_control_on_call(&control, LOSSY_READ, file), 0);
}
END_TEST

START_TEST(test_kill_strikes_at_the_change_that_was_named)
{
    given_file();
    pid_t child = fork();
    if (child == 0) {
        for (;;) {
            (void)pause();
        }
    }
    char line[64];
    (void)snprintf(line, sizeof(line), "kill 3 %d", (int)child);
    run(line);
    ck_assert_int_eq(lossy_control_on_change(&control), 0);
    ck_assert_int_eq(lossy_control_on_change(&control), 0);
    ck_assert_int_eq(waitpid(child, NULL, WNOHANG), 0);
    ck_assert_int_eq(lossy_control_on_change(&control), EIO);
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ck_assert_int_eq(lossy_control_on_change(&control), 0);
}
END_TEST

START_TEST(test_a_bit_flips_and_a_disk_fills)
{
    given_file();
    run("flip /wal 1 3\n");
    uint8_t bytes[4];
    ck_assert_uint_eq(lossy_file_read(&file->file, 0, bytes, 4), 4);
    ck_assert_int_eq(bytes[1], 'e' ^ 8);
    run("capacity 4096");
    ck_assert_int_eq(lossy_tree_write(&tree, file, 5000, bytes_of_str("x")), ENOSPC);
}
END_TEST

START_TEST(test_names_can_become_as_on_linux)
{
    given_file();
    struct lossy_inode *other = NULL;
    ck_assert_int_eq(lossy_tree_create(&tree, tree.root, "other", S_IFREG, NULL, &other), 0);
    run("names linux");
    ck_assert_int_eq(lossy_control_sync(&control, other), 0);
    run("names strict");
    ck_assert_int_eq(lossy_tree_create(&tree, tree.root, "third", S_IFREG, NULL, &other), 0);
    ck_assert_int_eq(lossy_control_sync(&control, other), 0);
    run("cut 1 0");
    ck_assert_ptr_nonnull(lossy_tree_walk(&tree, "/other"));
    ck_assert_ptr_null(lossy_tree_walk(&tree, "/third"));
}
END_TEST

START_TEST(test_what_makes_no_sense_is_refused)
{
    static const char *const lines[] = {
        "",
        "nonsense",
        "cut",
        "cut x",
        "kill 1",
        "kill 1 1",
        "names posix",
        "lie",
        "lie maybe",
        "fail sync",
        "fail sync EWHAT 1 *",
        "fail fly EIO 1 *",
        "fail sync EIO x *",
        "capacity x",
        "flip /wal 100 0",
        "flip /none 0 0"};
    given_file();
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        ck_assert_int_eq(lossy_control_run(&control, lines[i], &msg), ERR_INVALID);
    }
}
END_TEST

UNIT_MAIN(
    "lossy_control",
    test_sync_then_cut_keeps_and_counts,
    test_a_disk_that_lies_keeps_nothing,
    test_a_sync_fails_once_and_loses,
    test_reads_and_writes_fail_as_often_as_asked,
    test_kill_strikes_at_the_change_that_was_named,
    test_a_bit_flips_and_a_disk_fills,
    test_names_can_become_as_on_linux,
    test_what_makes_no_sense_is_refused);
