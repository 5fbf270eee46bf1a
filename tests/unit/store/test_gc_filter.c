#include "pageserver/store/gc_filter.h"

#include <stdio.h>

#include "common/base/prng.h"
#include "tests/unit/unit.h"

#define TIMELINE 3u
#define LSNS     5 /* the small world has LSNs 1 .. LSNS */

/* -- a store small enough to try everything -- */

enum what { NOTHING, DELTA, IMAGE, DEATH, WHATS };

static enum what history[LSNS + 1]; /* of one block, which its parent had already */
static unsigned lookups;
static bool lookup_fails;

static bool exists_at(lsn_t lsn)
{
    bool exists = true;
    for (lsn_t at = 1; at <= lsn && at <= LSNS; at++) {
        exists = history[at] == DEATH ? false : history[at] == IMAGE ? true : exists;
    }
    return exists;
}

static bool blocks_at(
    struct gc_lookup *lookup,
    uint32_t timeline,
    struct page_key fork,
    const lsn_t *lsns,
    size_t count,
    uint32_t *ret_blocks)
{
    (void)lookup;
    ck_assert_uint_eq(timeline, TIMELINE);
    ck_assert_uint_eq(fork.block, 0);
    lookups++;
    for (size_t i = 0; i < count; i++) {
        ret_blocks[i] = exists_at(lsns[i]) ? 1 : 0;
    }
    return !lookup_fails;
}

static const lsn_t *commits; /* LSNs, each at the time that is its own number; ends with 0 */

static bool next_commit(
    struct gc_lookup *lookup, uint32_t timeline, struct page_key key, lsn_t *ret_lsn)
{
    (void)lookup;
    (void)timeline;
    *ret_lsn = UINT64_MAX;
    for (size_t i = 0; commits[i] != 0; i++) {
        if (commits[i] > key.block) {
            *ret_lsn = commits[i];
            break;
        }
    }
    return !lookup_fails;
}

static bool something_is_hidden;

static bool hides_something(
    struct gc_lookup *lookup, uint32_t timeline, struct page_key key, lsn_t lsn, bool *ret_hides)
{
    (void)lookup;
    (void)key;
    ck_assert_uint_eq(timeline, TIMELINE);
    ck_assert_uint_gt(lsn, 0);
    *ret_hides = something_is_hidden;
    return !lookup_fails;
}

static struct gc_lookup lookup = {
    .blocks_at = blocks_at, .next_commit = next_commit, .hides_something = hides_something};

/* A history that a decoder can make: after its death a block begins with an image. */
static bool set_history(unsigned number)
{
    bool exists = true;
    for (int at = 1; at <= LSNS; at++, number /= WHATS) {
        history[at] = (enum what)(number % WHATS);
        if (!exists && (history[at] == DELTA || history[at] == DEATH)) {
            return false;
        }
        exists = history[at] == DEATH ? false : history[at] == IMAGE ? true : exists;
    }
    return true;
}

/* Versions are sets: bit L is the one at LSN L. */
static unsigned all_versions(void)
{
    unsigned all = 0;
    for (unsigned at = 1; at <= LSNS; at++) {
        all |= history[at] == DELTA || history[at] == IMAGE ? 1u << at : 0;
    }
    return all;
}

static unsigned read_at(unsigned versions, lsn_t lsn)
{
    unsigned read = 0;
    for (lsn_t at = lsn; at > 0; at--) {
        if ((versions >> at & 1) != 0) {
            read |= 1u << at;
            if (history[at] == IMAGE) {
                break;
            }
        }
    }
    return read;
}

static bool is_allowed(const struct gc_keep *keep, lsn_t lsn)
{
    bool allowed = lsn >= keep->cutoff;
    for (size_t i = 0; i < keep->point_count; i++) {
        allowed |= keep->points[i] == lsn;
    }
    return allowed;
}

/* Points as a set, those below the cutoff. */
static struct gc_keep keep_of(lsn_t cutoff, unsigned points, lsn_t room[LSNS + 1])
{
    struct gc_keep keep = {.timeline = TIMELINE, .cutoff = cutoff, .points = room};
    for (lsn_t at = 1; at <= LSNS && at < cutoff; at++) {
        if ((points >> at & 1) != 0) {
            room[keep.point_count++] = at;
        }
    }
    return keep;
}

