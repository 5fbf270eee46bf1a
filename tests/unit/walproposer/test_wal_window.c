/* The window of WAL: bounded, contiguous wherever one looks. */
#include "compute/walproposer/wal_window.h"
#include "tests/unit/unit.h"

static struct wal_window window;
static struct errmsg msg;

static void given_window(lsn_t lsn)
{
    ck_assert_ok(wal_window_init(&window, 1, &msg), &msg);
    wal_window_reset(&window, lsn);
}

START_TEST(test_room_is_what_is_not_held)
{
    given_window(100);
    uint8_t bytes[64] = {7};
    ck_assert_uint_eq(wal_window_room(&window), window.capacity);
    wal_window_append(&window, bytes_of(bytes, sizeof(bytes)));
    ck_assert_uint_eq(wal_window_room(&window), window.capacity - 64);
    wal_window_trim(&window, 132);
    ck_assert_uint_eq(wal_window_room(&window), window.capacity - 32);
    ck_assert_uint_eq(window.end_lsn, 164);
    wal_window_deinit(&window);
}
END_TEST

START_TEST(test_a_view_across_the_end_of_the_ring_is_one_piece)
{
    given_window(0x1000000 - 8);
    uint8_t bytes[1000];
    lsn_t lsn = window.begin_lsn;
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = (uint8_t)((lsn + i) * 31 >> 3);
        }
        wal_window_append(&window, bytes_of(bytes, sizeof(bytes)));
        struct bytes view = wal_window_view(&window, lsn, sizeof(bytes));
        ck_assert_mem_eq(view.data, bytes, sizeof(bytes));
        lsn += sizeof(bytes);
        wal_window_trim(&window, lsn);
    }
    ck_assert_uint_gt(50 * sizeof(bytes), window.capacity);
    wal_window_deinit(&window);
}
END_TEST

START_TEST(test_a_full_window_can_be_viewed_as_a_whole)
{
    given_window(12345);
    uint8_t byte = 9;
    while (wal_window_room(&window) > 0) {
        wal_window_append(&window, bytes_of(&byte, 1));
    }
    struct bytes view = wal_window_view(&window, window.begin_lsn, window.capacity);
    ck_assert_uint_eq(view.data[0], 9);
    ck_assert_uint_eq(view.data[view.size - 1], 9);
    wal_window_deinit(&window);
}
END_TEST

START_TEST(test_a_ring_grows_around_what_it_holds_and_shrinks_again)
{
    given_window(0x2000000 - 100);
    uint8_t bytes[3000];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 31 >> 3);
    }
    size_t small = window.capacity;
    for (int round = 0; round < 20; round++) {
        ck_assert_ok(wal_window_make_room(&window, sizeof(bytes), &msg), &msg);
        wal_window_append(&window, bytes_of(bytes, sizeof(bytes)));
    }
    ck_assert_uint_ge(window.capacity, 20 * sizeof(bytes));
    for (size_t round = 0; round < 20; round++) {
        lsn_t lsn = window.begin_lsn + round * sizeof(bytes);
        ck_assert_mem_eq(wal_window_view(&window, lsn, sizeof(bytes)).data, bytes, sizeof(bytes));
    }
    wal_window_trim(&window, window.end_lsn - 1000);
    ck_assert_uint_eq(window.capacity, small);
    ck_assert_mem_eq(
        wal_window_view(&window, window.begin_lsn, 1000).data, bytes + sizeof(bytes) - 1000, 1000);
    ck_assert_int_eq(wal_window_make_room(&window, (size_t)2 << 30, &msg), ERR_FULL);
    wal_window_deinit(&window);
}
END_TEST

UNIT_MAIN(
    "wal_window",
    test_room_is_what_is_not_held,
    test_a_view_across_the_end_of_the_ring_is_one_piece,
    test_a_full_window_can_be_viewed_as_a_whole,
    test_a_ring_grows_around_what_it_holds_and_shrinks_again);
