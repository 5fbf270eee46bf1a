/*
 * store_churn - branches that write, truncate, drop and rebuild without end: what the store keeps
 * of it after GC and compaction, against the least that it must keep (least.h).
 *
 *   store_churn [--branches 50] [--rounds 20000] [--seed 1]
 *
 * Every version that was ever written is remembered. At the end the store is closed and its keys
 * are read as they lie there: they must be what is needed, no less and no more; on disk a fiftieth
 * more may be taken than by a new store that was given just that. Where a branch begins counts as
 * an LSN that its parent keeps; how much less would do for reads alone is printed. Exit code: 0 so
 * it is, 1 not, 2 usage.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "common/io/file.h"
#include "tests/model/store/space.h"
#include "tests/model/store/subject.h"

enum {
    RELS = 6,    /* of a timeline */
    BLOCKS = 24, /* of a relation, at most */
    SNAPSHOTS = 4,
    SLRU_PAGES = 3,
    IMAGE_AFTER = 16, /* records, as the daemon does it */
    FLUSH_EVERY = 400,
    GC_EVERY = 2500,
    DISK_PERCENT_MAX = 102,
};

struct relation {
    uint32_t rel; /* 0: there is none */
    uint32_t blocks;
    uint8_t records[BLOCKS]; /* since the last image */
};

/* Where a branch may begin: what its writer must know of its parent. */
struct snapshot {
    lsn_t lsn;
    struct relation relations[RELS];
};

struct branch {
    struct relation relations[RELS];
    struct snapshot snapshots[SNAPSHOTS];
    uint32_t prepared; /* a transaction that waits; 0: none */
};

static struct {
    struct model model;
    struct branch branches[MODEL_TIMELINES];
    struct prng prng;
    uint32_t next_rel, next_prepared;
    uint64_t now;
    struct least_version *versions;
    size_t count, capacity;
    uint64_t written;
    char folder[64];
} churn;
static struct errmsg msg;

static void must(err_t err)
{
    if (err != ERR_OK) {
        (void)fprintf(stderr, "store_churn: %s: %s\n", err_name(err), msg.text);
        exit(1);
    }
}

static uint32_t below(uint32_t limit)
{
    return (uint32_t)prng_below(&churn.prng, limit);
}

/* -- versions -- */

static void remember(uint32_t timeline, struct page_key key, lsn_t lsn, struct bytes value)
{
    if (churn.count == churn.capacity) {
        churn.capacity = MAX_OF(2 * churn.capacity, (size_t)4096);
        churn.versions = mem_realloc(churn.versions, churn.capacity * sizeof(churn.versions[0]));
    }
    struct least_version *version = &churn.versions[churn.count++];
    *version = (struct least_version){.timeline = timeline, .key = key, .lsn = lsn};
    least_version_set_value(version, value);
    churn.written += version->bytes;
}

/* As the store encodes a value: tag, block index of a record, bytes. */
static void put(int timeline, struct page_key key, lsn_t lsn, uint8_t tag, struct bytes value)
{
    uint8_t whole[2 + PAGE_SIZE];
    uint32_t number = churn.model.timelines[timeline].number;
    size_t head = tag == VALUE_INIT || tag == VALUE_DELTA ? 2 : 1;
    whole[0] = tag;
    whole[1] = 0;
    if (value.size > 0) {
        memcpy(whole + head, value.data, value.size);
    }
    remember(number, key, lsn, bytes_of(whole, head + value.size));
    subject_put_version(number, key, lsn, tag, value);
}

static void put_random(int timeline, struct page_key key, lsn_t lsn, uint8_t tag)
{
    uint8_t value[PAGE_SIZE] = {0};
    size_t size = tag == VALUE_IMAGE ? PAGE_SIZE : tag == VALUE_ZERO ? 0 : 60 + below(200);
    for (size_t at = 0; at + 8 <= MIN_OF(size, (size_t)2400); at += 8) {
        uint64_t some = prng_next(&churn.prng);
        memcpy(value + at, &some, sizeof(some));
    }
    put(timeline, key, lsn, tag, bytes_of(value, size));
}

static struct page_key page_of(uint32_t rel, uint32_t block)
{
    return (struct page_key){.spc = 1663, .db = 5, .rel = rel, .block = block};
}

static void put_size(int timeline, uint32_t rel, lsn_t lsn, bool exists, uint32_t blocks)
{
    uint8_t value[REL_SIZE_VALUE_SIZE - 1] = {exists};
    memcpy(value + 1, &blocks, sizeof(blocks)); /* little-endian, as all we run on */
    put(timeline, page_key_size_of(page_of(rel, 0)), lsn, VALUE_STATE, bytes_of(value, 5));
}

