#include "tests/model/store/episode.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/fault.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "tests/model/store/subject.h"

/* What outlives a crash of the child. */
struct shared {
    struct model model;
    const struct op *ops;
    size_t op_count, next;
    bool trace, crashing; /* it is meant to die now */
    bool is_unfinished;   /* the operation before `next` had not returned when the child died */
    uint64_t checks, beside;
    struct errmsg why;
    char folder[PATH_SIZE];
};

/* A mounted lossyfs, on which any change may be the last: see episode_set_lossy(). */
static struct {
    const char *mountpoint; /* NULL: no power is ever cut */
    struct prng prng;
    struct episode_deaths deaths;
} lossy;

static struct shared *shared;
static struct model *model;
static bool is_repeating; /* in a child: the operation that the one before it died in */

enum { EPISODE_TIMELINES = 24 };
static_assert(EPISODE_TIMELINES <= 32, "an operation has a bit for each");

/* Places in the store where a crash leaves something half done. */
static const char *const crash_points[] = {
    "page_store.flush", "page_store.before_ingest", "page_store.after_ingest", "page_store.write",
    "page_store.compact"};

static const char *const kind_names[] = {
#define OP_NAME(name, weight) #name,
    OP_KINDS(OP_NAME)
#undef OP_NAME
};

static const uint32_t kind_weights[] = {
#define OP_WEIGHT(name, weight) weight,
    OP_KINDS(OP_WEIGHT)
#undef OP_WEIGHT
};

void episode_init(void)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT(shared != MAP_FAILED);
    model = &shared->model;
    fault_enable();
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0}); /* crashes are what we are here for */
}

void episode_generate(uint64_t seed, struct op *ops, size_t count)
{
    struct prng prng;
    prng_init(&prng, seed);
    uint32_t weight_sum = 0;
    for (size_t i = 0; i < ARRAY_LEN(kind_weights); i++) {
        weight_sum += kind_weights[i];
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t dice = (uint32_t)prng_below(&prng, weight_sum);
        size_t kind = 0;
        while (dice >= kind_weights[kind]) {
            dice -= kind_weights[kind++];
        }
        ops[i] = (struct op){
            .kind = (enum op_kind)kind,
            .a = (uint32_t)prng_next(&prng),
            .b = (uint32_t)prng_next(&prng),
            .c = (uint32_t)prng_next(&prng),
            .d = (uint32_t)prng_next(&prng),
        };
    }
}

/* -- failing -- */

static void differ(const char *format, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn));

static void differ(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(shared->why.text, sizeof(shared->why.text), format, args);
    va_end(args);
    _exit(1);
}

/* -- choosing: timelines that users see, LSNs that they may read -- */

static bool is_live(size_t timeline)
{
    return !model->timelines[timeline].is_gone && !model->timelines[timeline].is_tombstone;
}

static int pick_timeline(uint32_t number)
{
    size_t live = 0;
    for (size_t i = 0; i < model->timeline_count; i++) {
        live += is_live(i) ? 1 : 0;
    }
    size_t wanted = number % live;
    for (size_t i = 0;; i++) {
        if (is_live(i) && wanted-- == 0) {
            return (int)i;
        }
    }
}

/* Any LSN up to the head; often the head, the cutoff, or what something holds. */
static lsn_t pick_any_lsn(int timeline, uint32_t number)
{
    lsn_t head = model->timelines[timeline].head;
    lsn_t steps = head / MODEL_LSN_STEP;
    const struct model_hold *hold = &model->holds[number / 64 % MODEL_HOLDS];
    if (number % 16 < 5 && hold->is_used && hold->lsn <= head) {
        return hold->lsn;
    }
    if (number % 16 == 5) {
        return MIN_OF(head, model->timelines[timeline].cutoff);
    }
    return number % 4 == 0 || steps == 0 ? head
                                         : number % (steps + 1) * MODEL_LSN_STEP + number / 4 % 2;
}

