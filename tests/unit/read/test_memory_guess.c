#include "pageserver/read/memory_guess.h"

#include "tests/unit/unit.h"

#define UID 7

static const struct page_key table = {.spc = 1663, .db = 5, .rel = 100};
static const struct page_key the_index = {.spc = 1663, .db = 5, .rel = 101};

/* Of `count` reads of which every `nth` is in memory (0: none), how many are tried. */
static unsigned tried_of(
    struct memory_guess *guess, struct page_key key, unsigned count, unsigned nth)
{
    unsigned tried = 0;
    for (unsigned i = 1; i <= count; i++) {
        if (memory_guess_is_worth_a_try(guess, UID, key)) {
            memory_guess_note(guess, UID, key, nth != 0 && i % nth == 0);
            tried++;
        }
    }
    return tried;
}

START_TEST(test_what_is_in_memory_is_always_tried)
{
    struct memory_guess *guess = memory_guess_create();
    ck_assert_uint_eq(tried_of(guess, table, 1000, 1), 1000);
    memory_guess_destroy(guess);
}
END_TEST

START_TEST(test_what_is_never_in_memory_is_seldom_tried)
{
    struct memory_guess *guess = memory_guess_create();
    ck_assert_uint_lt(tried_of(guess, table, 100, 0), 20); /* until it has learnt that */
    ck_assert_uint_eq(tried_of(guess, table, 1600, 0), 100);
    memory_guess_destroy(guess);
}
END_TEST

START_TEST(test_what_comes_into_memory_is_noticed)
{
    struct memory_guess *guess = memory_guess_create();
    (void)tried_of(guess, table, 1000, 0);
    (void)tried_of(guess, table, 400, 1);
    ck_assert_uint_eq(tried_of(guess, table, 1000, 1), 1000);
    memory_guess_destroy(guess);
}
END_TEST

START_TEST(test_each_relation_and_timeline_is_guessed_by_itself)
{
    struct memory_guess *guess = memory_guess_create();
    (void)tried_of(guess, table, 1000, 0);
    ck_assert_uint_eq(tried_of(guess, the_index, 100, 1), 100);
    ck_assert(memory_guess_is_worth_a_try(guess, UID + 1, table));
    memory_guess_destroy(guess);
}
END_TEST

UNIT_MAIN(
    "memory_guess",
    test_what_is_in_memory_is_always_tried,
    test_what_is_never_in_memory_is_seldom_tried,
    test_what_comes_into_memory_is_noticed,
    test_each_relation_and_timeline_is_guessed_by_itself);
