/* Deleting timelines, also those that children live on, and erasing what is left of them. */
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "pageserver/timeline/tenant_private.h"

#define ERASED_AT_ONCE_MAX 64

/* Versions of a deleted timeline, until they are erased. */
struct erasure {
    struct tenant *tenant;
    struct timeline *timeline; /* NULL after a restart: nobody can be reading */
    uint32_t number;
    bool is_due; /* nobody reads it any more */
    struct timer timer;
    struct list_link link, in_lane;
};

/* -- erasing -- */

static void submit_erasures(struct tenant *tenant);

static void end_erasure(struct erasure *erasure, const struct job *job)
{
    struct tenant *tenant = erasure->tenant;
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

static void on_erased(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, erase_job);
    struct list_link *link;
    tenant->erasing = false;
    while ((link = list_pop_front(&tenant->erased)) != NULL) {
        end_erasure(CONTAINER_OF(link, struct erasure, in_lane), job);
    }
    submit_erasures(tenant); /* in this turn: no flush may come in between */
}

/* Versions, then what else there is of them, then the rows that say so. */
static err_t erase_numbers(
    struct tenant *tenant, const uint32_t *numbers, size_t count, struct errmsg *msg)
{
    TRY(page_store_meta_settle(tenant->store, msg)); /* the rows that say "deleting" */
    TRY(page_store_erase(tenant->store, numbers, count, msg));
    for (size_t i = 0; i < count; i++) {
        TRY(history_erase_rows(tenant->history, tenant->store, numbers[i], msg));
    }
    struct meta_change *changes = MEM_ARRAY(struct meta_change, 2 * count);
    for (size_t i = 0; i < count; i++) {
        changes[2 * i] = (struct meta_change){.kind = META_TIMELINE, .id = numbers[i]};
        changes[2 * i + 1] = (struct meta_change){.kind = META_WORKING_SET, .id = numbers[i]};
    }
    err_t err = page_store_meta_write(tenant->store, changes, 2 * count, msg);
    mem_free(changes);
    return err;
}

static err_t erase(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, erase_job);
    uint32_t numbers[ERASED_AT_ONCE_MAX];
    size_t count = 0;
    LIST_FOR_EACH(&tenant->erased, link)
    {
        numbers[count++] = CONTAINER_OF(link, struct erasure, in_lane)->number;
    }
    return erase_numbers(tenant, numbers, count, &job->msg);
}

/* All that are due go together: what an erasure takes is a flush and a few syncs, whatever goes. */
static void submit_erasures(struct tenant *tenant)
{
    size_t count = 0;
    if (tenant->erasing) {
        return;
    }
    LIST_FOR_EACH(&tenant->erasures, link)
    {
        struct erasure *erasure = CONTAINER_OF(link, struct erasure, link);
        if (erasure->is_due && count < ERASED_AT_ONCE_MAX) {
            erasure->is_due = false;
            list_push_back(&tenant->erased, &erasure->in_lane);
            count++;
        }
    }
    if (count > 0) {
        tenant->erasing = true;
        tenant->erase_job = (struct job){.run = erase, .done = on_erased};
        lane_submit(&tenant->lane, &tenant->erase_job);
    }
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
        erasure->tenant->readers > 0 ||
        (erasure->timeline != NULL && (timeline_has_readers(erasure->timeline) ||
                                       has_child_in_history(erasure->tenant, erasure->timeline)));
    if (has_readers || erasure->tenant->flushing) {
        timer_start(tenant_loop(erasure->tenant), timer, 10);
        return;
    }
    if (erasure->timeline != NULL) {
        tenant_forget_timeline(erasure->tenant, erasure->timeline);
    }
    erasure->is_due = true;
    submit_erasures(erasure->tenant);
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

bool tenant_erasure_waits(const struct tenant *tenant)
{
    LIST_FOR_EACH(&tenant->erasures, link)
    {
        if (timer_is_started(&CONTAINER_OF(link, struct erasure, link)->timer)) {
            return true;
        }
    }
    return false;
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

/* Rows of all deletions that wait, with one sync and one flush: as with new timelines. */
static err_t write_deletions(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, deletions_job);
    size_t count = 0;
    LIST_FOR_EACH(&tenant->written_deletions, link)
    {
        count++;
    }
    struct meta_change *changes = MEM_ARRAY(struct meta_change, count);
    count = 0;
    LIST_FOR_EACH(&tenant->written_deletions, link)
    {
        struct tenant_request *request = CONTAINER_OF(link, struct tenant_request, new_link);
        changes[count++] = (struct meta_change){
            .kind = META_TIMELINE, .id = request->info.number, .value = buf_view(&request->row)};
    }
    err_t err = page_store_meta_write(tenant->store, changes, count, &job->msg);
    mem_free(changes);
    return err != ERR_OK ? err : page_store_meta_settle(tenant->store, &job->msg);
}

static void tell_deleted(struct tenant *tenant, struct timeline_id id)
{
    struct tenants_user *user = tenant->tenants->options.user;
    if (user->on_timeline_deleted != NULL) {
        user->on_timeline_deleted(user, tenant, id);
    }
}

static void take_deletion(struct tenant_request *request, err_t result)
{
    struct tenant *tenant = request->tenant;
    if (result == ERR_OK) {
        struct timeline *tl = tenant_find_timeline(tenant, request->info.id);
        ASSERT(tl != NULL);
        tell_deleted(tenant, request->info.id);
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
    tenant_request_finish(request, result);
}

static void on_deletions(struct job *job);

static void write_deletions_that_wait(struct tenant *tenant)
{
    if (tenant->writing_deletions || list_is_empty(&tenant->deletions)) {
        return;
    }
    tenant->writing_deletions = true;
    list_move_all(&tenant->deletions, &tenant->written_deletions);
    tenant->deletions_job = (struct job){.run = write_deletions, .done = on_deletions};
    lane_submit(&tenant->lane, &tenant->deletions_job);
}

static void on_deletions(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, deletions_job);
    err_t result = job->result;
    struct errmsg msg = job->msg;
    struct list written;
    list_init(&written);
    list_move_all(&tenant->written_deletions, &written);
    tenant->writing_deletions = false;
    write_deletions_that_wait(tenant); /* before anybody is told, who may do anything */
    for (struct list_link *link; (link = list_pop_front(&written)) != NULL;) {
        struct tenant_request *request = CONTAINER_OF(link, struct tenant_request, new_link);
        request->msg = msg;
        take_deletion(request, result);
    }
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
        list_push_back(&tenant->deletions, &request->new_link);
        write_deletions_that_wait(tenant);
    }
}
