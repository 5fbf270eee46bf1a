/*
 * redo_bench - how fast redo is, without a server around it. tests/bench/redo.py runs it.
 *
 *   redo_bench replay BASE WAL END          the whole WAL: read and decoded only; replayed in its
 *                                           order; applied page by page, already decoded
 *   redo_bench kinds BASE WAL END           ns of one record on one page, by kind of record
 *   redo_bench pages BASE WAL END STORE     us of a page with 1, 10, 100 and 227 records, from a
 *                                           page store that is made in the folder STORE
 *
 * BASE is a cold copy of a data directory, WAL the pg_wal of the server that went on from there,
 * END the LSN where replay stops.
 */
#include "tests/bench/redo_bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/mem.h"
#include "common/base/parse.h"

uint64_t cpu_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

uint64_t cpu_clock_cost_ns(void)
{
    enum { TRIES = 1001 };
    static double costs[TRIES];
    for (size_t i = 0; i < TRIES; i++) {
        uint64_t begin = cpu_ns();
        costs[i] = (double)(cpu_ns() - begin);
    }
    return (uint64_t)median(costs, TRIES);
}

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left;
    double b = *(const double *)right;
    return (a > b) - (a < b);
}

double median(double *values, size_t count)
{
    if (count == 0) {
        return 0;
    }
    qsort(values, count, sizeof(values[0]), compare_doubles);
    return values[count / 2];
}

/* -- replay: the whole WAL -- */

struct counter {
    struct wal_visitor visitor;
    uint64_t records, bytes;
};

static err_t count_record(
    struct wal_visitor *visitor, const struct wal_record *record, struct errmsg *msg)
{
    (void)msg;
    struct counter *counter = CONTAINER_OF(visitor, struct counter, visitor);
    counter->records++;
    counter->bytes += record->total_size;
    return ERR_OK;
}

/* The changes of a sorted trace onto the pages of `map`; *ret_ns is what that took. */
static err_t apply_sorted(
    const struct trace *trace, struct page_map *map, uint64_t *ret_ns, struct errmsg *msg)
{
    uint8_t *page = NULL;
    uint64_t begin = cpu_ns();
    for (size_t i = 0; i < trace->count; i++) {
        const struct change *change = &trace->changes[i];
        if (i == 0 || !page_key_equal(change->key, change[-1].key)) {
            TRY(page_map_page(map, change->key, &page, msg));
        }
        TRY(change_apply(change, page, msg));
    }
    *ret_ns = cpu_ns() - begin;
    return ERR_OK;
}

/* Both orders end in the same pages; those behind the end of a truncated relation are nobody's. */
static err_t compare_pages(
    const struct trace *trace,
    struct replayer *replayer,
    const struct page_map *map,
    uint64_t *ret_pages,
    struct errmsg *msg)
{
    *ret_pages = 0;
    for (size_t i = 0; i < trace->count; i++) {
        struct page_key key = trace->changes[i].key;
        uint32_t blocks = 0;
        if (i > 0 && page_key_equal(key, trace->changes[i - 1].key)) {
            continue;
        }
        ++*ret_pages;
        if (key.spc != KEY_SPC_STATE &&
            (decoded_rel_size(replayer->decoded, key, &blocks, msg) != ERR_OK ||
             key.block >= blocks)) {
            continue;
        }
        const uint8_t *ours = page_map_touched(map, key);
        const uint8_t *theirs = page_map_touched(replayer->map, key);
        if (ours == NULL || theirs == NULL || memcmp(ours, theirs, PAGE_SIZE) != 0) {
            return err_set(
                msg, ERR_CORRUPT, "%s: sorted by page it is another page", page_key_text(key).text);
        }
    }
    return ERR_OK;
}

static err_t load_pages(const struct trace *trace, struct page_map *map, struct errmsg *msg)
{
    for (size_t i = 0; i < trace->count; i++) {
        uint8_t *page = NULL;
        TRY(page_map_page(map, trace->changes[i].key, &page, msg));
    }
    return ERR_OK;
}

