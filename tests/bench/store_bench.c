/*
 * store_bench FOLDER SHAPE MIB IMAGES - what it costs to turn MIB of WAL into versions on disk.
 *
 * Shapes: `small` (records of 100 bytes), `mix` (3 % page images, 97 % records with 50 to 300 bytes
 * of data); four of five hit a fifth of the pages. Two rounds over the same records, each in a
 * folder of its own:
 *   ingest   wal_ingest with loop, executor and tenants as in the pageserver: read, check, decode,
 *            layers, an image of a page after IMAGES records (0: none), flushes, compaction
 *   files    the same keys and values, sorted per 32 MiB and written by kv_file, kv_ingest, and the
 *            compaction: what RocksDB alone asks for
 * Prints one JSON object. CPU time is that of the whole process until nothing runs any more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "common/kv/kv.h"
#include "common/pg/pg_control.h"
#include "pageserver/ingest/wal_ingest.h"
#include "pageserver/read/reconstruct.h"
#include "pageserver/timeline/tenant.h"
#include "tests/lib/page_batch.h"
#include "tests/lib/wal_builder.h"

#define START_LSN    ((lsn_t)0x1000000)
#define SEGMENT_SIZE (16 * (uint32_t)MIB)
#define PAGES        100000u
#define FLUSH_BYTES  (32 * MIB)
#define SMALL_DATA   50u /* and the piece's head: a record of 100 bytes */
#define PAGE_DATA_AT 8000u

static const struct page_key relation = {.spc = 1663, .db = 5, .rel = 100};

/* -- the records -- */

struct version {
    uint32_t block;
    uint32_t size;
    lsn_t lsn;
    size_t at; /* of the value in `values` */
};

static struct {
    struct wal_builder builder;
    struct version *versions;
    size_t count, capacity;
    struct buf values;
} made;

static uint32_t pick_block(struct prng *prng)
{
    bool hot = prng_below(prng, 5) != 0;
    return (uint32_t)prng_below(prng, hot ? PAGES / 5 : PAGES);
}

static void note(uint32_t block, lsn_t lsn, uint8_t tag, struct bytes value)
{
    if (made.count == made.capacity) {
        made.capacity = MAX_OF(2 * made.capacity, (size_t)65536);
        made.versions = mem_realloc(made.versions, made.capacity * sizeof(made.versions[0]));
    }
    size_t at = made.values.size;
    uint8_t head[] = {tag, 0};
    buf_append(&made.values, head, tag == VALUE_IMAGE ? 1 : 2);
    buf_append(&made.values, value.data, value.size);
    made.versions[made.count++] = (struct version){
        .block = block, .size = (uint32_t)(made.values.size - at), .lsn = lsn, .at = at};
}

/* Half of a page is noise: what lz4 makes of real ones. */
static void fill_page(struct prng *prng, uint8_t page[PAGE_SIZE])
{
    memset(page, 0, PAGE_SIZE);
    page_set_u16(page, PAGE_LOWER, PAGE_DATA_AT);
    page_set_u16(page, PAGE_UPPER, PAGE_SIZE);
    page_set_u16(page, PAGE_SPECIAL, PAGE_SIZE);
    page_set_u16(page, PAGE_VERSION, PAGE_SIZE | 4);
    for (size_t i = PAGE_SIZE / 2; i < PAGE_DATA_AT; i += sizeof(uint64_t)) {
        uint64_t noise = prng_next(prng);
        memcpy(page + i, &noise, sizeof(noise));
    }
}

/* The first record of a page makes it. */
static void add_first_record(struct page_key key)
{
    uint16_t piece[] = {PAGE_LOWER, 8, PAGE_DATA_AT, PAGE_SIZE, PAGE_SIZE, PAGE_SIZE | 4};
    lsn_t lsn = wal_builder_add(
        &made.builder,
        &(struct wal_builder_record){
            .rmgr = RM_GENERIC,
            .blocks = {{.key = key, .will_init = true, .data = bytes_of(piece, sizeof(piece))}},
            .block_count = 1});
    note(key.block, lsn, VALUE_INIT, buf_view(&made.builder.record));
}

