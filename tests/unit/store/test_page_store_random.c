/* Reads beside writers and flushes, and random histories against a model. */
#include "tests/unit/store/page_store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#include "common/base/fault.h"
#include "common/base/prng.h"

/*
 * Ingest, flushes and reads at once: one thread puts versions and publishes the head, one flushes
 * all the time, and what a read at the head finds is what was put: page and tag follow from the
 * LSN.
 */
#define RACE_PAGES 5u
#define RACE_STEPS 30000u

static _Atomic lsn_t race_head;
static atomic_bool race_over;

static uint8_t race_tag(lsn_t lsn)
{
    return lsn * 2654435761u % 11 == 0 ? VALUE_ZERO : VALUE_DELTA;
}

static uint32_t race_page(lsn_t lsn)
{
    return (uint32_t)(lsn * 40503u / 7 % RACE_PAGES);
}

static void *race_write(void *unused)
{
    struct page_writer *writer = NULL;
    struct errmsg error;
    ck_assert_ok(page_writer_open(store, ROOT, &writer, &error), &error);
    for (lsn_t lsn = 1; lsn <= RACE_STEPS; lsn++) {
        struct bytes value =
            race_tag(lsn) == VALUE_DELTA ? bytes_of_str("record") : (struct bytes){0};
        page_writer_put(writer, page_of(9, race_page(lsn)), lsn, race_tag(lsn), 0, value);
        if (lsn % 8 == 0) {
            struct ingest_position position = {.lsn = lsn};
            ck_assert_ok(page_writer_commit(writer, position, &error), &error);
            atomic_store(&race_head, lsn);
        }
    }
    page_writer_close(writer);
    atomic_store(&race_over, true);
    return unused;
}

static void *race_flush(void *unused)
{
    struct errmsg error;
    while (!atomic_load(&race_over)) {
        ck_assert_ok(page_store_flush(store, &error), &error);
    }
    return unused;
}

static void race_expect(uint32_t page, lsn_t lsn, struct buf *to)
{
    buf_clear(to);
    for (; lsn > 0; lsn--) {
        if (race_page(lsn) == page) {
            buf_printf(to, "%s%c%" PRIu64, to->size == 0 ? "" : " ", race_tag(lsn), lsn);
            if (race_tag(lsn) == VALUE_ZERO) {
                return;
            }
        }
    }
}

START_TEST(test_reads_beside_ingest_and_flushes_miss_nothing)
{
    begin();
    pthread_t writer, flusher;
    struct buf expected = {0};
    ck_assert_int_eq(pthread_create(&writer, NULL, race_write, NULL), 0);
    ck_assert_int_eq(pthread_create(&flusher, NULL, race_flush, NULL), 0);
    uint32_t reads = 0;
    while (!atomic_load(&race_over)) {
        lsn_t head = atomic_load(&race_head);
        uint32_t page = reads++ % RACE_PAGES;
        race_expect(page, head, &expected);
        ck_assert_str_eq(collected(root_path(), page_of(9, page), head), buf_cstr(&expected));
    }
    ck_assert_int_eq(pthread_join(writer, NULL), 0);
    ck_assert_int_eq(pthread_join(flusher, NULL), 0);
    buf_deinit(&expected);
    end();
}
END_TEST

/*
 * The model: timelines with parents, and for each page the LSNs of its versions; what a read must
 * find follows from the definition. Random puts, images in place of old records, branches, flushes
 * that succeed or fail, restarts, and reads; the seed is printed.
 */
#define MODEL_TIMELINES 12
#define MODEL_PAGES     6
#define MODEL_STEPS     4000

struct model_timeline {
    int parent; /* -1: none */
    lsn_t branch_lsn;
    lsn_t head;
    uint8_t tags[MODEL_PAGES][MODEL_STEPS + 1]; /* by LSN; 0: none */
};

static struct model_timeline *model;
static size_t model_count;

static void model_expect(int timeline, size_t page, lsn_t lsn, struct buf *to)
{
    buf_clear(to);
    while (timeline >= 0) {
        for (lsn_t at = lsn; at > 0; at--) {
            uint8_t tag = model[timeline].tags[page][at];
            if (tag != 0) {
                buf_printf(to, "%s%c%" PRIu64, to->size == 0 ? "" : " ", tag, at);
            }
            if (tag != 0 && tag != VALUE_DELTA) {
                return;
            }
        }
        lsn = MIN_OF(lsn, model[timeline].branch_lsn);
        timeline = model[timeline].parent;
    }
}

