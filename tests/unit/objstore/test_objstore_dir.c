/*
 * What only the directory backend has: files, their trailer, damage to them, temporary files.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/mark.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "common/objstore/objstore.h"
#include "tests/unit/unit.h"

static char root[64], object[96], temp[96];
static struct objstore *store;
static struct errmsg msg;

static void open_store(void)
{
    char url[80];
    unit_folder(root, sizeof(root), "test_objstore_dir");
    (void)snprintf(url, sizeof(url), "dir:%s/store", root);
    (void)snprintf(object, sizeof(object), "%s/store/a", root);
    (void)snprintf(temp, sizeof(temp), "%s/store/.tmp", root);
    ck_assert_ok(objstore_open(url, &store, &msg), &msg);
}

static void close_store(void)
{
    objstore_close(store);
    ck_assert_ok(dir_remove(root, &msg), &msg);
}

static void put_content(void)
{
    ck_assert_ok(objstore_put(store, "a", bytes_of_str("content"), &msg), &msg);
}

/* tests/data/objects/content is "content" and a trailer whose hashes other programs computed. */
START_TEST(test_file_is_what_the_format_says)
{
    open_store();
    struct buf golden = {0}, ours = {0};
    put_content();
    ck_assert_ok(file_read_all(OBJECT_DATA "/content", 100, &golden, &msg), &msg);
    ck_assert_ok(file_read_all(object, 100, &ours, &msg), &msg);
    ck_assert(bytes_equal(buf_view(&golden), buf_view(&ours)));
    buf_deinit(&golden);
    buf_deinit(&ours);
    close_store();
}
END_TEST

START_TEST(test_every_damaged_byte_is_noticed)
{
    open_store();
    struct buf image = {0}, data = {0};
    put_content();
    ck_assert_ok(file_read_all(object, 100, &image, &msg), &msg);
    for (size_t i = 0; i < image.size; i++) {
        image.data[i] ^= 0x10;
        ck_assert_ok(file_write_durably(object, buf_view(&image), &msg), &msg);
        ck_assert_msg(
            objstore_get(store, "a", 100, &data, &msg) == ERR_CORRUPT, "byte %zu: %s", i, msg.text);
        ck_assert_uint_eq(data.size, 0);
        image.data[i] ^= 0x10;
    }
    ck_assert_uint_gt(mark_hits("objstore.read.corrupt"), 0);
    buf_deinit(&image);
    buf_deinit(&data);
    close_store();
}
END_TEST

START_TEST(test_every_cut_file_is_noticed)
{
    open_store();
    struct buf image = {0}, data = {0};
    put_content();
    ck_assert_ok(file_read_all(object, 100, &image, &msg), &msg);
    for (size_t size = 0; size < image.size; size++) {
        ck_assert_ok(file_write_durably(object, bytes_of(image.data, size), &msg), &msg);
        ck_assert_int_eq(objstore_get(store, "a", 100, &data, &msg), ERR_CORRUPT);
        ck_assert_int_eq(objstore_get_range(store, "a", 0, 1, &data, &msg), ERR_CORRUPT);
    }
    buf_deinit(&image);
    buf_deinit(&data);
    close_store();
}
END_TEST

START_TEST(test_damaged_object_leaves_no_file)
{
    open_store();
    char to[96];
    (void)snprintf(to, sizeof(to), "%s/to", root);
    put_content();
    ck_assert_ok(file_write_durably(object, bytes_of_str("rubbish"), &msg), &msg);
    ck_assert_int_eq(objstore_get_file(store, "a", to, &msg), ERR_CORRUPT);
    ck_assert(!file_exists(to));
    close_store();
}
END_TEST

/* Only an empty folder can be removed. */
START_TEST(test_no_temporary_file_stays_behind)
{
    open_store();
    put_content();
    ck_assert_int_eq(objstore_put(store, "a", bytes_of_str("2"), &msg), ERR_EXISTS);
    ck_assert_int_eq(rmdir(temp), 0);
    close_store();
}
END_TEST

static void leave_temp_file(const char *name, struct timespec age)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", temp, name);
    ck_assert_ok(file_write_atomically(path, bytes_of_str("half"), &msg), &msg);
    struct timespec times[2] = {age, age};
    ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

START_TEST(test_sweep_removes_old_leftovers_only)
{
    open_store();
    size_t count = 0;
    leave_temp_file("old", (struct timespec){.tv_sec = 1000000000});
    leave_temp_file("new", (struct timespec){.tv_nsec = UTIME_NOW});
    ck_assert_ok(objstore_sweep(store, 3600 * 1000, &count, &msg), &msg);
    ck_assert_uint_eq(count, 1);
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/new", temp);
    ck_assert(file_exists(path));
    close_store();
}
END_TEST

START_TEST(test_settings_that_are_no_store_are_refused)
{
    const char *urls[] = {"", "dir:", "ftp://host/x"};
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        ck_assert_int_eq(objstore_open(urls[i], &store, &msg), ERR_INVALID);
    }
}
END_TEST

UNIT_MAIN(
    "objstore_dir",
    test_file_is_what_the_format_says,
    test_every_damaged_byte_is_noticed,
    test_every_cut_file_is_noticed,
    test_damaged_object_leaves_no_file,
    test_no_temporary_file_stays_behind,
    test_sweep_removes_old_leftovers_only,
    test_settings_that_are_no_store_are_refused);
