/*
 * store_hot_page FOLDER RECORDS IMAGES - one page that is updated RECORDS times, without page
 * images in its WAL, and reads of it at random LSNs; an image is made after IMAGES records (0:
 * none).
 *
 * The WAL goes through the real ingest, flushes by size included. Each read is made as a worker
 * makes it: a reader of its own, versions collected, records applied, and the page must say which
 * record changed it last. At two times: when the newest of them lie in layers, no flush having
 * taken them (a fifth or so), and when all is flushed and compacted.
 *
 * Prints one JSON object: reads in us on the clock and in us of CPU of the reading thread; CPU
 * time, bytes written and bytes on disk of the whole, and the records' own bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "pageserver/read/reconstruct.h"
#include "tests/bench/ingest_lab.h"

#define READS      5000u
#define DATA_BYTES 50u /* with its head a record of about 100 bytes */
#define NUMBER_AT  PAGE_HEADER_SIZE
#define DATA_END   8000u

static const struct page_key relation = {.spc = 1663, .db = 5, .rel = 100};

static struct {
    struct wal_builder builder;
    lsn_t *ends; /* of record i */
    uint32_t count;
} made;

/* Generic WAL: pieces of {offset, size, bytes}. The number of the record, and noise somewhere. */
static void add_record(struct prng *prng, uint32_t number)
{
    uint8_t data[2 * 2 * sizeof(uint16_t) + sizeof(number) + DATA_BYTES] = {0};
    struct writer out = {.next = data, .left = sizeof(data)};
    put_u16(&out, NUMBER_AT);
    put_u16(&out, sizeof(number));
    put_u32(&out, number);
    put_u16(&out, (uint16_t)(NUMBER_AT + 8 + prng_below(prng, DATA_END - 200)));
    put_u16(&out, DATA_BYTES);
    for (size_t i = 0; i + sizeof(uint64_t) <= out.left; i += 2 * sizeof(uint64_t)) {
        uint64_t noise = prng_next(prng);
        memcpy(out.next + i, &noise, sizeof(noise));
    }
    made.ends[number] = wal_builder_add(
        &made.builder, &(struct wal_builder_record){
                           .rmgr = RM_GENERIC,
                           .blocks = {{.key = relation, .data = bytes_of(data, sizeof(data))}},
                           .block_count = 1});
}

/* The first record makes the page. */
static void add_first_record(void)
{
    uint16_t piece[] = {PAGE_LOWER, 8, DATA_END, PAGE_SIZE, PAGE_SIZE, PAGE_SIZE | 4};
    made.ends[0] = wal_builder_add(
        &made.builder,
        &(struct wal_builder_record){
            .rmgr = RM_GENERIC,
            .blocks =
                {{.key = relation, .will_init = true, .data = bytes_of(piece, sizeof(piece))}},
            .block_count = 1});
}

static void make_records(uint32_t count)
{
    struct prng prng;
    prng_init(&prng, 20261126);
    made.count = count;
    made.ends = MEM_ARRAY(lsn_t, count);
    wal_builder_init(&made.builder, LAB_START_LSN, LAB_SEGMENT_SIZE);
    add_first_record();
    for (uint32_t number = 1; number < count; number++) {
        add_record(&prng, number);
    }
}

/* -- reads -- */

static double thread_cpu_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static void read_at(const struct timeline *tl, uint32_t number)
{
    struct errmsg msg;
    uint8_t page[PAGE_SIZE];
    struct reconstruct work;
    reconstruct_init(&work, timeline_store(tl), timeline_path(tl), made.ends[number]);
    must(reconstruct_page(&work, relation, page, NULL, &msg), &msg);
    reconstruct_deinit(&work);
    uint32_t found = 0;
    memcpy(&found, page + NUMBER_AT, sizeof(found));
    if (le32toh(found) != number) {
        (void)fprintf(stderr, "record %u: the page is that of %u\n", number, le32toh(found));
        exit(1);
    }
}

static void measure_reads(const char *name, const struct timeline *tl)
{
    static double cpu[READS], wall[READS];
    struct prng prng;
    prng_init(&prng, 1);
    for (uint32_t i = 0; i < READS; i++) {
        uint32_t number = (uint32_t)prng_below(&prng, made.count);
        double cpu_begin = thread_cpu_us();
        mono_ns_t begin = clock_mono();
        read_at(tl, number);
        wall[i] = (double)(clock_mono() - begin) / 1e3;
        cpu[i] = thread_cpu_us() - cpu_begin;
    }
    qsort(cpu, READS, sizeof(cpu[0]), by_value);
    qsort(wall, READS, sizeof(wall[0]), by_value);
    printf(
        "\"%s\": {\"p50_us\": %.1f, \"p99_us\": %.1f, \"cpu_p50_us\": %.1f, \"cpu_p99_us\": %.1f, "
        "\"cpu_max_us\": %.1f}, ",
        name, wall[READS / 2], wall[READS * 99 / 100], cpu[READS / 2], cpu[READS * 99 / 100],
        cpu[READS - 1]);
}

int main(int argc, char **argv)
{
    uint64_t records = 0, images = 0;
    if (argc != 4 || parse_u64(argv[2], 1000, 10 * 1000 * 1000, &records, NULL) != ERR_OK ||
        parse_u64(argv[3], 0, 254, &images, NULL) != ERR_OK) {
        (void)fprintf(stderr, "usage: store_hot_page FOLDER RECORDS IMAGES\n");
        return 2;
    }
    make_records((uint32_t)records);
    const struct ingest_lab *lab = ingest_lab_open_empty(argv[1], relation, 1, (unsigned)images);
    struct cost begin = cost_now();
    ingest_lab_run(buf_view(&made.builder.wal), made.builder.lsn);
    double ingest = cost_since(begin).cpu;
    printf("{");
    measure_reads("in_layers", lab->timeline);
    double again = cpu_seconds();
    ingest_lab_flush();
    ingest += cpu_seconds() - again;
    uint64_t written = cost_since(begin).written;
    measure_reads("flushed", lab->timeline);
    printf(
        "\"ingest_cpu_s\": %.3f, \"wal_bytes\": %zu, \"written_bytes\": %" PRIu64
        ", \"disk_bytes\": %" PRIu64 ", \"layers_max_bytes\": %zu}\n",
        ingest, made.builder.wal.size, written, page_store_size(timeline_store(lab->timeline)),
        lab->layers_max);
    ingest_lab_close();
    return 0;
}
