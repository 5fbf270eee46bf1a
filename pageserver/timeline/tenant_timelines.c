/* Timelines of a tenant: creating them, and the end of an import. */
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "pageserver/timeline/shared_text.h"
#include "pageserver/timeline/tenant_private.h"

#define TIMELINES_MAX 250000 /* of one tenant */

/* Is a request about this timeline, or one that needs it as parent, under way? */
bool tenant_is_changing(struct tenant *tenant, struct timeline_id id)
{
    LIST_FOR_EACH(&tenant->requests, link)
    {
        struct tenant_request *request = CONTAINER_OF(link, struct tenant_request, link);
        if (timeline_id_equal(request->info.id, id) ||
            timeline_id_equal(request->info.parent, id)) {
            return true;
        }
    }
    return tenant_is_erasing(tenant, id);
}

/* -- new ones: all that wait are written together, with one sync -- */

static err_t write_new_rows(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, new_rows_job);
    size_t count = 1;
    LIST_FOR_EACH(&tenant->written_timelines, link)
    {
        count++;
    }
    struct meta_change *changes = MEM_ARRAY(struct meta_change, count);
    uint32_t next = 0;
    count = 1;
    LIST_FOR_EACH(&tenant->written_timelines, link)
    {
        struct tenant_request *request = CONTAINER_OF(link, struct tenant_request, new_link);
        changes[count++] = (struct meta_change){
            .kind = META_TIMELINE, .id = request->info.number, .value = buf_view(&request->row)};
        next = MAX_OF(next, request->info.number + 1);
    }
    next = htole32(next);
    changes[0] =
        (struct meta_change){.kind = META_NEXT_NUMBER, .value = bytes_of(&next, sizeof(next))};
    err_t err = page_store_meta_write(tenant->store, changes, count, &job->msg);
    mem_free(changes);
    return err;
}

static void take_row(struct tenant_request *request, err_t result)
{
    struct tenant *tenant = request->tenant;
    if (result != ERR_OK) {
        tenant_request_finish(request, result);
        return;
    }
    const struct timeline_info *info = &request->info;
    bool is_root = timeline_id_is_none(info->parent);
    struct timeline *parent = is_root ? NULL : tenant_find_member(tenant, info->parent);
    ASSERT(is_root || parent != NULL); /* a request that needs it keeps it from being deleted */
    struct ingest_position position = {.lsn = is_root ? 0 : info->start_lsn};
    struct timeline *tl = timeline_create(tenant, info, parent, position);
    tenant_add_member(tenant, tl);
    tenant_know_timeline(tenant, tl);
    log_info(
        timeline_log(tl), "created as number %" PRIu32 " at " LSN_FMT "%s%s", info->number,
        LSN_ARGS(info->start_lsn), is_root ? "" : ", branch of ",
        is_root ? "" : timeline_id_text(info->parent).text);
    tenant->tenants->options.user->on_timeline(tenant->tenants->options.user, tl);
    request->timeline = tl;
    request->created = true;
    tenant_request_finish(request, ERR_OK);
}

static void on_new_rows(struct job *job);

static void write_what_waits(struct tenant *tenant)
{
    if (tenant->writing_new_rows || list_is_empty(&tenant->new_timelines)) {
        return;
    }
    tenant->writing_new_rows = true;
    list_move_all(&tenant->new_timelines, &tenant->written_timelines);
    tenant->new_rows_job = (struct job){.run = write_new_rows, .done = on_new_rows};
    lane_submit(&tenant->lane, &tenant->new_rows_job);
}

/* The next rows are on their way before anybody is told of these: who is told may do anything. */
static void on_new_rows(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, new_rows_job);
    err_t result = job->result;
    struct errmsg msg = job->msg;
    struct list written;
    list_init(&written);
    list_move_all(&tenant->written_timelines, &written);
    tenant->writing_new_rows = false;
    write_what_waits(tenant);
    for (struct list_link *link; (link = list_pop_front(&written)) != NULL;) {
        struct tenant_request *request = CONTAINER_OF(link, struct tenant_request, new_link);
        request->msg = msg;
        take_row(request, result);
    }
}

/* -- rows that are there -- */

static void on_row_updated(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    request->msg = job->msg;
    struct timeline *tl = tenant_find_timeline(request->tenant, request->info.id);
    ASSERT(tl != NULL);
    if (job->result == ERR_OK) {
        timeline_update_info(tl, &request->info);
        request->tenant->tenants->options.user->on_timeline(
            request->tenant->tenants->options.user, tl);
    }
    request->timeline = tl;
    tenant_request_finish(request, job->result);
}

static bool same_history(const struct timeline_info *a, const struct timeline_info *b)
{
    return timeline_id_equal(a->parent, b->parent) && a->pg_version == b->pg_version &&
           a->system_id == b->system_id && a->start_lsn == b->start_lsn &&
           strcmp(a->bootstrap_object, b->bootstrap_object) == 0;
}

/* Its texts may go as soon as the request has begun. */
static void hold_info(struct tenant_request *request, const struct timeline_info *info)
{
    request->info = *info;
    request->info.bootstrap_object = shared_text_ref(info->bootstrap_object);
    request->info.safekeepers = shared_text_ref(info->safekeepers);
    request->holds_texts = true;
}

