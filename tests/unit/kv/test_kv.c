#include "common/kv/kv.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"

#define PREFIX 4

static char path[64];
static struct kv *store;
static struct errmsg msg;

static struct kv *open_store(void)
{
    struct kv *kv = NULL;
    struct kv_options options = {.prefix_size = PREFIX};
    ck_assert_msg(kv_open(path, &options, &kv, &msg) == ERR_OK, "%s", msg.text);
    return kv;
}

static void make_folder(void)
{
    unit_folder(path, sizeof(path), "test_kv");
}

static void setup(void)
{
    make_folder();
    store = open_store();
}

static void teardown(void)
{
    kv_close(store);
    char command[128];
    (void)snprintf(command, sizeof(command), "rm -rf %s", path);
    ck_assert_int_eq(system(command), 0);
}

static void reopen(void)
{
    kv_close(store);
    store = open_store();
}

static struct bytes text(const char *chars)
{
    return bytes_of_str(chars);
}

static const char *value_of(const char *key)
{
    static struct buf value;
    buf_clear(&value);
    return kv_get(store, text(key), &value, &msg) == ERR_OK ? buf_cstr(&value) : NULL;
}

START_TEST(test_put_survives_reopen)
{
    ck_assert_int_eq(kv_put(store, text("aaaa1"), text("one"), &msg), ERR_OK);
    reopen();
    ck_assert_str_eq(value_of("aaaa1"), "one");
}
END_TEST

START_TEST(test_missing_key_is_not_found)
{
    struct buf value = {0};
    ck_assert_int_eq(kv_get(store, text("none"), &value, &msg), ERR_NOT_FOUND);
    ck_assert_uint_eq(value.size, 0);
}
END_TEST

START_TEST(test_deleted_key_is_not_found)
{
    ck_assert_int_eq(kv_put(store, text("aaaa1"), text("one"), &msg), ERR_OK);
    ck_assert_int_eq(kv_delete(store, text("aaaa1"), &msg), ERR_OK);
    ck_assert_ptr_null(value_of("aaaa1"));
}
END_TEST

/*
 * A child process writes and dies without closing: what a crash leaves behind. It forks before the
 * first kv_open, because RocksDB's threads do not live on in a child.
 */
static void write_and_crash(void)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        struct kv *kv = open_store();
        struct kv_batch *batch = kv_batch_create();
        kv_batch_put(batch, text("aaaa1"), text("flushed"));
        err_t err = kv_write(kv, batch, KV_VOLATILE, &msg);
        err = err == ERR_OK ? kv_flush(kv, &msg) : err;
        kv_batch_clear(batch);
        kv_batch_put(batch, text("aaaa2"), text("volatile"));
        err = err == ERR_OK ? kv_write(kv, batch, KV_VOLATILE, &msg) : err;
        err = err == ERR_OK ? kv_put(kv, text("aaaa3"), text("synced"), &msg) : err;
        _exit(err == ERR_OK ? 0 : 1);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    store = open_store();
}

START_TEST(test_crash_keeps_synced_and_flushed_and_loses_volatile)
{
    write_and_crash();
    ck_assert_str_eq(value_of("aaaa1"), "flushed");
    ck_assert_str_eq(value_of("aaaa3"), "synced");
    ck_assert_ptr_null(value_of("aaaa2"));
}
END_TEST

START_TEST(test_batch_counts_entries_and_bytes)
{
    struct kv_batch *batch = kv_batch_create();
    kv_batch_put(batch, text("aaaa1"), text("123"));
    kv_batch_delete(batch, text("aaaa2"));
    ck_assert_uint_eq(kv_batch_count(batch), 2);
    ck_assert_uint_eq(kv_batch_bytes(batch), 13);
    kv_batch_clear(batch);
    ck_assert_uint_eq(kv_batch_count(batch), 0);
    ck_assert_uint_eq(kv_batch_bytes(batch), 0);
    kv_batch_destroy(batch);
}
END_TEST

static void put_some(void)
{
    const char *keys[] = {"aaaa1", "aaaa3", "bbbb1", "bbbb2", "cccc1"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        ck_assert_int_eq(kv_put(store, text(keys[i]), text("v"), &msg), ERR_OK);
    }
}