static void put_state(int timeline, struct page_key key, lsn_t lsn, size_t size)
{
    static const uint8_t value[64] = "state";
    put(timeline, key, lsn, VALUE_STATE, bytes_of(value, size));
}

/* -- what a compute does -- */

static void make_relation(int timeline, struct relation *relation, lsn_t lsn)
{
    *relation = (struct relation){.rel = churn.next_rel++, .blocks = 1 + below(BLOCKS)};
    for (uint32_t block = 0; block < relation->blocks; block++) {
        put_random(
            timeline, page_of(relation->rel, block), lsn, below(4) == 0 ? VALUE_IMAGE : VALUE_INIT);
    }
    put_size(timeline, relation->rel, lsn, true, relation->blocks);
}

static void drop_relation(int timeline, struct relation *relation, lsn_t lsn)
{
    put_size(timeline, relation->rel, lsn, false, 0);
    relation->rel = 0;
}

static void write_block(int timeline, struct relation *relation, lsn_t lsn)
{
    uint32_t block = below(relation->blocks);
    bool image = ++relation->records[block] > IMAGE_AFTER;
    relation->records[block] = image ? 0 : relation->records[block];
    put_random(timeline, page_of(relation->rel, block), lsn, image ? VALUE_IMAGE : VALUE_DELTA);
}

static void truncate_relation(int timeline, struct relation *relation, lsn_t lsn)
{
    relation->blocks = below(relation->blocks + 1);
    put_size(timeline, relation->rel, lsn, true, relation->blocks);
}

static void extend_relation(int timeline, struct relation *relation, lsn_t lsn)
{
    put_random(timeline, page_of(relation->rel, relation->blocks), lsn, VALUE_INIT);
    relation->records[relation->blocks++] = 0;
    put_size(timeline, relation->rel, lsn, true, relation->blocks);
}

static void write_relation(int timeline, lsn_t lsn)
{
    struct relation *relation = &churn.branches[timeline].relations[below(RELS)];
    uint32_t dice = below(100);
    if (relation->rel == 0) {
        make_relation(timeline, relation, lsn);
    } else if (dice < 2) { /* REINDEX, VACUUM FULL: another file in its place */
        drop_relation(timeline, relation, lsn);
        make_relation(timeline, relation, lsn);
    } else if (dice < 3) {
        drop_relation(timeline, relation, lsn);
    } else if (dice < 5) {
        truncate_relation(timeline, relation, lsn);
    } else if (relation->blocks == 0 || (dice < 15 && relation->blocks < BLOCKS)) {
        extend_relation(timeline, relation, lsn);
    } else {
        write_block(timeline, relation, lsn);
    }
}

static void write_other(int timeline, lsn_t lsn)
{
    struct branch *branch = &churn.branches[timeline];
    switch (below(4)) {
    case 0:
        put_random(
            timeline, page_key_state(STATE_CLOG, 0, below(SLRU_PAGES)), lsn,
            below(8) == 0 ? VALUE_IMAGE : VALUE_DELTA);
        break;
    case 1: put_state(timeline, page_key_state(STATE_NEXT_XID, 0, 0), lsn, 8); break;
    case 2:
        if (branch->prepared == 0) {
            branch->prepared = churn.next_prepared++;
            put_state(timeline, page_key_state(STATE_TWOPHASE, 0, branch->prepared), lsn, 50);
        } else {
            put_state(timeline, page_key_state(STATE_TWOPHASE, 0, branch->prepared), lsn, 0);
            branch->prepared = 0;
        }
        break;
    default: {
        uint64_t time = churn.now += 1 + below(1000), start = lsn - MODEL_LSN_STEP;
        put(timeline, page_key_state(STATE_COMMIT_TIME, (uint32_t)(time >> 32), (uint32_t)time),
            lsn, VALUE_STATE, bytes_of(&start, sizeof(start)));
    }
    }
}

/* -- branches -- */

static bool is_live(size_t timeline)
{
    const struct model_timeline *tl = &churn.model.timelines[timeline];
    return !tl->is_gone && !tl->is_tombstone;
}

static int pick_timeline(void)
{
    for (;;) {
        size_t timeline = below((uint32_t)churn.model.timeline_count);
        if (is_live(timeline)) {
            return (int)timeline;
        }
    }
}

