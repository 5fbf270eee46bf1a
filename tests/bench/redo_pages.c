/*
 * Microseconds of one page with 1, 10, 100 and 227 records, as a page read makes it.
 *
 * A window is that many records in a row on one page of the replayed WAL, and the page before them.
 * Windows are drawn at random over all pages. Each becomes the history of a timeline of its own in
 * a page store, so that every read is the first one: one that takes many records writes the page
 * back as an image. Measured are the parts of the read: collecting the versions, redo, and all of
 * it, writing back included.
 */
#include <stdio.h>

#include "common/base/mem.h"
#include "common/base/prng.h"
#include "pageserver/read/reconstruct.h"
#include "tests/bench/redo_bench.h"
#include "tests/lib/page_batch.h"

#define WINDOWS 128
#define ROUNDS  21

struct window {
    size_t first; /* change in the sorted trace */
    uint8_t before[PAGE_SIZE], after[PAGE_SIZE];
};

struct windows {
    size_t length; /* records */
    size_t seen, count;
    struct window items[WINDOWS];
};

static void draw_window(
    struct windows *windows, struct prng *prng, size_t first, const uint8_t *before)
{
    size_t at = windows->seen++;
    if (at >= WINDOWS) {
        at = (size_t)prng_below(prng, windows->seen);
    }
    if (at < WINDOWS) {
        windows->count = MAX_OF(windows->count, at + 1);
        windows->items[at].first = first;
        memcpy(windows->items[at].before, before, PAGE_SIZE);
    }
}

/* How many of the changes from `first` on are records on top of the page, up to `length`. */
static size_t run_length(const struct trace *trace, size_t first, size_t length)
{
    const struct change *changes = trace->changes;
    size_t end = MIN_OF(trace->count, first + length);
    size_t at = first;
    while (at < end && changes[at].tag == VALUE_DELTA &&
           page_key_equal(changes[at].key, changes[first].key)) {
        at++;
    }
    return at - first;
}

/* Windows of relation pages that lie behind one another on a page do not overlap. */
static err_t draw_windows(
    const struct trace *trace, const char *base_dir, struct windows *windows, struct errmsg *msg)
{
    uint8_t page[PAGE_SIZE];
    struct prng prng;
    size_t next = 0; /* where the next window may begin */
    prng_init(&prng, windows->length);
    for (size_t i = 0; i < trace->count; i++) {
        const struct change *change = &trace->changes[i];
        if (i == 0 || !page_key_equal(change->key, change[-1].key)) {
            TRY(page_file_read(base_dir, change->key, page, msg));
        }
        if (i >= next && change->key.spc != KEY_SPC_STATE &&
            run_length(trace, i, windows->length) == windows->length) {
            draw_window(windows, &prng, i, page);
            next = i + windows->length;
        }
        TRY(change_apply(change, page, msg));
    }
    return ERR_OK;
}

/* What the page is behind its window, from the records that are decoded already. */
static err_t finish_window(
    const struct trace *trace, struct window *window, size_t length, struct errmsg *msg)
{
    memcpy(window->after, window->before, PAGE_SIZE);
    for (size_t i = 0; i < length; i++) {
        TRY(change_apply(&trace->changes[window->first + i], window->after, msg));
    }
    return ERR_OK;
}

static err_t store_window(
    struct page_store *store,
    uint32_t timeline,
    const struct trace *trace,
    const struct window *window,
    size_t length,
    struct errmsg *msg)
{
    const struct change *changes = trace->changes + window->first;
    struct page_batch *batch = page_batch_create();
    page_batch_put(
        batch, timeline, changes[0].key, changes[0].record->end_lsn - 1, VALUE_IMAGE, 0,
        bytes_of(window->before, PAGE_SIZE));
    for (size_t i = 0; i < length; i++) {
        page_batch_put(
            batch, timeline, changes[i].key, changes[i].record->end_lsn, VALUE_DELTA,
            changes[i].block_index, changes[i].record->bytes);
    }
    err_t err = page_store_write(store, batch, msg);
    page_batch_destroy(batch);
    return err;
}

/* Of one window, in microseconds. */
struct times {
    double collect, redo, read;
};

