/* Deleting timelines, also those that children live on, and erasing what is left of them. */
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "pageserver/timeline/tenant_private.h"

/* Versions of a deleted timeline, until they are erased. */
struct erasure {
    struct tenant *tenant;
    struct timeline *timeline; /* NULL after a restart: nobody can be reading */
    uint32_t number;
    struct timer timer;
    struct job job;
    struct list_link link;
};

/* -- erasing -- */

static void on_erased(struct job *job)
{
    struct erasure *erasure = CONTAINER_OF(job, struct erasure, job);
    struct tenant *tenant = erasure->tenant;
    tenant->erasing--;
    if (job->result != ERR_OK) {
        /* The row still says "deleting": the next start tries again, and so do we. */
        log_warn(
            &tenant->log, "erasing timeline number %" PRIu32 ": %s; will retry", erasure->number,
            job->msg.text);
        timer_start(tenant_loop(tenant), &erasure->timer, 5000);
        return;
    }
    log_info(&tenant->log, "erased timeline number %" PRIu32, erasure->number);
    list_remove(&erasure->link);
    timeline_unref(erasure->timeline);
    mem_free(erasure);
}

static err_t erase(struct job *job)
{
    struct erasure *erasure = CONTAINER_OF(job, struct erasure, job);
    struct meta_change changes[] = {
        {.kind = META_TIMELINE, .id = erasure->number},
        {.kind = META_WORKING_SET, .id = erasure->number},
    };
    struct tenant *tenant = erasure->tenant;
    TRY(page_store_meta_settle(tenant->store, &job->msg)); /* the row that says "deleting" */
    TRY(page_store_erase(tenant->store, erasure->number, &job->msg));
    TRY(history_erase_rows(tenant->history, tenant->store, erasure->number, &job->msg));
    return page_store_meta_write(tenant->store, changes, ARRAY_LEN(changes), &job->msg);
}

/* A child that is going as well goes first: its history leads to this one's. */
static bool has_child_in_history(const struct tenant *tenant, const struct timeline *tl)
{
    LIST_FOR_EACH(&tenant->erasures, link)
    {
        const struct timeline *other = CONTAINER_OF(link, struct erasure, link)->timeline;
        if (other != NULL && other->parent == tl && other->in_history != NULL) {
            return true;
        }
    }
    return false;
}

/*
 * Reads that began before the deletion finish first: half an erased history looks like zeros. So
 * does a flush, which may be writing the timeline's layer; none begins until the erasure has ended.
 */
static void on_erasure_timer(struct timer *timer)
{
    struct erasure *erasure = CONTAINER_OF(timer, struct erasure, timer);
    bool has_readers =
        erasure->timeline != NULL && (timeline_has_readers(erasure->timeline) ||
                                      has_child_in_history(erasure->tenant, erasure->timeline));
    if (has_readers || erasure->tenant->flushing) {
        timer_start(tenant_loop(erasure->tenant), timer, 10);
        return;
    }
    if (erasure->timeline != NULL) {
        tenant_forget_timeline(erasure->tenant, erasure->timeline);
    }
    erasure->job = (struct job){.run = erase, .done = on_erased};
    erasure->tenant->erasing++;
    lane_submit(&erasure->tenant->lane, &erasure->job);
}

void tenant_start_erasing(struct tenant *tenant, uint32_t number, struct timeline *tl)
{
    struct erasure *erasure = MEM_NEW(struct erasure);
    erasure->tenant = tenant;
    erasure->number = number;
    erasure->timeline = tl;
    erasure->timer.on_fire = on_erasure_timer;
    list_push_back(&tenant->erasures, &erasure->link);
    timer_start(tenant_loop(tenant), &erasure->timer, 0);
}

void tenant_drop_erasures(struct tenant *tenant)
{
    struct list_link *first;
    while ((first = list_pop_front(&tenant->erasures)) != NULL) {
        struct erasure *erasure = CONTAINER_OF(first, struct erasure, link);
        timer_stop(&erasure->timer);
        timeline_unref(erasure->timeline);
        mem_free(erasure);
    }
}

bool tenant_is_erasing(const struct tenant *tenant, struct timeline_id id)
{
    LIST_FOR_EACH(&tenant->erasures, link)
    {
        const struct timeline *tl = CONTAINER_OF(link, struct erasure, link)->timeline;
        if (tl != NULL && timeline_id_equal(timeline_info(tl)->id, id)) {
            return true;
        }
    }
    return false;
}

err_t tenant_request_write_row(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct meta_change change = {
        .kind = META_TIMELINE, .id = request->info.number, .value = buf_view(&request->row)};
    return page_store_meta_write(request->tenant->store, &change, 1, &job->msg);
}

/* -- deletion, also of timelines that children live on -- */

/*
 * A branch of it begins beyond what is in the object store: what leads there must still come, and
 * when this disk is lost it must come again. Nothing is known to be up there when a tenant is
 * opened, so a tombstone takes WAL again until the first upload has ended.
 */
