/* What a crash, a failed flush, or an import that is not finished leaves in a page store. */
#include "tests/unit/store/page_store_fixture.h"

#include <sys/wait.h>

#include "common/base/fault.h"

/* RocksDB's threads do not live on in a child, so the child is made before the first open. */
START_TEST(test_after_a_crash_position_and_versions_fit_together)
{
    make_folder();
    pid_t child = fork();
    if (child == 0) {
        struct page_store *crashing = open_in_folder();
        put_with_position(crashing, page_of(1, 1), 10);
        if (page_store_flush(crashing, &msg) != ERR_OK) {
            _exit(1);
        }
        put_with_position(crashing, page_of(1, 1), 20);
        _exit(0);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    store = open_in_folder();
    struct ingest_position position = {0};
    ck_assert_ok(page_store_position(store, ROOT, &position, &msg), &msg);
    ck_assert_uint_eq(position.lsn, 10);
    ck_assert_uint_eq(position.prev_record_lsn, 2);
    ck_assert_str_eq(collected(root_path(), page_of(1, 1), 99), "Z10");
    end();
}
END_TEST

START_TEST(test_flush_that_failed_is_made_up_for_by_the_next)
{
    begin();
    struct page_key key = page_of(100, 7);
    fault_enable();
    put(store, ROOT, key, 10, VALUE_DELTA, "x");
    ck_assert_ok(fault_arm("page_store.before_ingest=full", &msg), &msg);
    ck_assert_int_eq(page_store_flush(store, &msg), ERR_FULL);
    ck_assert_uint_gt(page_store_frozen_bytes(store), 0);
    ck_assert_uint_eq(page_store_open_bytes(store), 0);
    put(store, ROOT, key, 20, VALUE_DELTA, "x");
    ck_assert_str_eq(collected(root_path(), key, 99), "D20 D10");
    ck_assert_int_eq(page_store_flush(store, &msg), ERR_FULL);
    ck_assert_ok(fault_arm("", &msg), &msg);
    flush();
    ck_assert_uint_eq(page_store_frozen_bytes(store), 0);
    ck_assert_str_eq(collected(root_path(), key, 99), "D20 D10");
    page_store_close(store);
    store = open_in_folder();
    ck_assert_str_eq(collected(root_path(), key, 99), "D20 D10");
    end();
}
END_TEST

/* -- imports -- */

static void import_pages(struct page_import *import, uint32_t count)
{
    uint8_t page[PAGE_SIZE];
    for (uint32_t i = 0; i < count; i++) {
        memset(page, (int)i, sizeof(page));
        ck_assert_ok(
            page_import_put(
                import, page_of(50, count - 1 - i), VALUE_IMAGE, bytes_of(page, sizeof(page)),
                &msg),
            &msg);
    }
    ck_assert_ok(page_import_put_rel_size(import, page_of(50, 0), count, &msg), &msg);
}

#define IMPORT_PAGES 6000u /* three chunks */

START_TEST(test_import_is_there_as_a_whole_or_not_at_all)
{
    begin();
    put(store, ROOT, page_of(50, 3), 5, VALUE_DELTA, "older");
    struct page_import *import = page_import_create(store, ROOT, 10);
    import_pages(import, IMPORT_PAGES);
    ck_assert_uint_lt(page_stores_memory(), 20 * MIB);
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "D5");
    page_import_destroy(import);
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "D5");

    import = page_import_create(store, ROOT, 10);
    import_pages(import, IMPORT_PAGES);
    struct ingest_position position = {.lsn = 10, .prev_record_lsn = 2}, found = {0};
    ck_assert_ok(page_import_finish(import, &position, &msg), &msg);
    page_import_destroy(import);
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "I10");
    ck_assert_uint_eq(versions.bytes.data[0], (uint8_t)(IMPORT_PAGES - 4));
    put(store, ROOT, page_of(50, 3), 20, VALUE_DELTA, "newer");
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "D20 I10");
    page_store_close(store); /* without a flush */
    store = open_in_folder();
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "I10");
    ck_assert_uint_eq(size_at(root_path(), page_of(50, 0), 10).blocks, IMPORT_PAGES);
    ck_assert_ok(page_store_position(store, ROOT, &found, &msg), &msg);
    ck_assert_uint_eq(found.lsn, 10);
    end();
}
END_TEST

