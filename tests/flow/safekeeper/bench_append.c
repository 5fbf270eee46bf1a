/*
 * bench_append.c - the append path against the raw disk below it: one append at a time (latency),
 * and many in flight (throughput). Raw is what the best possible writer would do: pwrite of the
 * same sizes into a file whose blocks exist, fdatasync after each.
 *
 *   SAFEKEEPER=build/safekeeper/serve/safekeeper bench_append [rounds]
 *
 * Raw and safekeeper alternate; medians are printed.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "tests/flow/safekeeper/rig.h"

#define SAMPLES_MAX 4096

static struct rig rig;
static struct leader leader;

static int compare(const void *a, const void *b)
{
    mono_ns_t left = *(const mono_ns_t *)a, right = *(const mono_ns_t *)b;
    return left < right ? -1 : left > right;
}

static double percentile_us(mono_ns_t *samples, size_t count, unsigned percent)
{
    qsort(samples, count, sizeof(samples[0]), compare);
    return (double)samples[(count - 1) * percent / 100] / 1000;
}

static int raw_open(size_t size)
{
    char path[600];
    (void)snprintf(path, sizeof(path), "%s/raw", rig.dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    uint8_t *zeros = mem_zalloc(1 * MIB);
    for (size_t at = 0; at < size; at += 1 * MIB) {
        ck_assert_int_eq(pwrite(fd, zeros, 1 * MIB, (off_t)at), 1 * MIB);
    }
    mem_free(zeros);
    ck_assert_int_eq(fsync(fd), 0);
    return fd;
}

static void raw_write(int fd, const uint8_t *bytes, size_t size, size_t at)
{
    ck_assert_int_eq(pwrite(fd, bytes, size, (off_t)at), (ssize_t)size);
    ck_assert_int_eq(fdatasync(fd), 0);
}

/* One of each in turn, so that both see the same neighbours on the machine. */
static void bench_latency(int fd, const uint8_t *bytes, size_t size, size_t count)
{
    static mono_ns_t raw[SAMPLES_MAX], append[SAMPLES_MAX];
    for (size_t i = 0; i < count; i++) {
        mono_ns_t begun = clock_mono();
        raw_write(fd, bytes, size, i * size % (32 * MIB));
        mono_ns_t written = clock_mono();
        leader_send(&leader, size, LSN_NONE);
        ck_assert(leader_wait(&leader, leader.lsn));
        raw[i] = written - begun;
        append[i] = clock_mono() - written;
    }
    double raw_us = percentile_us(raw, count, 50);
    double append_us = percentile_us(append, count, 50);
    printf(
        "latency  %7zu bytes: raw p50 %7.1f p99 %8.1f us, append p50 %7.1f p99 %8.1f us, "
        "difference of p50 %7.1f us\n",
        size, raw_us, percentile_us(raw, count, 99), append_us, percentile_us(append, count, 99),
        append_us - raw_us);
}

static void bench_throughput(int fd, const uint8_t *bytes, size_t size, size_t total)
{
    mono_ns_t begun = clock_mono();
    for (size_t at = 0; at < total; at += size) {
        raw_write(fd, bytes, size, at % (64 * MIB));
    }
    double raw = (double)total / 1e6 / ((double)(clock_mono() - begun) / 1e9);
    size_t window = 4 * MIB;
    begun = clock_mono();
    lsn_t first_lsn = leader.lsn;
    while (leader.lsn - first_lsn < total) {
        for (size_t sent = 0; sent < window / 4; sent += size) {
            leader_send(&leader, size, LSN_NONE);
        }
        if (leader.lsn - first_lsn > window) {
            ck_assert(leader_wait(&leader, leader.lsn - window));
        }
    }
    ck_assert(leader_wait(&leader, leader.lsn));
    double append = (double)(leader.lsn - first_lsn) / 1e6 / ((double)(clock_mono() - begun) / 1e9);
    printf(
        "bulk     %7zu bytes: raw %8.1f MB/s, append %8.1f MB/s, %5.0f %%\n", size, raw, append,
        append / raw * 100);
}

static size_t rounds = 3;

START_TEST(bench_append)
{
    rig_init(&rig);
    rig.segment_size = 16 * MIB;
    rig_start(&rig);
    ck_assert_uint_eq(rig_create_timeline(&rig, rig_timeline, RIG_START_LSN), 201);
    leader_begin(&leader, &rig, 1);
    leader.use_fixed_bytes = true;
    int fd = raw_open(64 * MIB);
    uint8_t *bytes = mem_zalloc(1 * MIB);
    memset(bytes, 7, 1 * MIB);
    for (size_t round = 0; round < rounds; round++) {
        bench_latency(fd, bytes, 200, 2000);
        bench_latency(fd, bytes, 8192, 1000);
        bench_throughput(fd, bytes, 1024, 8 * MIB);
        bench_throughput(fd, bytes, 8192, 64 * MIB);
        bench_throughput(fd, bytes, WAL_APPEND_MAX, 512 * MIB);
    }
    mem_free(bytes);
    (void)close(fd);
    client_close(&leader.client);
    rig_deinit(&rig);
}
END_TEST

int main(int argc, char **argv)
{
    rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : rounds;
    const TTest *const tests[] = {bench_append};
    (void)setenv("CK_DEFAULT_TIMEOUT", "300", 1);
    (void)setenv("CK_FORK", "no", 1);
    return unit_run("bench_append", tests, ARRAY_LEN(tests));
}
