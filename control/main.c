/*
 * control - the catalog of projects, branches and endpoints, their REST API, and the reconciler
 * that makes the nodes what the catalog says.
 */
#include <stdio.h>

#include "common/app/app.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "control/act/meter.h"
#include "control/act/port.h"
#include "control/api/access.h"
#include "control/api/api.h"

#define CONTROL_SETTINGS(X)                                                                        \
    APP_SETTINGS(X, "7400")                                                                        \
    X(str, safekeepers, "", RESTART, "id@host:port/http_port, separated by commas")                \
    X(str, pageservers, "", RESTART, "id@host:port/http_port, separated by commas")                \
    X(str, agents, "", RESTART,                                                                    \
      "compute hosts: id@host:http_port, separated by commas; others "                             \
      "register themselves")                                                                       \
    X(str, object_store, "", RESTART,                                                              \
      "the catalog's log goes here too, as of the pageservers; empty: the disk is all there is")   \
    X(str, node_token, "", RESTART, "bearer token for the nodes; empty: none")                     \
    X(bool, node_tls, "false", RESTART, "the HTTP ports of all nodes speak TLS")                   \
    X(u64, safekeepers_per_branch, "3", RESTART, "members of the quorum of a new branch")          \
    X(str, compute_ports, "7500-8499", RESTART, "computes listen on a port of this range")         \
    X(str, compute_listen_host, "127.0.0.1", RESTART, "address that computes listen on")           \
    X(str, gateway_host, "", RESTART, "address of the gateway in connection URIs; empty: none")    \
    X(u64, gateway_port, "7432", RESTART, "its Postgres port")                                     \
    X(u64, pg_version, "17", RESTART, "Postgres version of new projects")                          \
    X(str, locale, "C.UTF-8", RESTART, "locale of new projects")                                   \
    X(str, region_id, "local", RESTART, "region that the API reports")                             \
    X(ms, reconcile_interval_ms, "2s", RESTART, "nodes are compared with the catalog so often")    \
    X(ms, operation_timeout_ms, "600s", RESTART, "an operation is reported as failed after it")    \
    X(ms, suspend_after_ms, "0ms", RESTART,                                                        \
      "computes without work are suspended after it, unless their endpoint says; 0: never")        \
    X(u64, key_requests_per_s, "50", RESTART,                                                      \
      "requests that one API key may make, four times as many at once; 0: no limit")               \
    X(ms, project_keep_ms, "3600s", RESTART, "operations of a deleted project are kept so long")   \
    X(ms, recovery_window_ms, "0ms", RELOAD,                                                       \
      "a deleted project or branch can be recovered for so long, and takes its space; 0: it is "   \
      "gone at once")

struct control_conf {
    CONTROL_SETTINGS(CONF_FIELD)
};
#define CONF_OWNER struct control_conf
static const struct conf_setting settings[] = {CONTROL_SETTINGS(CONF_ROW)};
static struct control_conf conf;

#define CONFIRM_EVERY_MS 5000 /* is this still the control of its catalog? */
#define STOP_TICK_MS     10
#define STOP_TICKS_MAX   300 /* then the object store is not waited for */

static struct control {
    struct app *app;
    struct api api;
    struct reconcile_user user;
    struct timer stop_timer, confirm_timer;
    struct change confirmation;
    bool stopping;
    unsigned stop_ticks;
} control;

static void on_operation_ended(struct reconcile_user *user, struct operation *operation)
{
    (void)user;
    operations_ended(operation);
}

static void on_endpoint_changed(struct reconcile_user *user, struct endpoint *endpoint)
{
    (void)user;
    endpoint_changed(endpoint);
}

static err_t read_options(struct api_options *ret_options, struct errmsg *msg)
{
    struct api_options options = {
        .pg_version = conf.pg_version,
        .region_id = conf.region_id,
        .gateway_host = conf.gateway_host,
        .gateway_port = conf.gateway_port,
        .safekeepers_per_branch = conf.safekeepers_per_branch,
        .recovery_window_ms = conf.recovery_window_ms,
    };
    err_t err = port_range_parse(conf.compute_ports, &options.port_first, &options.port_last, msg);
    if (err != ERR_OK) {
        return err_wrap(msg, err, "setting compute_ports");
    }
    if (options.safekeepers_per_branch == 0 || options.safekeepers_per_branch > SAFEKEEPERS_MAX) {
        return err_set(
            msg, ERR_INVALID, "setting safekeepers_per_branch: expected 1 to %d", SAFEKEEPERS_MAX);
    }
    *ret_options = options;
    return ERR_OK;
}

static err_t start_reconciler(struct api *api, struct app *app, struct errmsg *msg)
{
    struct reconcile_options reconcile = {
        .compute_listen_host = conf.compute_listen_host,
        .locale = conf.locale,
        .pg_version = conf.pg_version,
        .port_first = api->options.port_first,
        .port_last = api->options.port_last,
        .operation_timeout_ms = conf.operation_timeout_ms,
        .suspend_after_ms = conf.suspend_after_ms,
        .project_keep_ms = conf.project_keep_ms,
        .recovery_window_ms = conf.recovery_window_ms,
    };
    struct nodes_options nodes = {
        .safekeepers = conf.safekeepers,
        .pageservers = conf.pageservers,
        .agents = conf.agents,
        .token = conf.node_token,
        .has_tls = conf.node_tls,
        .poll_interval_ms = conf.reconcile_interval_ms,
    };
    control.user.on_operation_ended = on_operation_ended;
    control.user.on_endpoint_changed = on_endpoint_changed;
    api->reconciler = reconciler_create(api->loop, api->store, &reconcile, &control.user);
    TRY(nodes_create(
        api->loop, app_http_client(app), &nodes, reconciler_nodes_user(api->reconciler),
        &api->nodes, msg));
    api->hosts = hosts_create(api->loop, api->store, api->nodes);
    reconciler_start(api->reconciler, api->nodes);
    return ERR_OK;
}

