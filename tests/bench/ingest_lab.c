#include "tests/bench/ingest_lab.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

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

/* "12 (rocksdb:low) S 1 ...": the fields behind the name, user and system time are the 12th, 13th.
 */
static double thread_seconds(const char *line)
{
    unsigned long long user = 0, system = 0;
    const char *at = strrchr(line, ')');
    if (at == NULL || strstr(line, "(rocksdb:") == NULL ||
        sscanf(at + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) !=
            2) {
        return 0;
    }
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double compaction_seconds(void)
{
    double seconds = 0;
    DIR *folder = opendir("/proc/self/task");
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char path[300], line[512];
        (void)snprintf(path, sizeof(path), "/proc/self/task/%s/stat", entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (file != NULL && fgets(line, sizeof(line), file) != NULL) {
            seconds += thread_seconds(line);
        }
        if (file != NULL) {
            (void)fclose(file);
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    return seconds;
}

void pause_ms(unsigned ms)
{
    (void)nanosleep(
        &(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000 * 1000}, NULL);
}

static uint64_t io_written(void)
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

struct cost cost_now(void)
{
    return (struct cost){
        .cpu = cpu_seconds(), .compaction = compaction_seconds(), .written = io_written()};
}

struct cost cost_since(struct cost begin)
{
    struct cost now = cost_now();
    return (struct cost){
        .cpu = now.cpu - begin.cpu,
        .compaction = now.compaction - begin.compaction,
        .written = now.written - begin.written,
    };
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
    struct ingest_lab_root root;
    struct bytes wal; /* from root.start_lsn on */
    lsn_t end;
    struct ingest_lab lab;
} server;

/* What is left to other threads when nothing is compacted any more is little: old files go. */
static void settle(void)
{
    while (page_store_is_compacting(timeline_store(server.lab.timeline))) {
        pause_ms(5);
    }
    pause_ms(400);
}

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
    struct bytes wal = server.wal;
    lsn_t begin = server.root.start_lsn;
    while (!wal_ingest_is_full(server.ingest)) {
        size_t at = (size_t)(wal_ingest_next_lsn(server.ingest) - begin);
        size_t size = MIN_OF(wal.size - at, 128 * KIB);
        if (size == 0) {
            return;
        }
        must(wal_ingest_feed(server.ingest, begin + at, bytes_of(wal.data + at, size), &msg), &msg);
    }
}

static void on_advanced(struct wal_ingest_user *user)
{
    (void)user;
    server.lab.layers_max = MAX_OF(server.lab.layers_max, page_stores_memory());
    if (timeline_last_lsn(server.lab.timeline) >= server.end) {
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
        .system_id = server.root.system_id,
        .start_lsn = server.root.start_lsn,
        .generation = 1,
        .membership_generation = 1,
        .bootstrap_object = "object",
        .safekeepers = "1@127.0.0.1:1",
    };
    struct tenant *tenant = tenants_find(server.tenants, id);
    request = (struct tenant_request){.done = on_request};
    tenant_put_timeline(tenant, &request, &info);
    loop_run(server.loop);
    struct ingest_position position;
    server.root.fill(
        &server.root, timeline_store(server.lab.timeline), timeline_number(server.lab.timeline),
        &position);
    /* Its files shall not count among those that ingest leaves in level 0. */
    must(page_store_compact(timeline_store(server.lab.timeline), &msg), &msg);
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
        .flush_bytes = LAB_FLUSH_BYTES,
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
    const char *folder, const struct ingest_lab_root *root, unsigned images)
{
    server.root = *root;
    server_open(folder, images);
    settle();
    return &server.lab;
}

/* What a bootstrap image would have left: a checkpoint, and the relation. */
static struct {
    struct ingest_lab_root root;
    struct page_key relation;
    uint32_t blocks;
} empty_root;

static void fill_empty(
    const struct ingest_lab_root *root,
    struct page_store *store,
    uint32_t timeline,
    struct ingest_position *ret_position)
{
    struct errmsg msg;
    struct pg_checkpoint checkpoint = {.next_xid = 700, .next_oid = 20000, .next_multi = 1};
    struct page_batch *batch = page_batch_create();
    page_batch_put(
        batch, timeline, page_key_state(STATE_CHECKPOINT, 0, 0), root->start_lsn, VALUE_STATE, 0,
        bytes_of(&checkpoint, sizeof(checkpoint)));
    page_batch_put_rel_size(
        batch, timeline, empty_root.relation, root->start_lsn, true, empty_root.blocks);
    *ret_position = (struct ingest_position){.lsn = root->start_lsn};
    page_batch_put_position(batch, timeline, *ret_position);
    must(page_store_write(store, batch, &msg), &msg);
    page_batch_destroy(batch);
}

const struct ingest_lab *ingest_lab_open_empty(
    const char *folder, struct page_key relation, uint32_t blocks, unsigned images)
{
    empty_root.root = (struct ingest_lab_root){
        .start_lsn = LAB_START_LSN, .system_id = WAL_BUILDER_SYSTEM_ID, .fill = fill_empty};
    empty_root.relation = relation;
    empty_root.blocks = blocks;
    return ingest_lab_open(folder, &empty_root.root, images);
}

void ingest_lab_run(struct bytes wal, lsn_t end)
{
    server.wal = wal;
    server.end = end;
    feed();
    loop_run(server.loop);
    wait_for_flush();
}

void ingest_lab_flush(void)
{
    struct errmsg msg;
    struct page_store *store = timeline_store(server.lab.timeline);
    server.lab.flushes += page_store_open_bytes(store) > 0 ? 1 : 0;
    must(page_store_flush(store, &msg), &msg);
    settle();
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
