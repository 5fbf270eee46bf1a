/*
 * store_depth FOLDER DEPTH... - what it costs to read a page of the root through DEPTH branches,
 * each with pages of its own, at the store's own door.
 *
 * Prints one JSON object {"DEPTH": us of CPU a read, ...}.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "tests/lib/page_batch.h"

#define START_LSN  ((lsn_t)0x1000000)
#define ROOT_PAGES 500u
#define OWN_PAGES  20u
#define READS      20000u
#define WARM_READS 2000u
#define PER_FLUSH  100u

static struct errmsg msg;

static void check(err_t err)
{
    if (err != ERR_OK) {
        (void)fprintf(stderr, "store_depth: %s\n", msg.text);
        exit(1);
    }
}

static double cpu_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static struct page_key page_of(uint32_t rel, uint32_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = rel, .block = block};
}

/* Timeline 1 is the root, each next one a branch of the one before, 1000 bytes of WAL later. */
static void fill(struct page_store *store, uint32_t timeline)
{
    static const uint8_t page[PAGE_SIZE];
    struct page_writer *writer = NULL;
    lsn_t lsn = START_LSN + 1000 * (lsn_t)timeline;
    check(page_writer_open(store, timeline, &writer, &msg));
    for (uint32_t block = 0; block < (timeline == 1 ? ROOT_PAGES : OWN_PAGES); block++) {
        page_writer_put(
            writer, page_of(timeline == 1 ? 100 : 200, block), lsn, VALUE_IMAGE, 0,
            bytes_of(page, sizeof(page)));
    }
    check(page_writer_commit(
        writer, (struct ingest_position){.lsn = lsn, .prev_record_lsn = lsn - 8}, &msg));
    page_writer_close(writer);
    if (timeline % PER_FLUSH == 0) {
        check(page_store_flush(store, &msg));
    }
}

static struct page_path *path_of(uint32_t depth)
{
    size_t count = depth + 1;
    struct page_path *path = mem_zalloc(sizeof(*path) + count * sizeof(path->spans[0]));
    path->count = count;
    for (size_t i = 0; i < count; i++) {
        uint32_t timeline = depth + 1 - (uint32_t)i;
        path->spans[i] = (struct page_span){
            .timeline = timeline,
            .max_lsn = i == 0 ? UINT64_MAX : START_LSN + 1000 * (lsn_t)timeline + 500,
        };
    }
    return path;
}

/* As a worker reads: a reader each time. */
static double read_pages(struct page_store *store, const struct page_path *path, uint32_t reads)
{
    struct page_versions versions = {0};
    struct prng prng;
    prng_init(&prng, 1);
    double begin = cpu_us();
    for (uint32_t i = 0; i < reads; i++) {
        struct page_reader *reader = page_reader_create(store, path);
        check(page_reader_collect(
            reader, page_of(100, (uint32_t)prng_below(&prng, ROOT_PAGES)), UINT64_MAX - 1,
            &versions, &msg));
        page_reader_destroy(reader);
        if (versions.count != 1) {
            (void)fprintf(stderr, "store_depth: a page was not found\n");
            exit(1);
        }
    }
    page_versions_deinit(&versions);
    return (cpu_us() - begin) / reads;
}

int main(int argc, char **argv)
{
    struct page_store_options options = {0};
    struct page_store *store = NULL;
    uint32_t timeline = 0;
    if (argc < 3) {
        (void)fprintf(stderr, "usage: store_depth FOLDER DEPTH...\n");
        return 2;
    }
    check(page_store_open(argv[1], &options, &store, &msg));
    printf("{");
    for (int i = 2; i < argc; i++) {
        uint32_t depth = 0;
        check(parse_u32(argv[i], &depth, &msg));
        while (timeline < depth + 1) {
            fill(store, ++timeline);
        }
        check(page_store_flush(store, &msg));
        struct page_path *path = path_of(depth);
        (void)read_pages(store, path, WARM_READS);
        printf("%s\"%u\":%.3f", i == 2 ? "" : ",", depth, read_pages(store, path, READS));
        mem_free(path);
    }
    printf("}\n");
    page_store_close(store);
    return 0;
}