static err_t bench_sorted(
    const struct trace *trace,
    const char *base_dir,
    bool loaded,
    struct replayer *replayer,
    uint64_t *ret_ns,
    uint64_t *ret_pages,
    struct errmsg *msg)
{
    struct page_map *map = page_map_create(base_dir);
    err_t err = loaded ? load_pages(trace, map, msg) : ERR_OK;
    if (err == ERR_OK) {
        err = apply_sorted(trace, map, ret_ns, msg);
    }
    if (err == ERR_OK) {
        err = compare_pages(trace, replayer, map, ret_pages, msg);
    }
    page_map_destroy(map);
    return err;
}

static err_t replay_timed(
    const struct wal_source *source, struct replayer *replayer, double *ret_s, struct errmsg *msg)
{
    uint64_t begin = cpu_ns();
    TRY(wal_walk(source, &replayer->visitor, msg));
    *ret_s = (double)(cpu_ns() - begin) / 1e9;
    return ERR_OK;
}

static err_t replay_kept(
    const struct wal_source *source, struct trace *trace, struct replayer *kept, struct errmsg *msg)
{
    TRY(replayer_init(kept, source->base_dir, msg));
    kept->trace = trace;
    TRY(wal_walk(source, &kept->visitor, msg));
    return trace_sort(trace, msg);
}

err_t bench_replay(const struct wal_source *source, struct errmsg *msg)
{
    struct counter counter = {.visitor.visit = count_record};
    struct replayer replayer = {.map = NULL};
    struct replayer kept = {.map = NULL};
    struct trace trace = {.count = 0};
    double replay_s = 0;
    uint64_t sorted_ns = 0;
    uint64_t loaded_ns = 0;
    uint64_t pages = 0;
    uint64_t decode_ns = cpu_ns();
    err_t err = wal_walk(source, &counter.visitor, msg);
    decode_ns = cpu_ns() - decode_ns;
    if (err == ERR_OK) {
        err = replayer_init(&replayer, source->base_dir, msg);
    }
    if (err == ERR_OK) {
        err = replay_timed(source, &replayer, &replay_s, msg);
    }
    if (err == ERR_OK) {
        err = replay_kept(source, &trace, &kept, msg);
    }
    if (err == ERR_OK) {
        err = bench_sorted(&trace, source->base_dir, false, &replayer, &sorted_ns, &pages, msg);
    }
    if (err == ERR_OK) {
        err = bench_sorted(&trace, source->base_dir, true, &replayer, &loaded_ns, &pages, msg);
    }
    if (err == ERR_OK) {
        printf(
            "{\"records\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"changes\": %" PRIu64
            ", \"pages\": %" PRIu64 ", \"decode_s\": %.4f, \"replay_s\": %.4f, \"sorted_s\": %.4f, "
            "\"sorted_loaded_s\": %.4f}\n",
            counter.records, counter.bytes, replayer.changes, pages, (double)decode_ns / 1e9,
            replay_s, (double)sorted_ns / 1e9, (double)loaded_ns / 1e9);
    }
    trace_deinit(&trace);
    replayer_deinit(&replayer);
    replayer_deinit(&kept);
    return err;
}

int main(int argc, char **argv)
{
    struct errmsg msg = {.text = ""};
    const char *part = argc > 1 ? argv[1] : "";
    bool pages = strcmp(part, "pages") == 0;
    if (argc != (pages ? 6 : 5)) {
        (void)fprintf(stderr, "usage: redo_bench replay|kinds|pages BASE WAL END [STORE]\n");
        return 2;
    }
    struct wal_source source = {.base_dir = argv[2], .wal_dir = argv[3]};
    err_t err = parse_lsn(argv[4], &source.end_lsn, &msg);
    if (err == ERR_OK && pages) {
        err = bench_pages(&source, argv[5], &msg);
    } else if (err == ERR_OK && strcmp(part, "kinds") == 0) {
        err = bench_kinds(&source, &msg);
    } else if (err == ERR_OK && strcmp(part, "replay") == 0) {
        err = bench_replay(&source, &msg);
    } else if (err == ERR_OK) {
        err = err_set(&msg, ERR_INVALID, "no part \"%s\"", part);
    }
    if (err != ERR_OK) {
        (void)fprintf(stderr, "redo_bench: %s\n", msg.text);
    }
    return err == ERR_OK ? 0 : 1;
}
