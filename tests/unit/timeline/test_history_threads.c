/*
 * Everything at once: a writer, flushes, rounds of GC with compactions, readers that check their
 * LSN again, and branches that are made, read and deleted. What a page holds at an LSN follows from
 * the LSN alone, so that each read can be judged without asking anybody.
 */
#include <pthread.h>
#include <stdio.h>

#include "common/base/mark.h"
#include "common/base/prng.h"
#include "common/io/file.h"
#include "pageserver/timeline/history.h"
#include "tests/lib/page_batch.h"
#include "tests/unit/unit.h"

#define ROOT        1u
#define STEP        16u /* LSNs of a record */
#define BLOCKS      16u
#define INIT_EACH   5u /* every so many versions of a block */
#define LAYER_BYTES (128 * KIB)
#define ROUNDS      10
#define READERS     2
#define CHILD_READS 20

static char folder[64];
static struct page_store *store;
static struct history *history;
static struct history_timeline *root;
static _Atomic(lsn_t) head; /* end of the last record that was put whole */
static atomic_bool is_over;
static _Atomic uint64_t reads_done, reads_refused, branches_made;

static void must(err_t err, const struct errmsg *msg)
{
    if (err != ERR_OK) {
        printf("%s: %s\n", err_name(err), msg->text);
        abort();
    }
}

static struct page_key block_key(uint64_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = 7, .block = (uint32_t)block};
}

/* -- what is written: record n ends at n * STEP and changes block n % BLOCKS -- */

static bool begins(uint64_t record)
{
    return record / BLOCKS % INIT_EACH == 0;
}

static void *write_records(void *unused)
{
    struct errmsg msg;
    struct page_writer *writer = NULL;
    must(page_writer_open(store, ROOT, &writer, &msg), &msg);
    for (uint64_t record = BLOCKS; !atomic_load(&is_over); record++) {
        while (page_store_open_bytes(store) > LAYER_BYTES && !atomic_load(&is_over)) {
            sched_yield(); /* for the next flush */
        }
        lsn_t lsn = record * STEP;
        if (record == BLOCKS) {
            page_writer_put_rel_size(writer, block_key(0), lsn, true, BLOCKS);
        }
        bool is_first = record < 2 * BLOCKS; /* of its block */
        page_writer_put(
            writer, block_key(record % BLOCKS), lsn,
            is_first || begins(record) ? VALUE_INIT : VALUE_DELTA, 0,
            bytes_of(&record, sizeof(record)));
        struct ingest_position position = {.lsn = lsn, .prev_record_lsn = lsn - STEP};
        must(page_writer_commit(writer, position, &msg), &msg);
        atomic_store(&head, lsn);
    }
    page_writer_close(writer);
    return unused;
}

/* The records of a block that a read at `lsn` must find: from `first` in steps of BLOCKS to `last`.
 */
static void expect(uint64_t block, lsn_t lsn, uint64_t *ret_first, uint64_t *ret_last)
{
    uint64_t last = lsn / STEP;
    last -= (last + BLOCKS - block) % BLOCKS;
    uint64_t first = last;
    while (!begins(first) && first >= 2 * BLOCKS) {
        first -= BLOCKS;
    }
    *ret_first = first;
    *ret_last = last;
}

static bool is_as_expected(const struct page_versions *versions, uint64_t block, lsn_t lsn)
{
    uint64_t first, last;
    expect(block, lsn, &first, &last);
    bool same = versions->count == (last - first) / BLOCKS + 1;
    for (size_t i = 0; i < versions->count && same; i++) {
        same = versions->items[i].lsn == (last - i * BLOCKS) * STEP;
    }
    return same;
}

static void judge(const struct page_versions *versions, uint64_t block, lsn_t lsn, const char *what)
{
    if (!is_as_expected(versions, block, lsn)) {
        uint64_t first, last;
        expect(block, lsn, &first, &last);
        printf(
            "%s: block %" PRIu64 " at %" PRIu64 " has %zu versions from %" PRIu64
            ", expected records %" PRIu64 " to %" PRIu64 "\n",
            what, block, lsn, versions->count, versions->count > 0 ? versions->items[0].lsn : 0,
            first, last);
        abort();
    }
}

/* Of the root, or of a branch of it. */
static struct page_path *make_path(uint32_t timeline, lsn_t start)
{
    struct page_path *path = mem_zalloc(sizeof(*path) + 2 * sizeof(path->spans[0]));
    if (timeline != ROOT) {
        path->spans[path->count++] =
            (struct page_span){.timeline = timeline, .max_lsn = UINT64_MAX};
    }
    path->spans[path->count++] = (struct page_span){.timeline = ROOT, .max_lsn = start};
    return path;
}

/* -- readers of the root -- */