static bool drops(
    struct gc_filter *filter, uint32_t timeline, struct page_key key, lsn_t lsn, uint8_t tag)
{
    uint8_t bytes[PAGE_KEY_SIZE];
    page_key_encode(timeline, key, lsn, bytes);
    return gc_filter_drops(filter, bytes_of(bytes, sizeof(bytes)), bytes_of(&tag, sizeof(tag)));
}

static const struct page_key block_0 = {.spc = 1663, .db = 5, .rel = 7};

/* A compaction that shows `view`; what is left of it. A key of the meta records in between makes
 * the filter forget the compaction before. */
static unsigned filtered_by(struct gc_filter *filter, unsigned view)
{
    unsigned left = view;
    ck_assert(!drops(filter, 0, block_0, 0, VALUE_STATE));
    for (lsn_t at = LSNS; at > 0; at--) {
        uint8_t tag = history[at] == IMAGE ? VALUE_INIT : VALUE_DELTA;
        if ((view >> at & 1) != 0 && drops(filter, TIMELINE, block_0, at, tag)) {
            left &= ~(1u << at);
        }
    }
    return left;
}

static unsigned filtered(struct gc_keep keep, unsigned view)
{
    struct gc_horizon horizon = {.next_number = 100, .keep_count = 1, .keeps = &keep};
    struct gc_filter filter;
    gc_filter_init(&filter, &horizon, &lookup);
    unsigned left = filtered_by(&filter, view);
    gc_filter_deinit(&filter);
    return left;
}

static void assert_reads_are_the_same(struct gc_keep keep, unsigned before, unsigned after)
{
    for (lsn_t lsn = 1; lsn <= LSNS; lsn++) {
        if (is_allowed(&keep, lsn) && exists_at(lsn)) {
            ck_assert_msg(
                read_at(before, lsn) == read_at(after, lsn),
                "read at %" PRIu64 ": versions %x were %x", lsn, after, before);
        }
    }
}

static void assert_nothing_is_left_over(struct gc_keep keep, unsigned all, unsigned after)
{
    unsigned needed = 0;
    for (lsn_t lsn = 1; lsn <= LSNS; lsn++) {
        needed |= is_allowed(&keep, lsn) && exists_at(lsn) ? read_at(all, lsn) : 0;
    }
    ck_assert_msg(after == needed, "left %x, needed %x of %x", after, needed, all);
}

/* Every part of the versions as the view of a compaction. */
static unsigned try_views(struct gc_keep keep)
{
    struct gc_horizon horizon = {.next_number = 100, .keep_count = 1, .keeps = &keep};
    struct gc_filter filter;
    unsigned all = all_versions(), tried = 0;
    gc_filter_init(&filter, &horizon, &lookup);
    for (unsigned view = all;; view = (view - 1) & all) {
        unsigned left = (all & ~view) | filtered_by(&filter, view);
        assert_reads_are_the_same(keep, all, left);
        if (view == all) {
            assert_nothing_is_left_over(keep, all, left);
        }
        tried++;
        if (view == 0) {
            break;
        }
    }
    gc_filter_deinit(&filter);
    return tried;
}

START_TEST(test_every_allowed_read_is_the_same_whatever_a_compaction_sees)
{
    uint64_t tried = 0;
    for (unsigned number = 0; number < 1024; number++) {
        for (lsn_t cutoff = 1; set_history(number) && cutoff <= LSNS + 1; cutoff++) {
            for (unsigned points = 0; points < 1u << MIN_OF(cutoff, (lsn_t)LSNS + 1); points += 2) {
                lsn_t room[LSNS + 1];
                tried +=
                    try_views(keep_of(cutoff == LSNS + 1 ? GC_NO_CUTOFF : cutoff, points, room));
            }
        }
    }
    ck_assert_uint_gt(tried, 100000);
    printf("%" PRIu64 " compactions\n", tried);
}
END_TEST