static void take_snapshot(int timeline)
{
    struct branch *branch = &churn.branches[timeline];
    struct snapshot *snapshot = &branch->snapshots[below(SNAPSHOTS)];
    snapshot->lsn = churn.model.timelines[timeline].head;
    memcpy(snapshot->relations, branch->relations, sizeof(branch->relations));
}

/* At an LSN of its parent that is still kept. */
static void make_branch(void)
{
    int parent = pick_timeline();
    const struct snapshot *from = &churn.branches[parent].snapshots[below(SNAPSHOTS)];
    size_t added = churn.model.timeline_count;
    if (from->lsn == 0 || !subject_hold(parent, from->lsn)) {
        return;
    }
    churn.model.timelines[added] = (struct model_timeline){
        .parent = parent,
        .number = (uint32_t)added + 1,
        .start = from->lsn,
        .head = from->lsn,
        .durable = from->lsn,
        .cutoff = from->lsn,
    };
    churn.model.timeline_count++;
    memcpy(churn.branches[added].relations, from->relations, sizeof(from->relations));
    subject_add(&churn.model, (int)added);
    subject_release();
}

static void delete_branch(int timeline)
{
    struct model_timeline *timelines = churn.model.timelines;
    if (model_is_needed(&churn.model, timeline)) {
        timelines[timeline].is_tombstone = true;
        subject_set_tombstone(timeline);
        return;
    }
    do {
        timelines[timeline].is_gone = true;
        subject_remove(timeline);
        subject_erase(timelines[timeline].number);
        timeline = timelines[timeline].parent;
    } while (timeline >= 0 && timelines[timeline].is_tombstone &&
             !model_is_needed(&churn.model, timeline));
}

static void put_lease(size_t name)
{
    struct model_hold *hold = &churn.model.holds[name];
    int timeline = pick_timeline();
    lsn_t lsn = churn.model.timelines[timeline].head;
    if (hold->is_used && is_live(hold->timeline)) {
        subject_lease_drop(hold->timeline, name);
    }
    *hold = (struct model_hold){.is_used = true, .timeline = (uint8_t)timeline, .lsn = lsn};
    if (!subject_lease(timeline, lsn, name)) {
        hold->is_used = false;
    }
}

/* -- history -- */

static void flush(void)
{
    subject_flush();
    for (size_t i = 0; i < churn.model.timeline_count; i++) {
        struct model_timeline *tl = &churn.model.timelines[i];
        if (!tl->is_gone) {
            tl->durable = tl->head;
            subject_set_durable((int)i, tl->head);
        }
    }
}

/* All windows move; at the end of the run to the end of what is durable, but for every fourth. */
static void move_cutoffs(bool at_the_end)
{
    lsn_t wanted[MODEL_TIMELINES] = {0};
    for (size_t i = 0; i < churn.model.timeline_count; i++) {
        if (is_live(i)) {
            lsn_t window = at_the_end && i % 4 != 0 ? 0 : 4000 * MODEL_LSN_STEP;
            lsn_t head = churn.model.timelines[i].durable;
            wanted[i] = head - MIN_OF(head, window);
        }
    }
    subject_move_cutoffs(&churn.model, wanted);
    for (size_t i = 0; i < churn.model.timeline_count; i++) {
        if (is_live(i)) {
            churn.model.timelines[i].cutoff = subject_cutoff((int)i);
        }
    }
}

static void play(size_t round, size_t branches_max)
{
    int timeline = pick_timeline();
    lsn_t lsn = churn.model.next_lsn += MODEL_LSN_STEP;
    if (below(6) == 0) {
        write_other(timeline, lsn);
    } else {
        write_relation(timeline, lsn);
    }
    churn.model.timelines[timeline].head = lsn;
    subject_commit(&churn.model, timeline, lsn);
    if (below(40) == 0) {
        take_snapshot(timeline);
    }
    if (below(60) == 0 && churn.model.timeline_count < branches_max + 1) {
        make_branch();
    }
    if (below(400) == 0) {
        put_lease(1 + below(MODEL_HOLDS - 1));
    }
    if (round % FLUSH_EVERY == 0) {
        flush();
    }
    if (round % GC_EVERY == 0) {
        move_cutoffs(false);
    }
}

/* -- the verdict -- */

