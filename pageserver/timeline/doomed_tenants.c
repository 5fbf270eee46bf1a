#include "pageserver/timeline/doomed_tenants.h"

#include "common/base/assert.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/file.h"
#include "pageserver/timeline/tenant.h"

METRIC_GAUGE(
    doomed_count, "pageserver_doomed_tenants", "deleted tenants of which something is still left");

#define RETRY_MS 30000

struct doomed_tenant {
    struct doomed_tenants *all;
    struct tenant_id id;
    struct job job;
    struct timer timer;
    bool running;
    struct list_link link;
};

static err_t erase(struct job *job)
{
    struct doomed_tenant *tenant = CONTAINER_OF(job, struct doomed_tenant, job);
    struct tenants_user *user = tenant->all->user;
    char path[PATH_SIZE];
    if (user->erase != NULL) {
        TRY(FAULT("doomed_tenants.erase"));
        TRY(user->erase(user, tenant->id, &job->msg));
    }
    TRY(str_format(
        path, sizeof(path), &job->msg, "%s/%s" DOOMED_SUFFIX, tenant->all->folder,
        tenant_id_text(tenant->id).text));
    return dir_remove(path, &job->msg);
}

static void forget(struct doomed_tenant *tenant)
{
    timer_stop(&tenant->timer);
    list_remove(&tenant->link);
    metric_add(&doomed_count, -1);
    mem_free(tenant);
}

static void on_erased(struct job *job)
{
    struct doomed_tenant *tenant = CONTAINER_OF(job, struct doomed_tenant, job);
    tenant->running = false;
    if (job->result == ERR_OK) {
        log_info(NULL, "tenant %s: nothing is left of it", tenant_id_text(tenant->id).text);
        forget(tenant);
    } else if (!tenant->all->stopping) {
        log_warn(
            NULL, "tenant %s is deleted, but not all of it is gone: %s; will retry",
            tenant_id_text(tenant->id).text, job->msg.text);
        timer_start(tenant->all->loop, &tenant->timer, RETRY_MS);
    }
}

static void on_timer(struct timer *timer)
{
    struct doomed_tenant *tenant = CONTAINER_OF(timer, struct doomed_tenant, timer);
    tenant->running = true;
    tenant->job = (struct job){.run = erase, .done = on_erased};
    executor_submit(tenant->all->executor, &tenant->job);
}

void doomed_tenants_init(
    struct doomed_tenants *doomed,
    struct loop *loop,
    struct executor *executor,
    struct tenants_user *user,
    const char *folder)
{
    *doomed =
        (struct doomed_tenants){.loop = loop, .executor = executor, .user = user, .folder = folder};
    list_init(&doomed->list);
}

void doomed_tenants_add(struct doomed_tenants *doomed, struct tenant_id id)
{
    struct doomed_tenant *tenant = MEM_NEW(struct doomed_tenant);
    tenant->all = doomed;
    tenant->id = id;
    tenant->timer.on_fire = on_timer;
    list_push_back(&doomed->list, &tenant->link);
    metric_add(&doomed_count, 1);
    timer_start(doomed->loop, &tenant->timer, 0);
}

bool doomed_tenants_has(const struct doomed_tenants *doomed, struct tenant_id id)
{
    LIST_FOR_EACH(&doomed->list, link)
    {
        if (tenant_id_equal(CONTAINER_OF(link, struct doomed_tenant, link)->id, id)) {
            return true;
        }
    }
    return false;
}

void doomed_tenants_stop(struct doomed_tenants *doomed)
{
    doomed->stopping = true;
    LIST_FOR_EACH(&doomed->list, link)
    {
        timer_stop(&CONTAINER_OF(link, struct doomed_tenant, link)->timer);
    }
}

bool doomed_tenants_are_idle(const struct doomed_tenants *doomed)
{
    LIST_FOR_EACH(&doomed->list, link)
    {
        if (CONTAINER_OF(link, struct doomed_tenant, link)->running) {
            return false;
        }
    }
    return true;
}

void doomed_tenants_deinit(struct doomed_tenants *doomed)
{
    ASSERT(doomed_tenants_are_idle(doomed));
    LIST_FOR_EACH(&doomed->list, link)
    {
        forget(CONTAINER_OF(link, struct doomed_tenant, link));
    }
}