static void assert_at(const struct kv_iter *iter, const char *key)
{
    ck_assert(kv_iter_valid(iter));
    ck_assert(bytes_equal(kv_iter_key(iter), text(key)));
}

START_TEST(test_iterator_within_prefix_ends_with_the_prefix)
{
    put_some();
    struct kv_iter *iter = kv_iter_create(store, true);
    kv_iter_seek(iter, text("aaaa2"));
    assert_at(iter, "aaaa3");
    kv_iter_next(iter);
    ck_assert(!kv_iter_valid(iter));
    ck_assert_int_eq(kv_iter_error(iter, &msg), ERR_OK);
    kv_iter_seek(iter, text("bbbb1")); /* the same iterator serves another prefix */
    assert_at(iter, "bbbb1");
    kv_iter_destroy(iter);
}
END_TEST

START_TEST(test_total_order_iterator_walks_both_ways)
{
    put_some();
    struct kv_iter *iter = kv_iter_create(store, false);
    kv_iter_seek(iter, text("aaaa4"));
    assert_at(iter, "bbbb1");
    kv_iter_prev(iter);
    assert_at(iter, "aaaa3");
    kv_iter_seek_for_prev(iter, text("bbbb9"));
    assert_at(iter, "bbbb2");
    kv_iter_next(iter);
    assert_at(iter, "cccc1");
    kv_iter_destroy(iter);
}
END_TEST

START_TEST(test_iterator_until_ends_before_its_end)
{
    put_some();
    ck_assert_int_eq(kv_flush(store, &msg), ERR_OK);
    char end[] = "bbbb2";
    struct kv_iter *iter = kv_iter_create_until(store, text(end));
    memset(end, 'z', strlen(end)); /* the iterator has its own */
    kv_iter_seek(iter, text("aaaa2"));
    assert_at(iter, "aaaa3");
    kv_iter_next(iter); /* on, over the prefix */
    assert_at(iter, "bbbb1");
    kv_iter_next(iter);
    ck_assert(!kv_iter_valid(iter));
    ck_assert_int_eq(kv_iter_error(iter, &msg), ERR_OK);
    kv_iter_seek(iter, text("aaaa1"));
    assert_at(iter, "aaaa1");
    kv_iter_destroy(iter);
}
END_TEST

static err_t erase(struct bytes begin, struct bytes end)
{
    struct kv_range range = {.begin = begin, .end = end};
    return kv_erase_ranges(store, &range, 1, &msg);
}

START_TEST(test_several_ranges_are_erased_at_once)
{
    put_some();
    struct kv_range ranges[] = {
        {.begin = text("aaaa"), .end = text("bbbb")}, {.begin = text("cccc"), .end = text("dddd")}};
    ck_assert_int_eq(kv_erase_ranges(store, ranges, 2, &msg), ERR_OK);
    reopen();
    ck_assert_ptr_null(value_of("aaaa3"));
    ck_assert_ptr_null(value_of("cccc1"));
    ck_assert_str_eq(value_of("bbbb1"), "v");
}
END_TEST

START_TEST(test_erased_range_is_gone_after_reopen_and_neighbours_stay)
{
    put_some();
    ck_assert_int_eq(kv_flush(store, &msg), ERR_OK);
    ck_assert_int_eq(erase(text("bbbb"), text("cccc")), ERR_OK);
    reopen();
    ck_assert_ptr_null(value_of("bbbb1"));
    ck_assert_ptr_null(value_of("bbbb2"));
    ck_assert_str_eq(value_of("aaaa3"), "v");
    ck_assert_str_eq(value_of("cccc1"), "v");
}
END_TEST

START_TEST(test_erasing_gives_the_space_back)
{
    struct kv_batch *batch = kv_batch_create();
    uint8_t noise[1024];
    uint32_t seed = 1;
    for (unsigned i = 0; i < 2000; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "bbbb%06u", i);
        for (size_t at = 0; at < sizeof(noise); at++) {
            seed = seed * 1664525 + 1013904223;
            noise[at] = (uint8_t)(seed >> 24);
        }
        kv_batch_put(batch, text(key), bytes_of(noise, sizeof(noise)));
    }
    ck_assert_int_eq(kv_write(store, batch, KV_VOLATILE, &msg), ERR_OK);
    kv_batch_destroy(batch);
    ck_assert_int_eq(kv_flush(store, &msg), ERR_OK);
    ck_assert_uint_gt(kv_size_of_range(store, text("bbbb"), text("bbbc")), MIB);
    ck_assert_int_eq(erase(text("bbbb"), text("bbbc")), ERR_OK);
    ck_assert_uint_lt(kv_size_of_range(store, text("bbbb"), text("bbbc")), 64 * KIB);
}
END_TEST

