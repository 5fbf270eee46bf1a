/* Files through the vfs table: completed, durable, and every failure named. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/file.h"
#include "tests/unit/unit.h"

static struct errmsg msg;
static char folder[UNIT_FOLDER_SIZE];
static char path[PATH_SIZE];

static const char *in_folder(const char *name)
{
    if (folder[0] == '\0') {
        unit_folder(folder, sizeof(folder), "anabranch-file");
    }
    ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/%s", folder, name), &msg);
    return path;
}

static void clean_up(void)
{
    ck_assert_ok(dir_remove(folder, &msg), &msg);
    ck_assert(!file_exists(folder));
    ck_assert_ok(dir_remove(folder, &msg), &msg); /* missing is fine */
}

START_TEST(test_what_was_written_durably_is_read_back)
{
    struct buf data = {0};
    ck_assert_ok(file_write_durably(in_folder("a"), bytes_of_str("first and long"), &msg), &msg);
    ck_assert_ok(file_write_durably(path, bytes_of_str("second"), &msg), &msg);
    ck_assert_ok(file_read_all(path, 6, &data, &msg), &msg);
    ck_assert(bytes_equal(buf_view(&data), bytes_of_str("second")));
    buf_deinit(&data);
    ck_assert_int_eq(file_read_all(path, 5, &data, &msg), ERR_FULL);
    ck_assert(!file_exists(in_folder("a.new")));
    clean_up();
}
END_TEST

START_TEST(test_files_without_a_size_are_read_to_their_end)
{
    struct buf data = {0};
    ck_assert_ok(file_read_all("/proc/self/stat", MIB, &data, &msg), &msg);
    ck_assert_uint_gt(data.size, 10);
    buf_deinit(&data);
}
END_TEST

START_TEST(test_open_modes_and_their_errors)
{
    int fd = -1;
    ck_assert_int_eq(file_open(&fd, in_folder("b"), FILE_READ, &msg), ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(msg.text, path));
    ck_assert_int_eq(file_open(&fd, path, FILE_WRITE, &msg), ERR_NOT_FOUND);
    ck_assert_ok(file_open(&fd, path, FILE_CREATE_NEW, &msg), &msg);
    file_close(&fd);
    ck_assert_int_eq(fd, -1);
    ck_assert_int_eq(file_open(&fd, path, FILE_CREATE_NEW, &msg), ERR_EXISTS);
    ck_assert_ok(file_open(&fd, path, FILE_CREATE, &msg), &msg);
    file_close(&fd);
    file_close(&fd); /* twice is fine */
    clean_up();
}
END_TEST

START_TEST(test_read_beyond_the_end_is_corrupt)
{
    int fd = -1;
    char to[10];
    ck_assert_ok(file_open(&fd, in_folder("c"), FILE_CREATE, &msg), &msg);
    ck_assert_ok(file_write_at(fd, path, bytes_of_str("12345678"), 0, &msg), &msg);
    ck_assert_int_eq(file_read_at(fd, path, to, 5, 4, &msg), ERR_CORRUPT);
    ck_assert_ptr_nonnull(strstr(msg.text, "ends at 8"));
    ck_assert_ok(file_read_at(fd, path, to, 4, 4, &msg), &msg);
    file_close(&fd);
    clean_up();
}
END_TEST

START_TEST(test_resize_reserves_or_truncates)
{
    int fd = -1;
    uint64_t size = 0;
    uint64_t used = 0;
    ck_assert_ok(file_open(&fd, in_folder("d"), FILE_CREATE, &msg), &msg);
    ck_assert_ok(file_resize(fd, path, MIB, true, &msg), &msg);
    ck_assert_ok(file_size(fd, path, &size, &msg), &msg);
    ck_assert_uint_eq(size, MIB);
    ck_assert_ok(dir_usage(folder, &used, &msg), &msg);
    ck_assert_uint_ge(used, MIB);
    ck_assert_ok(file_resize(fd, path, 10, true, &msg), &msg);
    ck_assert_ok(file_size(fd, path, &size, &msg), &msg);
    ck_assert_uint_eq(size, 10);
    file_close(&fd);
    clean_up();
}
END_TEST

/* System calls that do half of the work, are interrupted, or fail. */
static int pieces;