static void *read_pages(void *context)
{
    struct prng prng;
    struct page_versions versions = {0};
    struct errmsg msg;
    struct page_path *path = make_path(ROOT, UINT64_MAX);
    prng_init(&prng, (uint64_t)(uintptr_t)context);
    while (!atomic_load(&is_over)) {
        lsn_t begin = history_cutoff(root), end = atomic_load(&head);
        if (end < 2 * BLOCKS * STEP) {
            continue;
        }
        begin = MIN_OF(MAX_OF(begin, (lsn_t)2 * BLOCKS * STEP), end);
        lsn_t lsn = begin + prng_below(&prng, end - begin + 1);
        if (history_check(history, root, lsn, &msg) != ERR_OK) {
            atomic_fetch_add(&reads_refused, 1);
            continue;
        }
        struct page_reader *reader = page_reader_create(store, path);
        for (uint64_t block = 0; block < BLOCKS; block++) {
            must(page_reader_collect(reader, block_key(block), lsn, &versions, &msg), &msg);
            if (history_check(history, root, lsn, &msg) == ERR_OK) {
                judge(&versions, block, lsn, "a read");
                atomic_fetch_add(&reads_done, 1);
            } else {
                atomic_fetch_add(&reads_refused, 1);
            }
        }
        page_reader_destroy(reader);
    }
    page_versions_deinit(&versions);
    mem_free(path);
    return NULL;
}

/* -- branches -- */

static void read_child(uint32_t number, lsn_t start, struct page_versions *versions)
{
    struct errmsg msg;
    struct page_path *path = make_path(number, start);
    struct page_reader *reader = page_reader_create(store, path);
    for (uint64_t block = 0; block < BLOCKS; block++) {
        must(page_reader_collect(reader, block_key(block), start, versions, &msg), &msg);
        judge(versions, block, start, "a branch");
    }
    page_reader_destroy(reader);
    mem_free(path);
}

static void *make_branches(void *unused)
{
    struct prng prng;
    struct page_versions versions = {0};
    prng_init(&prng, 7);
    for (uint32_t number = ROOT + 1; !atomic_load(&is_over);) {
        struct errmsg msg;
        struct history_hold hold;
        lsn_t cutoff = MAX_OF(history_cutoff(root), (lsn_t)2 * BLOCKS * STEP);
        lsn_t lsn = cutoff + prng_below(&prng, 50) * STEP;
        if (lsn > atomic_load(&head) || history_hold(history, root, lsn, &hold, &msg) != ERR_OK) {
            continue;
        }
        sched_yield(); /* its row becomes durable */
        struct history_timeline *child = history_add(
            history, &(struct gc_timeline){
                         .number = number,
                         .parent_number = ROOT,
                         .start_lsn = lsn,
                         .durable_lsn = lsn,
                     });
        history_release(history, &hold);
        for (int i = 0; i < CHILD_READS && !atomic_load(&is_over); i++) {
            read_child(number, lsn, &versions);
        }
        history_remove(history, child);
        atomic_fetch_add(&branches_made, 1);
        number++;
    }
    page_versions_deinit(&versions);
    return unused;
}

/* -- flushes and GC, and the end -- */

static void flush_and_collect(struct prng *prng)
{
    struct errmsg msg;
    lsn_t reached = atomic_load(&head);
    must(page_store_flush(store, &msg), &msg);
    history_set_durable(history, root, reached);
    struct gc_tree *tree = history_tree(history);
    lsn_t *wanted = MEM_ARRAY(lsn_t, tree->timeline_count);
    wanted[0] = reached - MIN_OF(reached, prng_below(prng, 4) * 100 * STEP);
    for (size_t i = 1; i < tree->timeline_count; i++) {
        wanted[i] = tree->timelines[i].start_lsn;
    }
    must(history_move_cutoffs(history, store, tree, wanted, &msg), &msg);
    mem_free(wanted);
    history_tree_free(tree);
    must(page_store_compact(store, &msg), &msg);
}

START_TEST(test_nothing_that_may_be_read_goes_while_it_is_read)
{
    struct errmsg msg;
    struct prng prng;
    pthread_t threads[READERS + 2];
    unit_folder(folder, sizeof(folder), "test_history_threads");
    history = history_create((struct history_retention){0});
    struct page_store_options options = {.gc = history_gc_source(history)};
    ck_assert_ok(page_store_open(folder, &options, &store, &msg), &msg);
    root = history_add(history, &(struct gc_timeline){.number = ROOT, .start_lsn = BLOCKS * STEP});
    history_start(history, ROOT + 1);
    prng_init(&prng, 42);
    ck_assert_int_eq(pthread_create(&threads[0], NULL, write_records, NULL), 0);
    ck_assert_int_eq(pthread_create(&threads[1], NULL, make_branches, NULL), 0);
    for (uintptr_t i = 0; i < READERS; i++) {
        ck_assert_int_eq(pthread_create(&threads[2 + i], NULL, read_pages, (void *)(i + 1)), 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t reads = reads_done + reads_refused;
        while (page_store_open_bytes(store) < LAYER_BYTES / 2 ||
               reads_done + reads_refused < reads + 50) {
            sched_yield();
        }
        flush_and_collect(&prng);
    }
    atomic_store(&is_over, true);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    printf(
        "%" PRIu64 " pages read, %" PRIu64 " refused, %" PRIu64 " branches, %" PRIu64
        " records, %" PRIu64 " readers began again\n",
        reads_done, reads_refused, branches_made, head / STEP, mark_hits("page_reader.renewed"));
    ck_assert_uint_gt(reads_done, 0);
    ck_assert_uint_gt(branches_made, 0);
    page_store_close(store);
    history_destroy(history);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

UNIT_MAIN("history_threads", test_nothing_that_may_be_read_goes_while_it_is_read);
