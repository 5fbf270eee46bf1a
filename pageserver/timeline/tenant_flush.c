/* When the layers of a tenant become files. */
#include "common/base/clock.h"
#include "common/base/metric.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "pageserver/timeline/tenant_private.h"

METRIC_COUNTER(
    flushes_throttled,
    "pageserver_store_flushes_throttled_total",
    "flushes put off because compaction was behind");

METRIC_GAUGE(
    full_count, "pageserver_tenants_disk_full", "tenants whose flush waits for room on the disk");

#define RETRY_MS 100

static void fail_all(struct tenant *tenant, const char *why)
{
    err_ignore(str_copy(tenant->failure, sizeof(tenant->failure), why, NULL), "errmsg texts fit");
    LIST_FOR_EACH(&tenant->members, link)
    {
        timeline_fail(timeline_of_member(link), why);
    }
}

/*
 * ERR_FULL before RocksDB finds out: a compaction that gives room back and the row that deletes a
 * branch need some themselves. Layers become at most as large as they are.
 */
static err_t check_room(const struct tenant *tenant, struct errmsg *msg)
{
    uint64_t unused = 0;
    TRY(dir_free_bytes(tenant->tenants->folder, &unused, msg));
    uint64_t needed = page_store_open_bytes(tenant->store) + page_store_frozen_bytes(tenant->store);
    uint64_t reserve = tenant->tenants->options.disk_reserve_bytes;
    if (unused >= needed && unused - needed >= reserve) {
        return ERR_OK;
    }
    return err_set(
        msg, ERR_FULL,
        "%" PRIu64 " bytes are free on the disk, a flush needs %" PRIu64 " and leaves %" PRIu64
        " (disk_reserve)",
        unused, needed, reserve);
}

/* ERR_BUSY: compaction is behind, each more flush would make every read slower. */
static err_t flush(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, flush_job);
    if (!page_store_waits_for_room(tenant->store) && page_store_is_behind(tenant->store)) {
        metric_add(&flushes_throttled, 1);
        return err_set(&job->msg, ERR_BUSY, "compaction is behind");
    }
    TRY(check_room(tenant, &job->msg));
    return page_store_flush(tenant->store, &job->msg);
}

/*
 * However many timelines the tenant has: only those that were written to. A flush takes what is
 * there when it runs, which may be more than when it was asked for; if nothing is left, all is
 * durable, and nobody would ask for another one.
 */
static void tell_durable(struct tenant *tenant)
{
    struct tenants_user *user = tenant->tenants->options.user;
    bool all = page_store_open_bytes(tenant->store) + page_store_frozen_bytes(tenant->store) == 0;
    LIST_FOR_EACH(&tenant->advanced, link)
    {
        struct timeline *tl = CONTAINER_OF(link, struct timeline, advanced_link);
        if (all) {
            timeline_flush_begins(tl);
        }
        timeline_flush_succeeded(tl);
        tenant_tell_durable(tenant, tl);
        if (tl->durable_lsn == tl->position.lsn) {
            list_remove(&tl->advanced_link);
        }
        if (user->on_timeline_durable != NULL) {
            user->on_timeline_durable(user, tl);
        }
    }
}

/* Told when it begins and when it ends: it may last for hours. */
static void set_full(struct tenant *tenant, const char *why)
{
    if (tenant->full[0] == '\0' && why[0] != '\0') {
        log_warn(&tenant->log, "no room: %s; ingest waits, reads go on", why);
        metric_add(&full_count, 1);
    } else if (tenant->full[0] != '\0' && why[0] == '\0') {
        log_info(&tenant->log, "there is room again");
        metric_add(&full_count, -1);
    }
    err_ignore(str_copy(tenant->full, sizeof(tenant->full), why, NULL), "errmsg texts fit");
}

void tenant_forget_full(struct tenant *tenant)
{
    set_full(tenant, "");
}

