#include "pageserver/timeline/gc_horizon.h"

#include "common/base/prng.h"
#include "tests/unit/unit.h"

/* -- random trees against the definition -- */

enum { TIMELINES = 10, HOLDS = 6, LSNS = 40 };

static struct gc_timeline timelines[TIMELINES];
static struct gc_hold holds[HOLDS];
static struct gc_tree tree;

static void make_tree(struct prng *prng)
{
    tree = (struct gc_tree){
        .next_number = 1,
        .timelines = timelines,
        .timeline_count = 1 + (size_t)prng_below(prng, TIMELINES),
        .holds = holds,
    };
    for (size_t i = 0; i < tree.timeline_count; i++) {
        struct gc_timeline *tl = &timelines[i];
        *tl = (struct gc_timeline){
            .number = tree.next_number,
            .parent_number =
                i == 0 || prng_below(prng, 8) == 0 ? 0 : timelines[prng_below(prng, i)].number,
            .start_lsn = 1 + prng_below(prng, LSNS),
            .is_tombstone = prng_below(prng, 3) == 0,
        };
        tl->cutoff = tl->start_lsn + prng_below(prng, 10);
        tl->durable_lsn = tl->cutoff + prng_below(prng, 10);
        tree.next_number += 1 + (uint32_t)prng_below(prng, 3);
    }
}

static void add_holds(struct prng *prng)
{
    size_t count = (size_t)prng_below(prng, HOLDS + 1);
    for (size_t i = 0; i < count; i++) {
        const struct gc_timeline *tl = &timelines[prng_below(prng, tree.timeline_count)];
        holds[tree.hold_count++] =
            (struct gc_hold){.timeline = tl->number, .lsn = 1 + prng_below(prng, 2 * LSNS)};
    }
}

static bool keeps_lsn(const struct gc_horizon *horizon, uint32_t timeline, lsn_t lsn)
{
    const struct gc_keep *keep = gc_horizon_find(horizon, timeline);
    if (keep == NULL) {
        return false;
    }
    bool kept = lsn >= keep->cutoff;
    for (size_t i = 0; i < keep->point_count; i++) {
        kept |= keep->points[i] == lsn;
    }
    return kept;
}

/* A read at `lsn` visits each ancestor at the lowest branch LSN on the way: versions lie above its
 * start (a root's also at it). */
static void assert_read_is_kept(const struct gc_horizon *horizon, size_t index, lsn_t lsn)
{
    const struct gc_timeline *tl = &timelines[index];
    for (;;) {
        bool has_versions = tl->parent_number == 0 ? lsn >= tl->start_lsn : lsn > tl->start_lsn;
        ck_assert_msg(
            !has_versions || keeps_lsn(horizon, tl->number, lsn),
            "timeline %" PRIu32 " at %" PRIu64 " is not kept", tl->number, lsn);
        if (tl->parent_number == 0) {
            return;
        }
        lsn = MIN_OF(lsn, tl->start_lsn);
        tl = &timelines[gc_find(&tree, tl->parent_number)];
    }
}

static void assert_is_well_formed(const struct gc_horizon *horizon)
{
    for (size_t i = 0; i < horizon->keep_count; i++) {
        const struct gc_keep *keep = &horizon->keeps[i];
        ck_assert(i == 0 || horizon->keeps[i - 1].timeline < keep->timeline);
        for (size_t j = 0; j < keep->point_count; j++) {
            ck_assert_uint_lt(keep->points[j], keep->cutoff);
            ck_assert(j == 0 || keep->points[j - 1] < keep->points[j]);
        }
    }
}

START_TEST(test_what_may_be_read_is_kept_on_the_whole_path)
{
    struct prng prng;
    prng_init(&prng, 20261126);
    for (int round = 0; round < 4000; round++) {
        make_tree(&prng);
        add_holds(&prng);
        struct gc_horizon *horizon = gc_horizon_create(tree.timeline_count, tree.hold_count);
        gc_horizon_compute(&tree, horizon);
        assert_is_well_formed(horizon);
        for (size_t i = 0; i < tree.timeline_count; i++) {
            for (lsn_t lsn = timelines[i].cutoff; lsn < 2 * LSNS; lsn++) {
                if (!timelines[i].is_tombstone) {
                    assert_read_is_kept(horizon, i, lsn);
                }
            }
        }
        for (size_t i = 0; i < tree.hold_count; i++) {
            assert_read_is_kept(horizon, gc_find(&tree, holds[i].timeline), holds[i].lsn);
        }
        gc_horizon_destroy(horizon);
    }
}
END_TEST

