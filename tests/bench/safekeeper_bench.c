/*
 * safekeeper_bench.c - one real safekeeper against the raw disk below it. One JSON line.
 *
 *   SAFEKEEPER=build/safekeeper/serve/safekeeper safekeeper_bench
 *       latency SIZE CLIENTS COUNT   appends of SIZE, CLIENTS of them on their way at a time
 *       throughput SIZE TOTAL        as many as the connection takes
 *       timelines N ROUNDS           an append of 200 bytes to each of N timelines at once
 *       idle N                       what N timelines without a compute cost
 *
 * Raw is what the best writer could do that keeps the same promise by the same two files: pwrite
 * of SIZE into a segment and of 64 bytes into a sidecar, blocks of both in place, both synced at
 * the same time on two threads, one after the other. Raw and safekeeper alternate.
 */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "tests/flow/safekeeper/rig.h"

#define SAMPLES_MAX  65536
#define CLIENTS_MAX  1024
#define SIDECAR_SLOT 64
#define RAW_SIZE     (64 * MIB)
#define COMMIT_SIZE  200
#define TERM         1

static struct rig rig;
static const char *mode;
static size_t numbers[3];

/* ---- the raw disk ---- */

static struct {
    int segment, sidecar;
    uint8_t *bytes;
    size_t segment_at, sidecar_at;
    pthread_t thread;
    sem_t begin, end;
} raw;

static int open_raw(const char *name, size_t size)
{
    char path[600];
    (void)snprintf(path, sizeof(path), "%s/%s", rig.dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    for (size_t at = 0; at < size; at += 1 * MIB) {
        ck_assert_int_eq(pwrite(fd, raw.bytes, 1 * MIB, (off_t)at), 1 * MIB);
    }
    ck_assert_int_eq(fsync(fd), 0);
    return fd;
}

static void *run_sidecar(void *argument)
{
    (void)argument;
    for (;;) {
        (void)sem_wait(&raw.begin);
        ck_assert_int_eq(
            pwrite(raw.sidecar, raw.bytes, SIDECAR_SLOT, (off_t)raw.sidecar_at), SIDECAR_SLOT);
        ck_assert_int_eq(fdatasync(raw.sidecar), 0);
        (void)sem_post(&raw.end);
    }
    return NULL;
}

static void raw_begin(void)
{
    raw.bytes = mem_zalloc(1 * MIB);
    memset(raw.bytes, 7, 1 * MIB);
    raw.segment = open_raw("raw.segment", RAW_SIZE);
    raw.sidecar = open_raw("raw.sidecar", 1 * MIB);
    (void)sem_init(&raw.begin, 0, 0);
    (void)sem_init(&raw.end, 0, 0);
    ck_assert_int_eq(pthread_create(&raw.thread, NULL, run_sidecar, NULL), 0);
}

static void raw_write(size_t size)
{
    (void)sem_post(&raw.begin);
    ck_assert_int_eq(pwrite(raw.segment, raw.bytes, size, (off_t)raw.segment_at), (ssize_t)size);
    ck_assert_int_eq(fdatasync(raw.segment), 0);
    (void)sem_wait(&raw.end);
    raw.segment_at = raw.segment_at + 2 * size <= RAW_SIZE ? raw.segment_at + size : 0;
    raw.sidecar_at =
        raw.sidecar_at + 2 * SIDECAR_SLOT <= 1 * MIB ? raw.sidecar_at + SIDECAR_SLOT : 0;
}

/* ---- samples ---- */

struct samples {
    size_t count;
    mono_ns_t items[SAMPLES_MAX];
};

static struct samples raw_samples, append_samples;

static void add_sample(struct samples *samples, mono_ns_t value)
{
    if (samples->count < SAMPLES_MAX) {
        samples->items[samples->count++] = value;
    }
}

static int compare(const void *a, const void *b)
{
    mono_ns_t left = *(const mono_ns_t *)a, right = *(const mono_ns_t *)b;
    return left < right ? -1 : left > right;
}

static double percentile_us(struct samples *samples, unsigned percent)
{
    qsort(samples->items, samples->count, sizeof(samples->items[0]), compare);
    return (double)samples->items[(samples->count - 1) * percent / 100] / 1000;
}

static void sample_raw(size_t size, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mono_ns_t begun = clock_mono();
        raw_write(size);
        add_sample(&raw_samples, clock_mono() - begun);
    }
}