static void on_flushed(struct job *job)
{
    struct tenant *tenant = CONTAINER_OF(job, struct tenant, flush_job);
    tenant->flushing = false;
    if (job->result == ERR_OK) {
        set_full(tenant, "");
        tenant->dirty_since = page_store_open_bytes(tenant->store) > 0 ? clock_mono() : 0;
        tell_durable(tenant);
        tenant->tenants->options.user->on_flushed(tenant->tenants->options.user, tenant);
    } else if (job->result == ERR_BUSY) {
        tenant->retry_at = clock_mono() + RETRY_MS * NS_PER_MS;
    } else if (job->result == ERR_FULL) {
        set_full(tenant, job->msg.text);
        tenant->retry_at = clock_mono() + NS_PER_S;
    } else {
        set_full(tenant, "");
        log_error(&tenant->log, "flush: %s; the tenant's storage is out of service", job->msg.text);
        fail_all(tenant, job->msg.text);
    }
}

/* Not in the lane: a row does not wait for megabytes to be written. */
static void start_flush(struct tenant *tenant)
{
    tenant->flushing = true;
    tenant->flushing_bytes = page_store_open_bytes(tenant->store);
    LIST_FOR_EACH(&tenant->advanced, link)
    {
        timeline_flush_begins(CONTAINER_OF(link, struct timeline, advanced_link));
    }
    tenant->flush_job = (struct job){.run = flush, .done = on_flushed};
    executor_submit(tenant->tenants->options.executor, &tenant->flush_job);
}

/* A tenant that is being deleted may have no store any more. */
static bool may_flush(const struct tenant *tenant, mono_ns_t now)
{
    if (tenant->flushing || tenant->erasing || tenant->deleting || tenant->failure[0] != '\0' ||
        now < tenant->retry_at) {
        return false;
    }
    return page_store_open_bytes(tenant->store) + page_store_frozen_bytes(tenant->store) > 0 ||
           page_store_waits_for_room(tenant->store);
}

void tenant_flush_if_due(struct tenant *tenant)
{
    mono_ns_t now = clock_mono();
    if (!may_flush(tenant, now)) {
        return;
    }
    if (tenant->dirty_since == 0) {
        tenant->dirty_since = now;
    }
    const struct tenants_options *options = &tenant->tenants->options;
    bool is_retry =
        page_store_frozen_bytes(tenant->store) > 0 || page_store_waits_for_room(tenant->store);
    if (is_retry || page_store_open_bytes(tenant->store) >= options->flush_bytes ||
        now - tenant->dirty_since >= options->flush_age_ms * NS_PER_MS) {
        start_flush(tenant);
    }
}

/* The layers of all tenants take too much: the largest goes first, until enough is on its way. */
void tenants_flush_largest(struct tenants *tenants)
{
    size_t memory = page_stores_memory();
    mono_ns_t now = clock_mono();
    LIST_FOR_EACH(&tenants->list, link)
    {
        struct tenant *tenant = CONTAINER_OF(link, struct tenant, link);
        memory -= tenant->flushing ? MIN_OF(memory, tenant->flushing_bytes) : 0;
    }
    while (memory > tenants->options.layers_bytes / 2) {
        struct tenant *largest = NULL;
        LIST_FOR_EACH(&tenants->list, link)
        {
            struct tenant *tenant = CONTAINER_OF(link, struct tenant, link);
            if (may_flush(tenant, now) &&
                (largest == NULL ||
                 page_store_open_bytes(tenant->store) > page_store_open_bytes(largest->store))) {
                largest = tenant;
            }
        }
        if (largest == NULL) {
            return;
        }
        start_flush(largest);
        memory -= MIN_OF(memory, largest->flushing_bytes);
    }
}

void tenant_written(struct tenant *tenant)
{
    tenant_flush_if_due(tenant);
    if (page_stores_memory() > tenant->tenants->options.layers_bytes / 2) {
        tenants_flush_largest(tenant->tenants);
    }
}

/* While a flush is at work as much again may be put as makes the next one due. */
bool tenant_has_room(const struct tenant *tenant)
{
    const struct tenants_options *options = &tenant->tenants->options;
    return page_store_open_bytes(tenant->store) < 2 * options->flush_bytes &&
           page_stores_memory() < options->layers_bytes;
}
