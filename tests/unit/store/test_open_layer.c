#include "pageserver/store/open_layer.h"

#include <pthread.h>
#include <stdio.h>

#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/pg/page.h"
#include "tests/unit/unit.h"

static struct page_key page_of(uint32_t rel, uint32_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = rel, .block = block};
}

static void put(struct open_layer *layer, struct page_key key, lsn_t lsn, const char *text)
{
    (void)open_layer_put(layer, key, lsn, VALUE_DELTA, 0, bytes_of_str(text));
}

/* "30:c 20:b": LSNs and values, newest first, from `lsn` on. */
static const char *versions_at(const struct open_layer *layer, struct page_key key, lsn_t lsn)
{
    static struct buf text;
    buf_clear(&text);
    const struct layer_page *page = open_layer_find(layer, key);
    for (const struct layer_version *version = page == NULL ? NULL : layer_page_at(page, lsn);
         version != NULL; version = layer_version_older(version)) {
        struct bytes value = layer_version_value(version);
        buf_printf(
            &text, "%s%" PRIu64 ":%.*s", text.size == 0 ? "" : " ", version->lsn, (int)value.size,
            (const char *)value.data);
    }
    return buf_cstr(&text);
}

START_TEST(test_versions_are_newest_first_wherever_they_were_put)
{
    struct open_layer *layer = open_layer_create();
    put(layer, page_of(1, 1), 20, "b");
    put(layer, page_of(1, 1), 40, "d");
    put(layer, page_of(1, 1), 10, "a");
    put(layer, page_of(1, 1), 30, "c");
    put(layer, page_of(1, 2), 25, "neighbour");
    ck_assert_str_eq(versions_at(layer, page_of(1, 1), UINT64_MAX), "40:d 30:c 20:b 10:a");
    ck_assert_str_eq(versions_at(layer, page_of(1, 1), 39), "30:c 20:b 10:a");
    ck_assert_str_eq(versions_at(layer, page_of(1, 1), 9), "");
    ck_assert_str_eq(versions_at(layer, page_of(1, 3), UINT64_MAX), "");
    ck_assert_uint_eq(open_layer_max_lsn(layer), 40);
    open_layer_unref(layer);
}
END_TEST

START_TEST(test_version_put_again_takes_the_place_of_the_first)
{
    struct open_layer *layer = open_layer_create();
    put(layer, page_of(1, 1), 10, "a");
    put(layer, page_of(1, 1), 20, "b");
    put(layer, page_of(1, 1), 30, "c");
    put(layer, page_of(1, 1), 20, "B");
    put(layer, page_of(1, 1), 30, "C");
    put(layer, page_of(1, 1), 10, "A");
    ck_assert_str_eq(versions_at(layer, page_of(1, 1), UINT64_MAX), "30:C 20:B 10:A");
    open_layer_unref(layer);
}
END_TEST

#define MANY_VERSIONS 20000u

/* What a page should have: by LSN, how often it was put; 0: never. */
static uint32_t puts_at[MANY_VERSIONS + 1];

static void put_once_more(struct open_layer *layer, lsn_t lsn)
{
    uint32_t number = ++puts_at[lsn];
    (void)open_layer_put(
        layer, page_of(1, 1), lsn, VALUE_DELTA, 0, bytes_of(&number, sizeof(number)));
}

static lsn_t newest_put(lsn_t lsn)
{
    while (lsn > 0 && puts_at[lsn] == 0) {
        lsn--;
    }
    return lsn;
}

static void check_from(const struct open_layer *layer, lsn_t lsn, unsigned count)
{
    const struct layer_version *version = layer_page_at(open_layer_find(layer, page_of(1, 1)), lsn);
    for (lsn_t expected = newest_put(lsn); count-- > 0; expected = newest_put(expected - 1)) {
        if (expected == 0) {
            ck_assert_ptr_null(version);
            return;
        }
        ck_assert_ptr_nonnull(version);
        ck_assert_uint_eq(version->lsn, expected);
        uint32_t number = 0;
        memcpy(&number, layer_version_value(version).data, sizeof(number));
        ck_assert_uint_eq(number, puts_at[expected]);
        version = layer_version_older(version);
    }
}