/* A sorted file beside the store; keys are given in order, "a b c". */
static err_t write_file(const char *name, const char *const *keys, size_t count, const char *value)
{
    char file_path[128];
    (void)snprintf(file_path, sizeof(file_path), "%s/%s", path, name);
    struct kv_file *file = NULL;
    err_t err = kv_file_create(store, file_path, &file, &msg);
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        err = kv_file_put(file, text(keys[i]), text(value), &msg);
    }
    if (err == ERR_OK) {
        err = kv_file_finish(file, &msg);
    }
    kv_file_destroy(file);
    return err;
}

static err_t ingest(const char *const *names, size_t count)
{
    char paths[4][128];
    const char *pointers[4];
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(paths[i], sizeof(paths[i]), "%s/%s", path, names[i]);
        pointers[i] = paths[i];
    }
    return kv_ingest(store, pointers, count, &msg);
}

START_TEST(test_ingested_files_are_newer_and_survive_a_reopen)
{
    const char *first[] = {"aaaa1", "aaaa3"}, *second[] = {"bbbb1"};
    const char *names[] = {"first", "second"};
    put_some();
    ck_assert_int_eq(write_file("first", first, 2, "one"), ERR_OK);
    ck_assert_int_eq(write_file("second", second, 1, "two"), ERR_OK);
    ck_assert_str_eq(value_of("aaaa1"), "v");
    ck_assert_int_eq(ingest(names, 2), ERR_OK);
    ck_assert_str_eq(value_of("aaaa1"), "one");
    ck_assert_str_eq(value_of("bbbb1"), "two");
    ck_assert_str_eq(value_of("bbbb2"), "v");
    reopen();
    ck_assert_str_eq(value_of("aaaa3"), "one");
    ck_assert_str_eq(value_of("bbbb1"), "two");
    ck_assert_uint_ge(kv_level0_files(store), 1);
}
END_TEST

START_TEST(test_iterator_in_memory_is_busy_until_the_block_was_read)
{
    put_some();
    ck_assert_int_eq(kv_flush(store, &msg), ERR_OK);
    struct kv_iter *iter = kv_iter_create_in_memory(store);
    kv_iter_seek(iter, text("aaaa2"));
    ck_assert(!kv_iter_valid(iter));
    ck_assert_int_eq(kv_iter_error(iter, &msg), ERR_BUSY);
    kv_iter_destroy(iter);
    ck_assert_str_eq(value_of("aaaa3"), "v");
    iter = kv_iter_create_in_memory(store);
    kv_iter_seek(iter, text("aaaa2"));
    assert_at(iter, "aaaa3");
    kv_iter_next(iter);
    ck_assert(!kv_iter_valid(iter));
    ck_assert_int_eq(kv_iter_error(iter, &msg), ERR_OK);
    kv_iter_destroy(iter);
}
END_TEST

START_TEST(test_several_files_are_ingested_together_or_not_at_all)
{
    const char *keys[] = {"aaaa1"};
    const char *names[] = {"first", "missing"};
    ck_assert_int_eq(write_file("first", keys, 1, "one"), ERR_OK);
    ck_assert_int_ne(ingest(names, 2), ERR_OK);
    ck_assert_ptr_null(value_of("aaaa1"));
}
END_TEST

START_TEST(test_keys_out_of_order_and_an_empty_file_are_invalid)
{
    const char *falling[] = {"bbbb1", "aaaa1"}, *twice[] = {"aaaa1", "aaaa1"};
    ck_assert_int_eq(write_file("falling", falling, 2, "v"), ERR_INVALID);
    ck_assert_int_eq(write_file("twice", twice, 2, "v"), ERR_INVALID);
    ck_assert_int_eq(write_file("empty", NULL, 0, "v"), ERR_INVALID);
}
END_TEST