bool tenant_is_on_its_way(struct tenant *tenant, const struct timeline *tl)
{
    LIST_FOR_EACH(&tenant->members, link)
    {
        const struct timeline *child = timeline_of_member(link);
        if (child->parent == tl && child->info.start_lsn > tl->remote_lsn) {
            return true;
        }
    }
    return false;
}

/* Tombstones whose last branch LSN is in the object store need no more WAL. */
static void stop_arrived(struct tenant *tenant)
{
    struct tenants_user *user = tenant->tenants->options.user;
    LIST_FOR_EACH(&tenant->members, link)
    {
        struct timeline *tl = timeline_of_member(link);
        if (tl->info.state == TIMELINE_TOMBSTONE && tl->user != NULL &&
            !tenant_is_on_its_way(tenant, tl)) {
            user->on_timeline_gone(user, tl);
        }
    }
}

void tenant_uploaded(struct tenant *tenant)
{
    stop_arrived(tenant);
}

static void bury(struct tenant *tenant, struct timeline *tl)
{
    struct tenants_user *user = tenant->tenants->options.user;
    tenant_remove_member(tenant, tl);
    timeline_set_state(tl, TIMELINE_DELETING);
    user->on_timeline_gone(user, tl);
    tenant_start_erasing(tenant, tl->info.number, tl); /* the member's reference goes with it */
}

struct burial {
    struct tenant *tenant;
    struct timeline_info info;
    struct buf row;
    struct job job;
};

static err_t write_burial(struct job *job)
{
    struct burial *burial = CONTAINER_OF(job, struct burial, job);
    struct meta_change change = {
        .kind = META_TIMELINE, .id = burial->info.number, .value = buf_view(&burial->row)};
    return page_store_meta_write(burial->tenant->store, &change, 1, &job->msg);
}

static void on_burial(struct job *job)
{
    struct burial *burial = CONTAINER_OF(job, struct burial, job);
    struct tenant *tenant = burial->tenant;
    struct timeline *tl = tenant_find_member(tenant, burial->info.id);
    if (job->result != ERR_OK) {
        log_warn(&tenant->log, "a tombstone stays until the next start: %s", job->msg.text);
    } else if (tl != NULL && tl->info.state == TIMELINE_TOMBSTONE) {
        bury(tenant, tl);
        tenant_bury_unneeded(tenant);
    }
    buf_deinit(&burial->row);
    mem_free(burial);
}

/* Tombstones without children: the last child went, maybe just before a crash. */
void tenant_bury_unneeded(struct tenant *tenant)
{
    LIST_FOR_EACH(&tenant->members, link)
    {
        struct timeline *tl = timeline_of_member(link);
        if (tl->info.state != TIMELINE_TOMBSTONE || tl->child_count > 0 || tl->is_being_buried) {
            continue;
        }
        tl->is_being_buried = true;
        struct burial *burial = MEM_NEW(struct burial);
        burial->tenant = tenant;
        burial->info = tl->info;
        burial->info.state = TIMELINE_DELETING;
        timeline_info_encode(&burial->info, &burial->row);
        burial->job = (struct job){.run = write_burial, .done = on_burial};
        lane_submit(&tenant->lane, &burial->job);
    }
}

static err_t write_deletion(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    TRY(tenant_request_write_row(job));
    return page_store_meta_settle(request->tenant->store, &job->msg);
}

static void on_row_deleting(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenant *tenant = request->tenant;
    request->msg = job->msg;
    if (job->result == ERR_OK) {
        struct timeline *tl = tenant_find_timeline(tenant, request->info.id);
        ASSERT(tl != NULL);
        if (request->info.state == TIMELINE_TOMBSTONE) {
            history_set_tombstone(tenant->history, timeline_history(tl));
            timeline_set_state(tl, TIMELINE_TOMBSTONE);
            log_info(timeline_log(tl), "deleted; kept for %u children", tl->child_count);
            stop_arrived(tenant);
        } else {
            bury(tenant, tl);
        }
        tenant_bury_unneeded(tenant);
    }
    tenant_request_finish(request, job->result);
}

void tenant_delete_timeline(
    struct tenant *tenant,
    struct tenant_request *request,
    struct timeline *tl,
    bool even_with_children)
{
    bool under_way = tenant_is_changing(tenant, timeline_info(tl)->id);
    tenant_request_begin(request, tenant->tenants, tenant);
    request->info = *timeline_info(tl);
    if (under_way) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the timeline is being changed"));
    } else if (tl->child_count > 0 && !even_with_children) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_EXISTS, "the timeline has children"));
    } else if (tl->child_count > 0 && tl->info.state != TIMELINE_ACTIVE) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the timeline is not imported yet"));
    } else {
        request->info.state = tl->child_count > 0 ? TIMELINE_TOMBSTONE : TIMELINE_DELETING;
        timeline_info_encode(&request->info, &request->row);
        request->job = (struct job){.run = write_deletion, .done = on_row_deleting};
        lane_submit(&tenant->lane, &request->job);
    }
}
