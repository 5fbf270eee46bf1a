/*
 * The rules that every backend keeps. Runs on a directory; with OBJSTORE_URL_HEAD and
 * OBJSTORE_URL_TAIL in the environment (tests/objstore/run.py) on the store HEAD + unique + TAIL.
 */
#include "common/objstore/objstore.h"

#include <pthread.h>
#include <stdio.h>

#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "tests/unit/unit.h"

static char root[64];
static struct objstore *store;
static struct errmsg msg;

static void open_store(void)
{
    char url[600];
    uint64_t unique;
    const char *head = getenv("OBJSTORE_URL_HEAD");
    const char *tail = getenv("OBJSTORE_URL_TAIL");
    unit_folder(root, sizeof(root), "test_objstore");
    prng_secure(&unique, sizeof(unique));
    if (head != NULL && tail != NULL) {
        (void)snprintf(url, sizeof(url), "%s%016" PRIx64 "%s", head, unique, tail);
    } else {
        (void)snprintf(url, sizeof(url), "dir:%s/store", root);
    }
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

static void expect_content(const char *name, const char *text)
{
    struct buf data = {0};
    ck_assert_ok(objstore_get(store, name, 100, &data, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&data), text);
    buf_deinit(&data);
}

static bool exists(const char *name)
{
    bool there = false;
    ck_assert_ok(objstore_exists(store, name, &there, &msg), &msg);
    return there;
}

/* Bytes that do not repeat, so that a piece at a wrong place shows. */
static uint8_t *make_bytes(size_t size)
{
    struct prng prng;
    prng_init(&prng, size);
    uint8_t *bytes = mem_alloc(size + sizeof(uint64_t));
    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        uint64_t word = prng_next(&prng);
        memcpy(bytes + i, &word, sizeof(word));
    }
    return bytes;
}

START_TEST(test_object_comes_back_as_it_was_put)
{
    open_store();
    ck_assert_ok(put("bootstrap/pg17/a.tar", "content"), &msg);
    expect_content("bootstrap/pg17/a.tar", "content");
    close_store();
}
END_TEST

START_TEST(test_empty_object_comes_back)
{
    open_store();
    ck_assert_ok(put("nothing", ""), &msg);
    expect_content("nothing", "");
    ck_assert(exists("nothing"));
    close_store();
}
END_TEST

START_TEST(test_get_appends)
{
    open_store();
    struct buf data = {0};
    ck_assert_ok(put("a", "1"), &msg);
    ck_assert_ok(put("b", "2"), &msg);
    ck_assert_ok(objstore_get(store, "a", 100, &data, &msg), &msg);
    ck_assert_ok(objstore_get(store, "b", 100, &data, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&data), "12");
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
    ck_assert_ok(put("a", "content"), &msg);
    ck_assert_int_eq(put("a", "contents"), ERR_EXISTS);
    ck_assert_int_eq(put("a", "Content"), ERR_EXISTS);
    ck_assert_int_eq(put("a", ""), ERR_EXISTS);
    ck_assert_ptr_nonnull(strstr(msg.text, "object a"));
    expect_content("a", "content");
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
    struct objstore_info info;
    ck_assert_int_eq(objstore_get(store, "a/b", 100, &data, &msg), ERR_NOT_FOUND);
    ck_assert_int_eq(objstore_get_range(store, "a/b", 0, 1, &data, &msg), ERR_NOT_FOUND);
    ck_assert_int_eq(objstore_head(store, "a/b", &info, &msg), ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(msg.text, "object a/b"));
    ck_assert(!exists("a/b"));
    close_store();
}
END_TEST

START_TEST(test_missing_object_leaves_no_file)
{
    open_store();
    char to[96];
    (void)snprintf(to, sizeof(to), "%s/to", root);
    ck_assert_int_eq(objstore_get_file(store, "a", to, &msg), ERR_NOT_FOUND);
    ck_assert(!file_exists(to));
    (void)snprintf(to, sizeof(to), "%s/to.new", root);
    ck_assert(!file_exists(to));
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
    ck_assert_ok(objstore_get(store, "a", 7, &data, &msg), &msg);
    buf_deinit(&data);
    close_store();
}
END_TEST

START_TEST(test_head_tells_size_and_hash)
{
    open_store();
    struct objstore_info info;
    ck_assert_ok(put("a", "content"), &msg);
    ck_assert_ok(objstore_head(store, "a", &info, &msg), &msg);
    ck_assert_uint_eq(info.size, 7);
    ck_assert(hash128_equal(info.hash, hash128(bytes_of_str("content"))));
    close_store();
}
END_TEST

START_TEST(test_range_is_cut_out)
{
    open_store();
    struct buf data = {0};
    ck_assert_ok(put("a", "0123456789"), &msg);
    ck_assert_ok(objstore_get_range(store, "a", 2, 3, &data, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&data), "234");
    ck_assert_ok(objstore_get_range(store, "a", 9, 1, &data, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&data), "2349");
    buf_deinit(&data);
    close_store();
}
END_TEST