START_TEST(test_checkpoint_is_a_store_of_its_own)
{
    const char *keys[] = {"aaaa1"};
    const char *names[] = {"first"};
    char copy_path[128];
    (void)snprintf(copy_path, sizeof(copy_path), "%s/copy", path);
    ck_assert_int_eq(write_file("first", keys, 1, "one"), ERR_OK);
    ck_assert_int_eq(ingest(names, 1), ERR_OK);
    ck_assert_int_eq(kv_put(store, text("bbbb1"), text("in memory"), &msg), ERR_OK);
    ck_assert_int_eq(kv_checkpoint(store, copy_path, &msg), ERR_OK);
    ck_assert_int_eq(kv_put(store, text("aaaa1"), text("later"), &msg), ERR_OK);
    struct kv *original = store;
    struct kv_options options = {.prefix_size = PREFIX};
    ck_assert_msg(kv_open(copy_path, &options, &store, &msg) == ERR_OK, "%s", msg.text);
    ck_assert_str_eq(value_of("aaaa1"), "one");
    ck_assert_str_eq(value_of("bbbb1"), "in memory");
    kv_close(store);
    store = original;
}
END_TEST

START_TEST(test_second_open_of_one_folder_is_busy)
{
    struct kv *second = NULL;
    struct kv_options options = {0};
    ck_assert_int_eq(kv_open(path, &options, &second, &msg), ERR_BUSY);
    ck_assert_ptr_null(second);
}
END_TEST

/* -- a filter that drops values that say so -- */

struct counting_pass {
    struct kv_filter_pass pass;
    unsigned seen;
};
static struct counting_pass counting;
static unsigned passes_begun, passes_ended;
static bool is_armed;

static bool drops_marked(struct kv_filter_pass *pass, struct bytes key, struct bytes value)
{
    (void)pass;
    (void)key;
    counting.seen++;
    return bytes_equal(value, text("drop"));
}

static void end_counting(struct kv_filter_pass *pass)
{
    (void)pass;
    passes_ended++;
}

static struct kv_filter_pass *begin_counting(struct kv_filter *filter)
{
    (void)filter;
    if (!is_armed) {
        return NULL;
    }
    passes_begun++;
    counting.pass = (struct kv_filter_pass){.drops = drops_marked, .end = end_counting};
    return &counting.pass;
}

START_TEST(test_a_compaction_leaves_out_what_the_filter_drops)
{
    static struct kv_filter filter = {.begin = begin_counting};
    struct kv_options options = {.prefix_size = PREFIX, .filter = &filter};
    kv_close(store);
    ck_assert_int_eq(kv_open(path, &options, &store, &msg), ERR_OK);
    ck_assert_int_eq(kv_put(store, text("aaaa1"), text("keep"), &msg), ERR_OK);
    ck_assert_int_eq(kv_put(store, text("aaaa2"), text("drop"), &msg), ERR_OK);
    ck_assert_int_eq(kv_put(store, text("bbbb1"), text("keep"), &msg), ERR_OK);
    ck_assert_int_eq(kv_compact(store, &msg), ERR_OK);
    ck_assert_ptr_nonnull(value_of("aaaa2")); /* without a pass nothing goes */
    is_armed = true;
    ck_assert_int_eq(kv_compact(store, &msg), ERR_OK);
    ck_assert_ptr_null(value_of("aaaa2"));
    ck_assert_str_eq(value_of("aaaa1"), "keep");
    ck_assert_str_eq(value_of("bbbb1"), "keep");
    ck_assert_uint_ge(counting.seen, 3);
    reopen();
    ck_assert_ptr_null(value_of("aaaa2"));
    ck_assert_uint_gt(passes_begun, 0);
    ck_assert_uint_eq(passes_begun, passes_ended);
}
END_TEST

/* What counts is the rule of the moment at which a pass begins. */
static struct {
    struct kv_filter filter;
    struct kv *kv;
    _Atomic int rule;     /* 1: everything goes */
    _Atomic int begun;    /* passes */
    _Atomic int go_on_at; /* the first pass goes on when level 0 has so many files; 0: not yet */
} ruled;

struct ruled_pass {
    struct kv_filter_pass pass;
    int rule;
};

static bool drops_by_rule(struct kv_filter_pass *pass, struct bytes key, struct bytes value)
{
    (void)key;
    (void)value;
    return ((struct ruled_pass *)(void *)pass)->rule == 1;
}

static void end_ruled(struct kv_filter_pass *pass)
{
    free(pass);
}

