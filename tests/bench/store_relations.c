/*
 * store_relations FOLDER COUNT - what COUNT relations cost: to make, to ask for their sizes, to
 * list, to drop. Each has a size and one page, in one database.
 *
 * Prints one JSON object: CPU time in us of one operation each, so that two counts can be compared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "tests/lib/page_batch.h"

#define TIMELINE  1u
#define START_LSN ((lsn_t)0x1000000)
#define ASKED     20000u
#define PER_FLUSH 20000u

static struct errmsg msg;

static void check(err_t err)
{
    if (err != ERR_OK) {
        (void)fprintf(stderr, "store_relations: %s\n", msg.text);
        exit(1);
    }
}

static double cpu_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static struct page_key relation(uint32_t number)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = 16384 + number};
}

struct bench {
    struct page_store *store;
    struct page_writer *writer;
    struct page_path *path;
    uint32_t count;
    lsn_t lsn;
};

static void put(struct bench *bench, uint32_t number, bool exists)
{
    static const uint8_t page[PAGE_SIZE];
    bench->lsn += 8;
    page_writer_put_rel_size(bench->writer, relation(number), bench->lsn, exists, exists ? 1 : 0);
    if (exists) {
        page_writer_put(
            bench->writer, relation(number), bench->lsn, VALUE_IMAGE, 0,
            bytes_of(page, sizeof(page)));
    }
    if (number % PER_FLUSH == PER_FLUSH - 1) {
        check(page_store_flush(bench->store, &msg));
    }
}

/* All of them: us each, the flushes included. */
static double put_all(struct bench *bench, bool exists)
{
    double begin = cpu_us();
    for (uint32_t number = 0; number < bench->count; number++) {
        put(bench, number, exists);
    }
    check(page_store_flush(bench->store, &msg));
    return (cpu_us() - begin) / bench->count;
}

static double ask_sizes(struct bench *bench)
{
    struct prng prng;
    prng_init(&prng, 1);
    struct page_reader *reader = page_reader_create(bench->store, bench->path);
    double begin = cpu_us();
    for (uint32_t i = 0; i < ASKED; i++) {
        struct fork_size size;
        struct page_key rel = relation((uint32_t)prng_below(&prng, bench->count));
        check(page_reader_rel_size(reader, rel, bench->lsn, &size, &msg));
        if (!size.exists || size.blocks != 1) {
            (void)fprintf(stderr, "store_relations: wrong size\n");
            exit(1);
        }
    }
    double each = (cpu_us() - begin) / ASKED;
    page_reader_destroy(reader);
    return each;
}

static err_t count_one(struct page_key rel, uint32_t blocks, void *context, struct errmsg *ret_msg)
{
    uint32_t *count = context;
    (void)rel;
    (void)blocks;
    (void)ret_msg;
    (*count)++;
    return ERR_OK;
}

static double list(struct bench *bench, uint32_t expected)
{
    uint32_t count = 0;
    struct page_reader *reader = page_reader_create(bench->store, bench->path);
    double begin = cpu_us();
    check(page_reader_relations(reader, 1663, 5, bench->lsn, count_one, &count, &msg));
    double each = (cpu_us() - begin) / bench->count;
    page_reader_destroy(reader);
    if (count != expected) {
        (void)fprintf(stderr, "store_relations: %u listed, not %u\n", count, expected);
        exit(1);
    }
    return each;
}

int main(int argc, char **argv)
{
    struct bench bench = {.lsn = START_LSN};
    struct page_store_options options = {0};
    if (argc != 3 || parse_u32(argv[2], &bench.count, &msg) != ERR_OK || bench.count == 0) {
        (void)fprintf(stderr, "usage: store_relations FOLDER COUNT\n");
        return 2;
    }
    bench.path = mem_zalloc(sizeof(*bench.path) + sizeof(bench.path->spans[0]));
    bench.path->count = 1;
    bench.path->spans[0] = (struct page_span){.timeline = TIMELINE, .max_lsn = UINT64_MAX};
    check(page_store_open(argv[1], &options, &bench.store, &msg));
    check(page_writer_open(bench.store, TIMELINE, &bench.writer, &msg));
    double created = put_all(&bench, true);
    (void)ask_sizes(&bench); /* warm */
    double asked = ask_sizes(&bench);
    double listed = list(&bench, bench.count);
    double dropped = put_all(&bench, false);
    double listed_empty = list(&bench, 0);
    printf(
        "{\"count\":%u,\"create_us\":%.3f,\"size_us\":%.3f,\"list_us\":%.3f,\"drop_us\":%.3f,"
        "\"list_dropped_us\":%.3f}\n",
        bench.count, created, asked, listed, dropped, listed_empty);
    page_writer_close(bench.writer);
    page_store_close(bench.store);
    mem_free(bench.path);
    return 0;
}