/* -- single rules -- */

static const struct gc_keep *kept(
    struct gc_horizon **ret_horizon, const struct gc_timeline *of, size_t count, uint32_t number)
{
    tree = (struct gc_tree){.next_number = 100, .timelines = of, .timeline_count = count};
    *ret_horizon = gc_horizon_create(count, 0);
    gc_horizon_compute(&tree, *ret_horizon);
    return gc_horizon_find(*ret_horizon, number);
}

START_TEST(test_children_are_points_below_the_cutoff)
{
    const struct gc_timeline of[] = {
        {.number = 1, .start_lsn = 10, .cutoff = 50, .durable_lsn = 90},
        {.number = 2, .parent_number = 1, .start_lsn = 30, .cutoff = 30, .durable_lsn = 30},
        {.number = 3, .parent_number = 1, .start_lsn = 30, .cutoff = 30, .durable_lsn = 30},
        {.number = 4, .parent_number = 1, .start_lsn = 70, .cutoff = 70, .durable_lsn = 70},
    };
    struct gc_horizon *horizon;
    const struct gc_keep *keep = kept(&horizon, of, ARRAY_LEN(of), 1);
    ck_assert_uint_eq(keep->cutoff, 50);
    ck_assert_uint_eq(keep->point_count, 1);
    ck_assert_uint_eq(keep->points[0], 30);
    gc_horizon_destroy(horizon);
}
END_TEST

START_TEST(test_a_tombstone_keeps_what_its_children_see)
{
    struct gc_timeline of[] = {
        {.number = 1, .start_lsn = 10, .cutoff = 50, .durable_lsn = 90, .is_tombstone = true},
        {.number = 2, .parent_number = 1, .start_lsn = 30, .cutoff = 30, .durable_lsn = 30},
    };
    struct gc_horizon *horizon;
    const struct gc_keep *keep = kept(&horizon, of, 2, 1);
    ck_assert_uint_eq(keep->cutoff, GC_NO_CUTOFF);
    ck_assert_uint_eq(keep->point_count, 1);
    ck_assert_uint_eq(keep->points[0], 30);
    gc_horizon_destroy(horizon);
    of[1].start_lsn = 95; /* not ingested yet: everything that comes is kept */
    keep = kept(&horizon, of, 2, 1);
    ck_assert_uint_eq(keep->cutoff, 90);
    gc_horizon_destroy(horizon);
    ck_assert_ptr_null(kept(&horizon, of, 1, 1)); /* without children nothing is kept */
    gc_horizon_destroy(horizon);
}
END_TEST

START_TEST(test_a_child_below_its_parents_start_holds_the_owner)
{
    const struct gc_timeline of[] = {
        {.number = 1, .start_lsn = 10, .cutoff = 80, .durable_lsn = 90},
        {.number = 2, .parent_number = 1, .start_lsn = 70, .durable_lsn = 90, .is_tombstone = true},
        {.number = 3, .parent_number = 2, .start_lsn = 40, .cutoff = 40, .durable_lsn = 90},
    };
    struct gc_horizon *horizon;
    const struct gc_keep *keep = kept(&horizon, of, 3, 1);
    ck_assert_uint_eq(keep->point_count, 1);
    ck_assert_uint_eq(keep->points[0], 40);
    ck_assert_ptr_null(gc_horizon_find(horizon, 2)); /* nothing of it is seen */
    gc_horizon_destroy(horizon);
}
END_TEST

START_TEST(test_the_cutoff_never_goes_back_nor_beyond_what_is_durable)
{
    struct gc_timeline tl = {.number = 1, .start_lsn = 10, .cutoff = 50, .durable_lsn = 90};
    ck_assert_uint_eq(gc_next_cutoff(&tl, 40), 50);
    ck_assert_uint_eq(gc_next_cutoff(&tl, 60), 60);
    ck_assert_uint_eq(gc_next_cutoff(&tl, 95), 90);
    tl.cutoff = 0;
    ck_assert_uint_eq(gc_next_cutoff(&tl, 0), 10);
}
END_TEST

UNIT_MAIN(
    "gc_horizon",
    test_what_may_be_read_is_kept_on_the_whole_path,
    test_children_are_points_below_the_cutoff,
    test_a_tombstone_keeps_what_its_children_see,
    test_a_child_below_its_parents_start_holds_the_owner,
    test_the_cutoff_never_goes_back_nor_beyond_what_is_durable);