static void print_latencies(double cpu_us_each)
{
    printf(
        "{\"raw_p50_us\": %.1f, \"raw_p99_us\": %.1f, \"append_p50_us\": %.1f, \"append_p99_us\": "
        "%.1f, \"cpu_us_each\": %.1f}\n",
        percentile_us(&raw_samples, 50), percentile_us(&raw_samples, 99),
        percentile_us(&append_samples, 50), percentile_us(&append_samples, 99), cpu_us_each);
}

/* Of the safekeeper, since it began; in steps of 10 ms. */
static double cpu_ms(void)
{
    char path[64], text[512];
    unsigned long user = 0, system = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", rig.pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_ptr_nonnull(fgets(text, sizeof(text), file));
    (void)fclose(file);
    const char *fields = strrchr(text, ')'); /* the name may hold anything */
    ck_assert_ptr_nonnull(fields);
    ck_assert_int_eq(
        sscanf(fields, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), 2);
    return (double)(user + system) * 1000 / (double)sysconf(_SC_CLK_TCK);
}

/* ---- one timeline ---- */

/* A closed loop: who was acknowledged sends the next one. All ends are in order. */
static void append_loop(struct leader *leader, size_t size, size_t clients, size_t count)
{
    static mono_ns_t sent_at[CLIENTS_MAX];
    static lsn_t ends[CLIENTS_MAX];
    size_t sent = 0, done = 0;
    while (done < count) {
        while (sent < count && sent - done < clients) {
            sent_at[sent % CLIENTS_MAX] = clock_mono();
            leader_queue(leader, size, LSN_NONE); /* what is due leaves in one piece */
            ends[sent++ % CLIENTS_MAX] = leader->lsn;
        }
        ck_assert(leader_wait(leader, ends[done % CLIENTS_MAX]));
        mono_ns_t now = clock_mono();
        while (done < sent && ends[done % CLIENTS_MAX] <= leader->last.flush_lsn) {
            add_sample(&append_samples, now - sent_at[done++ % CLIENTS_MAX]);
        }
    }
}

static void measure_latency(struct leader *leader)
{
    size_t size = numbers[0], clients = numbers[1], count = numbers[2];
    ck_assert_uint_le(clients, CLIENTS_MAX);
    append_loop(leader, size, clients, clients); /* files are open, blocks are there */
    append_samples.count = 0;
    double cpu_begun = cpu_ms();
    size_t turns = 10; /* the disk is shared and noisy: both see the same of it */
    for (size_t turn = 0; turn < turns; turn++) {
        sample_raw(size, count / turns);
        append_loop(leader, size, clients, MAX_OF(count / turns, clients));
    }
    print_latencies((cpu_ms() - cpu_begun) * 1000 / (double)append_samples.count);
}

static void measure_throughput(struct leader *leader)
{
    size_t size = numbers[0], total = numbers[1] / size * size;
    size_t window = 4 * MIB;
    mono_ns_t raw_ns = 0, append_ns = 0;
    size_t turns = 4;
    for (size_t turn = 0; turn < turns; turn++) {
        mono_ns_t begun = clock_mono();
        for (size_t at = 0; at < total / turns; at += size) {
            raw_write(size);
        }
        raw_ns += clock_mono() - begun;
        begun = clock_mono();
        for (size_t at = 0; at < total / turns; at += size) {
            leader_send(leader, size, LSN_NONE);
            if (leader->lsn - leader->last.flush_lsn > window) {
                ck_assert(leader_wait(leader, leader->lsn - window / 2));
            }
        }
        ck_assert(leader_wait(leader, leader->lsn));
        append_ns += clock_mono() - begun;
    }
    printf(
        "{\"raw_mb_s\": %.2f, \"append_mb_s\": %.2f}\n",
        (double)total / 1e6 / ((double)raw_ns / 1e9),
        (double)total / 1e6 / ((double)append_ns / 1e9));
}

