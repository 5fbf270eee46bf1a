/*
 * timeline_rest.c - a timeline becomes a row, and a row becomes a timeline again.
 *
 * To rest is to forget all that a restart of the process would forget, and to keep what it would
 * read: the contents of the control file, and where the verified log ends. So a woken timeline is
 * one after a restart whose files were read before; the simulator has that in every schedule.
 */
#include "safekeeper/timeline/timeline_private.h"

#include "common/base/mark.h"
#include "common/base/mem.h"

struct timeline_rest {
    struct wal_store_position position;
    uint32_t control_size;
    uint8_t control[]; /* as in its file */
};

bool timeline_may_rest(const struct timeline *tl)
{
    bool is_used = tl->refs > 1 || tl->jobs > 0 || !list_is_empty(&tl->peers) ||
                   !list_is_empty(&tl->feeds) || !list_is_empty(&tl->waiters) ||
                   !list_is_empty(&tl->report_waiters) || tl->is_report_posted ||
                   tl->catch_up != NULL || tl->repair != NULL || tl->rebuild != NULL ||
                   forget_is_busy(tl);
    if (tl->state != TIMELINE_OPEN || is_used || tl->damage != NULL || tl->repair_text[0] != '\0') {
        return false; /* somebody must still be able to read what happened */
    }
    const struct acceptor *acceptor = &tl->acceptor;
    bool is_durable = acceptor->durable_sequence == acceptor->state.sequence &&
                      acceptor->commit_persist_lsn == acceptor->state.commit_lsn &&
                      acceptor->write_lsn == acceptor->flush_lsn && !acceptor->vote_pending;
    return is_durable && disk_is_at_rest(tl) && wal_store_is_at_rest(tl->disk.store);
}

void timeline_rest(struct timeline *tl)
{
    struct timeline_row *row = tl->row;
    struct buf control = {0};
    ASSERT(timeline_may_rest(tl) && row->tl == tl);
    ASSERT(tl->control.acceptor.sequence == tl->acceptor.state.sequence);
    ASSERT(tl->control.acceptor.commit_lsn == tl->acceptor.state.commit_lsn);
    control_state_encode(&tl->control, tl->control_file.sequence, &control);
    struct timeline_rest *rest = mem_alloc(sizeof(*rest) + control.size);
    rest->position = wal_store_position(tl->disk.store);
    rest->control_size = (uint32_t)control.size;
    memcpy(rest->control, control.data, control.size);
    buf_deinit(&control);
    row->rest = rest;
    row->commit_lsn = tl->acceptor.state.commit_lsn;
    row->forget_from_lsn = forget_from_lsn(tl);
    row->tl = NULL;
    timeline_unref(tl);
}

static err_t restore(struct timeline *tl, const struct timeline_rest *rest, struct errmsg *msg)
{
    TRY(control_state_decode(
        bytes_of(rest->control, rest->control_size), tl->dir, &tl->control,
        &tl->control_file.sequence, msg));
    TRY(str_copy(tl->control_file.dir, sizeof(tl->control_file.dir), tl->dir, msg));
    struct wal_store_options options = timeline_store_options(tl);
    TRY(wal_store_open_at(&options, &rest->position, &tl->disk.store, msg));
    return timeline_start_acceptor(tl, msg);
}

/* What we keep in memory was valid when it went there. */
struct timeline *timeline_wake(const struct timeline_env *env, struct timeline_row *row)
{
    struct timeline *tl = timeline_create(env, row);
    struct errmsg msg;
    MARK("timeline.woken");
    err_t err = restore(tl, row->rest, &msg);
    if (err != ERR_OK) {
        fatal("timeline %s cannot be woken: %s", timeline_id_text(row->id).text, msg.text);
    }
    tl->state = TIMELINE_OPEN;
    timeline_update_storage_text(tl);
    return tl;
}
