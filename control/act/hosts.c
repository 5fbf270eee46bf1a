#include "control/act/hosts.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#define TICK_MS 200

struct hosts {
    struct loop *loop;
    struct store *store;
    struct model *model;
    struct nodes *nodes;
    struct store_watcher watcher;
    struct timer tick;
    struct lease_clock clock;
    struct change expiry;
    bool expiring;
};

/* ---- what the catalog says becomes nodes ---- */

static void put_node(struct hosts *hosts, struct host *host)
{
    struct errmsg msg;
    if (nodes_put_agent(hosts->nodes, &host->row, &msg) != ERR_OK) {
        log_warn(NULL, "host %s is registered and not used: %s", host->row.id, msg.text);
        return;
    }
    log_info(
        NULL, "host %s: agent at %s:%" PRIu64 ", lease %" PRIu64 " ms", host->row.id,
        host->row.address, host->row.http_port, host->row.lease_ms);
}

static void on_applied(struct store_watcher *watcher, enum row_kind kind, void *object)
{
    if (kind == ROW_HOST) {
        struct host *host = object;
        lease_hear(&host->lease, clock_mono(), host->row.lease_ms);
        put_node(CONTAINER_OF(watcher, struct hosts, watcher), host);
    }
}

static void on_removed(struct store_watcher *watcher, enum row_kind kind, const union any_row *row)
{
    struct hosts *hosts = CONTAINER_OF(watcher, struct hosts, watcher);
    if (kind == ROW_HOST) {
        nodes_drop_agent(hosts->nodes, row->host.number);
    }
}

/* ---- leases that are over ---- */

/* It may have been kept alive since. */
static err_t prepare_expiry(struct change *change, struct errmsg *msg)
{
    struct hosts *hosts = CONTAINER_OF(change, struct hosts, expiry);
    mono_ns_t now = clock_mono();
    (void)msg;
    FOR_EACH_HOST(hosts->model, host)
    {
        if (lease_may_end(&hosts->clock, &host->lease, host->row.lease_ms, now)) {
            log_warn(
                NULL, "host %s: its agent has not been heard of for %" PRIu64 " ms: its lease ends",
                host->row.id, host->row.lease_ms);
            store_delete(hosts->store, change, ROW_HOST, &host->row);
        }
    }
    return ERR_OK;
}

static void on_expired(struct change *change, err_t result, const struct errmsg *msg)
{
    struct hosts *hosts = CONTAINER_OF(change, struct hosts, expiry);
    hosts->expiring = false;
    if (result != ERR_OK) {
        log_warn(NULL, "leases that are over could not be ended, trying again: %s", msg->text);
    }
}

/* Neither a host that registers itself nor one of the setting: we may be the one who is cut off. */
static bool hears_nobody(const struct hosts *hosts, mono_ns_t now)
{
    FOR_EACH_HOST(hosts->model, host)
    {
        if (lease_is_fresh(&host->lease, now)) {
            return false;
        }
    }
    for (size_t i = 0; i < nodes_count(hosts->nodes); i++) {
        const struct node *node = nodes_at(hosts->nodes, i);
        if (node->kind == NODE_AGENT && !node->registered && node->answered && node->reachable) {
            return false;
        }
    }
    return true;
}

static void on_tick(struct timer *timer)
{
    struct hosts *hosts = CONTAINER_OF(timer, struct hosts, tick);
    mono_ns_t now = clock_mono();
    bool was_away = lease_clock_look(&hosts->clock, now);
    bool any_ends = false;
    if (hears_nobody(hosts, now)) {
        lease_clock_silence(&hosts->clock, now);
    }
    FOR_EACH_HOST(hosts->model, host)
    {
        if (was_away) {
            lease_keep(&host->lease, now, host->row.lease_ms);
        }
        any_ends = any_ends || lease_may_end(&hosts->clock, &host->lease, host->row.lease_ms, now);
    }
    if (any_ends && !hosts->expiring) {
        hosts->expiring = true;
        hosts->expiry = (struct change){.prepare = prepare_expiry, .done = on_expired};
        store_submit(hosts->store, &hosts->expiry);
    }
    timer_start(hosts->loop, timer, TICK_MS);
}

/* ---- registering ---- */

static bool says_the_same(const struct host_row *a, const struct host_row *b)
{
    return a->number == b->number && a->http_port == b->http_port && a->lease_ms == b->lease_ms &&
           strcmp(a->address, b->address) == 0 && strcmp(a->listen_host, b->listen_host) == 0;
}

static bool is_at_the_same_place(const struct host_row *a, const struct host_row *b)
{
    return a->http_port == b->http_port && strcmp(a->address, b->address) == 0;
}

static err_t prepare_registration(struct change *change, struct errmsg *msg)
{
    struct registration *registration = CONTAINER_OF(change, struct registration, change);
    struct hosts *hosts = registration->hosts;
    struct host_row row = registration->row;
    const struct host *known = model_host(hosts->model, row.id);
    if (known != NULL) {
        if (!is_at_the_same_place(&known->row, &row) &&
            !lease_is_over(&known->lease, clock_mono())) {
            return err_set(
                msg, ERR_EXISTS, "host %s is at %s:%" PRIu64 ", and its lease is not over", row.id,
                known->row.address, known->row.http_port);
        }
        memcpy(&row, &known->row, sizeof(struct row_head));
    }
    TRY(nodes_check_agent(hosts->nodes, &row, msg));
    store_put(hosts->store, change, ROW_HOST, &row);
    return ERR_OK;
}

static void on_registered(struct change *change, err_t result, const struct errmsg *msg)
{
    struct registration *registration = CONTAINER_OF(change, struct registration, change);
    registration->done(registration, result, msg);
}

void host_register(struct hosts *hosts, struct registration *registration)
{
    struct host_row *row = &registration->row;
    struct errmsg msg = {0};
    snprintf(row->id, sizeof row->id, "%" PRIu64, row->number);
    struct host *known = model_host(hosts->model, row->id);
    if (known != NULL && says_the_same(&known->row, row)) {
        lease_hear(&known->lease, clock_mono(), known->row.lease_ms);
        registration->done(registration, ERR_OK, &msg);
        return;
    }
    registration->hosts = hosts;
    registration->change = (struct change){.prepare = prepare_registration, .done = on_registered};
    store_submit(hosts->store, &registration->change);
}

/* ---- begin and end ---- */

struct hosts *hosts_create(struct loop *loop, struct store *store, struct nodes *nodes)
{
    struct hosts *hosts = MEM_NEW(struct hosts);
    hosts->loop = loop;
    hosts->store = store;
    hosts->model = store_model(store);
    hosts->nodes = nodes;
    hosts->watcher.on_applied = on_applied;
    hosts->watcher.on_removed = on_removed;
    hosts->tick.on_fire = on_tick;
    (void)lease_clock_look(&hosts->clock, clock_mono());
    store_watch(store, &hosts->watcher);
    FOR_EACH_HOST(hosts->model, host)
    {
        lease_keep(&host->lease, clock_mono(), host->row.lease_ms);
        put_node(hosts, host);
    }
    timer_start(loop, &hosts->tick, TICK_MS);
    return hosts;
}

void hosts_stop(struct hosts *hosts)
{
    if (hosts != NULL) {
        timer_stop(&hosts->tick);
    }
}

void hosts_destroy(struct hosts *hosts)
{
    if (hosts != NULL) {
        timer_stop(&hosts->tick);
        store_unwatch(&hosts->watcher);
        mem_free(hosts);
    }
}
