#include "tests/model/store/episode_private.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/fault.h"
#include "tests/model/store/subject.h"

bool episode_is_repeating;

/* Places in the store where a crash leaves something half done. */
static const char *const crash_points[] = {
    "page_store.flush", "page_store.before_ingest", "page_store.after_ingest", "page_store.write",
    "page_store.compact"};

static const char *const kind_names[] = {
#define OP_NAME(name, weight) #name,
    OP_KINDS(OP_NAME)
#undef OP_NAME
};

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
        episode_differ(
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
        episode_compare(timeline, i, lsn);
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
            episode_ingest(timeline, i, event->lsn);
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
        if (episode_is_live(i)) {
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
    return episode->is_unfinished && episode->ops[episode->next - 1].kind == OP_CUTOFFS;
}

/* As a tenant is opened: rows, timelines, then compactions may begin. */
static void open_subject(void)
{
    model->holds[0].is_used = false; /* a branch without a row never was */
    subject_open(episode->folder);
    for (size_t i = 0; i < model->timeline_count; i++) {
        if (!model->timelines[i].is_gone) {
            subject_add(model, (int)i);
        }
    }
    subject_start();
    if (!is_moving_cutoffs()) {
        episode_check_cutoffs();
    }
}

static void die(void)
{
    episode->crashing = true;
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
        episode_differ("%s", msg.text);
    }
    episode->crashing = true;
    if (op->b % 2 == 0) {
        episode_write(
            &(struct op){.kind = OP_WRITE, .a = op->b, .b = op->c, .c = op->d, .d = op->a});
    }
    do_flush();
    subject_compact();
    episode->crashing = false; /* the store did not come by there */
    if (fault_arm("", &msg) != ERR_OK) {
        episode_differ("%s", msg.text);
    }
}

/* -- the child -- */

static void play(const struct op *op)
{
    switch (op->kind) {
    case OP_WRITE: episode_write(op); break;
    case OP_READ: episode_read(op); break;
    case OP_LIST: episode_list(op); break;
    case OP_TIME: episode_time(op); break;
    case OP_IMAGE: episode_image(op); break;
    case OP_BRANCH:
    case OP_BRANCH_LATER: episode_branch(op); break;
    case OP_LEASE: episode_lease(op); break;
    case OP_LEASE_DROP: episode_lease_drop(op); break;
    case OP_CUTOFFS: episode_cutoffs(op); break;
    case OP_COMPACT: episode_compact(op); break;
    case OP_ERASE: episode_erase(op); break;
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
    const struct op *op = &episode->ops[episode->next - 1];
    if (op->kind == OP_LEASE || op->kind == OP_LEASE_DROP || op->kind == OP_CUTOFFS) {
        episode_is_repeating = true;
        play(op);
        episode_is_repeating = false;
    }
    episode->is_unfinished = false;
}

void episode_run_child(void)
{
    open_subject();
    recover();
    if (episode->is_unfinished) {
        finish_unfinished();
    }
    while (episode->next < episode->op_count) {
        const struct op *op = &episode->ops[episode->next++];
        if (episode->trace) {
            print_op(episode->next - 1, op);
        }
        episode->is_unfinished = true;
        play(op);
        episode->is_unfinished = false;
    }
    subject_close();
    _exit(0);
}