/* -- crashes at the steps of a flush -- */

/* A child flushes with the fault; what the next start finds. */
static void flush_and_crash(const char *fault)
{
    make_folder();
    pid_t child = fork();
    if (child == 0) {
        fault_enable();
        struct page_store *crashing = open_in_folder();
        put_with_position(crashing, page_of(1, 1), 10);
        if (page_store_flush(crashing, &msg) != ERR_OK || fault_arm(fault, &msg) != ERR_OK) {
            _exit(1);
        }
        put_with_position(crashing, page_of(1, 1), 20);
        put_with_position(crashing, page_of(1, 2), 30);
        err_ignore(page_store_flush(crashing, &msg), "it crashes inside");
        _exit(1);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    store = open_in_folder();
}

static lsn_t stored_lsn(void)
{
    struct ingest_position position = {0};
    ck_assert_ok(page_store_position(store, ROOT, &position, &msg), &msg);
    return position.lsn;
}

START_TEST(test_crash_before_the_files_are_taken_in_leaves_the_flush_before)
{
    flush_and_crash("page_store.before_ingest=crash");
    ck_assert_uint_eq(stored_lsn(), 10);
    ck_assert_str_eq(collected(root_path(), page_of(1, 1), 99), "Z10");
    ck_assert_str_eq(collected(root_path(), page_of(1, 2), 99), "");
    put_with_position(store, page_of(1, 1), 20); /* ingest comes again */
    flush();
    ck_assert_uint_eq(stored_lsn(), 20);
    end();
}
END_TEST

START_TEST(test_crash_behind_it_leaves_all_of_it)
{
    flush_and_crash("page_store.after_ingest=crash");
    ck_assert_uint_eq(stored_lsn(), 30);
    ck_assert_str_eq(collected(root_path(), page_of(1, 1), 99), "Z20");
    ck_assert_str_eq(collected(root_path(), page_of(1, 2), 99), "Z30");
    end();
}
END_TEST

static size_t incoming_files(void)
{
    char path[128];
    uint64_t bytes = 0;
    (void)snprintf(path, sizeof(path), "%s/incoming", folder);
    ck_assert_ok(dir_usage(path, &bytes, &msg), &msg);
    return bytes > 64 * KIB ? 1 : 0; /* a folder takes a block or two */
}

START_TEST(test_crash_amid_an_import_leaves_neither_versions_nor_files)
{
    make_folder();
    pid_t child = fork();
    if (child == 0) {
        fault_enable();
        store = open_in_folder();
        if (fault_arm("page_store.before_ingest=crash", &msg) != ERR_OK) {
            _exit(1);
        }
        struct page_import *import = page_import_create(store, ROOT, 10);
        import_pages(import, IMPORT_PAGES);
        err_ignore(page_import_finish(import, NULL, &msg), "it crashes inside");
        _exit(1);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    ck_assert_uint_eq(incoming_files(), 1);
    store = open_in_folder();
    ck_assert_uint_eq(incoming_files(), 0);
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "");
    struct page_import *import = page_import_create(store, ROOT, 10);
    import_pages(import, IMPORT_PAGES);
    ck_assert_ok(page_import_finish(import, NULL, &msg), &msg);
    page_import_destroy(import);
    ck_assert_str_eq(collected(root_path(), page_of(50, 3), 99), "I10");
    end();
}
END_TEST

UNIT_MAIN(
    "page_store_crash",
    test_after_a_crash_position_and_versions_fit_together,
    test_flush_that_failed_is_made_up_for_by_the_next,
    test_import_is_there_as_a_whole_or_not_at_all,
    test_crash_before_the_files_are_taken_in_leaves_the_flush_before,
    test_crash_behind_it_leaves_all_of_it,
    test_crash_amid_an_import_leaves_neither_versions_nor_files);