START_TEST(test_compactions_one_after_another_with_growing_cutoffs)
{
    struct prng prng;
    prng_init(&prng, 20261126);
    for (int round = 0; round < 30000; round++) {
        if (!set_history((unsigned)prng_below(&prng, 1024))) {
            continue;
        }
        unsigned all = all_versions(), left = all;
        unsigned points = (unsigned)prng_below(&prng, 64) & ~1u;
        for (lsn_t cutoff = 1; cutoff <= LSNS; cutoff += prng_below(&prng, 3)) {
            lsn_t room[LSNS + 1];
            struct gc_keep keep = keep_of(cutoff, points, room);
            unsigned view = left & (unsigned)prng_next(&prng);
            left = (left & ~view) | filtered(keep, view);
            assert_reads_are_the_same(keep, all, left);
            /* A point goes; new ones only come where everything is still there. */
            points &= (unsigned)prng_next(&prng) | (unsigned)prng_next(&prng) | ~0u << cutoff;
        }
    }
}
END_TEST

/* -- single rules -- */

static lsn_t points_20_40[] = {20, 40};
static struct gc_keep keep_at_60 = {
    .timeline = TIMELINE, .cutoff = 60, .points = points_20_40, .point_count = 2};
static struct gc_horizon at_60 = {.next_number = 10, .keep_count = 1, .keeps = &keep_at_60};

START_TEST(test_a_dead_timeline_goes_and_what_is_newer_than_the_horizon_stays)
{
    struct gc_filter filter;
    gc_filter_init(&filter, &at_60, &lookup);
    ck_assert(!drops(&filter, 0, block_0, 0, VALUE_STATE));
    ck_assert(drops(&filter, 2, block_0, 70, VALUE_DELTA));
    ck_assert(!drops(&filter, TIMELINE, block_0, 70, VALUE_DELTA));
    ck_assert(drops(&filter, 9, block_0, 70, VALUE_DELTA));
    ck_assert(!drops(&filter, 10, block_0, 70, VALUE_DELTA));
    ck_assert(!gc_filter_drops(&filter, bytes_of_str("short"), bytes_of_str("")));
    gc_filter_deinit(&filter);
}
END_TEST

START_TEST(test_the_newest_state_stays_for_each_read)
{
    struct gc_filter filter;
    gc_filter_init(&filter, &at_60, &lookup);
    struct page_key relmap = page_key_state(STATE_RELMAP, 5, 0);
    something_is_hidden = true; /* values here are no more than their tags */
    ck_assert(!drops(&filter, TIMELINE, relmap, 61, VALUE_STATE));
    ck_assert(!drops(&filter, TIMELINE, relmap, 60, VALUE_STATE)); /* at the cutoff */
    ck_assert(drops(&filter, TIMELINE, relmap, 45, VALUE_STATE));
    ck_assert(!drops(&filter, TIMELINE, relmap, 40, VALUE_STATE)); /* at a point */
    ck_assert(drops(&filter, TIMELINE, relmap, 21, VALUE_STATE));
    ck_assert(!drops(&filter, TIMELINE, relmap, 3, VALUE_STATE)); /* at the other */
    ck_assert(drops(&filter, TIMELINE, relmap, 2, VALUE_STATE));
    gc_filter_deinit(&filter);
}
END_TEST

START_TEST(test_only_the_newest_position_stays)
{
    struct gc_keep tombstone = {
        .timeline = TIMELINE,
        .cutoff = GC_NO_CUTOFF,
        .points = points_20_40,
        .point_count = 2,
    };
    struct gc_horizon of_tombstone = {.next_number = 10, .keep_count = 1, .keeps = &tombstone};
    struct page_key position = page_key_state(STATE_INGEST_LSN, 0, 0);
    struct gc_filter filter;
    gc_filter_init(&filter, &of_tombstone, &lookup);
    ck_assert(!drops(&filter, TIMELINE, position, 90, VALUE_STATE)); /* beyond all reads */
    ck_assert(drops(&filter, TIMELINE, position, 40, VALUE_STATE));
    ck_assert(drops(&filter, TIMELINE, position, 30, VALUE_STATE));
    ck_assert(!drops(&filter, TIMELINE, position, 0, VALUE_STATE)); /* overwritten in place */
    gc_filter_deinit(&filter);
}
END_TEST