/* ---- many timelines ---- */

static struct timeline_id nth_timeline(size_t n)
{
    struct timeline_id id = {0};
    memcpy(id.bytes, &n, sizeof(n));
    id.bytes[ID_SIZE - 1] = 0xb7;
    return id;
}

static void measure_timelines(void)
{
    size_t count = numbers[0], rounds = numbers[1];
    struct leader *leaders = mem_zalloc(count * sizeof(*leaders));
    for (size_t n = 0; n < count; n++) {
        ck_assert_uint_eq(rig_create_timeline(&rig, nth_timeline(n), RIG_START_LSN), 201);
        leader_begin_on(&leaders[n], &rig, nth_timeline(n), TERM);
        leaders[n].use_fixed_bytes = true;
    }
    mono_ns_t spent = 0;
    double cpu_begun = 0;
    for (size_t round = 0; round <= rounds; round++) {
        sample_raw(COMMIT_SIZE, 20);
        cpu_begun = round == 1 ? cpu_ms() : cpu_begun;
        mono_ns_t begun = clock_mono();
        for (size_t n = 0; n < count; n++) {
            leader_send(&leaders[n], COMMIT_SIZE, LSN_NONE);
        }
        for (size_t n = 0; n < count; n++) {
            ck_assert(leader_wait(&leaders[n], leaders[n].lsn));
            if (round > 0) {
                add_sample(&append_samples, clock_mono() - begun);
            }
        }
        spent += round > 0 ? clock_mono() - begun : 0; /* the first one makes the files */
    }
    printf(
        "{\"raw_p50_us\": %.1f, \"appends_per_s\": %.1f, \"append_p99_us\": %.1f, "
        "\"cpu_us_each\": %.1f}\n",
        percentile_us(&raw_samples, 50), (double)(count * rounds) / ((double)spent / 1e9),
        percentile_us(&append_samples, 99),
        (cpu_ms() - cpu_begun) * 1000 / (double)(count * rounds));
    for (size_t n = 0; n < count; n++) {
        client_close(&leaders[n].client);
    }
    mem_free(leaders);
}

/* The log of ten thousand timelines does not fit into a pipe that nobody reads. */
static void *forget_log(void *fd)
{
    char text[4096];
    while (read((int)(intptr_t)fd, text, sizeof(text)) > 0) {
    }
    return NULL;
}

static void start_again(void)
{
    pthread_t reader;
    rig_start(&rig);
    ck_assert_int_eq(pthread_create(&reader, NULL, forget_log, (void *)(intptr_t)rig.output_fd), 0);
    ck_assert_int_eq(pthread_detach(reader), 0);
}

/* A number from /proc/PID/status, or 0. */
static long status_number(const char *name)
{
    char path[64], line[256];
    long value = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/status", rig.pid);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            value = strtol(line + strlen(name), NULL, 10);
        }
    }
    (void)fclose(file);
    return value;
}

static size_t descriptors(void)
{
    char path[64];
    size_t count = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/fd", rig.pid);
    DIR *dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        count += entry->d_name[0] != '.';
    }
    (void)closedir(dir);
    return count;
}

/* After a start every timeline is read and verified; /readyz is 200 when all are. */
static void wait_until_ready(void)
{
    const struct timespec moment = {.tv_nsec = 50 * NS_PER_MS};
    for (int attempt = 0; rig_http(&rig, "GET", "/readyz", NULL, NULL) != 200; attempt++) {
        ck_assert_int_lt(attempt, 2000);
        (void)nanosleep(&moment, NULL);
    }
}

