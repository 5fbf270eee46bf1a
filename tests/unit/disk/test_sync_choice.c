/* Whoever is quicker syncs, and the other one is looked at now and then. */
#include "safekeeper/disk/sync_choice.h"
#include "tests/unit/unit.h"

#define GROUPS 1000u

static struct sync_choice choice;

/* How many of `count` groups the kernel gets, which takes so long for one as our workers take. */
static unsigned groups_of_kernel(unsigned count, mono_ns_t kernel_ns, mono_ns_t workers_ns)
{
    unsigned kernel = 0;
    for (unsigned i = 0; i < count; i++) {
        bool is_kernel = sync_choice_is_kernel(&choice);
        sync_choice_note(&choice, is_kernel, is_kernel ? kernel_ns : workers_ns);
        kernel += is_kernel;
    }
    return kernel;
}

START_TEST(test_the_kernel_is_taken_when_it_is_about_as_quick)
{
    choice = (struct sync_choice){0};
    ck_assert_uint_eq(
        groups_of_kernel(GROUPS, 110000, 100000), GROUPS - GROUPS / SYNC_CHOICE_EXPLORE_EVERY);
}
END_TEST

START_TEST(test_workers_are_taken_when_the_kernel_is_slow)
{
    choice = (struct sync_choice){0};
    (void)groups_of_kernel(GROUPS, 300000, 100000);
    ck_assert_uint_le(
        groups_of_kernel(GROUPS, 300000, 100000), GROUPS / SYNC_CHOICE_EXPLORE_EVERY + 1);
}
END_TEST

START_TEST(test_the_kernel_comes_back_when_it_is_quick_again)
{
    choice = (struct sync_choice){0};
    (void)groups_of_kernel(GROUPS, 800000, 100000);
    (void)groups_of_kernel(GROUPS, 80000, 100000);
    ck_assert_uint_ge(
        groups_of_kernel(GROUPS, 80000, 100000), GROUPS - GROUPS / SYNC_CHOICE_EXPLORE_EVERY - 1);
}
END_TEST

/* One sync in ten that hits a busy disk says nothing about who did it. */
START_TEST(test_a_slow_tail_does_not_decide)
{
    choice = (struct sync_choice){0};
    unsigned kernel = 0;
    for (unsigned i = 0; i < 2 * GROUPS; i++) { /* the very first is one of the slow ones */
        bool is_kernel = sync_choice_is_kernel(&choice);
        sync_choice_note(&choice, is_kernel, i % 10 == 0 ? 10000000 : 90000);
        kernel += is_kernel && i >= GROUPS;
    }
    ck_assert_uint_ge(kernel, GROUPS * 9 / 10);
}
END_TEST

UNIT_MAIN(
    "sync_choice",
    test_the_kernel_is_taken_when_it_is_about_as_quick,
    test_workers_are_taken_when_the_kernel_is_slow,
    test_the_kernel_comes_back_when_it_is_quick_again,
    test_a_slow_tail_does_not_decide);