static void add_record(struct prng *prng, bool mix)
{
    static uint8_t page[PAGE_SIZE], data[512];
    static bool known[PAGES];
    struct page_key key = relation;
    key.block = pick_block(prng);
    if (mix && prng_below(prng, 100) < 3) {
        fill_page(prng, page);
        lsn_t lsn = wal_builder_add(
            &made.builder, &(struct wal_builder_record){
                               .rmgr = RM_XLOG,
                               .info = 0xB0, /* XLOG_FPI */
                               .blocks = {{.key = key, .image = bytes_of(page, sizeof(page))}},
                               .block_count = 1});
        note(key.block, lsn, VALUE_IMAGE, bytes_of(page, sizeof(page)));
        known[key.block] = true;
        return;
    }
    if (!known[key.block]) {
        known[key.block] = true;
        add_first_record(key);
        return;
    }
    /* A piece of generic WAL: offset, size, bytes. */
    size_t size = 4 + (mix ? 50 + prng_below(prng, 251) : SMALL_DATA);
    uint16_t head[] = {
        (uint16_t)(PAGE_HEADER_SIZE + prng_below(prng, PAGE_DATA_AT - 400)), (uint16_t)(size - 4)};
    memcpy(data, head, sizeof(head));
    for (size_t i = sizeof(head); i < size; i += 16) {
        uint64_t noise = prng_next(prng);
        memcpy(data + i, &noise, sizeof(noise)); /* every other eight bytes */
    }
    lsn_t lsn = wal_builder_add(
        &made.builder, &(struct wal_builder_record){
                           .rmgr = RM_GENERIC,
                           .blocks = {{.key = key, .data = bytes_of(data, size)}},
                           .block_count = 1});
    note(key.block, lsn, VALUE_DELTA, buf_view(&made.builder.record));
}

static void make_records(bool mix, size_t bytes)
{
    struct prng prng;
    prng_init(&prng, 20261126);
    wal_builder_init(&made.builder, START_LSN, SEGMENT_SIZE);
    while (made.builder.wal.size < bytes) {
        add_record(&prng, mix);
    }
}

/* -- time -- */