/* One that may be read: store and model must agree which those are. */
static bool pick_lsn(int timeline, uint32_t number, lsn_t *ret_lsn)
{
    lsn_t lsn = pick_any_lsn(timeline, number);
    bool may = model_may_read(model, timeline, lsn);
    if (subject_may_read(timeline, lsn) != may) {
        differ(
            "timeline %d at %" PRIx64 " %s, but the store says otherwise", timeline, lsn,
            may ? "may be read" : "is not kept");
    }
    *ret_lsn = lsn;
    return may;
}

/* -- writing: records as a decoder makes them -- */

static void put_life(int timeline, int key, lsn_t lsn, uint32_t dice)
{
    static const uint8_t begins[] = {VALUE_ZERO, VALUE_INIT, VALUE_INIT, VALUE_INIT, VALUE_IMAGE};
    uint8_t tag = begins[dice % ARRAY_LEN(begins)];
    model_put(model, timeline, key, lsn, tag, tag == VALUE_ZERO ? 0 : lsn);
}

static void put_size(int timeline, int rel, lsn_t lsn, int blocks)
{
    uint64_t value = blocks < 0 ? 0 : MODEL_SIZE_EXISTS | (uint64_t)blocks;
    model_put(model, timeline, MODEL_SIZE_0 + rel, lsn, VALUE_STATE, value);
}

static void write_relation(int timeline, lsn_t lsn, const struct op *op)
{
    int rel = (int)(op->b % MODEL_RELS);
    int blocks = model_blocks(model, timeline, rel, lsn);
    uint32_t dice = op->c % 100;
    if (blocks < 0 || (dice < 12 && blocks < MODEL_BLOCKS)) {
        put_life(timeline, rel * MODEL_BLOCKS + MAX_OF(blocks, 0), lsn, op->d);
        put_size(timeline, rel, lsn, MAX_OF(blocks, 0) + 1);
    } else if (dice < 16) {
        put_size(timeline, rel, lsn, (int)(op->d % ((uint32_t)blocks + 1))); /* truncate */
    } else if (dice < 19) {
        put_size(timeline, rel, lsn, -1); /* drop */
    } else if (blocks > 0 && dice < 35) {
        put_life(timeline, rel * MODEL_BLOCKS + (int)(op->d % (uint32_t)blocks), lsn, op->d / 8);
    } else if (blocks > 0) {
        int key = rel * MODEL_BLOCKS + (int)(op->d % (uint32_t)blocks);
        model_put(model, timeline, key, lsn, VALUE_DELTA, lsn);
    }
}

static void write_slru(int timeline, lsn_t lsn, const struct op *op)
{
    int key = MODEL_SLRU_0 + (int)(op->b % MODEL_SLRU_PAGES);
    if (op->c % 8 == 0 || model_newest(model, timeline, key, lsn) == NULL) {
        put_life(timeline, key, lsn, op->d);
    } else {
        model_put(model, timeline, key, lsn, VALUE_DELTA, lsn);
    }
}

/* A clock that often stands still and sometimes jumps back; only later times are stored. */
static void write_commit(int timeline, lsn_t lsn, const struct op *op)
{
    uint64_t newest = model_newest_commit(model, timeline, lsn);
    uint64_t time = newest + 1 + op->b % 7;
    time -= MIN_OF(time - 1, (uint64_t)(op->c % 3 == 0 ? op->d % 20 : 0));
    time += op->c % 64 == 1 ? UINT32_MAX : 0;
    model_put(model, timeline, MODEL_COMMIT, lsn, time > newest ? VALUE_STATE : 0, time);
}

/* Feed the record that ends at `lsn` to the store. */
static void ingest(int timeline, size_t first_event, lsn_t lsn)
{
    for (size_t i = first_event; i < model->event_count && model->events[i].lsn == lsn; i++) {
        if (model->events[i].tag != 0) {
            subject_put(model, &model->events[i]);
        }
    }
    subject_commit(model, timeline, lsn);
}

static void do_write(const struct op *op)
{
    if (model->event_count + 4 > MODEL_EVENTS) {
        return;
    }
    int timeline = pick_timeline(op->a);
    lsn_t lsn = model->next_lsn += MODEL_LSN_STEP;
    size_t first = model->event_count;
    switch (op->a / 64 % 8) {
    case 0: write_slru(timeline, lsn, op); break;
    case 1:
        model_put(
            model, timeline, MODEL_STATE_0 + (int)(op->b % MODEL_STATES), lsn, VALUE_STATE, lsn);
        break;
    case 2: write_commit(timeline, lsn, op); break;
    default: write_relation(timeline, lsn, op); break;
    }
    if (model->event_count > first) {
        model->timelines[timeline].head = lsn;
        ingest(timeline, first, lsn);
    }
}