START_TEST(test_a_commit_time_stays_while_it_is_the_newest_of_a_read)
{
    static const lsn_t all[] = {10, 15, 25, 30, 40, 45, 58, 65, 70, 0};
    static const bool stays[] = {false, true, false, false, true, false, true, true, true};
    struct gc_filter filter;
    commits = all;
    gc_filter_init(&filter, &at_60, &lookup);
    for (size_t i = 0; all[i] != 0; i++) {
        struct page_key key = page_key_state(STATE_COMMIT_TIME, 0, (uint32_t)all[i]);
        ck_assert_int_eq(!drops(&filter, TIMELINE, key, all[i], VALUE_STATE), stays[i]);
    }
    lookup_fails = true;
    ck_assert(!drops(&filter, TIMELINE, page_key_state(STATE_COMMIT_TIME, 1, 0), 10, VALUE_STATE));
    gc_filter_deinit(&filter);
}
END_TEST

START_TEST(test_sizes_are_looked_up_once_a_fork_and_only_for_old_versions)
{
    struct gc_filter filter;
    struct page_key key = block_0;
    gc_filter_init(&filter, &at_60, &lookup);
    ck_assert(!drops(&filter, TIMELINE, key, 61, VALUE_INIT));
    ck_assert_uint_eq(lookups, 0);
    for (key.block = 0; key.block < 5; key.block++) {
        /* block 0 exists everywhere, the others nowhere */
        ck_assert_int_eq(drops(&filter, TIMELINE, key, 10, VALUE_INIT), key.block > 0);
    }
    ck_assert_uint_eq(lookups, 1);
    ck_assert(!drops(&filter, TIMELINE, page_key_size_of(key), 10, VALUE_STATE));
    ck_assert_uint_eq(lookups, 1);
    key.fork = FORK_VM;
    lookup_fails = true; /* what cannot be looked up stays */
    ck_assert(!drops(&filter, TIMELINE, key, 10, VALUE_INIT));
    ck_assert_uint_eq(lookups, 2);
    gc_filter_deinit(&filter);
}
END_TEST

static bool drops_value(struct gc_filter *filter, struct page_key key, lsn_t lsn, const char *value)
{
    uint8_t bytes[PAGE_KEY_SIZE];
    page_key_encode(TIMELINE, key, lsn, bytes);
    size_t size = key.block == KEY_BLOCK_SIZE ? REL_SIZE_VALUE_SIZE : strlen(value);
    return gc_filter_drops(filter, bytes_of(bytes, sizeof(bytes)), bytes_of(value, size));
}

START_TEST(test_what_says_not_there_goes_when_it_hides_nothing)
{
    static const char dropped[REL_SIZE_VALUE_SIZE] = "S", exists[REL_SIZE_VALUE_SIZE] = "S\1";
    struct page_key size = page_key_size_of(block_0);
    struct page_key finished = page_key_state(STATE_TWOPHASE, 0, 700);
    struct gc_filter filter;
    for (int round = 0; round < 3; round++) {
        something_is_hidden = round == 1;
        lookup_fails = round == 2; /* what cannot be looked up stays */
        gc_filter_init(&filter, &at_60, &lookup);
        ck_assert(!drops_value(&filter, size, 61, dropped)); /* the window keeps all it has */
        ck_assert_int_eq(drops_value(&filter, size, 60, dropped), round == 0);
        ck_assert(!drops_value(&filter, finished, 61, "S"));
        ck_assert_int_eq(drops_value(&filter, finished, 60, "S"), round == 0);
        ck_assert(!drops_value(&filter, finished, 40, "Sprepared"));
        ck_assert(!drops_value(&filter, page_key_state(STATE_CLOG, 0, 0), 60, "Z"));
        gc_filter_deinit(&filter);
        gc_filter_init(&filter, &at_60, &lookup);
        ck_assert(!drops_value(&filter, size, 60, exists));
        gc_filter_deinit(&filter);
    }
}
END_TEST

UNIT_MAIN(
    "gc_filter",
    test_every_allowed_read_is_the_same_whatever_a_compaction_sees,
    test_compactions_one_after_another_with_growing_cutoffs,
    test_a_dead_timeline_goes_and_what_is_newer_than_the_horizon_stays,
    test_the_newest_state_stays_for_each_read,
    test_only_the_newest_position_stays,
    test_a_commit_time_stays_while_it_is_the_newest_of_a_read,
    test_sizes_are_looked_up_once_a_fork_and_only_for_old_versions,
    test_what_says_not_there_goes_when_it_hides_nothing);