static ssize_t pwrite_piecewise(int fd, const void *from, size_t size, off_t at)
{
    if (++pieces % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return pwrite(fd, from, MIN_OF(size, (size_t)7), at);
}

static ssize_t pread_piecewise(int fd, void *to, size_t size, off_t at)
{
    if (++pieces % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return pread(fd, to, MIN_OF(size, (size_t)5), at);
}

START_TEST(test_short_and_interrupted_calls_are_completed)
{
    struct buf data = {0};
    vfs.pwrite = pwrite_piecewise;
    vfs.pread = pread_piecewise;
    struct bytes text = bytes_of_str("every byte of this must arrive, whatever the kernel does");
    ck_assert_ok(file_write_durably(in_folder("e"), text, &msg), &msg);
    ck_assert_ok(file_read_all(path, KIB, &data, &msg), &msg);
    ck_assert(bytes_equal(buf_view(&data), text));
    buf_deinit(&data);
    clean_up();
}
END_TEST

static int fail_with_eio(int fd)
{
    (void)fd;
    errno = EIO;
    return -1;
}

START_TEST(test_failed_sync_is_sticky_and_leaves_the_old_file)
{
    struct buf data = {0};
    ck_assert_ok(file_write_durably(in_folder("f"), bytes_of_str("old"), &msg), &msg);
    vfs.fdatasync = fail_with_eio;
    ck_assert_int_eq(file_write_durably(path, bytes_of_str("new"), &msg), ERR_FAILED);
    ck_assert_ptr_nonnull(strstr(msg.text, "fdatasync"));
    ck_assert_ok(file_read_all(path, KIB, &data, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&data), "old");
    ck_assert(!file_exists(in_folder("f.new")));
    buf_deinit(&data);
    clean_up();
}
END_TEST

static ssize_t pwrite_full(int fd, const void *from, size_t size, off_t at)
{
    (void)fd;
    (void)from;
    (void)size;
    (void)at;
    errno = ENOSPC;
    return -1;
}

START_TEST(test_full_disk_is_full_and_not_broken)
{
    vfs.pwrite = pwrite_full;
    ck_assert_int_eq(file_write_durably(in_folder("g"), bytes_of_str("x"), &msg), ERR_FULL);
    clean_up();
}
END_TEST

static err_t collect(const char *name, void *context, struct errmsg *why)
{
    (void)why;
    buf_printf(context, "%s ", name);
    return strcmp(name, "stop") == 0 ? err_set(why, ERR_CANCELED, "seen enough") : ERR_OK;
}

START_TEST(test_folders_are_created_with_parents_and_listed_in_order)
{
    struct buf names = {0};
    ck_assert_ok(dir_create(in_folder("x/y/z"), &msg), &msg);
    ck_assert_ok(dir_create(path, &msg), &msg);
    ck_assert_ok(file_write_durably(in_folder("x/b"), bytes_of_str("1"), &msg), &msg);
    ck_assert_ok(file_write_durably(in_folder("x/a"), bytes_of_str("1"), &msg), &msg);
    ck_assert_ok(dir_list(in_folder("x"), collect, &names, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&names), "a b y ");
    ck_assert_int_eq(dir_create(in_folder("x/a"), &msg), ERR_EXISTS);
    ck_assert_int_ne(dir_create(in_folder("x/a/under-a-file"), &msg), ERR_OK);
    ck_assert_ok(file_write_durably(in_folder("x/stop"), bytes_of_str("1"), &msg), &msg);
    ck_assert_int_eq(dir_list(in_folder("x"), collect, &names, &msg), ERR_CANCELED);
    ck_assert_int_eq(dir_list(in_folder("none"), collect, &names, &msg), ERR_NOT_FOUND);
    buf_deinit(&names);
    clean_up();
}
END_TEST

static ino_t synced[8];
static size_t synced_count;

static int note_sync(int fd)
{
    struct stat status;
    ck_assert_int_eq(fstat(fd, &status), 0);
    ck_assert_uint_lt(synced_count, ARRAY_LEN(synced));
    synced[synced_count++] = status.st_ino;
    return 0;
}

/* Somebody may have made it and died before its name was on disk. */
START_TEST(test_a_folder_made_durably_has_its_name_synced_also_when_it_exists)
{
    struct stat parent;
    ck_assert_ok(dir_create(in_folder("parent"), &msg), &msg);
    ck_assert_int_eq(stat(path, &parent), 0);
    vfs.fsync = note_sync;
    for (size_t i = 0; i < 2; i++) {
        ck_assert_ok(dir_create_durably(in_folder("parent/made"), &msg), &msg);
        ck_assert_uint_eq(synced_count, i + 1);
        ck_assert_uint_eq(synced[i], parent.st_ino);
    }
    vfs.fsync = fail_with_eio;
    ck_assert_int_eq(dir_create_durably(path, &msg), ERR_FAILED);
    clean_up();
}
END_TEST

UNIT_MAIN(
    "file",
    test_what_was_written_durably_is_read_back,
    test_files_without_a_size_are_read_to_their_end,
    test_open_modes_and_their_errors,
    test_read_beyond_the_end_is_corrupt,
    test_resize_reserves_or_truncates,
    test_short_and_interrupted_calls_are_completed,
    test_failed_sync_is_sticky_and_leaves_the_old_file,
    test_full_disk_is_full_and_not_broken,
    test_folders_are_created_with_parents_and_listed_in_order,
    test_a_folder_made_durably_has_its_name_synced_also_when_it_exists);