/* A repeated PUT: the same again, or news about generation and safekeepers. */
static void put_existing(
    struct tenant_request *request, struct timeline *tl, const struct timeline_info *info)
{
    const struct timeline_info *have = timeline_info(tl);
    if (!same_history(have, info)) {
        tenant_request_answer(
            request, err_set(
                         &request->msg, ERR_EXISTS, "timeline %s exists with another content",
                         timeline_id_text(info->id).text));
        return;
    }
    if (info->generation < have->generation ||
        info->membership_generation < have->membership_generation) {
        tenant_request_answer(
            request,
            err_set(
                &request->msg, ERR_STALE, "generation %" PRIu32 ", membership %" PRIu32 " are here",
                have->generation, have->membership_generation));
        return;
    }
    bool same_safekeepers = strcmp(have->safekeepers, info->safekeepers) == 0;
    if (!same_safekeepers && info->membership_generation == have->membership_generation) {
        tenant_request_answer(
            request, err_set(
                         &request->msg, ERR_EXISTS,
                         "other safekeepers under the same membership generation"));
        return;
    }
    request->timeline = tl;
    if (same_safekeepers && info->generation == have->generation &&
        info->membership_generation == have->membership_generation) {
        tenant_request_answer(request, ERR_OK);
        return;
    }
    request->info.number = have->number;
    request->info.parent_number = have->parent_number;
    request->info.state = have->state;
    timeline_info_encode(&request->info, &request->row);
    request->job = (struct job){.run = tenant_request_write_row, .done = on_row_updated};
    lane_submit(&request->tenant->lane, &request->job);
}

/* The branch LSN is held from here on, until the request is over and the branch holds it itself. */
static err_t check_new(
    struct tenant *tenant,
    const struct timeline_info *info,
    struct history_hold *hold,
    uint32_t *ret_parent_number,
    struct errmsg *msg)
{
    *ret_parent_number = 0;
    if (tenant_find_member(tenant, info->id) != NULL) {
        return err_set(msg, ERR_EXISTS, "the timeline was deleted, but children live on it");
    }
    if (tenant->member_count >= TIMELINES_MAX || tenant->next_number >= UINT32_MAX - 1) {
        return err_set(msg, ERR_BUSY, "limit of %d timelines of a tenant", TIMELINES_MAX);
    }
    if (timeline_id_is_none(info->parent)) {
        return ERR_OK;
    }
    struct timeline *parent = tenant_find_timeline(tenant, info->parent);
    if (parent == NULL) {
        return err_set(
            msg, ERR_NOT_FOUND, "no parent timeline %s", timeline_id_text(info->parent).text);
    }
    if (info->start_lsn < timeline_root_start_lsn(parent)) {
        return err_set(
            msg, ERR_RANGE, "branch LSN " LSN_FMT " is below the begin of history " LSN_FMT,
            LSN_ARGS(info->start_lsn), LSN_ARGS(timeline_root_start_lsn(parent)));
    }
    *ret_parent_number = timeline_number(parent);
    return history_hold(tenant->history, timeline_history(parent), info->start_lsn, hold, msg);
}

/* Until the row is there its parent looks as it did, and then it is gone. */
static bool is_being_deleted(struct tenant *tenant, struct timeline_id id)
{
    LIST_FOR_EACH(&tenant->requests, link)
    {
        struct tenant_request *request = CONTAINER_OF(link, struct tenant_request, link);
        bool deletes =
            request->info.state == TIMELINE_DELETING || request->info.state == TIMELINE_TOMBSTONE;
        if (deletes && timeline_id_equal(request->info.id, id)) {
            return true;
        }
    }
    return false;
}

void tenant_put_timeline(
    struct tenant *tenant, struct tenant_request *request, const struct timeline_info *info)
{
    bool under_way = tenant_is_changing(tenant, info->id) || is_being_deleted(tenant, info->parent);
    struct timeline *tl = tenant_find_timeline(tenant, info->id);
    tenant_request_begin(request, tenant->tenants, tenant);
    hold_info(request, info);
    if (under_way) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the timeline is being changed"));
        return;
    }
    if (tl != NULL) {
        put_existing(request, tl, &request->info);
        return;
    }
    uint32_t parent_number;
    err_t err = check_new(tenant, info, &request->hold, &parent_number, &request->msg);
    if (err != ERR_OK) {
        tenant_request_answer(request, err);
        return;
    }
    request->info.number = tenant->next_number++;
    request->info.parent_number = parent_number;
    request->info.state = timeline_id_is_none(info->parent) ? TIMELINE_IMPORTING : TIMELINE_ACTIVE;
    timeline_info_encode(&request->info, &request->row);
    list_push_back(&tenant->new_timelines, &request->new_link);
    write_what_waits(tenant);
}

static void on_import_finished(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    request->msg = job->msg;
    struct timeline *tl = tenant_find_timeline(request->tenant, request->info.id);
    if (job->result == ERR_OK && tl != NULL) {
        timeline_advance(tl, request->position);
        timeline_flush_begins(tl);
        timeline_flush_succeeded(tl);
        tenant_tell_durable(request->tenant, tl);
        timeline_set_state(tl, TIMELINE_ACTIVE);
        log_info(timeline_log(tl), "imported at " LSN_FMT, LSN_ARGS(request->position.lsn));
    }
    request->timeline = tl;
    tenant_request_finish(request, job->result);
}

void tenant_timeline_imported(
    struct tenant *tenant,
    struct tenant_request *request,
    struct timeline *tl,
    struct ingest_position position)
{
    tenant_request_begin(request, tenant->tenants, tenant);
    request->info = *timeline_info(tl);
    request->info.state = TIMELINE_ACTIVE;
    request->position = position;
    timeline_info_encode(&request->info, &request->row);
    request->job = (struct job){.run = tenant_request_write_row, .done = on_import_finished};
    lane_submit(&tenant->lane, &request->job);
}