/* Medians of many rounds: neither collecting nor redo changes the store. */
static err_t time_parts(
    struct reconstruct *work,
    struct page_key key,
    uint8_t *page,
    struct times *ret_times,
    struct errmsg *msg)
{
    double collect[ROUNDS];
    double redo[ROUNDS];
    double clock_ns = (double)cpu_clock_cost_ns();
    for (size_t round = 0; round < ROUNDS; round++) {
        uint64_t begin = cpu_ns();
        TRY(page_reader_collect(work->reader, key, work->lsn, &work->versions, msg));
        uint64_t collected = cpu_ns();
        TRY(reconstruct_apply(&work->versions, key, page, msg));
        redo[round] = ((double)(cpu_ns() - collected) - clock_ns) / 1000;
        collect[round] = ((double)(collected - begin) - clock_ns) / 1000;
    }
    ret_times->collect = median(collect, ROUNDS);
    ret_times->redo = median(redo, ROUNDS);
    return ERR_OK;
}

static err_t time_window(
    struct page_store *store,
    uint32_t timeline,
    const struct trace *trace,
    const struct window *window,
    struct times *ret_times,
    struct errmsg *msg)
{
    uint8_t page[PAGE_SIZE];
    struct page_key key = trace->changes[window->first].key;
    struct page_path *path = mem_zalloc(sizeof(*path) + sizeof(path->spans[0]));
    path->count = 1;
    path->spans[0] = (struct page_span){.timeline = timeline, .max_lsn = UINT64_MAX};
    struct reconstruct work;
    reconstruct_init(&work, store, path, UINT64_MAX);
    err_t err = time_parts(&work, key, page, ret_times, msg);
    uint64_t begin = cpu_ns();
    if (err == ERR_OK) {
        err = reconstruct_page(&work, key, page, NULL, msg);
    }
    ret_times->read = (double)(cpu_ns() - begin) / 1000;
    if (err == ERR_OK && memcmp(page, window->after, PAGE_SIZE) != 0) {
        err = err_set(msg, ERR_CORRUPT, "%s: read as another page", page_key_text(key).text);
    }
    reconstruct_deinit(&work);
    mem_free(path);
    return err;
}

static err_t time_windows(
    struct page_store *store,
    const struct trace *trace,
    struct windows *windows,
    uint32_t *timeline,
    struct errmsg *msg)
{
    double collect[WINDOWS];
    double redo[WINDOWS];
    double read[WINDOWS];
    uint32_t first = *timeline;
    for (size_t i = 0; i < windows->count; i++) {
        struct window *window = &windows->items[i];
        TRY(finish_window(trace, window, windows->length, msg));
        TRY(store_window(store, (*timeline)++, trace, window, windows->length, msg));
    }
    TRY(page_store_flush(store, msg)); /* from sorted files, not from the memtable */
    for (size_t i = 0; i < windows->count; i++) {
        struct times times = {.redo = 0};
        TRY(time_window(store, first + (uint32_t)i, trace, &windows->items[i], &times, msg));
        collect[i] = times.collect;
        redo[i] = times.redo;
        read[i] = times.read;
    }
    printf(
        "{\"records\": %zu, \"windows\": %zu, \"of\": %zu, \"redo_us\": %.3f, \"collect_us\": "
        "%.3f, "
        "\"read_us\": %.3f}\n",
        windows->length, windows->count, windows->seen, median(redo, windows->count),
        median(collect, windows->count), median(read, windows->count));
    return ERR_OK;
}

static err_t bench_lengths(
    const struct wal_source *source,
    const struct trace *trace,
    struct page_store *store,
    struct errmsg *msg)
{
    static const size_t lengths[] = {1, 10, 100, 227};
    uint32_t timeline = TIMELINE_NUMBER_META + 1;
    struct windows *windows = MEM_NEW(struct windows);
    err_t err = ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(lengths) && err == ERR_OK; i++) {
        *windows = (struct windows){.length = lengths[i]};
        err = draw_windows(trace, source->base_dir, windows, msg);
        if (err == ERR_OK) {
            err = time_windows(store, trace, windows, &timeline, msg);
        }
    }
    mem_free(windows);
    return err;
}

err_t bench_pages(const struct wal_source *source, const char *store_dir, struct errmsg *msg)
{
    struct page_store_options options = {.block_cache_bytes = 256 * MIB};
    struct page_store *store = NULL;
    struct replayer replayer = {.map = NULL};
    struct trace trace = {.count = 0};
    err_t err = replayer_init(&replayer, source->base_dir, msg);
    if (err != ERR_OK) {
        return err;
    }
    replayer.trace = &trace;
    err = wal_walk(source, &replayer.visitor, msg);
    if (err == ERR_OK) {
        err = trace_sort(&trace, msg);
    }
    if (err == ERR_OK) {
        err = page_store_open(store_dir, &options, &store, msg);
    }
    if (err == ERR_OK) {
        err = bench_lengths(source, &trace, store, msg);
    }
    page_store_close(store);
    trace_deinit(&trace);
    replayer_deinit(&replayer);
    return err;
}