static err_t nothing(struct change *change, struct errmsg *msg)
{
    (void)change;
    (void)msg;
    return ERR_OK;
}

/* One that was replaced does nothing to the nodes any more. It stays, and says why in /readyz. */
static void on_confirmed(struct change *change, err_t result, const struct errmsg *msg)
{
    (void)change;
    if (result == ERR_STALE) {
        log_error(NULL, "%s; nothing is done to the nodes any more", msg->text);
        reconciler_stop(control.api.reconciler);
        hosts_stop(control.api.hosts);
    } else if (!control.stopping) {
        timer_start(control.api.loop, &control.confirm_timer, CONFIRM_EVERY_MS);
    }
}

static void on_confirm_time(struct timer *timer)
{
    (void)timer;
    control.confirmation = (struct change){
        .prepare = nothing,
        .confirms = true,
        .done = on_confirmed,
    };
    store_submit(control.api.store, &control.confirmation);
}

static err_t start(struct app *app, struct errmsg *msg)
{
    struct api *api = &control.api;
    char path[PATH_SIZE];
    control.app = app;
    api->loop = app_loop(app);
    api->executor = app_executor(app);
    TRY(read_options(&api->options, msg));
    TRY(str_format(path, sizeof path, msg, "%s/catalog", app_data_dir(app)));
    const struct catalog_options catalog = {.path = path, .object_store = conf.object_store};
    TRY(store_open(api->loop, app_executor(app), &catalog, &api->store, msg));
    api->model = store_model(api->store);
    TRY(start_reconciler(api, app, msg));
    TRY(str_format(path, sizeof path, msg, "%s/audit.log", app_data_dir(app)));
    struct access_options access = {.audit_path = path, .requests_per_s = conf.key_requests_per_s};
    api->owner_token = http_server_token(app_http(app));
    api->guard = access_guard_create(api, &access);
    control.confirm_timer.on_fire = on_confirm_time;
    timer_start(api->loop, &control.confirm_timer, CONFIRM_EVERY_MS);
    changes_start(api);
    api_add_routes(api, app_http(app));
    schedules_start(api);
    api->meter = meter_start(api->loop, api->store, api->reconciler, api->nodes);
    log_info(
        NULL, "catalog: %zu projects, %zu branches, %zu endpoints", api->model->projects.count,
        api->model->branches.count, api->model->endpoints.count);
    return ERR_OK;
}

/* The commit under way ends first; nodes that are being asked are not waited for. */
static void on_stop_tick(struct timer *timer)
{
    if (store_is_idle(control.api.store)) {
        app_stopped(control.app);
    } else {
        if (control.stop_ticks++ == STOP_TICKS_MAX) {
            store_cancel(control.api.store);
        }
        timer_start(control.api.loop, timer, STOP_TICK_MS);
    }
}

static void stop(struct app *app)
{
    (void)app;
    reconciler_stop(control.api.reconciler);
    hosts_stop(control.api.hosts);
    schedules_stop(&control.api);
    changes_stop(&control.api);
    meter_stop(control.api.meter);
    control.stopping = true;
    timer_stop(&control.confirm_timer);
    control.stop_timer.on_fire = on_stop_tick;
    timer_start(control.api.loop, &control.stop_timer, STOP_TICK_MS);
}

static void reload(struct app *app)
{
    (void)app;
    control.api.options.recovery_window_ms = conf.recovery_window_ms;
    reconciler_set_recovery_window(control.api.reconciler, conf.recovery_window_ms);
}

/* One node that is away is no reason: its steps wait, everything else goes on. See /v1/nodes. */
static void not_ready(struct app *app, struct buf *reasons)
{
    (void)app;
    size_t total[3] = {0}, answering[3] = {0};
    const char *error = "";
    for (size_t i = 0; i < nodes_count(control.api.nodes); i++) {
        const struct node *node = nodes_at(control.api.nodes, i);
        if (node->gone) {
            continue;
        }
        bool answers = node->reachable && node->answered;
        total[node->kind]++;
        answering[node->kind] += answers;
        error = answers ? error : node->error.text;
    }
    for (enum node_kind kind = NODE_SAFEKEEPER; kind <= NODE_AGENT; kind++) {
        size_t needed = kind == NODE_SAFEKEEPER ? total[kind] / 2 + 1 : MIN_OF(total[kind], 1);
        if (answering[kind] < needed) {
            buf_printf(
                reasons, "%zu of %zu %ss answer: %s\n", answering[kind], total[kind],
                node_kind_name(kind), error);
        }
    }
    store_trouble(control.api.store, reasons);
    if (control.api.model->image.id[0] == '\0') {
        buf_printf(reasons, "the bootstrap image has not been made yet\n");
    }
}

int main(int argc, char **argv)
{
    static const struct app_spec spec = {
        .name = "control",
        .help = "Catalog, REST API and reconciler of an Anabranch cluster.",
        .conf = &conf,
        .settings = settings,
        .settings_count = ARRAY_LEN(settings),
        .start = start,
        .reload = reload,
        .stop = stop,
        .not_ready = not_ready,
    };
    return app_main(argc, argv, &spec);
}
