/*
 * Tenants whose folder is here and whose store could not be opened: damaged, or no room on the
 * disk. They are out of service and say why; the others are served. What waits for room is tried
 * again; for the rest that is the next attach or the next start.
 */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "pageserver/timeline/tenant_private.h"

METRIC_GAUGE(shut_count, "pageserver_tenants_shut", "tenants whose store could not be opened");

#define RETRY_NS (2 * NS_PER_S)

struct shut_tenant {
    struct tenants *tenants;
    struct tenant_id id;
    err_t result;
    struct errmsg why;
    bool is_opening;
    mono_ns_t retry_at;
    struct tenant_request request;
    struct list_link link;
};

static struct shut_tenant *find(const struct tenants *tenants, struct tenant_id id)
{
    LIST_FOR_EACH(&tenants->shut, link)
    {
        struct shut_tenant *shut = CONTAINER_OF(link, struct shut_tenant, link);
        if (tenant_id_equal(shut->id, id)) {
            return shut;
        }
    }
    return NULL;
}

static void drop(struct shut_tenant *shut)
{
    list_remove(&shut->link);
    metric_add(&shut_count, -1);
    mem_free(shut);
}

bool tenants_is_shut(const struct tenants *tenants, struct tenant_id id)
{
    return find(tenants, id) != NULL;
}

void tenants_shut_add(
    struct tenants *tenants, struct tenant_id id, err_t result, const struct errmsg *why)
{
    struct shut_tenant *shut = MEM_NEW(struct shut_tenant);
    shut->tenants = tenants;
    shut->id = id;
    shut->result = result;
    shut->why = *why;
    shut->retry_at = clock_mono() + RETRY_NS;
    list_push_back(&tenants->shut, &shut->link);
    metric_add(&shut_count, 1);
    log_error(NULL, "tenant %s is out of service: %s", tenant_id_text(id).text, why->text);
}

/* Its own request frees it when that is over. */
void tenants_shut_opened(struct tenants *tenants, struct tenant_id id)
{
    struct shut_tenant *shut = find(tenants, id);
    if (shut != NULL && !shut->is_opening) {
        drop(shut);
    }
}

static void on_opened(struct tenant_request *request, err_t result)
{
    struct shut_tenant *shut = CONTAINER_OF(request, struct shut_tenant, request);
    shut->is_opening = false;
    if (result == ERR_OK) {
        drop(shut);
        return;
    }
    shut->result = result;
    shut->why = request->msg;
    shut->retry_at = clock_mono() + RETRY_NS;
}

void tenants_open_shut_if_due(struct tenants *tenants, mono_ns_t now)
{
    LIST_FOR_EACH(&tenants->shut, link)
    {
        struct shut_tenant *shut = CONTAINER_OF(link, struct shut_tenant, link);
        if (shut->result == ERR_FULL && !shut->is_opening && now >= shut->retry_at) {
            shut->is_opening = true;
            shut->request.done = on_opened;
            tenant_open_again(tenants, &shut->request, shut->id);
        }
    }
}

void tenants_shut_drop_all(struct tenants *tenants)
{
    LIST_FOR_EACH(&tenants->shut, link)
    {
        drop(CONTAINER_OF(link, struct shut_tenant, link));
    }
}

err_t tenants_why_missing(const struct tenants *tenants, struct tenant_id id, struct errmsg *msg)
{
    const struct shut_tenant *shut = find(tenants, id);
    if (shut == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "no tenant %s here", tenant_id_text(id).text);
    }
    return err_set(
        msg, shut->result == ERR_FULL ? ERR_FULL : ERR_FAILED, "tenant %s is out of service: %s",
        tenant_id_text(id).text, shut->why.text);
}

bool tenants_describe_shut(const struct tenants *tenants, struct buf *to)
{
    bool is_damaged = false;
    LIST_FOR_EACH(&tenants->shut, link)
    {
        const struct shut_tenant *shut = CONTAINER_OF(link, struct shut_tenant, link);
        buf_printf(
            to, "tenant %s: out of service: %s\n", tenant_id_text(shut->id).text, shut->why.text);
        is_damaged = is_damaged || shut->result != ERR_FULL;
    }
    return is_damaged;
}
