/*
 * Nanoseconds of one record on one page, by kind: resource manager, operation, block reference.
 *
 * While the WAL is replayed a random sample of each kind is kept: the page before, and the record's
 * bytes. A measured batch is BATCH samples of one kind whose pages are restored before the clock
 * starts; pages and records lie in the second level cache, as behind a read that has just collected
 * them. The figure of a kind is the median of its batches.
 */
#include <stdio.h>

#include "common/base/mem.h"
#include "common/base/prng.h"
#include "tests/bench/redo_bench.h"

#define SAMPLES     256
#define BATCH       32
#define BATCHES     (SAMPLES / BATCH)
#define ROUNDS      21
#define BLOCK_KINDS 5 /* references 0 to 3, implied */

struct sample {
    struct change change;
    lsn_t lsn, end_lsn;
    struct buf record; /* its bytes */
    uint8_t before[PAGE_SIZE];
};

struct kind {
    uint64_t count;
    size_t sample_count;
    struct sample *samples; /* SAMPLES; NULL: no such record */
};

struct sampler {
    struct replayer replayer;
    struct prng prng;
    struct kind kinds[RM_COUNT][16][BLOCK_KINDS];
};

/* Each change of a kind has the same chance to be among the samples. */
static struct sample *sample_place(struct sampler *sampler, struct kind *kind)
{
    uint64_t at = kind->count++;
    if (kind->samples == NULL) {
        kind->samples = MEM_ARRAY(struct sample, SAMPLES);
    }
    if (at < SAMPLES) {
        return &kind->samples[kind->sample_count++];
    }
    at = prng_below(&sampler->prng, kind->count);
    return at < SAMPLES ? &kind->samples[at] : NULL;
}

static void sample_change(
    struct replayer *replayer, const struct change *change, const uint8_t *page)
{
    struct sampler *sampler = CONTAINER_OF(replayer, struct sampler, replayer);
    const struct wal_record *record = change->record;
    if ((change->tag != VALUE_DELTA && change->tag != VALUE_INIT) || record->rmgr >= RM_COUNT) {
        return;
    }
    bool implied = change->block_index == VALUE_BLOCK_IMPLIED;
    size_t block = implied ? BLOCK_KINDS - 1 : MIN_OF(change->block_index, BLOCK_KINDS - 2);
    struct sample *sample =
        sample_place(sampler, &sampler->kinds[record->rmgr][record->info >> 4][block]);
    if (sample == NULL) {
        return;
    }
    sample->change = *change;
    sample->lsn = record->lsn;
    sample->end_lsn = record->end_lsn;
    buf_clear(&sample->record);
    buf_append(&sample->record, record->bytes.data, record->bytes.size);
    memcpy(sample->before, page, PAGE_SIZE);
}

/* The records of one batch, decoded, and its pages while they are changed. */
struct batch {
    struct wal_record records[BATCH];
    uint8_t pages[BATCH][PAGE_SIZE];
};

static err_t decode_sample(struct batch *batch, size_t i, struct sample *sample, struct errmsg *msg)
{
    sample->change.record = &batch->records[i];
    return wal_record_decode(
        buf_view(&sample->record), sample->lsn, sample->end_lsn, &batch->records[i], msg);
}

/* *ret_ns: of all of it, with the clock's own time. */
static err_t run_batch(
    struct batch *batch,
    struct sample *samples,
    size_t count,
    bool decodes,
    double *ret_ns,
    struct errmsg *msg)
{
    for (size_t i = 0; i < count; i++) {
        memcpy(batch->pages[i], samples[i].before, PAGE_SIZE);
        TRY(decode_sample(batch, i, &samples[i], msg));
    }
    uint64_t begin = cpu_ns();
    for (size_t i = 0; i < count; i++) {
        if (decodes) {
            TRY(decode_sample(batch, i, &samples[i], msg));
        }
        TRY(change_apply(&samples[i].change, batch->pages[i], msg));
    }
    *ret_ns = (double)(cpu_ns() - begin);
    return ERR_OK;
}

/* *ret_ns: of one record. What the clock costs is taken beside each batch: it changes. */
static err_t run_kind(const struct kind *kind, bool decodes, double *ret_ns, struct errmsg *msg)
{
    static struct batch batch;
    double results[ROUNDS * BATCHES];
    double empty[ROUNDS * BATCHES];
    size_t count = 0;
    size_t size = MIN_OF((size_t)BATCH, kind->sample_count); /* a smaller rest is left out */
    for (size_t round = 0; round < ROUNDS; round++) {
        for (size_t at = 0; at + size <= kind->sample_count; at += size) {
            TRY(run_batch(&batch, kind->samples + at, 0, false, &empty[count], msg));
            TRY(run_batch(&batch, kind->samples + at, size, decodes, &results[count], msg));
            count++;
        }
    }
    double took = median(results, count) - median(empty, count);
    *ret_ns = MAX_OF(took, 0) / (double)size;
    return ERR_OK;
}

static err_t print_kind(
    const struct kind *kind, unsigned rmgr, unsigned op, size_t block, struct errmsg *msg)
{
    struct wal_record record = {.rmgr = (uint8_t)rmgr, .info = (uint8_t)(op << 4)};
    double apply_ns = 0;
    double decode_ns = 0;
    TRY(run_kind(kind, false, &apply_ns, msg));
    TRY(run_kind(kind, true, &decode_ns, msg));
    printf("{\"kind\": \"%s\", \"block\": \"", wal_record_text(&record).text);
    printf(block == BLOCK_KINDS - 1 ? "implied" : "%zu", block);
    printf(
        "\", \"count\": %" PRIu64 ", \"samples\": %zu, \"apply_ns\": %.1f, "
        "\"decode_apply_ns\": %.1f}\n",
        kind->count, kind->sample_count, apply_ns, decode_ns);
    return ERR_OK;
}

static err_t print_kinds(const struct sampler *sampler, struct errmsg *msg)
{
    for (unsigned rmgr = 0; rmgr < RM_COUNT; rmgr++) {
        for (unsigned op = 0; op < 16; op++) {
            for (size_t block = 0; block < BLOCK_KINDS; block++) {
                const struct kind *kind = &sampler->kinds[rmgr][op][block];
                TRY(kind->count > 0 ? print_kind(kind, rmgr, op, block, msg) : ERR_OK);
            }
        }
    }
    return ERR_OK;
}

static void sampler_destroy(struct sampler *sampler)
{
    struct kind *kinds = &sampler->kinds[0][0][0];
    for (size_t i = 0; i < sizeof(sampler->kinds) / sizeof(struct kind); i++) {
        for (size_t j = 0; j < kinds[i].sample_count; j++) {
            buf_deinit(&kinds[i].samples[j].record);
        }
        mem_free(kinds[i].samples);
    }
    replayer_deinit(&sampler->replayer);
    mem_free(sampler);
}

err_t bench_kinds(const struct wal_source *source, struct errmsg *msg)
{
    struct sampler *sampler = MEM_NEW(struct sampler);
    prng_init(&sampler->prng, 1);
    err_t err = replayer_init(&sampler->replayer, source->base_dir, msg);
    if (err == ERR_OK) {
        sampler->replayer.before = sample_change;
        err = wal_walk(source, &sampler->replayer.visitor, msg);
    }
    if (err == ERR_OK) {
        err = print_kinds(sampler, msg);
    }
    sampler_destroy(sampler);
    return err;
}
