/*
 * A power cut at any call: whatever the disk made of what was not synced, the store opens, holds
 * everything that was acknowledged, byte by byte, and nothing that was never written.
 *
 * WAL_CRASH_SEEDS=N runs N seeds; WAL_CRASH_SEED=S one.
 */
#include "tests/unit/disk/disk_lab.h"

#include <stdio.h>

#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/io/file.h"

#define LOG_MAX     (4 * MIB)
#define CRASHES     6
#define SEEDS       25
#define STEPS_BELOW 90

static struct prng prng;
static struct errmsg msg;

/* What the log must be. */
static unsigned salts[LOG_MAX]; /* writer of each byte from LAB_START_LSN on */
static lsn_t acked_lsn;         /* everything below was acknowledged */
static lsn_t commit_lsn;        /* never truncated below */
static lsn_t cutting_lsn;       /* a truncation to here was begun and not answered; or 0 */
static lsn_t writing_lsn;       /* a group up to here was begun and not answered; or 0 */
static unsigned last_salt;

static uint64_t below(uint64_t sides)
{
    return prng_below(&prng, sides);
}

static err_t append_something(struct wal_store *store)
{
    static const size_t sizes[] = {8, 200, 4096, 8192, 50000, 200000};
    size_t limit = sizes[below(ARRAY_LEN(sizes))];
    size_t size = 1 + below(limit);
    size = MIN_OF(size, wal_store_group_room(store));
    lsn_t begin_lsn = wal_store_flush_lsn(store);
    if (begin_lsn + size > LAB_START_LSN + LOG_MAX) {
        return ERR_OK;
    }
    last_salt++;
    for (size_t i = 0; i < size; i++) {
        salts[begin_lsn - LAB_START_LSN + i] = last_salt;
    }
    writing_lsn = begin_lsn + size;
    err_t err = lab_try_append(store, size, last_salt, &msg);
    while (err == ERR_FULL && below(3) > 0) {
        err = lab_try_append(store, size, last_salt, &msg);
    }
    if (err == ERR_FULL) { /* the next leader gives it up */
        do {
            err = wal_store_truncate(store, begin_lsn, &msg);
        } while (err == ERR_FULL);
        TRY(err);
        writing_lsn = LSN_NONE;
        return ERR_OK;
    }
    TRY(err);
    writing_lsn = LSN_NONE;
    acked_lsn = wal_store_flush_lsn(store);
    if (below(3) == 0) {
        lsn_t lag = below(64) / 8 * 8;
        commit_lsn = MAX_OF(commit_lsn, wal_store_record_lsn(store) - lag);
    }
    return ERR_OK;
}

static err_t truncate_somewhere(struct wal_store *store)
{
    lsn_t span = (wal_store_record_lsn(store) - commit_lsn) / 8;
    cutting_lsn = (commit_lsn + 7) / 8 * 8 + 8 * below(span + 1);
    cutting_lsn = MIN_OF(cutting_lsn, wal_store_flush_lsn(store));
    err_t err = ERR_FULL;
    while (err == ERR_FULL) {
        err = wal_store_truncate(store, cutting_lsn, &msg);
    }
    TRY(err);
    acked_lsn = cutting_lsn;
    cutting_lsn = LSN_NONE;
    return ERR_OK;
}

static err_t do_something(struct wal_store *store)
{
    uint64_t dice = below(20);
    if (dice < 15) {
        return append_something(store);
    }
    if (dice < 18) {
        return truncate_somewhere(store);
    }
    err_t err = wal_store_rest(store, LAB_START_LSN, &msg);
    return err == ERR_FULL ? ERR_OK : err;
}

static void check_bytes(lsn_t end_lsn)
{
    lsn_t begin = LAB_START_LSN;
    while (begin < end_lsn) {
        unsigned salt = salts[begin - LAB_START_LSN];
        lsn_t end = begin + 1;
        while (end < end_lsn && salts[end - LAB_START_LSN] == salt) {
            end++;
        }
        lab_assert_bytes(begin, end, salt);
        begin = end;
    }
}

