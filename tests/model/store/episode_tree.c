#include "tests/model/store/episode_private.h"

#include "common/base/assert.h"
#include "tests/model/store/subject.h"

enum { EPISODE_TIMELINES = 24 };
static_assert(EPISODE_TIMELINES <= 32, "an operation has a bit for each");

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
void episode_branch(const struct op *op)
{
    if (model->timeline_count == EPISODE_TIMELINES) {
        return;
    }
    if (model->holds[0].is_used) {
        add_branch();
        return;
    }
    int parent = episode_pick_timeline(op->a);
    lsn_t lsn = episode_pick_any_lsn(parent, op->b);
    bool may = model_may_read(model, parent, lsn);
    if (subject_hold(parent, lsn) != may) {
        episode_differ("a branch of timeline %d at %" PRIx64 " is allowed: %d", parent, lsn, !may);
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

void episode_erase(const struct op *op)
{
    int timeline = episode_pick_timeline(op->a);
    size_t live = 0;
    for (size_t i = 0; i < model->timeline_count; i++) {
        live += episode_is_live(i) ? 1 : 0;
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

void episode_lease(const struct op *op)
{
    size_t name = 1 + op->a % (MODEL_HOLDS - 1);
    struct model_hold *hold = &model->holds[name];
    if (hold->is_used) {
        if (!subject_lease(hold->timeline, hold->lsn, name)) {
            episode_differ("lease %zu could not be renewed", name);
        }
        return;
    }
    int timeline = episode_pick_timeline(op->b);
    lsn_t lsn = episode_pick_any_lsn(timeline, op->c);
    bool may = model_may_read(model, timeline, lsn);
    if (subject_lease(timeline, lsn, name) != may) {
        episode_differ("a lease of timeline %d at %" PRIx64 " is allowed: %d", timeline, lsn, !may);
    }
    *hold = (struct model_hold){.is_used = may, .timeline = (uint8_t)timeline, .lsn = lsn};
}

/* Said again after a crash, it may find that it was done. */
void episode_lease_drop(const struct op *op)
{
    size_t name = 1 + op->a % (MODEL_HOLDS - 1);
    if (model->holds[name].is_used) {
        if (!subject_lease_drop(model->holds[name].timeline, name) && !episode_is_repeating) {
            episode_differ("lease %zu is not there", name);
        }
        model->holds[name].is_used = false;
    }
}

void episode_check_cutoffs(void)
{
    for (size_t i = 0; i < model->timeline_count; i++) {
        const struct model_timeline *tl = &model->timelines[i];
        if (episode_is_live(i) && subject_cutoff((int)i) != tl->cutoff) {
            episode_differ(
                "timeline %zu has cutoff %" PRIx64 ", expected %" PRIx64, i, subject_cutoff((int)i),
                tl->cutoff);
        }
    }
}

/* Half of them run on beside what follows. */
void episode_compact(const struct op *op)
{
    if (op->a % 2 == 0) {
        subject_compact_beside();
    } else {
        subject_compact();
    }
}

void episode_cutoffs(const struct op *op)
{
    lsn_t wanted[MODEL_TIMELINES] = {0};
    for (size_t i = 0; i < model->timeline_count; i++) {
        struct model_timeline *tl = &model->timelines[i];
        if (episode_is_live(i) && (op->b >> i & 1) != 0) {
            lsn_t window = op->a % 2 == 0 ? 0 : op->c % 200 * MODEL_LSN_STEP;
            wanted[i] = tl->head - MIN_OF(tl->head, window) + op->d % 3;
        }
    }
    subject_move_cutoffs(model, wanted);
    for (size_t i = 0; i < model->timeline_count; i++) {
        struct model_timeline *tl = &model->timelines[i];
        tl->cutoff =
            episode_is_live(i) ? MAX_OF(tl->cutoff, MIN_OF(wanted[i], tl->durable)) : tl->cutoff;
    }
    episode_check_cutoffs();
    if (op->d % 4 == 0) {
        episode_compact(op);
    }
}