static struct page_path *model_path(int timeline)
{
    struct page_span spans[MODEL_TIMELINES];
    size_t count = 0;
    lsn_t max_lsn = UINT64_MAX;
    for (; timeline >= 0; timeline = model[timeline].parent) {
        spans[count++] = (struct page_span){.timeline = (uint32_t)timeline + 1, .max_lsn = max_lsn};
        max_lsn = MIN_OF(max_lsn, model[timeline].branch_lsn);
    }
    return make_path(count, spans);
}

static void model_commit(uint32_t timeline, lsn_t lsn)
{
    struct page_batch *batch = page_batch_create();
    page_batch_put_position(batch, timeline, (struct ingest_position){.lsn = lsn});
    ck_assert_ok(page_store_write(store, batch, &msg), &msg);
    page_batch_destroy(batch);
}

/* What a read does that had to apply many records. */
static void model_image(int timeline, size_t page, lsn_t lsn)
{
    while (lsn > 0 && model[timeline].tags[page][lsn] == 0) {
        lsn--;
    }
    if (lsn > 0) {
        model[timeline].tags[page][lsn] = VALUE_IMAGE;
        put(store, (uint32_t)timeline + 1, page_of(7, (uint32_t)page), lsn, VALUE_IMAGE, "r");
    }
}

static void model_flush(uint64_t dice)
{
    bool fails = dice % 3 == 0;
    ck_assert_ok(fault_arm(fails ? "page_store.before_ingest=full*1" : "", &msg), &msg);
    err_t err = page_store_flush(store, &msg);
    ck_assert_int_eq(err, fails && err != ERR_OK ? ERR_FULL : ERR_OK);
    ck_assert_ok(fault_arm("", &msg), &msg);
}

static void model_restart(void)
{
    flush();
    page_store_close(store);
    store = open_in_folder();
}

static void model_step(struct prng *prng, lsn_t step)
{
    static const uint8_t tags[] = {VALUE_DELTA, VALUE_DELTA, VALUE_DELTA,
                                   VALUE_IMAGE, VALUE_ZERO,  VALUE_INIT};
    int timeline = (int)prng_below(prng, model_count);
    uint64_t dice = prng_below(prng, 100);
    if (dice < 2 && model_count < MODEL_TIMELINES) {
        model[model_count++] =
            (struct model_timeline){.parent = timeline, .branch_lsn = prng_below(prng, step) + 1};
    } else if (dice < 6) {
        model_flush(prng_below(prng, 100));
    } else if (dice == 6 && prng_below(prng, 8) == 0) {
        model_restart();
    } else if (dice < 15) {
        model_image(timeline, prng_below(prng, MODEL_PAGES), prng_below(prng, step) + 1);
    } else if (step > model[timeline].branch_lsn) {
        size_t page = prng_below(prng, MODEL_PAGES);
        uint8_t tag = tags[prng_below(prng, ARRAY_LEN(tags))];
        model[timeline].tags[page][step] = tag;
        put(store, (uint32_t)timeline + 1, page_of(7, (uint32_t)page), step, tag,
            tag == VALUE_ZERO ? "" : "r");
        model_commit((uint32_t)timeline + 1, step);
    }
}

START_TEST(test_random_histories_read_as_the_model_says)
{
    begin();
    fault_enable();
    uint64_t seed = getenv("SEED") != NULL ? strtoull(getenv("SEED"), NULL, 10) : 20261122;
    printf("SEED=%" PRIu64 "\n", seed);
    struct prng prng;
    prng_init(&prng, seed);
    model = MEM_ARRAY(struct model_timeline, MODEL_TIMELINES);
    model[0] = (struct model_timeline){.parent = -1};
    model_count = 1;
    struct buf expected = {0};
    for (lsn_t step = 1; step <= MODEL_STEPS; step++) {
        model_step(&prng, step);
        int timeline = (int)prng_below(&prng, model_count);
        size_t page = prng_below(&prng, MODEL_PAGES);
        lsn_t lsn = prng_below(&prng, step) + 1;
        model_expect(timeline, page, lsn, &expected);
        ck_assert_str_eq(
            collected(model_path(timeline), page_of(7, (uint32_t)page), lsn), buf_cstr(&expected));
    }
    buf_deinit(&expected);
    mem_free(model);
    end();
}
END_TEST

UNIT_MAIN(
    "page_store_random",
    test_reads_beside_ingest_and_flushes_miss_nothing,
    test_random_histories_read_as_the_model_says);
