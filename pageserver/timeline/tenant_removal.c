/*
 * Tenants that go: deleted with all that is kept of them anywhere, or given up on this disk only.
 */
#include "common/base/mem.h"
#include "common/io/file.h"
#include "pageserver/timeline/tenant_private.h"

/* The rename is the moment of deletion; what it leaves goes in the background. */
static err_t remove_tenant(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenants *tenants = request->tenants;
    char path[PATH_SIZE], doomed[PATH_SIZE];
    page_store_close(request->tenant->store);
    request->tenant->store = NULL;
    TRY(tenants_path(tenants, request->tenant_id, "", path, &job->msg));
    TRY(tenants_path(tenants, request->tenant_id, DOOMED_SUFFIX, doomed, &job->msg));
    return file_rename_durably(path, doomed, &job->msg);
}

/* The store is closed, or was never opened. */
static err_t remove_outdated(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenants *tenants = request->tenants;
    char path[PATH_SIZE], outdated[PATH_SIZE];
    if (request->tenant != NULL) {
        page_store_close(request->tenant->store);
        request->tenant->store = NULL;
    }
    TRY(tenants_path(tenants, request->tenant_id, "", path, &job->msg));
    TRY(tenants_path(tenants, request->tenant_id, OUTDATED_SUFFIX, outdated, &job->msg));
    TRY(dir_remove(outdated, &job->msg));
    TRY(file_rename_durably(path, outdated, &job->msg));
    return dir_remove(outdated, &job->msg);
}

static void on_tenant_removed(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenant *tenant = request->tenant;
    log_info(
        &tenant->log, "%s%s%s", request->is_given_up ? "given up" : "deleted",
        job->result == ERR_OK ? "" : ": ", job->msg.text);
    tenants_unlink(tenant);
    if (job->result == ERR_OK && !request->is_given_up) {
        doomed_tenants_add(&request->tenants->doomed, tenant->id);
    }
    request->msg = job->msg;
    tenant_request_finish(request, job->result);
    tenant_destroy(tenant);
}

static void on_delete_timer(struct timer *timer)
{
    struct tenant_request *request = CONTAINER_OF(timer, struct tenant_request, timer);
    if (!tenant_is_quiet(request->tenant)) {
        timer_start(request->tenants->options.loop, timer, 10);
        return;
    }
    tenant_drop_erasures(request->tenant);
    tenant_drop_members(request->tenant);
    request->job = (struct job){
        .run = request->is_given_up ? remove_outdated : remove_tenant, .done = on_tenant_removed};
    executor_submit(request->tenants->options.executor, &request->job);
}

/*
 * Of a tenant that this disk does not have, or cannot open: what is left elsewhere goes all the
 * same. The folder is the memory of that, as for others. ERR_NOT_FOUND: nothing is left anywhere.
 */
static err_t remove_absent(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    struct tenants *tenants = request->tenants;
    struct tenants_user *user = tenants->options.user;
    char path[PATH_SIZE], doomed[PATH_SIZE];
    bool is_elsewhere = false;
    TRY(tenants_path(tenants, request->tenant_id, "", path, &job->msg));
    TRY(tenants_path(tenants, request->tenant_id, DOOMED_SUFFIX, doomed, &job->msg));
    if (request->is_on_disk) {
        return file_rename_durably(path, doomed, &job->msg);
    }
    if (user->is_elsewhere != NULL) {
        TRY(user->is_elsewhere(user, request->tenant_id, &is_elsewhere, &job->msg));
    }
    if (!is_elsewhere) {
        return err_set(
            &job->msg, ERR_NOT_FOUND, "no tenant %s", tenant_id_text(request->tenant_id).text);
    }
    return dir_create_durably(doomed, &job->msg);
}

static void on_absent_removed(struct job *job)
{
    struct tenant_request *request = CONTAINER_OF(job, struct tenant_request, job);
    if (job->result == ERR_OK) {
        log_info(
            NULL, "tenant %s: %s", tenant_id_text(request->tenant_id).text,
            request->is_given_up ? "given up" : "deleted");
        tenants_shut_opened(request->tenants, request->tenant_id); /* it is none of these now */
        if (!request->is_given_up) {
            doomed_tenants_add(&request->tenants->doomed, request->tenant_id);
        }
    }
    request->msg = job->msg;
    tenant_request_finish(request, job->result);
}

/* None that is open here. */
static void begin_absent_removal(struct tenant_request *request, bool is_being_changed)
{
    struct tenants *tenants = request->tenants;
    request->is_on_disk = tenants_is_shut(tenants, request->tenant_id);
    if (is_being_changed) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the tenant is being changed"));
    } else if (request->is_given_up && !request->is_on_disk) {
        tenant_request_answer(
            request, tenants_why_missing(tenants, request->tenant_id, &request->msg));
    } else if (doomed_tenants_has(&tenants->doomed, request->tenant_id)) {
        tenant_request_answer(request, ERR_OK); /* it is going */
    } else {
        request->job = (struct job){
            .run = request->is_given_up ? remove_outdated : remove_absent,
            .done = on_absent_removed};
        executor_submit(
            request->is_on_disk ? tenants->options.executor : tenants->options.elsewhere,
            &request->job);
    }
}

static void begin_removal(
    struct tenants *tenants, struct tenant_request *request, struct tenant_id id, bool is_given_up)
{
    struct tenant *tenant = tenants_find(tenants, id);
    bool is_being_changed = tenants_are_changing(tenants, id);
    tenant_request_begin(request, tenants, NULL);
    request->tenant_id = id;
    request->tenant = tenant;
    request->is_given_up = is_given_up;
    if (tenant == NULL) {
        begin_absent_removal(request, is_being_changed);
    } else if (!list_is_empty(&tenant->requests)) {
        tenant_request_answer(
            request, err_set(&request->msg, ERR_BUSY, "the tenant is being changed"));
    } else {
        tenant->deleting = true;
        LIST_FOR_EACH(&tenant->members, link)
        {
            struct timeline *tl = timeline_of_member(link);
            timeline_set_state(tl, TIMELINE_DELETING);
            tenants->options.user->on_timeline_gone(tenants->options.user, tl);
        }
        if (tenants->options.user->on_tenant_gone != NULL) {
            tenants->options.user->on_tenant_gone(tenants->options.user, tenant);
        }
        request->timer = (struct timer){.on_fire = on_delete_timer};
        timer_start(tenants->options.loop, &request->timer, 0);
    }
}

void tenant_delete(struct tenants *tenants, struct tenant_request *request, struct tenant_id id)
{
    begin_removal(tenants, request, id, /* is_given_up */ false);
}

void tenant_give_up(struct tenants *tenants, struct tenant_request *request, struct tenant_id id)
{
    begin_removal(tenants, request, id, /* is_given_up */ true);
}