/* -- reading -- */

static void count_check(void)
{
    shared->checks++;
    shared->beside += subject_is_compacting() ? 1 : 0;
}

static void compare_page(int timeline, int key, lsn_t lsn)
{
    count_check();
    struct model_page expected = model_read(model, timeline, key, lsn);
    struct model_page found = subject_read(key, lsn);
    if (found.lsn != expected.lsn || found.content != expected.content) {
        differ(
            "%s on timeline %d at %" PRIx64 ": version %" PRIx64 " content %" PRIx64
            ", expected version %" PRIx64 " content %" PRIx64,
            page_key_text(model_key(key)).text, timeline, lsn, found.lsn, found.content,
            expected.lsn, expected.content);
    }
}

/* As a read does: the size first, then a block that exists. */
static void compare(int timeline, uint32_t number, lsn_t lsn)
{
    int key = (int)(number % (MODEL_SIZE_0 + MODEL_SLRU_PAGES + MODEL_STATES));
    if (key >= MODEL_SIZE_0) {
        compare_page(timeline, key + MODEL_RELS, lsn);
        return;
    }
    int rel = key / MODEL_BLOCKS;
    count_check();
    int expected = model_blocks(model, timeline, rel, lsn), found = subject_blocks(rel, lsn);
    if (found != expected) {
        differ(
            "relation %d on timeline %d at %" PRIx64 " has %d blocks, expected %d", rel, timeline,
            lsn, found, expected);
    }
    if (key % MODEL_BLOCKS < expected) {
        compare_page(timeline, key, lsn);
    }
}

static void do_read(const struct op *op)
{
    int timeline = pick_timeline(op->a);
    subject_reader_open(model, timeline);
    for (uint32_t i = 0; i < 4; i++) {
        lsn_t lsn;
        if (pick_lsn(timeline, op->b + i % 2 * 0x1234567, &lsn)) {
            compare(timeline, op->c + i * 7, lsn);
        }
    }
    subject_reader_close();
}

static void do_list(const struct op *op)
{
    int timeline = pick_timeline(op->a);
    lsn_t lsn;
    if (!pick_lsn(timeline, op->b, &lsn)) {
        return;
    }
    unsigned expected = 0;
    count_check();
    for (int rel = 0; rel < MODEL_RELS; rel++) {
        expected |= model_blocks(model, timeline, rel, lsn) < 0 ? 0 : 1u << rel;
    }
    subject_reader_open(model, timeline);
    unsigned found = subject_relations(lsn);
    subject_reader_close();
    if (found != expected) {
        differ(
            "timeline %d at %" PRIx64 " lists relations %x, expected %x", timeline, lsn, found,
            expected);
    }
}

static void do_time(const struct op *op)
{
    int timeline = pick_timeline(op->a);
    lsn_t lsn;
    if (!pick_lsn(timeline, op->b, &lsn)) {
        return;
    }
    count_check();
    uint64_t newest = model_newest_commit(model, timeline, lsn);
    uint64_t time = newest - MIN_OF(newest, (uint64_t)(op->c % 64));
    lsn_t after = model_commit_after(model, timeline, time, lsn);
    subject_reader_open(model, timeline);
    uint64_t found_newest = subject_newest_commit(lsn);
    lsn_t found = subject_commit_after(time, lsn);
    subject_reader_close();
    /* A time before what is kept must not lead into what is. */
    bool is_lost = after != 0 && !model_is_in_window(model, timeline, after) && found != 0 &&
                   !model_is_in_window(model, timeline, found);
    if (found_newest != newest || (found != after && !is_lost)) {
        differ(
            "timeline %d at %" PRIx64 ": newest commit %" PRIu64 " expected %" PRIu64
            ", first after %" PRIu64 " at %" PRIx64 " expected %" PRIx64,
            timeline, lsn, found_newest, newest, time, found, after);
    }
}