START_TEST(test_range_beyond_the_end_is_refused)
{
    open_store();
    struct buf data = {0};
    ck_assert_ok(put("a", "0123456789"), &msg);
    ck_assert_int_eq(objstore_get_range(store, "a", 9, 2, &data, &msg), ERR_RANGE);
    ck_assert_int_eq(objstore_get_range(store, "a", 10, 1, &data, &msg), ERR_RANGE);
    ck_assert_int_eq(objstore_get_range(store, "a", UINT64_MAX, 2, &data, &msg), ERR_RANGE);
    ck_assert_uint_eq(data.size, 0);
    buf_deinit(&data);
    close_store();
}
END_TEST

START_TEST(test_deleted_object_is_gone_and_deleting_again_is_fine)
{
    open_store();
    ck_assert_ok(put("a/b", "content"), &msg);
    ck_assert_ok(objstore_delete(store, "a/b", &msg), &msg);
    ck_assert_ok(objstore_delete(store, "a/b", &msg), &msg);
    ck_assert(!exists("a/b"));
    close_store();
}
END_TEST

START_TEST(test_many_are_deleted_and_others_stay)
{
    open_store();
    const char *names[] = {"a/1", "a/2", "b/1", "never"};
    ck_assert_ok(put("a/1", "x"), &msg);
    ck_assert_ok(put("a/2", "x"), &msg);
    ck_assert_ok(put("a/3", "x"), &msg);
    ck_assert_ok(put("b/1", "x"), &msg);
    ck_assert_ok(objstore_delete_many(store, names, ARRAY_LEN(names), &msg), &msg);
    ck_assert(!exists("a/1") && !exists("a/2") && !exists("b/1"));
    ck_assert(exists("a/3"));
    close_store();
}
END_TEST

static err_t append_name(const struct objstore_entry *entry, void *context, struct errmsg *error)
{
    (void)error;
    buf_printf(context, "%s=%" PRIu64 " ", entry->name, entry->size);
    return ERR_OK;
}

static void expect_listing(const struct objstore_query *query, const char *expected)
{
    struct buf names = {0};
    ck_assert_ok(objstore_list(store, query, append_name, &names, &msg), &msg);
    ck_assert_str_eq(buf_cstr(&names), expected);
    buf_deinit(&names);
}

static void put_some(void)
{
    const char *names[] = {"a/z", "a.b", "a/b/c", "ab", "b"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        ck_assert_ok(put(names[i], names[i]), &msg);
    }
}

START_TEST(test_listing_is_sorted_by_whole_name_and_cut_to_the_prefix)
{
    open_store();
    put_some();
    struct objstore_query all = {0}, some = {.prefix = "a"}, below = {.prefix = "a/"};
    expect_listing(&all, "a.b=3 a/b/c=5 a/z=3 ab=2 b=1 ");
    expect_listing(&some, "a.b=3 a/b/c=5 a/z=3 ab=2 ");
    expect_listing(&below, "a/b/c=5 a/z=3 ");
    close_store();
}
END_TEST

START_TEST(test_listing_goes_on_where_another_ended)
{
    open_store();
    put_some();
    struct objstore_query first = {.count_max = 2};
    struct objstore_query next = {.after = "a/b/c", .count_max = 2};
    struct objstore_query last = {.prefix = "a", .after = "a/z"};
    struct objstore_query none = {.prefix = "c"};
    expect_listing(&first, "a.b=3 a/b/c=5 ");
    expect_listing(&next, "a/z=3 ab=2 ");
    expect_listing(&last, "ab=2 ");
    expect_listing(&none, "");
    close_store();
}
END_TEST

static err_t refuse_second(const struct objstore_entry *entry, void *context, struct errmsg *error)
{
    (void)entry;
    unsigned *count = context;
    return ++*count < 2 ? ERR_OK : err_set(error, ERR_STALE, "enough");
}

START_TEST(test_visitor_ends_the_listing)
{
    open_store();
    put_some();
    unsigned count = 0;
    struct objstore_query all = {0};
    ck_assert_int_eq(objstore_list(store, &all, refuse_second, &count, &msg), ERR_STALE);
    ck_assert_uint_eq(count, 2);
    close_store();
}
END_TEST

