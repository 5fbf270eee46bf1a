#include "safekeeper/serve/server.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "safekeeper/disk/tombstone.h"
#include "safekeeper/serve/connection.h"
#include "safekeeper/serve/management.h"
#include "safekeeper/timeline/catch_up.h"
#include "safekeeper/timeline/forget.h"

#define SEND_QUEUE_MAX (4 * MIB) /* for each connection: what a feed may have on its way */

/* ---- what lies in the data folder ---- */

struct scan {
    struct server *server;
    char dir[PATH_SIZE]; /* of the tenant */
    struct tenant_id tenant;
};

/* A deletion was interrupted when the tombstone is not older than the membership. */
static err_t is_deleted(
    const struct scan *scan,
    const char *dir,
    struct timeline_id id,
    bool *ret_deleted,
    struct errmsg *msg)
{
    generation_t generation = 0;
    struct control_file file;
    struct control_state *state = MEM_NEW(struct control_state);
    err_t err = tombstone_read(scan->dir, scan->tenant, id, &generation, msg);
    *ret_deleted = false;
    if (err == ERR_OK) {
        err = control_file_load(&file, dir, scan->tenant, id, state, msg);
        /* A damaged one is no reason to delete anything: it is opened and reported. */
        *ret_deleted = err == ERR_OK && generation >= state->membership.generation;
        err = err == ERR_CORRUPT ? ERR_OK : err;
    }
    mem_free(state);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static err_t visit_timeline(const char *name, void *context, struct errmsg *msg)
{
    struct scan *scan = context;
    char path[PATH_SIZE];
    struct timeline_id id;
    bool is_gone = false;
    TRY(str_format(path, sizeof(path), msg, "%s/%s", scan->dir, name));
    if (str_ends_with(name, ".new") || str_ends_with(name, ".removed")) {
        return dir_remove(path, msg); /* an interrupted creation or deletion */
    }
    if (timeline_id_parse(name, &id, NULL) != ERR_OK) {
        return ERR_OK;
    }
    TRY(is_deleted(scan, path, id, &is_gone, msg));
    if (is_gone) {
        return dir_remove(path, msg);
    }
    timeline_set_add(scan->server->timelines, scan->tenant, id);
    return ERR_OK;
}

static err_t visit_tenant(const char *name, void *context, struct errmsg *msg)
{
    struct scan scan = {.server = context};
    if (tenant_id_parse(name, &scan.tenant, NULL) != ERR_OK) {
        return ERR_OK; /* not ours: ports.json, the lock file, .. */
    }
    TRY(str_format(scan.dir, sizeof(scan.dir), msg, "%s/%s", scan.server->env.data_dir, name));
    return dir_list(scan.dir, visit_timeline, &scan, msg);
}

err_t server_scan(struct server *server, struct errmsg *msg)
{
    return dir_list(server->env.data_dir, visit_tenant, server, msg);
}

/* ---- what the timelines missed ---- */

#define PEER_TIMER_MS 1000u

static void on_peer_timer(struct timer *timer)
{
    struct server *server = CONTAINER_OF(timer, struct server, peer_timer);
    (void)catch_up_begin_due(server->timelines, clock_mono());
    timer_start(server->env.loop, timer, MIN_OF(server->env.peer_check_ms, PEER_TIMER_MS));
}

static void on_retention_timer(struct timer *timer)
{
    struct server *server = CONTAINER_OF(timer, struct server, retention_timer);
    forget_begin_due(server->timelines, clock_mono());
    timer_start(server->env.loop, timer, MIN_OF(server->env.retention_ms, PEER_TIMER_MS));
}

/* ---- start ---- */

static struct link_user *on_accept(struct listener_user *user, struct link *link)
{
    struct server *server = CONTAINER_OF(user, struct server, listener_user);
    return server->is_stopping ? NULL : connection_create(server, link);
}

/* Without them workers do it: slower, and just as durable. */
static void start_kernel_syncs(struct server *server)
{
    struct errmsg msg;
    unsigned limit = server->options.kernel_syncs;
    server->env.syncs = NULL;
    if (limit > 0 &&
        sync_queue_create(server->env.loop, limit, &server->env.syncs, &msg) != ERR_OK) {
        log_info(NULL, "the kernel does not sync for us, workers do: %s", msg.text);
    }
}

err_t server_start(
    struct server *server,
    const struct timeline_env *env,
    const struct server_options *options,
    struct http_server *http,
    struct errmsg *msg)
{
    *server = (struct server){
        .env = *env,
        .options = *options,
        .listener_user = {.on_accept = on_accept},
    };
    server->timelines = timeline_set_create(&server->env);
    server->env.node_id = options->node_id;
    server->env.secret = options->secret;
    list_init(&server->connections);
    list_init(&server->operations);
    start_kernel_syncs(server);
    TRY(node_file_load(env->data_dir, options->node_id, server->incarnation, msg));
    TRY(server_scan(server, msg));
    struct link_options link_options = {.send_queue_max = SEND_QUEUE_MAX};
    TRY(listener_open(
        env->loop, options->host, options->port, options->connections_max, &link_options,
        &server->listener_user, &server->listener, msg));
    management_add_routes(server, http);
    server->peer_timer.on_fire = on_peer_timer;
    if (env->peer_check_ms > 0) {
        timer_start(env->loop, &server->peer_timer, env->peer_check_ms);
    }
    server->retention_timer.on_fire = on_retention_timer;
    if (env->retention_ms > 0) {
        timer_start(env->loop, &server->retention_timer, MIN_OF(env->retention_ms, PEER_TIMER_MS));
    }
    log_info(
        NULL, "node %" PRIu64 " listens on port %u with %zu timelines", options->node_id,
        listener_port(server->listener), timeline_set_count(server->timelines));
    timeline_set_open_all(server->timelines);
    return ERR_OK;
}

uint16_t server_port(const struct server *server)
{
    return listener_port(server->listener);
}

/* ---- stop ---- */

struct stopping {
    struct timeline_closing closing;
    struct server *server;
};

void server_step_stopped(struct server *server)
{
    ASSERT(server->closing_left > 0);
    if (--server->closing_left == 0 && server->is_stopping) {
        server->on_stopped(server);
    }
}

static void on_timeline_closed(struct timeline_closing *closing)
{
    struct stopping *stopping = CONTAINER_OF(closing, struct stopping, closing);
    struct server *server = stopping->server;
    mem_free(stopping);
    server_step_stopped(server);
}

struct stop_visitor {
    struct timeline_visitor as_visitor;
    struct server *server;
};

static void stop_timeline(
    struct timeline_visitor *visitor,
    struct tenant_id tenant,
    struct timeline_id id,
    struct timeline *tl)
{
    (void)tenant;
    (void)id;
    if (timeline_state(tl) == TIMELINE_CLOSED) {
        return; /* its deletion counts itself */
    }
    struct stopping *stopping = MEM_NEW(struct stopping);
    stopping->server = CONTAINER_OF(visitor, struct stop_visitor, as_visitor)->server;
    stopping->closing.on_closed = on_timeline_closed;
    stopping->server->closing_left++;
    timeline_close(tl, &stopping->closing);
}

void server_stop(struct server *server, void (*on_stopped)(struct server *server))
{
    struct stop_visitor visitor = {.as_visitor.visit = stop_timeline, .server = server};
    timeline_set_stop(server->timelines);
    timer_stop(&server->peer_timer);
    timer_stop(&server->retention_timer);
    server->is_stopping = true;
    server->on_stopped = on_stopped;
    listener_close(server->listener);
    server->listener = NULL;
    connections_close(server);
    timeline_set_visit_awake(server->timelines, &visitor.as_visitor); /* the others are at rest */
    if (server->closing_left == 0) {
        on_stopped(server);
    }
}

void server_deinit(struct server *server)
{
    if (server->timelines != NULL) {
        timeline_set_destroy(server->timelines);
        server->timelines = NULL;
    }
    sync_queue_destroy(server->env.syncs);
    server->env.syncs = NULL;
}

struct readiness_visitor {
    struct timeline_visitor as_visitor;
    size_t opening;
    struct buf *reasons;
};

static void look_at_readiness(
    struct timeline_visitor *visitor,
    struct tenant_id tenant,
    struct timeline_id id,
    struct timeline *tl)
{
    struct readiness_visitor *readiness =
        CONTAINER_OF(visitor, struct readiness_visitor, as_visitor);
    (void)tenant;
    if (timeline_state(tl) == TIMELINE_OPENING) {
        readiness->opening++;
    } else if (timeline_state(tl) == TIMELINE_FAILED) {
        bool is_repaired = timeline_repair_text(tl)[0] != '\0';
        buf_printf(
            readiness->reasons, "timeline %s: %s%s%s\n", timeline_id_text(id).text,
            timeline_storage_text(tl), is_repaired ? "; repair: " : "", timeline_repair_text(tl));
    }
}

void server_not_ready(const struct server *server, struct buf *reasons)
{
    struct readiness_visitor visitor = {
        .as_visitor.visit = look_at_readiness,
        .opening = timeline_set_unopened_count(server->timelines),
        .reasons = reasons,
    };
    timeline_set_visit_awake(server->timelines, &visitor.as_visitor);
    if (visitor.opening > 0) {
        buf_printf(reasons, "%zu timelines are being verified\n", visitor.opening);
    }
}