/* A read left an image of what it made, in place of the newest version that it used. */
static void do_image(const struct op *op)
{
    int timeline = pick_timeline(op->a);
    int key = (int)(op->b % (MODEL_SIZE_0 + MODEL_SLRU_PAGES));
    key += key >= MODEL_SIZE_0 ? MODEL_RELS : 0;
    lsn_t lsn;
    if (!pick_lsn(timeline, op->c, &lsn)) {
        return;
    }
    struct model_page page = model_read(model, timeline, key, lsn);
    bool exists = key >= MODEL_SIZE_0 ||
                  key % MODEL_BLOCKS < model_blocks(model, timeline, key / MODEL_BLOCKS, lsn);
    if (page.lsn != 0 && exists) {
        subject_put_image(model, key, page);
    }
}

/* -- branches -- */

static void end_hold(void)
{
    if (model->holds[0].is_used) {
        model->holds[0].is_used = false;
        subject_release();
    }
}

/* Its row is durable. */
static void add_branch(void)
{
    const struct model_hold *hold = &model->holds[0];
    size_t added = model->timeline_count;
    model->timelines[added] = (struct model_timeline){
        .parent = hold->timeline,
        .number = (uint32_t)added + 1,
        .start = hold->lsn,
        .head = hold->lsn,
        .durable = hold->lsn,
        .cutoff = hold->lsn,
    };
    model->timeline_count++;
    subject_add(model, (int)added);
    end_hold();
}

/* The hold comes first; anything may happen before the branch is there (BRANCH_LATER). */
static void do_branch(const struct op *op)
{
    if (model->timeline_count == EPISODE_TIMELINES) {
        return;
    }
    if (model->holds[0].is_used) {
        add_branch();
        return;
    }
    int parent = pick_timeline(op->a);
    lsn_t lsn = pick_any_lsn(parent, op->b);
    bool may = model_may_read(model, parent, lsn);
    if (subject_hold(parent, lsn) != may) {
        differ("a branch of timeline %d at %" PRIx64 " is allowed: %d", parent, lsn, !may);
    }
    if (may) {
        model->holds[0] = (struct model_hold){
            .is_used = true, .is_branch = true, .timeline = (uint8_t)parent, .lsn = lsn};
    }
    if (may && op->kind == OP_BRANCH) {
        add_branch();
    }
}

static void forget_leases_of(int timeline)
{
    for (size_t i = 1; i < MODEL_HOLDS; i++) {
        model->holds[i].is_used &= model->holds[i].timeline != timeline;
    }
}

/* And the parents that were kept for it only. */
static void erase_all_unneeded(int timeline)
{
    while (timeline >= 0 && !model_is_needed(model, timeline)) {
        forget_leases_of(timeline);
        model->timelines[timeline].is_gone = true;
        subject_remove(timeline);
        subject_erase(model->timelines[timeline].number);
        timeline = model->timelines[timeline].parent;
        if (timeline < 0 || !model->timelines[timeline].is_tombstone) {
            return;
        }
    }
}

static void do_erase(const struct op *op)
{
    int timeline = pick_timeline(op->a);
    size_t live = 0;
    for (size_t i = 0; i < model->timeline_count; i++) {
        live += is_live(i) ? 1 : 0;
    }
    bool is_being_branched = model->holds[0].is_used && model->holds[0].timeline == timeline;
    if (live < 2 || is_being_branched) {
        return;
    }
    if (!model_is_needed(model, timeline)) {
        erase_all_unneeded(timeline);
        return;
    }
    forget_leases_of(timeline);
    model->timelines[timeline].is_tombstone = true;
    subject_set_tombstone(timeline);
}

/* -- history -- */

static void do_lease(const struct op *op)
{
    size_t name = 1 + op->a % (MODEL_HOLDS - 1);
    struct model_hold *hold = &model->holds[name];
    if (hold->is_used) {
        if (!subject_lease(hold->timeline, hold->lsn, name)) {
            differ("lease %zu could not be renewed", name);
        }
        return;
    }
    int timeline = pick_timeline(op->b);
    lsn_t lsn = pick_any_lsn(timeline, op->c);
    bool may = model_may_read(model, timeline, lsn);
    if (subject_lease(timeline, lsn, name) != may) {
        differ("a lease of timeline %d at %" PRIx64 " is allowed: %d", timeline, lsn, !may);
    }
    *hold = (struct model_hold){.is_used = may, .timeline = (uint8_t)timeline, .lsn = lsn};
}