static void wait_until_at_rest(size_t count)
{
    const struct timespec moment = {.tv_nsec = 50 * NS_PER_MS};
    uint64_t resting = 0;
    for (int attempt = 0; resting < count; attempt++) {
        struct doc *body = NULL;
        struct errmsg msg;
        ck_assert_int_lt(attempt, 2000);
        (void)nanosleep(&moment, NULL);
        ck_assert_uint_eq(rig_http(&rig, "GET", "/v1/status", NULL, &body), 200);
        ck_assert_ok(doc_get_u64(body, "resting", &resting, &msg), &msg);
        doc_unref(body);
    }
}

static void measure_idle(void)
{
    size_t count = numbers[0];
    rig_stop(&rig);
    start_again();
    long rss_before = status_number("VmRSS:"), threads_before = status_number("Threads:");
    size_t descriptors_before = descriptors();
    for (size_t n = 0; n < count; n++) {
        ck_assert_uint_eq(rig_create_timeline(&rig, nth_timeline(n), RIG_START_LSN), 201);
    }
    rig_stop(&rig); /* what a creation leaves in the allocator is not the price of a timeline */
    mono_ns_t begun = clock_mono();
    start_again();
    mono_ns_t serves = clock_mono();
    wait_until_ready();
    mono_ns_t ready = clock_mono();
    wait_until_at_rest(count);
    printf(
        "{\"bytes_each\": %.0f, \"peak_bytes_each\": %.0f, \"threads\": %ld, "
        "\"descriptors\": %ld, \"serves_ms\": %.1f, \"ready_ms\": %.1f, \"cpu_ms\": %.0f}\n",
        (double)(status_number("VmRSS:") - rss_before) * 1024 / (double)count,
        (double)(status_number("VmHWM:") - rss_before) * 1024 / (double)count,
        status_number("Threads:") - threads_before, (long)(descriptors() - descriptors_before),
        (double)(serves - begun) / NS_PER_MS, (double)(ready - begun) / NS_PER_MS, cpu_ms());
}

START_TEST(bench)
{
    struct leader leader;
    rig_init(&rig);
    rig.segment_size = 16 * MIB;
    rig_start(&rig);
    raw_begin();
    if (strcmp(mode, "timelines") == 0) {
        measure_timelines();
    } else if (strcmp(mode, "idle") == 0) {
        measure_idle();
    } else {
        ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
        leader_begin(&leader, &rig, TERM);
        leader.use_fixed_bytes = true;
        if (strcmp(mode, "latency") == 0) {
            measure_latency(&leader);
        } else {
            measure_throughput(&leader);
        }
        client_close(&leader.client);
    }
    (void)fflush(stdout);
    rig_deinit(&rig);
}
END_TEST

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int numbers;
    } modes[] = {{"latency", 3}, {"throughput", 2}, {"timelines", 2}, {"idle", 1}};
    for (size_t i = 0; i < ARRAY_LEN(modes) && argc > 1; i++) {
        if (strcmp(argv[1], modes[i].name) == 0 && argc == 2 + modes[i].numbers) {
            mode = modes[i].name;
        }
    }
    for (int i = 2; i < argc && mode != NULL; i++) {
        numbers[i - 2] = strtoul(argv[i], NULL, 10);
        mode = numbers[i - 2] == 0 ? NULL : mode;
    }
    if (mode == NULL || getenv("SAFEKEEPER") == NULL) {
        (void)fprintf(
            stderr, "usage: SAFEKEEPER=PROGRAM safekeeper_bench latency SIZE CLIENTS COUNT | "
                    "throughput SIZE TOTAL | timelines N ROUNDS | idle N\n");
        return 2;
    }
    const TTest *const tests[] = {bench};
    (void)setenv("CK_DEFAULT_TIMEOUT", "600", 1);
    (void)setenv("CK_FORK", "no", 1);
    (void)setenv("CK_VERBOSITY", "silent", 0);
    return unit_run("safekeeper_bench", &(struct unit_options){0}, tests, ARRAY_LEN(tests));
}