static double cpu_seconds(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* Until compaction has nothing to do: the process uses no CPU. */
static void settle(void)
{
    double before;
    do {
        before = cpu_seconds();
        (void)nanosleep(&(struct timespec){.tv_nsec = 400 * 1000 * 1000}, NULL);
    } while (cpu_seconds() - before > 0.01);
}

static void must(err_t err, const struct errmsg *msg)
{
    if (err != ERR_OK) {
        (void)fprintf(stderr, "%s: %s\n", err_name(err), msg->text);
        exit(1);
    }
}

/* -- ingest, as in the pageserver -- */

static struct {
    struct loop *loop;
    struct executor *executor;
    struct tenants *tenants;
    struct tenants_user tenants_user;
    struct wal_ingest_user user;
    struct wal_ingest *ingest;
    struct timeline *timeline;
    size_t open_max;
} server;

static void on_timeline(struct tenants_user *user, struct timeline *tl)
{
    (void)user;
    server.timeline = tl;
}

static void on_gone(struct tenants_user *user, struct timeline *tl)
{
    (void)user;
    (void)tl;
}

static void on_flushed(struct tenants_user *user, struct tenant *tenant)
{
    (void)user;
    (void)tenant;
    if (server.ingest != NULL) {
        wal_ingest_room(server.ingest);
    }
}

static void on_request(struct tenant_request *request, err_t result)
{
    must(result, &request->msg);
    loop_stop(server.loop);
}

static void on_changed(struct wal_ingest_user *user, const struct page_key *keys, size_t count)
{
    (void)user;
    (void)keys;
    (void)count;
}

static void feed(void)
{
    struct errmsg msg;
    struct bytes wal = buf_view(&made.builder.wal);
    while (!wal_ingest_is_full(server.ingest)) {
        size_t at = (size_t)(wal_ingest_next_lsn(server.ingest) - START_LSN);
        size_t size = MIN_OF(wal.size - at, 128 * KIB);
        if (size == 0) {
            return;
        }
        must(
            wal_ingest_feed(server.ingest, START_LSN + at, bytes_of(wal.data + at, size), &msg),
            &msg);
    }
}

static void on_advanced(struct wal_ingest_user *user)
{
    (void)user;
    server.open_max = MAX_OF(server.open_max, page_stores_memory());
    if (timeline_last_lsn(server.timeline) == made.builder.lsn) {
        loop_stop(server.loop);
    }
}

static void on_room(struct wal_ingest_user *user)
{
    (void)user;
    feed();
}

static void on_restart(struct wal_ingest_user *user)
{
    (void)user;
    (void)fprintf(stderr, "ingest began again\n");
    exit(1);
}

static void on_stopped(struct wal_ingest_user *user)
{
    (void)user;
}

/* What a bootstrap image would have left: a checkpoint, and a relation of PAGES blocks. */
static void make_root(void)
{
    struct errmsg msg;
    struct tenant_id id = {.bytes = {1}};
    struct tenant_request request = {.done = on_request};
    tenant_attach(server.tenants, &request, id, 1);
    loop_run(server.loop);
    struct timeline_info info = {
        .id = {.bytes = {1}},
        .pg_version = 17,
        .system_id = WAL_BUILDER_SYSTEM_ID,
        .start_lsn = START_LSN,
        .generation = 1,
        .membership_generation = 1,
        .bootstrap_object = "object",
        .safekeepers = "1@127.0.0.1:1",
    };
    struct tenant *tenant = tenants_find(server.tenants, id);
    request = (struct tenant_request){.done = on_request};
    tenant_put_timeline(tenant, &request, &info);
    loop_run(server.loop);
    struct pg_checkpoint checkpoint = {.next_xid = 700, .next_oid = 20000, .next_multi = 1};
    struct ingest_position position = {.lsn = START_LSN};
    uint32_t number = timeline_number(server.timeline);
    struct page_batch *batch = page_batch_create();
    page_batch_put(
        batch, number, page_key_state(STATE_CHECKPOINT, 0, 0), START_LSN, VALUE_STATE, 0,
        bytes_of(&checkpoint, sizeof(checkpoint)));
    page_batch_put_rel_size(batch, number, relation, START_LSN, true, PAGES);
    page_batch_put_position(batch, number, position);
    must(page_store_write(timeline_store(server.timeline), batch, &msg), &msg);
    page_batch_destroy(batch);
    request = (struct tenant_request){.done = on_request};
    tenant_timeline_imported(tenant, &request, server.timeline, position);
    loop_run(server.loop);
}

static err_t read_page(
    struct page_store *store,
    const struct page_path *path,
    struct page_key key,
    lsn_t lsn,
    uint8_t *page,
    struct errmsg *msg)
{
    struct reconstruct work;
    reconstruct_init(&work, store, path, lsn);
    err_t err = reconstruct_page(&work, key, page, NULL, msg);
    reconstruct_deinit(&work);
    must(err, msg);
    return err;
}

static void server_open(const char *folder, unsigned images)
{
    struct errmsg msg;
    must(loop_create(&server.loop, &msg), &msg);
    must(executor_create(server.loop, 2, &server.executor, &msg), &msg);
    server.tenants_user = (struct tenants_user){
        .on_timeline = on_timeline, .on_timeline_gone = on_gone, .on_flushed = on_flushed};
    struct tenants_options options = {
        .loop = server.loop,
        .executor = server.executor,
        .data_dir = folder,
        .store = {.block_cache_bytes = 512 * MIB}, /* the default of the pageserver */
        .flush_bytes = FLUSH_BYTES,
        .flush_age_ms = 3600 * 1000,
        .layers_bytes = 512 * MIB,
        .user = &server.tenants_user,
    };
    must(tenants_open(&options, &server.tenants, &msg), &msg);
    make_root();
    server.user = (struct wal_ingest_user){
        .on_changed = on_changed,
        .on_advanced = on_advanced,
        .on_room = on_room,
        .on_restart = on_restart,
        .on_stopped = on_stopped,
    };
    server.ingest = wal_ingest_create(&(struct wal_ingest_options){
        .loop = server.loop,
        .executor = server.executor,
        .timeline = server.timeline,
        .user = &server.user,
        .queue_bytes_max = 8 * MIB,
        .record_size_max = 64 * MIB,
        .records_bytes_max = 64 * MIB,
        .image_after_records = images,
        .read_page = read_page,
    });
}

static void on_timer(struct timer *timer)
{
    (void)timer;
    loop_stop(server.loop);
}

/* A flush may be at work: one at a time. */
static void wait_for_flush(void)
{
    do {
        struct timer timer = {.on_fire = on_timer};
        timer_start(server.loop, &timer, 10);
        loop_run(server.loop);
    } while (!tenants_are_idle(server.tenants));
}

static double run_ingest(const char *folder, unsigned images)
{
    struct errmsg msg;
    server_open(folder, images);
    settle();
    double begin = cpu_seconds();
    feed();
    loop_run(server.loop);
    wait_for_flush();
    must(page_store_flush(timeline_store(server.timeline), &msg), &msg);
    settle();
    double used = cpu_seconds() - begin;
    wal_ingest_stop(server.ingest);
    wal_ingest_destroy(server.ingest);
    server.ingest = NULL;
    tenants_close(server.tenants);
    executor_destroy(server.executor);
    loop_destroy(server.loop);
    return used;
}

/* -- files alone -- */

static int compare_versions(const void *left, const void *right)
{
    const struct version *a = left, *b = right;
    if (a->block != b->block) {
        return a->block < b->block ? -1 : 1;
    }
    return a->lsn > b->lsn ? -1 : a->lsn < b->lsn;
}

static void write_file(struct kv *kv, const char *path, struct version *versions, size_t count)
{
    struct errmsg msg;
    struct kv_file *file = NULL;
    qsort(versions, count, sizeof(versions[0]), compare_versions);
    must(kv_file_create(kv, path, &file, &msg), &msg);
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[PAGE_KEY_SIZE];
        struct page_key key = relation;
        key.block = versions[i].block;
        page_key_encode(1, key, versions[i].lsn, bytes);
        struct bytes value = bytes_of(made.values.data + versions[i].at, versions[i].size);
        must(kv_file_put(file, bytes_of(bytes, sizeof(bytes)), value, &msg), &msg);
    }
    must(kv_file_finish(file, &msg), &msg);
    kv_file_destroy(file);
    must(kv_ingest(kv, &path, 1, &msg), &msg);
}