static struct kv_filter_pass *begin_ruled(struct kv_filter *filter)
{
    (void)filter;
    struct ruled_pass *pass = malloc(sizeof(*pass));
    ck_assert_ptr_nonnull(pass);
    pass->pass = (struct kv_filter_pass){.drops = drops_by_rule, .end = end_ruled};
    pass->rule = ruled.rule;
    if (ruled.begun++ == 0) {
        while (ruled.go_on_at == 0 || kv_level0_files(ruled.kv) < (uint64_t)ruled.go_on_at) {
            (void)sched_yield();
        }
    }
    return &pass->pass;
}

static void put_and_flush(int number)
{
    char key[16];
    (void)snprintf(key, sizeof(key), "keys%d", number);
    ck_assert_int_eq(kv_put(store, text("keys"), text("value"), &msg), ERR_OK);
    ck_assert_int_eq(kv_put(store, text(key), text("value"), &msg), ERR_OK);
    ck_assert_int_eq(kv_flush(store, &msg), ERR_OK);
}

/*
 * The first pass goes on once the compaction that we ask for has written what is in memory; whether
 * that one has chosen its files by then is a race of two threads, so that a store without the
 * second look goes wrong only in most rounds.
 */
static void compact_while_another_one_is_at_work(void)
{
    struct kv_options options = {.prefix_size = PREFIX, .filter = &ruled.filter};
    kv_close(store);
    ruled.rule = ruled.begun = ruled.go_on_at = 0;
    ck_assert_int_eq(kv_open(path, &options, &store, &msg), ERR_OK);
    ruled.kv = store;
    for (int i = 0; ruled.begun == 0; i++) { /* until the store compacts by itself */
        put_and_flush(i);
    }
    ruled.rule = 1;
    /* The one that we ask for begins by writing what is in memory to level 0, beside the others. */
    ck_assert_int_eq(kv_put(store, text("zzzz"), text("value"), &msg), ERR_OK);
    ruled.go_on_at = (int)kv_level0_files(store) + 1;
    ck_assert_int_eq(kv_compact(store, &msg), ERR_OK);
    ck_assert_ptr_null(value_of("keys"));
}

START_TEST(test_a_compaction_also_filters_what_another_one_is_writing)
{
    ruled.filter.begin = begin_ruled;
    for (int round = 0; round < 10; round++) {
        compact_while_another_one_is_at_work();
    }
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("kv");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_put_survives_reopen);
    tcase_add_test(tcase, test_missing_key_is_not_found);
    tcase_add_test(tcase, test_deleted_key_is_not_found);
    tcase_add_test(tcase, test_batch_counts_entries_and_bytes);
    tcase_add_test(tcase, test_iterator_within_prefix_ends_with_the_prefix);
    tcase_add_test(tcase, test_total_order_iterator_walks_both_ways);
    tcase_add_test(tcase, test_iterator_until_ends_before_its_end);
    tcase_add_test(tcase, test_several_ranges_are_erased_at_once);
    tcase_add_test(tcase, test_erased_range_is_gone_after_reopen_and_neighbours_stay);
    tcase_add_test(tcase, test_erasing_gives_the_space_back);
    tcase_add_test(tcase, test_ingested_files_are_newer_and_survive_a_reopen);
    tcase_add_test(tcase, test_iterator_in_memory_is_busy_until_the_block_was_read);
    tcase_add_test(tcase, test_several_files_are_ingested_together_or_not_at_all);
    tcase_add_test(tcase, test_keys_out_of_order_and_an_empty_file_are_invalid);
    tcase_add_test(tcase, test_checkpoint_is_a_store_of_its_own);
    tcase_add_test(tcase, test_second_open_of_one_folder_is_busy);
    tcase_add_test(tcase, test_a_compaction_leaves_out_what_the_filter_drops);
    tcase_add_test(tcase, test_a_compaction_also_filters_what_another_one_is_writing);
    TCase *crash = tcase_create("crash");
    tcase_add_checked_fixture(crash, make_folder, teardown);
    tcase_add_test(crash, test_crash_keeps_synced_and_flushed_and_loses_volatile);
    Suite *suite = suite_create("kv");
    suite_add_tcase(suite, tcase);
    suite_add_tcase(suite, crash);
    return unit_run_suite(suite);
}