/* Mostly newer ones, as ingest does; then again what was there, and what was left out before. */
START_TEST(test_one_page_with_many_versions_has_each_at_its_lsn)
{
    struct open_layer *layer = open_layer_create();
    struct prng prng;
    prng_init(&prng, 11);
    memset(puts_at, 0, sizeof(puts_at));
    for (lsn_t lsn = 1; lsn <= MANY_VERSIONS; lsn++) {
        if (prng_below(&prng, 10) > 0) {
            put_once_more(layer, lsn);
        }
        if (prng_below(&prng, 4) == 0) {
            put_once_more(layer, lsn); /* an image in place of the record */
        }
        if (prng_below(&prng, 20) == 0) {
            put_once_more(layer, 1 + prng_below(&prng, lsn));
        }
        if (lsn % 16 == 0) {
            check_from(layer, 1 + prng_below(&prng, lsn), 100);
        }
    }
    check_from(layer, MANY_VERSIONS, MANY_VERSIONS + 1);
    for (lsn_t lsn = 0; lsn <= MANY_VERSIONS; lsn++) {
        check_from(layer, lsn, 3);
    }
    open_layer_unref(layer);
}
END_TEST

START_TEST(test_record_of_several_blocks_is_kept_once)
{
    static uint8_t record[4096] = {"record"};
    struct open_layer *layer = open_layer_create();
    struct bytes value = bytes_of(record, sizeof(record));
    size_t first = open_layer_put(layer, page_of(1, 1), 10, VALUE_DELTA, 0, value);
    size_t second = open_layer_put(layer, page_of(1, 2), 10, VALUE_INIT, 1, value);
    ck_assert_uint_gt(first, sizeof(record));
    ck_assert_uint_lt(second, 128);
    const struct layer_version *version =
        layer_page_at(open_layer_find(layer, page_of(1, 2)), UINT64_MAX);
    ck_assert(bytes_equal(layer_version_value(version), value));
    ck_assert_uint_eq(version->block_index, 1);
    /* The next record lies in the same buffer: it is another one. */
    record[0] = 'R';
    size_t third = open_layer_put(layer, page_of(1, 1), 20, VALUE_DELTA, 0, value);
    ck_assert_uint_gt(third, sizeof(record));
    version = layer_page_at(open_layer_find(layer, page_of(1, 1)), UINT64_MAX);
    ck_assert_uint_eq(layer_version_value(version).data[0], 'R');
    ck_assert_uint_eq(layer_version_value(layer_version_older(version)).data[0], 'r');
    /* An image from that place is none of the record's business. */
    (void)open_layer_put(layer, page_of(1, 3), 20, VALUE_STATE, 0, bytes_of(record, 4096));
    record[0] = 'x';
    version = layer_page_at(open_layer_find(layer, page_of(1, 3)), UINT64_MAX);
    ck_assert_uint_eq(layer_version_value(version).data[0], 'R');
    open_layer_unref(layer);
}
END_TEST

#define MANY_PAGES 20000u

START_TEST(test_many_pages_are_all_found_and_come_in_key_order)
{
    struct open_layer *layer = open_layer_create();
    for (uint32_t i = 0; i < MANY_PAGES; i++) {
        uint32_t number = i * 7919 % MANY_PAGES;
        struct page_key key = page_of(number % 3, number);
        key.fork = (uint8_t)(number % 2);
        put(layer, key, i + 1, "x");
    }
    size_t count = 0;
    struct layer_page **pages = open_layer_sort(layer, &count);
    ck_assert_uint_eq(count, MANY_PAGES);
    for (size_t i = 0; i + 1 < count; i++) {
        uint8_t a[PAGE_KEY_SIZE], b[PAGE_KEY_SIZE];
        page_key_encode(1, pages[i]->key, 0, a);
        page_key_encode(1, pages[i + 1]->key, 0, b);
        ck_assert_int_lt(memcmp(a, b, sizeof(a)), 0);
        ck_assert_ptr_eq(open_layer_find(layer, pages[i]->key), pages[i]);
    }
    mem_free(pages);
    ck_assert_uint_eq(open_layer_count(layer), MANY_PAGES);
    open_layer_unref(layer);
}
END_TEST

