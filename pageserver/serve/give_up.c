/*
 * give_up.c - a tenant's disk that is too old: for the WAL that is left, or for its next owner.
 *
 * A disk that was restored from a copy, or whose owner slept while another one went on, may be
 * behind what the safekeepers have forgotten. They forget what the object store has, so its newest
 * index is further than this disk; that is looked at before anything is given up. Then the tenant
 * is closed, its folder goes, and it is attached again in the same generation, from the object
 * store. Until then it claims nothing: an upload round of a disk that is behind the newest index is
 * refused.
 *
 * A disk that comes back after another one stood in for it has no gap if the WAL is still there,
 * but what was deleted meanwhile, which nobody remembers any more. Who attaches it under a later
 * generation has it given up as well, if an owner in between has put an index.
 *
 * Threads: loop only; looking is done by a worker that may wait for the object store.
 */
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "pageserver/remote/index_store.h"
#include "pageserver/serve/server.h"

METRIC_COUNTER(
    given_up, "pageserver_disks_given_up_total", "tenants restored because the disk was too old");

struct giving_up {
    struct server *server;
    struct list_link link;
    struct tenant_id tenant;
    generation_t generation; /* that it is attached under afterwards */
    struct job job;

    struct timeline_id timeline; /* whose WAL is forgotten */
    lsn_t lsn;                   /* up to here this disk has it */
    lsn_t index_lsn;

    struct tenant_request *attach;    /* of who attaches it; NULL: it is about WAL */
    generation_t generation_here;     /* of this disk until then */
    generation_t generation_of_index; /* of the newest one */

    struct tenant_request request;
};

static void finish(struct giving_up *giving_up)
{
    list_remove(&giving_up->link);
    mem_free(giving_up);
}

static void on_attached(struct tenant_request *request, err_t result)
{
    struct giving_up *giving_up = CONTAINER_OF(request, struct giving_up, request);
    if (result != ERR_OK) { /* control attaches what it misses */
        log_warn(
            NULL, "tenant %s: cannot be attached again yet: %s",
            tenant_id_text(giving_up->tenant).text, request->msg.text);
    }
    finish(giving_up);
}

static void answer(struct giving_up *giving_up, err_t err, const struct errmsg *msg)
{
    struct tenant_request *attach = giving_up->attach;
    attach->msg = *msg;
    finish(giving_up);
    attach->done(attach, err);
}

static void attach_for_caller(struct giving_up *giving_up)
{
    struct server *server = giving_up->server;
    struct tenant_request *attach = giving_up->attach;
    struct tenant_id tenant = giving_up->tenant;
    generation_t generation = giving_up->generation;
    finish(giving_up);
    tenant_attach(server->tenants, attach, tenant, generation);
}

static void on_given_up(struct tenant_request *request, err_t result)
{
    struct giving_up *giving_up = CONTAINER_OF(request, struct giving_up, request);
    struct server *server = giving_up->server;
    if (giving_up->attach != NULL) {
        metric_add(&given_up, result == ERR_OK ? 1 : 0);
        if (result != ERR_OK) {
            answer(giving_up, result, &request->msg);
        } else {
            attach_for_caller(giving_up);
        }
        return;
    }
    if (result != ERR_OK || server->stopping) {
        finish(giving_up);
        return;
    }
    metric_add(&given_up, 1);
    giving_up->request = (struct tenant_request){.done = on_attached};
    tenant_attach(server->tenants, &giving_up->request, giving_up->tenant, giving_up->generation);
}

/* The newest index that a restore would take. */
static err_t look(struct job *job)
{
    struct giving_up *giving_up = CONTAINER_OF(job, struct giving_up, job);
    struct objstore *objects = giving_up->server->objects;
    struct index_id *ids = NULL;
    struct remote_index index = {0};
    size_t count = 0;
    err_t err =
        index_list(objects, giving_up->tenant, giving_up->generation, &ids, &count, &job->msg);
    if (err == ERR_OK && count > 0) {
        err = index_load(objects, giving_up->tenant, ids[count - 1], &index, &job->msg);
    }
    for (size_t i = 0; err == ERR_OK && i < index.position_count; i++) {
        if (timeline_id_equal(index.positions[i].timeline, giving_up->timeline)) {
            giving_up->index_lsn = index.positions[i].lsn;
        }
    }
    remote_index_deinit(&index);
    mem_free(ids);
    return err;
}

static void on_looked(struct job *job)
{
    struct giving_up *giving_up = CONTAINER_OF(job, struct giving_up, job);
    struct server *server = giving_up->server;
    struct tenant *tenant = tenants_find(server->tenants, giving_up->tenant);
    const char *id = timeline_id_text(giving_up->timeline).text;
    if (job->result != ERR_OK || giving_up->index_lsn <= giving_up->lsn) {
        log_error(
            NULL,
            "timeline %s: the WAL behind " LSN_FMT " is kept nowhere, and the object store has "
            "only " LSN_FMT "%s%s",
            id, LSN_ARGS(giving_up->lsn), LSN_ARGS(giving_up->index_lsn),
            job->result == ERR_OK ? "" : ": ", job->msg.text);
        finish(giving_up);
        return;
    }
    if (server->stopping || tenant == NULL || tenant_generation(tenant) != giving_up->generation) {
        finish(giving_up);
        return;
    }
    log_warn(
        NULL,
        "tenant %s: this disk has timeline %s up to " LSN_FMT ", the object store up to " LSN_FMT
        ", and the WAL between them is kept nowhere: it is given up and restored",
        tenant_id_text(giving_up->tenant).text, id, LSN_ARGS(giving_up->lsn),
        LSN_ARGS(giving_up->index_lsn));
    giving_up->request = (struct tenant_request){.done = on_given_up};
    tenant_give_up(server->tenants, &giving_up->request, giving_up->tenant);
}

