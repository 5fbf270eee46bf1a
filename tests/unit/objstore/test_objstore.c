#include "common/objstore/objstore.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "tests/unit/unit.h"

static char root[64];
static struct objstore *store;
static struct errmsg msg;

static void open_store(void)
{
    (void)snprintf(root, sizeof(root), "/tmp/test_objstore.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    char url[80];
    (void)snprintf(url, sizeof(url), "dir:%s/store", root);
    ck_assert_ok(objstore_open(url, &store, &msg), &msg);
}

static void close_store(void)
{
    objstore_close(store);
    ck_assert_ok(dir_remove(root, &msg), &msg);
}

static err_t put(const char *name, const char *text)
{
    return objstore_put(store, name, bytes_of_str(text), &msg);
}

START_TEST(test_object_comes_back_as_it_was_put)
{
    open_store();
    struct buf data = {0};
    ck_assert_ok(put("bootstrap/pg17/a.tar", "content"), &msg);
    ck_assert_ok(objstore_get(store, "bootstrap/pg17/a.tar", 100, &data, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&data), "content");
    buf_deinit(&data);
    close_store();
}
END_TEST

START_TEST(test_putting_the_same_again_is_fine)
{
    open_store();
    ck_assert_ok(put("a", "content"), &msg);
    ck_assert_ok(put("a", "content"), &msg);
    close_store();
}
END_TEST

START_TEST(test_another_content_under_a_name_is_refused)
{
    open_store();
    struct buf data = {0};
    ck_assert_ok(put("a", "content"), &msg);
    ck_assert_int_eq(put("a", "contents"), ERR_EXISTS);
    ck_assert_int_eq(put("a", "Content"), ERR_EXISTS);
    ck_assert_ok(objstore_get(store, "a", 100, &data, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&data), "content");
    buf_deinit(&data);
    close_store();
}
END_TEST

START_TEST(test_names_that_lead_elsewhere_are_refused)
{
    open_store();
    const char *names[] = {"", "/etc/x", "../x", "a/../x", "a//b", "a/", ".tmp/x", "a b", "a\nb"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        ck_assert_msg(put(names[i], "x") == ERR_INVALID, "name \"%s\"", names[i]);
    }
    close_store();
}
END_TEST

START_TEST(test_missing_object_is_not_found)
{
    open_store();
    struct buf data = {0};
    bool exists = true;
    ck_assert_int_eq(objstore_get(store, "a/b", 100, &data, &msg), ERR_NOT_FOUND);
    ck_assert_ok(objstore_exists(store, "a/b", &exists, &msg), &msg);
    ck_assert(!exists);
    close_store();
}
END_TEST

START_TEST(test_object_over_the_limit_is_full)
{
    open_store();
    struct buf data = {0};
    ck_assert_ok(put("a", "content"), &msg);
    ck_assert_int_eq(objstore_get(store, "a", 6, &data, &msg), ERR_FULL);
    ck_assert_uint_eq(data.size, 0);
    close_store();
}
END_TEST

START_TEST(test_deleted_object_is_gone_and_deleting_again_is_fine)
{
    open_store();
    bool exists = true;
    ck_assert_ok(put("a/b", "content"), &msg);
    ck_assert_ok(objstore_delete(store, "a/b", &msg), &msg);
    ck_assert_ok(objstore_delete(store, "a/b", &msg), &msg);
    ck_assert_ok(objstore_exists(store, "a/b", &exists, &msg), &msg);
    ck_assert(!exists);
    close_store();
}
END_TEST

static err_t append_name(const char *name, uint64_t size, void *context, struct errmsg *error)
{
    (void)size;
    (void)error;
    buf_printf(context, "%s ", name);
    return ERR_OK;
}

START_TEST(test_listing_is_sorted_by_whole_name_and_cut_to_the_prefix)
{
    open_store();
    struct buf names = {0};
    const char *put_names[] = {"a/z", "a.b", "a/b/c", "ab", "b"};
    for (size_t i = 0; i < ARRAY_LEN(put_names); i++) {
        ck_assert_ok(put(put_names[i], "x"), &msg);
    }
    ck_assert_ok(objstore_list(store, "a", append_name, &names, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&names), "a.b a/b/c a/z ab ");
    buf_clear(&names);
    ck_assert_ok(objstore_list(store, "a/", append_name, &names, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&names), "a/b/c a/z ");
    buf_deinit(&names);
    close_store();
}
END_TEST

START_TEST(test_files_go_up_and_come_down)
{
    open_store();
    char from[96], to[96];
    struct buf data = {0};
    (void)snprintf(from, sizeof(from), "%s/from", root);
    (void)snprintf(to, sizeof(to), "%s/to", root);
    char *big = mem_alloc(3 * MIB);
    memset(big, 'x', 3 * MIB);
    ck_assert_ok(file_write_durably(from, bytes_of(big, 3 * MIB), &msg), &msg);
    ck_assert_ok(objstore_put_file(store, "big", from, &msg), &msg);
    ck_assert_ok(objstore_get_file(store, "big", to, &msg), &msg);
    ck_assert_ok(file_read_all(to, 4 * MIB, &data, &msg), &msg);
    ck_assert(bytes_equal(buf_view(&data), bytes_of(big, 3 * MIB)));
    buf_deinit(&data);
    mem_free(big);
    close_store();
}
END_TEST

START_TEST(test_no_temporary_file_stays_behind)
{
    open_store();
    char temp[96];
    struct buf names = {0};
    ck_assert_ok(put("a", "1"), &msg);
    ck_assert_int_eq(put("a", "2"), ERR_EXISTS);
    (void)snprintf(temp, sizeof(temp), "%s/store/.tmp", root);
    uint64_t bytes = 1;
    ck_assert_ok(dir_usage(temp, &bytes, &msg), &msg);
    ck_assert_int_eq(rmdir(temp), 0); /* only an empty folder can be removed */
    buf_deinit(&names);
    close_store();
}
END_TEST

UNIT_MAIN(
    "objstore",
    test_object_comes_back_as_it_was_put,
    test_putting_the_same_again_is_fine,
    test_another_content_under_a_name_is_refused,
    test_names_that_lead_elsewhere_are_refused,
    test_missing_object_is_not_found,
    test_object_over_the_limit_is_full,
    test_deleted_object_is_gone_and_deleting_again_is_fine,
    test_listing_is_sorted_by_whole_name_and_cut_to_the_prefix,
    test_files_go_up_and_come_down,
    test_no_temporary_file_stays_behind);