static double run_files(const char *folder)
{
    struct errmsg msg;
    struct kv *kv = NULL;
    char path[512], file[600];
    (void)snprintf(path, sizeof(path), "%s/files", folder);
    (void)snprintf(file, sizeof(file), "%s/incoming.sst", folder);
    struct kv_options options = {.prefix_size = PAGE_KEY_PREFIX_SIZE, .write_buffer_bytes = MIB};
    must(kv_open(path, &options, &kv, &msg), &msg);
    settle();
    double begin = cpu_seconds();
    for (size_t first = 0, next = 0; first < made.count; first = next) {
        size_t bytes = 0;
        while (next < made.count && bytes < FLUSH_BYTES) {
            bytes += made.versions[next++].size;
        }
        write_file(kv, file, made.versions + first, next - first);
    }
    settle();
    double used = cpu_seconds() - begin;
    kv_close(kv);
    return used;
}

int main(int argc, char **argv)
{
    uint64_t mib = 0, images = 0;
    bool mix = argc == 5 && strcmp(argv[2], "mix") == 0;
    if (argc != 5 || (!mix && strcmp(argv[2], "small") != 0) ||
        parse_u64(argv[3], 1, 4096, &mib, NULL) != ERR_OK ||
        parse_u64(argv[4], 0, 254, &images, NULL) != ERR_OK) {
        (void)fprintf(stderr, "usage: store_bench FOLDER small|mix MIB IMAGES\n");
        return 2;
    }
    make_records(mix, (size_t)mib * MIB);
    double ingest = run_ingest(argv[1], (unsigned)images);
    double files = run_files(argv[1]);
    printf(
        "{\"records\": %zu, \"wal_bytes\": %zu, \"ingest_cpu_s\": %.3f, \"files_cpu_s\": %.3f, "
        "\"layers_max_bytes\": %zu}\n",
        made.count, made.builder.wal.size, ingest, files, server.open_max);
    return 0;
}
