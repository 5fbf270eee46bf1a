/*
 * store_reads FOLDER PAGES CACHE_MIB - what it costs to look up PAGES pages in sorted files: at
 * random and by one reader for each, as a single request does; at random by one reader that is
 * kept; in runs of RUN neighbours, each page by itself; and in the same runs, walked over.
 *
 * Each page has one version; then every tenth is changed, a little before and a little after the
 * files were compacted. CACHE_MIB is the block cache: as large as all pages, or not.
 *
 * Prints one JSON object: CPU time in us of one page, the medians of rounds in turns, with what the
 * compactions' threads had to do meanwhile left out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "tests/lib/page_batch.h"

#define TIMELINE      1u
#define START_LSN     ((lsn_t)0x1000000)
#define PER_FLUSH     8000u
#define RUN           16u
#define READ_PER_TURN 8192u
#define ROUNDS        7u
#define PAUSE_NS      (20 * 1000 * 1000)

static struct errmsg msg;

static void check(err_t err)
{
    if (err != ERR_OK) {
        (void)fprintf(stderr, "store_reads: %s\n", msg.text);
        exit(1);
    }
}

static double cpu_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

struct bench {
    struct page_store *store;
    struct page_writer *writer;
    struct page_path *path;
    struct page_versions versions;
    struct prng prng;
    uint32_t pages;
    lsn_t lsn;
};

static struct page_key page_of(uint32_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = 16384, .block = block};
}

/* -- the pages -- */

/* Half of it is noise: what lz4 makes of real ones. */
static void put_image(struct bench *bench, uint32_t block)
{
    static uint8_t page[PAGE_SIZE];
    for (size_t i = PAGE_SIZE / 2; i < PAGE_SIZE; i += sizeof(uint64_t)) {
        uint64_t noise = prng_next(&bench->prng);
        memcpy(page + i, &noise, sizeof(noise));
    }
    bench->lsn += 8;
    page_writer_put(
        bench->writer, page_of(block), bench->lsn, VALUE_IMAGE, 0, bytes_of(page, sizeof(page)));
}

static void flush(struct bench *bench)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    check(page_store_flush(bench->store, &msg));
    while (page_store_is_compacting(bench->store)) {
        (void)nanosleep(&pause, NULL);
    }
}

static void change_some(struct bench *bench)
{
    static const uint8_t record[100];
    for (uint32_t block = (uint32_t)prng_below(&bench->prng, 10); block < bench->pages;
         block += 10) {
        bench->lsn += 8;
        page_writer_put(
            bench->writer, page_of(block), bench->lsn, VALUE_DELTA, 0,
            bytes_of(record, sizeof(record)));
    }
    flush(bench);
}

static void fill(struct bench *bench)
{
    for (uint32_t block = 0; block < bench->pages; block++) {
        put_image(bench, block);
        if (block % PER_FLUSH == PER_FLUSH - 1) {
            flush(bench);
        }
    }
    flush(bench);
    change_some(bench);
    check(page_store_compact(bench->store, &msg));
    change_some(bench);
}

/* -- reading them -- */

static void collect(struct bench *bench, struct page_reader *reader, uint32_t block)
{
    check(page_reader_collect(reader, page_of(block), bench->lsn, &bench->versions, &msg));
    if (bench->versions.count == 0 ||
        bench->versions.items[bench->versions.count - 1].tag != VALUE_IMAGE) {
        (void)fprintf(stderr, "store_reads: page %" PRIu32 " is wrong\n", block);
        exit(1);
    }
}

static void read_random(struct bench *bench, bool is_kept)
{
    struct page_reader *reader = page_reader_create(bench->store, bench->path);
    for (uint32_t i = 0; i < READ_PER_TURN; i++) {
        collect(bench, reader, (uint32_t)prng_below(&bench->prng, bench->pages));
        if (!is_kept) {
            page_reader_destroy(reader);
            reader = page_reader_create(bench->store, bench->path);
        }
    }
    page_reader_destroy(reader);
}

static void read_runs(struct bench *bench, bool walks)
{
    for (uint32_t i = 0; i < READ_PER_TURN / RUN; i++) {
        struct page_reader *reader = page_reader_create(bench->store, bench->path);
        uint32_t first = (uint32_t)prng_below(&bench->prng, bench->pages / RUN) * RUN;
        if (walks) {
            page_reader_expect(reader, page_of(first), RUN);
        }
        for (uint32_t at = 0; at < RUN; at++) {
            collect(bench, reader, first + at);
        }
        page_reader_destroy(reader);
    }
}

static void read_new(struct bench *bench)
{
    read_random(bench, false);
}

static void read_kept(struct bench *bench)
{
    read_random(bench, true);
}

static void read_runs_singly(struct bench *bench)
{
    read_runs(bench, false);
}

static void read_runs_walking(struct bench *bench)
{
    read_runs(bench, true);
}

static const struct way {
    const char *name;
    void (*read)(struct bench *bench);
} ways[] = {
    {"random_us", read_new},
    {"random_kept_us", read_kept},
    {"run_singly_us", read_runs_singly},
    {"run_walked_us", read_runs_walking},
};

static int compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

static void measure(struct bench *bench)
{
    double took[ARRAY_LEN(ways)][ROUNDS];
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
            double begin = cpu_us();
            ways[i].read(bench);
            took[i][round] = (cpu_us() - begin) / READ_PER_TURN;
        }
    }
    printf("{\"pages\": %" PRIu32, bench->pages);
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        qsort(took[i], ROUNDS, sizeof(took[i][0]), compare);
        printf(", \"%s\": %.2f", ways[i].name, took[i][ROUNDS / 2]);
    }
    printf("}\n");
}

int main(int argc, char **argv)
{
    uint64_t pages = 0, cache_mib = 0;
    if (argc != 4 || parse_u64(argv[2], 100, 10000000, &pages, NULL) != ERR_OK ||
        parse_u64(argv[3], 1, 65536, &cache_mib, NULL) != ERR_OK) {
        (void)fprintf(stderr, "usage: store_reads FOLDER PAGES CACHE_MIB\n");
        return 2;
    }
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/store", argv[1]);
    struct bench bench = {.pages = (uint32_t)pages, .lsn = START_LSN};
    prng_init(&bench.prng, 20261127);
    struct page_store_options options = {.block_cache_bytes = (size_t)cache_mib * MIB};
    check(page_store_open(path, &options, &bench.store, &msg));
    check(page_writer_open(bench.store, TIMELINE, &bench.writer, &msg));
    bench.path = mem_zalloc(sizeof(*bench.path) + sizeof(bench.path->spans[0]));
    bench.path->count = 1;
    bench.path->spans[0] = (struct page_span){.timeline = TIMELINE, .max_lsn = UINT64_MAX};
    fill(&bench);
    measure(&bench);
    page_versions_deinit(&bench.versions);
    page_writer_close(bench.writer);
    page_store_close(bench.store);
    mem_free(bench.path);
    return 0;
}
