#include "tests/bench/ingest_lab.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "common/pg/pg_control.h"
#include "pageserver/read/reconstruct.h"
#include "pageserver/timeline/tenant.h"
#include "tests/lib/page_batch.h"

double cpu_seconds(void)
{
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void settle(void)
{
    double before;
    do {
        before = cpu_seconds();
        (void)nanosleep(&(struct timespec){.tv_nsec = 400 * 1000 * 1000}, NULL);
    } while (cpu_seconds() - before > 0.01);
}

uint64_t io_written(void)
{
    FILE *file = fopen("/proc/self/io", "re");
    char line[128];
    unsigned long long bytes = 0;
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "wchar: ", strlen("wchar: ")) == 0) {
            bytes = strtoull(line + strlen("wchar: "), NULL, 10);
        }
    }
    if (file == NULL || fclose(file) != 0 || bytes == 0) {
        (void)fprintf(stderr, "/proc/self/io cannot be read\n");
        exit(1);
    }
    return bytes;
}

void must(err_t err, const struct errmsg *msg)
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
    const struct wal_builder *builder;
    struct ingest_lab lab;
} server;

static void on_timeline(struct tenants_user *user, struct timeline *tl)
{
    (void)user;
    server.lab.timeline = tl;
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
    server.lab.flushes++;
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
    struct bytes wal = buf_view(&server.builder->wal);
    while (!wal_ingest_is_full(server.ingest)) {
        size_t at = (size_t)(wal_ingest_next_lsn(server.ingest) - LAB_START_LSN);
        size_t size = MIN_OF(wal.size - at, 128 * KIB);
        if (size == 0) {
            return;
        }
        must(
            wal_ingest_feed(server.ingest, LAB_START_LSN + at, bytes_of(wal.data + at, size), &msg),
            &msg);
    }
}

static void on_advanced(struct wal_ingest_user *user)
{
    (void)user;
    server.lab.layers_max = MAX_OF(server.lab.layers_max, page_stores_memory());
    if (timeline_last_lsn(server.lab.timeline) == server.builder->lsn) {
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

/* What a bootstrap image would have left: a checkpoint, and the relation. */
static void make_root(struct page_key relation, uint32_t blocks)
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
        .start_lsn = LAB_START_LSN,
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
    struct ingest_position position = {.lsn = LAB_START_LSN};
    uint32_t number = timeline_number(server.lab.timeline);
    struct page_batch *batch = page_batch_create();
    page_batch_put(
        batch, number, page_key_state(STATE_CHECKPOINT, 0, 0), LAB_START_LSN, VALUE_STATE, 0,
        bytes_of(&checkpoint, sizeof(checkpoint)));
    page_batch_put_rel_size(batch, number, relation, LAB_START_LSN, true, blocks);
    page_batch_put_position(batch, number, position);
    must(page_store_write(timeline_store(server.lab.timeline), batch, &msg), &msg);
    page_batch_destroy(batch);
    request = (struct tenant_request){.done = on_request};
    tenant_timeline_imported(tenant, &request, server.lab.timeline, position);
    loop_run(server.loop);
}

static err_t read_page(
    struct page_reader *reader, struct page_key key, lsn_t lsn, uint8_t *page, struct errmsg *msg)
{
    struct reconstruct work;
    reconstruct_init_with(&work, reader, lsn);
    err_t err = reconstruct_page(&work, key, page, NULL, msg);
    reconstruct_deinit(&work);
    must(err, msg);
    return err;
}

static void server_open(
    const char *folder, struct page_key relation, uint32_t blocks, unsigned images)
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
        .flush_bytes = LAB_FLUSH_BYTES,
        .flush_age_ms = 3600 * 1000,
        .layers_bytes = 512 * MIB,
        .user = &server.tenants_user,
    };
    must(tenants_open(&options, &server.tenants, &msg), &msg);
    make_root(relation, blocks);
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
        .timeline = server.lab.timeline,
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

const struct ingest_lab *ingest_lab_open(
    const char *folder, struct page_key relation, uint32_t blocks, unsigned images)
{
    server_open(folder, relation, blocks, images);
    return &server.lab;
}

void ingest_lab_run(const struct wal_builder *builder)
{
    server.builder = builder;
    feed();
    loop_run(server.loop);
    wait_for_flush();
}

void ingest_lab_flush(void)
{
    struct errmsg msg;
    must(page_store_flush(timeline_store(server.lab.timeline), &msg), &msg);
    server.lab.flushes++;
}

void ingest_lab_close(void)
{
    wal_ingest_stop(server.ingest);
    wal_ingest_destroy(server.ingest);
    server.ingest = NULL;
    tenants_close(server.tenants);
    executor_destroy(server.executor);
    loop_destroy(server.loop);
}