/* From here on the end of the log is told to others. */
static void check_end(const struct wal_store *store, uint64_t seed, unsigned crash)
{
    lsn_t flush_lsn = wal_store_flush_lsn(store);
    bool is_expected =
        flush_lsn == acked_lsn || flush_lsn == cutting_lsn || flush_lsn == writing_lsn;
    ck_assert_msg(
        is_expected,
        "seed %" PRIu64 " crash %u: log ends at " LSN_FMT ", acknowledged " LSN_FMT
        " writing " LSN_FMT " cutting " LSN_FMT,
        seed, crash, LSN_ARGS(flush_lsn), LSN_ARGS(acked_lsn), LSN_ARGS(writing_lsn),
        LSN_ARGS(cutting_lsn));
    acked_lsn = flush_lsn;
    cutting_lsn = writing_lsn = LSN_NONE;
}

static void check_after_crash(uint64_t seed, unsigned crash)
{
    struct wal_store_options options = lab_options();
    struct wal_store *store = NULL;
    options.certified_lsn = commit_lsn;
    err_t err = wal_store_open(&options, &store, &msg);
    ck_assert_msg(
        err == ERR_OK, "seed %" PRIu64 " crash %u: %s %s", seed, crash, err_code(err), msg.text);
    check_end(store, seed, crash);
    ck_assert(lab_is_zero_behind(acked_lsn) || acked_lsn % LAB_SEGMENT_SIZE == 0);
    check_bytes(acked_lsn);
    wal_store_close(store);
}

/* One life of the process, to its end in the middle of something. */
static void live(uint64_t seed, unsigned crash)
{
    struct wal_store_options options = lab_options();
    struct wal_store *store = NULL;
    err_t err = wal_store_open(&options, &store, &msg);
    while (err == ERR_FULL) {
        err = wal_store_open(&options, &store, &msg);
    }
    if (err == ERR_OK) {
        check_end(store, seed, crash);
    }
    while (err == ERR_OK) {
        err = do_something(store);
    }
    ck_assert_msg(
        disk_model_is_dead(), "seed %" PRIu64 " crash %u: %s %s", seed, crash, err_code(err),
        msg.text);
    wal_store_close(store);
}

static void run_seed(uint64_t seed)
{
    lab_make_dir();
    prng_init(&prng, seed);
    acked_lsn = commit_lsn = LAB_START_LSN;
    cutting_lsn = writing_lsn = LSN_NONE;
    for (unsigned crash = 0; crash < CRASHES; crash++) {
        /* A recovery may be cut short as well. */
        disk_model_start(prng_next(&prng), (unsigned)below(STEPS_BELOW));
        disk_model_fill(seed % 3 == 0 ? 8 : 0);
        live(seed, crash);
        while (below(2) == 0) {
            disk_model_revive((unsigned)below(STEPS_BELOW));
            live(seed, crash);
        }
        disk_model_crash();
        check_after_crash(seed, crash);
    }
}

START_TEST(test_power_cut_at_any_call)
{
    const char *one = getenv("WAL_CRASH_SEED");
    const char *many = getenv("WAL_CRASH_SEEDS");
    unsigned seeds = many != NULL ? (unsigned)strtoul(many, NULL, 10) : SEEDS;
    if (one != NULL) {
        run_seed(strtoull(one, NULL, 10));
        return;
    }
    for (unsigned seed = 1; seed <= seeds; seed++) {
        run_seed(seed);
        err_ignore(dir_remove(lab_dir, NULL), "the next seed has a folder of its own");
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wal_crash");
    TCase *tcase = tcase_create("wal_crash");
    tcase_set_timeout(tcase, 600);
    tcase_add_test(tcase, test_power_cut_at_any_call);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