static bool is_under_way(const struct server *server, struct tenant_id tenant)
{
    LIST_FOR_EACH(&server->giving_ups, link)
    {
        const struct giving_up *other = CONTAINER_OF(link, struct giving_up, link);
        if (tenant_id_equal(other->tenant, tenant)) {
            return true;
        }
    }
    return false;
}

void give_up_begin(struct server *server, const struct timeline *tl)
{
    struct tenant *tenant = timeline_tenant(tl);
    if (is_under_way(server, tenant_id(tenant))) {
        return;
    }
    struct giving_up *giving_up = MEM_NEW(struct giving_up);
    giving_up->server = server;
    giving_up->tenant = tenant_id(tenant);
    giving_up->timeline = timeline_info(tl)->id;
    giving_up->generation = tenant_generation(tenant);
    giving_up->lsn = timeline_last_lsn(tl);
    list_push_back(&server->giving_ups, &giving_up->link);
    giving_up->job = (struct job){.run = look, .done = on_looked};
    executor_submit(server->uploads, &giving_up->job);
}

/* -- under a later generation -- */

static err_t look_for_owner(struct job *job)
{
    struct giving_up *giving_up = CONTAINER_OF(job, struct giving_up, job);
    struct index_id *ids = NULL;
    size_t count = 0;
    TRY(index_list(
        giving_up->server->objects, giving_up->tenant, giving_up->generation, &ids, &count,
        &job->msg));
    giving_up->generation_of_index = count == 0 ? 0 : ids[count - 1].generation;
    mem_free(ids);
    return ERR_OK;
}

static void on_looked_for_owner(struct job *job)
{
    struct giving_up *giving_up = CONTAINER_OF(job, struct giving_up, job);
    if (job->result != ERR_OK || giving_up->server->stopping) {
        answer(giving_up, job->result == ERR_OK ? ERR_CANCELED : job->result, &job->msg);
        return;
    }
    if (giving_up->generation_of_index <= giving_up->generation_here) {
        attach_for_caller(giving_up);
        return;
    }
    log_warn(
        NULL,
        "tenant %s: this disk has it as of generation %" PRIu32 ", and another one was its owner "
        "in generation %" PRIu32 ": it is given up and restored",
        tenant_id_text(giving_up->tenant).text, giving_up->generation_here,
        giving_up->generation_of_index);
    giving_up->request = (struct tenant_request){.done = on_given_up};
    tenant_give_up(giving_up->server->tenants, &giving_up->request, giving_up->tenant);
}

static void look_if_later(struct giving_up *giving_up)
{
    struct server *server = giving_up->server;
    const struct tenant *tenant = tenants_find(server->tenants, giving_up->tenant);
    if (tenant == NULL || giving_up->generation <= tenant_generation(tenant)) {
        attach_for_caller(giving_up);
        return;
    }
    giving_up->generation_here = tenant_generation(tenant);
    giving_up->job = (struct job){.run = look_for_owner, .done = on_looked_for_owner};
    executor_submit(server->uploads, &giving_up->job);
}

static void on_opened(struct tenant_request *request, err_t result)
{
    struct giving_up *giving_up = CONTAINER_OF(request, struct giving_up, request);
    if (result != ERR_OK || giving_up->server->stopping) {
        answer(giving_up, result == ERR_OK ? ERR_CANCELED : result, &request->msg);
    } else {
        look_if_later(giving_up);
    }
}

err_t give_up_or_attach(
    struct server *server,
    struct tenant_request *request,
    struct tenant_id id,
    generation_t generation,
    struct errmsg *msg)
{
    struct errmsg unused;
    const struct tenant *tenant = tenants_find(server->tenants, id);
    bool is_shut =
        tenant == NULL && tenants_why_missing(server->tenants, id, &unused) != ERR_NOT_FOUND;
    if (!is_shut && (tenant == NULL || generation <= tenant_generation(tenant))) {
        tenant_attach(server->tenants, request, id, generation);
        return ERR_OK;
    }
    if (is_under_way(server, id)) {
        return err_set(msg, ERR_BUSY, "the tenant is being restored");
    }
    struct giving_up *giving_up = MEM_NEW(struct giving_up);
    giving_up->server = server;
    giving_up->tenant = id;
    giving_up->generation = generation;
    giving_up->attach = request;
    list_push_back(&server->giving_ups, &giving_up->link);
    if (is_shut) { /* it says of which generation it is when it is open */
        giving_up->request = (struct tenant_request){.done = on_opened};
        tenant_attach(server->tenants, &giving_up->request, id, 0);
    } else {
        look_if_later(giving_up);
    }
    return ERR_OK;
}