/* With the places where branches begin, or what is read only. */
static struct least_world world_of(bool with_begins)
{
    static struct least_timeline timelines[MODEL_TIMELINES];
    static struct least_read leases[MODEL_HOLDS + MODEL_TIMELINES];
    struct least_world world = {
        .versions = churn.versions,
        .version_count = churn.count,
        .timelines = timelines,
        .leases = leases};
    const struct model *model = &churn.model;
    for (size_t i = 0; i < model->timeline_count; i++) {
        const struct model_timeline *tl = &model->timelines[i];
        if (!tl->is_gone) {
            timelines[world.timeline_count++] = (struct least_timeline){
                .number = tl->number,
                .parent = tl->parent < 0 ? 0 : model->timelines[tl->parent].number,
                .start = tl->start,
                .cutoff = tl->cutoff,
                .is_deleted = tl->is_tombstone,
            };
        }
    }
    for (size_t i = 1; i < MODEL_HOLDS; i++) {
        const struct model_hold *hold = &model->holds[i];
        if (hold->is_used && is_live(hold->timeline)) {
            leases[world.lease_count++] = (struct least_read){
                .timeline = model->timelines[hold->timeline].number, .lsn = hold->lsn};
        }
    }
    for (size_t i = 0; i < model->timeline_count && with_begins; i++) {
        const struct model_timeline *tl = &model->timelines[i];
        if (!tl->is_gone && tl->parent >= 0) {
            leases[world.lease_count++] = (struct least_read){
                .timeline = model->timelines[tl->parent].number, .lsn = tl->start};
        }
    }
    return world;
}

/* Mark what is needed; its bytes. */
static uint64_t mark(bool with_begins, size_t *ret_timelines)
{
    struct least_world world = world_of(with_begins);
    uint64_t bytes = 0;
    for (size_t i = 0; i < churn.count; i++) {
        churn.versions[i].is_needed = false;
    }
    least_mark(&world);
    for (size_t i = 0; i < churn.count; i++) {
        bytes += churn.versions[i].is_needed ? churn.versions[i].bytes : 0;
    }
    *ret_timelines = world.timeline_count;
    return bytes;
}

static void remember_positions(void)
{
    static const uint8_t value[17] = {VALUE_STATE};
    for (size_t i = 0; i < churn.model.timeline_count; i++) {
        const struct model_timeline *tl = &churn.model.timelines[i];
        if (!tl->is_gone && tl->head > tl->start) {
            remember(
                tl->number, page_key_state(STATE_INGEST_LSN, 0, 0), tl->head,
                bytes_of(value, sizeof(value)));
        }
    }
}

static bool judge(void)
{
    struct space space;
    size_t timelines;
    remember_positions();
    uint64_t read_only = mark(false, &timelines);
    uint64_t least = mark(true, &timelines);
    space_measure(churn.folder, churn.versions, churn.count, &space);
    ASSERT(space.least + space.missing_bytes == least);
    printf(
        "%zu timelines, %" PRIu64 " bytes of versions written; reads alone need %" PRIu64 "\n",
        timelines, churn.written, read_only);
    space_print(&space);
    return space.missing == 0 && space.found == space.least &&
           space.disk * 100 <= space.disk_least * DISK_PERCENT_MAX;
}

/* -- a run -- */

static bool run(uint64_t seed, size_t branches_max, size_t rounds)
{
    prng_init(&churn.prng, seed);
    model_init(&churn.model);
    churn.next_rel = 1000;
    churn.next_prepared = 1;
    (void)snprintf(churn.folder, sizeof(churn.folder), "%s/store_churn.XXXXXX", subject_base());
    ASSERT(mkdtemp(churn.folder) != NULL);
    subject_open(churn.folder);
    subject_add(&churn.model, 0);
    subject_start();
    for (size_t round = 1; round <= rounds; round++) {
        play(round, branches_max);
    }
    for (int i = 0; i < (int)churn.model.timeline_count; i++) {
        if (i % 6 == 5 && is_live((size_t)i)) {
            delete_branch(i);
        }
    }
    flush();
    move_cutoffs(true);
    subject_compact();
    subject_close();
    bool good = judge();
    must(dir_remove(churn.folder, &msg));
    return good;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1, branches = 50, rounds = 20000;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        uint64_t *to = strcmp(argv[i], "--seed") == 0       ? &seed
                       : strcmp(argv[i], "--branches") == 0 ? &branches
                       : strcmp(argv[i], "--rounds") == 0   ? &rounds
                                                            : NULL;
        if (to == NULL || parse_u64(value, 1, UINT32_MAX, to, &msg) != ERR_OK ||
            branches >= MODEL_TIMELINES) {
            (void)fputs("usage: store_churn [--branches N] [--rounds N] [--seed N]\n", stderr);
            return 2;
        }
    }
    log_init("store_churn", LOG_LEVEL_ERROR);
    return run(seed, (size_t)branches, (size_t)rounds) ? 0 : 1;
}