START_TEST(test_states_and_sizes_are_listed_pages_are_not)
{
    struct open_layer *layer = open_layer_create();
    put(layer, page_of(1, 1), 10, "page");
    put(layer, page_key_size_of(page_of(1, 0)), 10, "size");
    put(layer, page_key_state(STATE_CLOG, 0, 3), 10, "clog");
    put(layer, page_key_state(STATE_CLOG, 0, 3), 20, "clog");
    size_t count = 0;
    for (const struct layer_page *page = open_layer_states(layer); page != NULL;
         page = page->next) {
        ck_assert(page->key.spc == KEY_SPC_STATE || page->key.block == KEY_BLOCK_SIZE);
        count++;
    }
    ck_assert_uint_eq(count, 2);
    open_layer_unref(layer);
}
END_TEST

START_TEST(test_memory_of_all_layers_is_counted_and_comes_back)
{
    static uint8_t image[PAGE_SIZE];
    size_t before = open_layers_memory();
    struct open_layer *layer = open_layer_create();
    for (uint32_t i = 0; i < 1000; i++) {
        (void)open_layer_put(
            layer, page_of(1, i), 10, VALUE_IMAGE, 0, bytes_of(image, sizeof(image)));
    }
    ck_assert_uint_ge(open_layers_memory(), before + open_layer_bytes(layer));
    ck_assert_uint_lt(open_layers_memory(), before + 2 * open_layer_bytes(layer));
    struct open_layer *reader = open_layer_ref(layer);
    open_layer_unref(layer);
    ck_assert_ptr_nonnull(open_layer_find(reader, page_of(1, 999)));
    open_layer_unref(reader);
    ck_assert_uint_eq(open_layers_memory(), before);
}
END_TEST

/*
 * One thread puts versions whose value says their LSN, mostly at the head, some further back; the
 * other reads all the time. What it finds descends, is whole, and has everything up to the head
 * that was published before it began.
 */
#define RACE_PAGES 64u
#define RACE_STEPS 200000u

struct race {
    struct open_layer *layer;
    _Atomic lsn_t head;
};

static void put_number(struct open_layer *layer, lsn_t lsn)
{
    struct page_key key = page_of(1, (uint32_t)(lsn % RACE_PAGES));
    (void)open_layer_put(layer, key, lsn, VALUE_STATE, 0, bytes_of(&lsn, sizeof(lsn)));
}

static void *write_all(void *context)
{
    struct race *race = context;
    struct prng prng;
    prng_init(&prng, 7);
    for (lsn_t lsn = 1; lsn <= RACE_STEPS; lsn++) {
        put_number(race->layer, lsn);
        atomic_store(&race->head, lsn);
        if (lsn % 16 == 0 && lsn > 1000) {
            put_number(race->layer, lsn - prng_below(&prng, 1000)); /* again */
        }
    }
    return NULL;
}

START_TEST(test_reader_beside_the_writer_misses_nothing)
{
    struct race race = {.layer = open_layer_create()};
    pthread_t writer;
    ck_assert_int_eq(pthread_create(&writer, NULL, write_all, &race), 0);
    for (lsn_t head = 0; head < RACE_STEPS;) {
        head = atomic_load(&race.head);
        for (lsn_t newest = head; newest > 0 && newest + 4 > head; newest--) {
            struct page_key key = page_of(1, (uint32_t)(newest % RACE_PAGES));
            const struct layer_page *page = open_layer_find(race.layer, key);
            ck_assert_ptr_nonnull(page);
            lsn_t expected = newest;
            for (const struct layer_version *version = layer_page_at(page, newest);
                 version != NULL && expected + 20 * RACE_PAGES > newest;
                 version = layer_version_older(version)) {
                lsn_t value = 0;
                memcpy(&value, layer_version_value(version).data, sizeof(value));
                ck_assert_uint_eq(version->lsn, expected);
                ck_assert_uint_eq(value, expected);
                expected -= RACE_PAGES;
            }
        }
    }
    ck_assert_int_eq(pthread_join(writer, NULL), 0);
    open_layer_unref(race.layer);
}
END_TEST

UNIT_MAIN(
    "open_layer",
    test_versions_are_newest_first_wherever_they_were_put,
    test_version_put_again_takes_the_place_of_the_first,
    test_one_page_with_many_versions_has_each_at_its_lsn,
    test_record_of_several_blocks_is_kept_once,
    test_many_pages_are_all_found_and_come_in_key_order,
    test_states_and_sizes_are_listed_pages_are_not,
    test_memory_of_all_layers_is_counted_and_comes_back,
    test_reader_beside_the_writer_misses_nothing);