/* Said again after a crash, it may find that it was done. */
static void do_lease_drop(const struct op *op)
{
    size_t name = 1 + op->a % (MODEL_HOLDS - 1);
    if (model->holds[name].is_used) {
        if (!subject_lease_drop(model->holds[name].timeline, name) && !is_repeating) {
            differ("lease %zu is not there", name);
        }
        model->holds[name].is_used = false;
    }
}

static void check_cutoffs(void)
{
    for (size_t i = 0; i < model->timeline_count; i++) {
        const struct model_timeline *tl = &model->timelines[i];
        if (is_live(i) && subject_cutoff((int)i) != tl->cutoff) {
            differ(
                "timeline %zu has cutoff %" PRIx64 ", expected %" PRIx64, i, subject_cutoff((int)i),
                tl->cutoff);
        }
    }
}

/* Half of them run on beside what follows. */
static void do_compact(const struct op *op)
{
    if (op->a % 2 == 0) {
        subject_compact_beside();
    } else {
        subject_compact();
    }
}

static void do_cutoffs(const struct op *op)
{
    lsn_t wanted[MODEL_TIMELINES] = {0};
    for (size_t i = 0; i < model->timeline_count; i++) {
        struct model_timeline *tl = &model->timelines[i];
        if (is_live(i) && (op->b >> i & 1) != 0) {
            lsn_t window = op->a % 2 == 0 ? 0 : op->c % 200 * MODEL_LSN_STEP;
            wanted[i] = tl->head - MIN_OF(tl->head, window) + op->d % 3;
        }
    }
    subject_move_cutoffs(model, wanted);
    for (size_t i = 0; i < model->timeline_count; i++) {
        struct model_timeline *tl = &model->timelines[i];
        tl->cutoff = is_live(i) ? MAX_OF(tl->cutoff, MIN_OF(wanted[i], tl->durable)) : tl->cutoff;
    }
    check_cutoffs();
    if (op->d % 4 == 0) {
        do_compact(op);
    }
}

/* -- durability -- */

static void do_flush(void)
{
    lsn_t heads[MODEL_TIMELINES];
    for (size_t i = 0; i < model->timeline_count; i++) {
        heads[i] = model->timelines[i].head;
    }
    subject_flush();
    for (size_t i = 0; i < model->timeline_count; i++) {
        model->timelines[i].durable = heads[i];
        if (!model->timelines[i].is_gone) {
            subject_set_durable((int)i, heads[i]);
        }
    }
}

/* What comes back after a crash: each timeline up to a record end, not before the last flush. */
static void check_position(int timeline, lsn_t found)
{
    const struct model_timeline *tl = &model->timelines[timeline];
    if (found == 0 && (tl->durable <= tl->start || tl->is_tombstone)) {
        return; /* a branch without records of its own, or with none that a child sees */
    }
    if (found < tl->durable || found > tl->head) {
        differ(
            "timeline %d came back at %" PRIx64 ": durable %" PRIx64 ", head %" PRIx64, timeline,
            found, tl->durable, tl->head);
    }
}

static lsn_t recovered_lsn(int timeline)
{
    lsn_t found = subject_position(model->timelines[timeline].number);
    check_position(timeline, found);
    return MAX_OF(found, model->timelines[timeline].start);
}

/* Every key at the position that came back: data and position belong together. */
static void check_recovered(int timeline)
{
    lsn_t lsn = recovered_lsn(timeline);
    subject_reader_open(model, timeline);
    for (uint32_t i = 0; i < MODEL_SIZE_0 + MODEL_SLRU_PAGES + MODEL_STATES; i++) {
        compare(timeline, i, lsn);
    }
    subject_reader_close();
}