static void check_file_round_trip(size_t size)
{
    char from[96], to[96];
    struct buf data = {0};
    (void)snprintf(from, sizeof(from), "%s/from", root);
    (void)snprintf(to, sizeof(to), "%s/to", root);
    uint8_t *bytes = make_bytes(size);
    ck_assert_ok(file_write_durably(from, bytes_of(bytes, size), &msg), &msg);
    ck_assert_ok(objstore_put_file(store, "big", from, &msg), &msg);
    ck_assert_ok(objstore_put_file(store, "big", from, &msg), &msg);
    ck_assert_ok(objstore_get_file(store, "big", to, &msg), &msg);
    ck_assert_ok(file_read_all(to, size, &data, &msg), &msg);
    ck_assert(bytes_equal(buf_view(&data), bytes_of(bytes, size)));
    buf_clear(&data);
    ck_assert_ok(objstore_get_range(store, "big", size / 3, size / 2, &data, &msg), &msg);
    ck_assert(bytes_equal(buf_view(&data), bytes_of(bytes + size / 3, size / 2)));
    bytes[size / 2] ^= 1;
    ck_assert_int_eq(objstore_put(store, "big", bytes_of(bytes, size), &msg), ERR_EXISTS);
    buf_deinit(&data);
    mem_free(bytes);
}

START_TEST(test_files_go_up_and_come_down)
{
    open_store();
    check_file_round_trip(300 * KIB);
    close_store();
}
END_TEST

START_TEST(test_large_files_go_up_and_come_down)
{
    open_store();
    check_file_round_trip(20 * MIB + 12345);
    close_store();
}
END_TEST

START_TEST(test_empty_file_goes_up_and_comes_down)
{
    open_store();
    char path[96];
    struct buf data = {0};
    (void)snprintf(path, sizeof(path), "%s/empty", root);
    ck_assert_ok(file_write_durably(path, bytes_of("", 0), &msg), &msg);
    ck_assert_ok(objstore_put_file(store, "empty", path, &msg), &msg);
    ck_assert_ok(objstore_get_file(store, "empty", path, &msg), &msg);
    ck_assert_ok(file_read_all(path, 1, &data, &msg), &msg);
    ck_assert_uint_eq(data.size, 0);
    buf_deinit(&data);
    close_store();
}
END_TEST

#define THREADS            4
#define OBJECTS_PER_THREAD 5

static void *put_and_get(void *context)
{
    char name[32];
    struct buf data = {0};
    err_t err = ERR_OK;
    for (unsigned i = 0; i < OBJECTS_PER_THREAD && err == ERR_OK; i++) {
        (void)snprintf(name, sizeof(name), "%s/%u", (const char *)context, i);
        err = objstore_put(store, name, bytes_of_str(name), NULL);
        buf_clear(&data);
        if (err == ERR_OK) {
            err = objstore_get(store, name, sizeof(name), &data, NULL);
        }
        if (err == ERR_OK && !bytes_equal(buf_view(&data), bytes_of_str(name))) {
            err = ERR_CORRUPT;
        }
    }
    buf_deinit(&data);
    return err == ERR_OK ? NULL : context;
}

START_TEST(test_threads_share_a_store)
{
    open_store();
    pthread_t threads[THREADS];
    char *names[THREADS] = {"a", "b", "c", "c"}; /* two put the same objects */
    for (size_t i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, put_and_get, names[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *failed = NULL;
        ck_assert_int_eq(pthread_join(threads[i], &failed), 0);
        ck_assert_ptr_null(failed);
    }
    struct buf found = {0};
    struct objstore_query all = {0};
    ck_assert_ok(objstore_list(store, &all, append_name, &found, &msg), &msg);
    ck_assert_uint_eq(found.size, 3 * OBJECTS_PER_THREAD * strlen("a/0=3 "));
    buf_deinit(&found);
    close_store();
}
END_TEST

START_TEST(test_sweep_leaves_objects_alone)
{
    open_store();
    size_t count = 1;
    ck_assert_ok(put("a", "content"), &msg);
    ck_assert_ok(objstore_sweep(store, 0, &count, &msg), &msg);
    ck_assert_uint_eq(count, 0);
    expect_content("a", "content");
    close_store();
}
END_TEST

UNIT_MAIN(
    "objstore",
    test_object_comes_back_as_it_was_put,
    test_empty_object_comes_back,
    test_get_appends,
    test_putting_the_same_again_is_fine,
    test_another_content_under_a_name_is_refused,
    test_names_that_lead_elsewhere_are_refused,
    test_missing_object_is_not_found,
    test_missing_object_leaves_no_file,
    test_object_over_the_limit_is_full,
    test_head_tells_size_and_hash,
    test_range_is_cut_out,
    test_range_beyond_the_end_is_refused,
    test_deleted_object_is_gone_and_deleting_again_is_fine,
    test_many_are_deleted_and_others_stay,
    test_listing_is_sorted_by_whole_name_and_cut_to_the_prefix,
    test_listing_goes_on_where_another_ended,
    test_visitor_ends_the_listing,
    test_files_go_up_and_come_down,
    test_large_files_go_up_and_come_down,
    test_empty_file_goes_up_and_comes_down,
    test_threads_share_a_store,
    test_sweep_leaves_objects_alone);
