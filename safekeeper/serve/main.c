/* main.c - the safekeeper: settings, and a server from them. */
#include "common/app/app.h"
#include "common/base/mem.h"
#include "safekeeper/serve/server.h"

#define SAFEKEEPER_SETTINGS(X)                                                                     \
    /* They wait for the disk, which takes many syncs at a time for one. */                        \
    APP_SETTINGS_WORKERS(X, "7421", "16")                                                          \
    X(u64, node_id, "1", RESTART, "identity among the safekeepers; not 0, never reused")           \
    X(str, listen_host, "127.0.0.1", RESTART, "address of the framed port")                        \
    X(u64, listen_port, "7411", RESTART, "framed port; 0: any free one, see ports.json")           \
    X(str, auth_token, "", RESTART, "token that every hello must show; empty: none")               \
    X(u64, connections_max, "1000", RESTART, "framed connections; more are refused")               \
    X(u64, timelines_max, "100000", RESTART, "timelines; more are refused")                        \
    X(size, pending_wal_max, "8MB", RESTART, "WAL of one timeline that may wait for the disk")     \
    X(u64, kernel_syncs, "64", RESTART,                                                            \
      "commit groups at a time that the kernel syncs without a worker; 0: none")                   \
    X(ms, certify_delay, "10ms", RESTART,                                                          \
      "after so long without a write the last one is proven by a record; 0: with idle_timeout")    \
    X(ms, idle_timeout, "5s", RESTART, "after so long without a write files are closed")           \
    X(ms, rest_timeout, "5s", RESTART,                                                             \
      "after so long without use a timeline is kept as a small row only; 0: never")                \
    X(ms, full_disk_retry, "500ms", RESTART,                                                       \
      "how often a write is repeated while there is no space")                                     \
    X(ms, peer_check_interval, "10s", RESTART,                                                     \
      "when nobody leads, how soon the other members are asked what is missed; then less often")   \
    X(ms, repair_retry, "5s", RESTART,                                                             \
      "how often the other members are asked for WAL that is damaged here")                        \
    X(ms, retention_interval, "10s", RESTART,                                                      \
      "how often is looked whether WAL may be removed; 0: it is kept for ever")                    \
    X(size, wal_keep_min, "32MB", RESTART,                                                         \
      "WAL of a timeline below its commit_lsn that is kept in any case")                           \
    X(size, wal_keep_max, "1GB", RESTART,                                                          \
      "WAL of a timeline at most that is kept for a safekeeper that is behind or away")            \
    X(u64, recycled_segments, "1", RESTART,                                                        \
      "removed segment files of a timeline that is written to, kept for its next segments")        \
    X(ms, feed_gather, "2ms", RESTART,                                                             \
      "how long commits that follow each other gather for a pageserver that nobody waits at")      \
    X(ms, feed_status_interval, "1s", RESTART, "how often a pageserver hears of us")               \
    X(ms, hello_timeout, "10s", RESTART, "a connection must say hello within this")

struct safekeeper_conf {
    SAFEKEEPER_SETTINGS(CONF_FIELD)
};
#define CONF_OWNER struct safekeeper_conf
static const struct conf_setting settings[] = {SAFEKEEPER_SETTINGS(CONF_ROW)};
static struct safekeeper_conf conf;
static struct server server;
static struct app *app_of_server;

static err_t start(struct app *app, struct errmsg *msg)
{
    struct timeline_env env = {
        .loop = app_loop(app),
        .executor = app_executor(app),
        .certify_ms = conf.certify_delay,
        .idle_ms = conf.idle_timeout,
        .rest_ms = conf.rest_timeout,
        .retry_ms = conf.full_disk_retry,
        .peer_check_ms = conf.peer_check_interval,
        .repair_retry_ms = conf.repair_retry,
        .feed_status_ms = conf.feed_status_interval,
        .feed_gather_ms = conf.feed_gather,
        .retention_ms = conf.retention_interval,
        .wal_keep_min = conf.wal_keep_min,
        .wal_keep_max = conf.wal_keep_max,
        .recycled_max = (unsigned)MIN_OF(conf.recycled_segments, 64u),
        .pending_bytes_max = conf.pending_wal_max,
    };
    struct server_options options = {
        .node_id = conf.node_id,
        .host = conf.listen_host,
        .port = (uint16_t)conf.listen_port,
        .connections_max = conf.connections_max,
        .timelines_max = conf.timelines_max,
        .hello_timeout_ms = conf.hello_timeout,
        .kernel_syncs = (unsigned)MIN_OF(conf.kernel_syncs, 4096u),
        .secret = conf.auth_token,
    };
    if (conf.node_id == 0 || conf.listen_port > UINT16_MAX) {
        return err_set(msg, ERR_INVALID, "node_id 0 or listen_port above 65535");
    }
    TRY(str_copy(env.data_dir, sizeof(env.data_dir), app_data_dir(app), msg));
    app_of_server = app;
    TRY(server_start(&server, &env, &options, app_http(app), msg));
    app_set_listen_port(app, server_port(&server));
    return ERR_OK;
}

static void on_stopped(struct server *stopped)
{
    (void)stopped;
    app_stopped(app_of_server);
}

static void stop(struct app *app)
{
    (void)app;
    server_stop(&server, on_stopped);
}

static void not_ready(struct app *app, struct buf *reasons)
{
    (void)app;
    server_not_ready(&server, reasons);
}

int main(int argc, char **argv)
{
    static const struct app_spec spec = {
        .name = "safekeeper",
        .help = "One of the (three) servers that keep the WAL of timelines until a pageserver has "
                "made it durable.",
        .conf = &conf,
        .settings = settings,
        .settings_count = ARRAY_LEN(settings),
        .start = start,
        .stop = stop,
        .not_ready = not_ready,
    };
    int status = app_main(argc, argv, &spec);
    server_deinit(&server);
    return status;
}