static void ingest_again(int timeline)
{
    lsn_t from = subject_position(model->timelines[timeline].number);
    for (size_t i = 0; i < model->event_count; i++) {
        const struct model_event *event = &model->events[i];
        bool begins = i == 0 || model->events[i - 1].lsn != event->lsn;
        if (event->timeline == timeline && event->lsn > from && begins) {
            ingest(timeline, i, event->lsn);
        }
    }
}

/* Parents before children: what a child reads of its parent is there by then. */
static void recover(void)
{
    for (size_t i = 0; i < model->timeline_count; i++) {
        if (!model->timelines[i].is_gone) {
            (void)recovered_lsn((int)i);
        }
        if (is_live(i)) {
            check_recovered((int)i);
        }
        if (!model->timelines[i].is_gone) {
            ingest_again((int)i);
        }
    }
}

/* Cutoffs that were being moved may be what they were or what they were to be. */
static bool is_moving_cutoffs(void)
{
    return shared->is_unfinished && shared->ops[shared->next - 1].kind == OP_CUTOFFS;
}

/* As a tenant is opened: rows, timelines, then compactions may begin. */
static void open_subject(void)
{
    model->holds[0].is_used = false; /* a branch without a row never was */
    subject_open(shared->folder);
    for (size_t i = 0; i < model->timeline_count; i++) {
        if (!model->timelines[i].is_gone) {
            subject_add(model, (int)i);
        }
    }
    subject_start();
    if (!is_moving_cutoffs()) {
        check_cutoffs();
    }
}

static void die(void)
{
    shared->crashing = true;
    (void)raise(SIGKILL);
}

static void crash_inside(const struct op *op)
{
    struct errmsg msg;
    char spec[64];
    subject_compact_end(); /* what is armed now is for what comes now */
    const char *point = crash_points[op->a % ARRAY_LEN(crash_points)];
    (void)snprintf(spec, sizeof(spec), "%s=crash", point);
    if (fault_arm(spec, &msg) != ERR_OK) {
        differ("%s", msg.text);
    }
    shared->crashing = true;
    if (op->b % 2 == 0) {
        do_write(&(struct op){.kind = OP_WRITE, .a = op->b, .b = op->c, .c = op->d, .d = op->a});
    }
    do_flush();
    subject_compact();
    shared->crashing = false; /* the store did not come by there */
    if (fault_arm("", &msg) != ERR_OK) {
        differ("%s", msg.text);
    }
}

/* -- the child -- */

static void play(const struct op *op)
{
    switch (op->kind) {
    case OP_WRITE: do_write(op); break;
    case OP_READ: do_read(op); break;
    case OP_LIST: do_list(op); break;
    case OP_TIME: do_time(op); break;
    case OP_IMAGE: do_image(op); break;
    case OP_BRANCH:
    case OP_BRANCH_LATER: do_branch(op); break;
    case OP_LEASE: do_lease(op); break;
    case OP_LEASE_DROP: do_lease_drop(op); break;
    case OP_CUTOFFS: do_cutoffs(op); break;
    case OP_COMPACT: do_compact(op); break;
    case OP_ERASE: do_erase(op); break;
    case OP_FLUSH: do_flush(); break;
    case OP_REOPEN:
        do_flush();
        subject_close();
        open_subject();
        break;
    case OP_CRASH: die(); break;
    case OP_CRASH_INSIDE: crash_inside(op); break;
    }
}

static void print_op(size_t index, const struct op *op)
{
    printf(
        "%5zu %-12s %08x %08x %08x %08x  next lsn %" PRIx64 "\n", index, kind_names[op->kind],
        op->a, op->b, op->c, op->d, model->next_lsn);
    (void)fflush(stdout);
}

/*
 * What was asked for and not answered is asked for again, as a client does: whether it was done or
 * not, afterwards it is. Everything else is either in the model before the store is asked, or does
 * not change what the model says.
 */
static void finish_unfinished(void)
{
    const struct op *op = &shared->ops[shared->next - 1];
    if (op->kind == OP_LEASE || op->kind == OP_LEASE_DROP || op->kind == OP_CUTOFFS) {
        is_repeating = true;
        play(op);
        is_repeating = false;
    }
    shared->is_unfinished = false;
}

static void run_child(void)
{
    open_subject();
    recover();
    if (shared->is_unfinished) {
        finish_unfinished();
    }
    while (shared->next < shared->op_count) {
        const struct op *op = &shared->ops[shared->next++];
        if (shared->trace) {
            print_op(shared->next - 1, op);
        }
        shared->is_unfinished = true;
        play(op);
        shared->is_unfinished = false;
    }
    subject_close();
    _exit(0);
}

/* -- the parent -- */

void episode_set_lossy(const char *mountpoint)
{
    lossy.mountpoint = mountpoint;
}

struct episode_deaths episode_deaths(void)
{
    return lossy.deaths;
}

static void tell_lossy(const char *line)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/.lossyfs", lossy.mountpoint);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ASSERT(fd >= 0 && write(fd, line, strlen(line)) == (ssize_t)strlen(line));
    (void)close(fd);
}

/* Lives of all lengths: many end while they recover, or in one of the first flushes. */
static uint64_t draw_changes(void)
{
    static const uint64_t most[] = {20, 80, 300, 1000};
    return 1 + prng_below(&lossy.prng, most[prng_below(&lossy.prng, ARRAY_LEN(most))]);
}

/* After so many changes of the disk the child has to go; 0: never. */
static void arm(uint64_t changes, pid_t child)
{
    char line[64];
    if (lossy.mountpoint != NULL) {
        (void)snprintf(line, sizeof(line), "kill %" PRIu64 " %d", changes, (int)child);
        tell_lossy(line);
    }
}

/* The child begins only when the disk knows when it has to go. */
static int run_child_once(void)
{
    int status, go[2];
    ASSERT(pipe(go) == 0);
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        (void)close(go[1]);
        (void)!read(go[0], &byte, 1);
        run_child();
    }
    (void)close(go[0]);
    arm(draw_changes(), child);
    (void)close(go[1]);
    ASSERT(child > 0 && waitpid(child, &status, 0) == child);
    arm(0, child);
    return status;
}

/* Half of the deaths take what was not synced along. */
static bool is_survivable(int status)
{
    bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (lossy.mountpoint == NULL || !is_killed) {
        return WIFSIGNALED(status) && shared->crashing;
    }
    lossy.deaths.kills++;
    if (prng_below(&lossy.prng, 2) == 0) {
        char line[64];
        (void)snprintf(line, sizeof(line), "cut %" PRIu64, prng_next(&lossy.prng));
        tell_lossy(line);
        lossy.deaths.cuts++;
    }
    return true;
}

static void make_folder(void)
{
    struct errmsg msg;
    /* In memory where there is such a place: nothing here depends on what a sync costs. */
    const char *base = lossy.mountpoint != NULL  ? lossy.mountpoint
                       : file_exists("/dev/shm") ? "/dev/shm"
                                                 : "/tmp";
    (void)snprintf(shared->folder, sizeof(shared->folder), "%s/store_model.XXXXXX", base);
    ASSERT(mkdtemp(shared->folder) != NULL);
    ASSERT(lossy.mountpoint == NULL || file_sync_dir(base, &msg) == ERR_OK);
}

bool episode_run(
    uint64_t seed, const struct op *ops, size_t count, bool trace, struct errmsg *ret_why)
{
    model_init(model);
    prng_init(&lossy.prng, seed);
    *ret_why = shared->why = (struct errmsg){0};
    shared->ops = ops; /* a child sees what its parent had when it was made */
    shared->op_count = count;
    shared->next = 0;
    shared->trace = trace;
    shared->is_unfinished = false;
    make_folder();
    int status;
    do {
        shared->crashing = false;
        status = run_child_once();
    } while (status != 0 && is_survivable(status));
    if (status != 0 && shared->why.text[0] == '\0') {
        (void)snprintf(
            shared->why.text, sizeof(shared->why.text), "the child ended with status %x",
            (unsigned)status);
    }
    *ret_why = shared->why;
    struct errmsg msg;
    err_ignore(dir_remove(shared->folder, &msg), "a temporary folder");
    return status == 0;
}

void episode_counts(uint64_t *ret_checks, uint64_t *ret_beside)
{
    *ret_checks = shared->checks;
    *ret_beside = shared->beside;
}
