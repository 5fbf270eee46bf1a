/* main.c - the pageserver: settings, and a server from them. */
#include "common/app/app.h"
#include "pageserver/serve/server.h"

#define PAGESERVER_SETTINGS(X)                                                                     \
    APP_SETTINGS(X, "7431")                                                                        \
    X(u64, node_id, "1", RESTART, "identity among the pageservers; not 0, never reused")           \
    X(str, listen_host, "127.0.0.1", RESTART, "address of the framed port")                        \
    X(u64, listen_port, "7430", RESTART, "framed port; 0: any free one, see ports.json")           \
    X(str, auth_token, "", RESTART, "token of every hello, shown to safekeepers; empty: none")     \
    X(u64, background_threads, "2", RESTART, "threads for ingest and flushes")                     \
    X(u64, connections_max, "10000", RESTART, "framed connections; more are refused")              \
    X(str, object_store, "", RESTART,                                                              \
      "object store: dir:/path or s3://bucket/prefix?endpoint=URL&region=NAME; required")          \
    X(size, block_cache, "512MB", RESTART, "cache of the page stores, shared by all tenants")      \
    X(size, page_cache, "128MB", RESTART, "newest pages, ready to send")                           \
    X(size, layers_memory, "512MB", RESTART,                                                       \
      "memory of all tenants for what is not flushed yet; ingest waits for more")                  \
    X(size, flush_size, "64MB", RESTART, "a tenant is flushed when so much was written")           \
    X(ms, flush_age, "5s", RESTART, "... or when the oldest of it is that old")                    \
    X(size, disk_reserve, "64MB", RESTART,                                                         \
      "no flush leaves less free on the disk: for compactions, and for deleting")                  \
    X(u64, image_after_records, "64", RESTART,                                                     \
      "a page gets an image when so many records lie on the last one: no read applies more")       \
    X(ms, wait_timeout, "30s", RESTART, "how long a read waits for its LSN")                       \
    X(ms, hello_timeout, "10s", RESTART, "a connection must say hello within this")                \
    X(size, ingest_queue, "8MB", RESTART, "WAL of one timeline that may wait for ingest")          \
    X(size, record_size_max, "1020MB", RESTART, "memory for one WAL record of a timeline")         \
    X(size, records_memory_max, "1200MB", RESTART,                                                 \
      "memory for incomplete WAL records of all timelines; above it they take turns")              \
    X(ms, safekeeper_silence, "5s", RESTART, "a silent safekeeper is left after this")             \
    X(ms, feed_idle, "10s", RESTART,                                                               \
      "a timeline without new WAL for so long is no longer streamed, only listened for")           \
    X(str, control_url, "", RESTART,                                                               \
      "http://host:port of control, which confirms that objects may be deleted; empty: none are")  \
    X(str, control_token, "", RESTART, "bearer token for control; empty: none")                    \
    X(u64, upload_threads, "2", RESTART, "threads that upload to the object store")                \
    X(ms, upload_interval, "10s", RESTART, "what was flushed is uploaded after this")              \
    X(ms, leaked_after, "1h", RESTART,                                                             \
      "no younger object is called leaked, no younger upload abandoned")                           \
    X(u64, history_retention_seconds, "86400", RESTART,                                            \
      "history is kept for so long; tenants may have a value of their own")                        \
    X(size, history_retention_bytes, "0", RESTART,                                                 \
      "... and at least for so much WAL of a timeline")                                            \
    X(size, slot_wal_keep_max, "8GB", RESTART,                                                     \
      "WAL that safekeepers keep for the logical slots of a timeline; 0: any")                     \
    X(ms, gc_period, "300s", RESTART, "how often the begin of history moves; 0: on request only")

struct pageserver_conf {
    PAGESERVER_SETTINGS(CONF_FIELD)
};
#define CONF_OWNER struct pageserver_conf
static const struct conf_setting settings[] = {PAGESERVER_SETTINGS(CONF_ROW)};
static struct pageserver_conf conf;
static struct server server;
static struct app *app_of_server;

static err_t start(struct app *app, struct errmsg *msg)
{
    if (conf.node_id == 0 || conf.listen_port > UINT16_MAX) {
        return err_set(msg, ERR_INVALID, "node_id 0 or listen_port above 65535");
    }
    if (conf.background_threads < 1 || conf.background_threads > 256) {
        return err_set(msg, ERR_INVALID, "background_threads: expected 1 to 256");
    }
    if (conf.upload_threads < 1 || conf.upload_threads > 64) {
        return err_set(msg, ERR_INVALID, "upload_threads: expected 1 to 64");
    }
    if (strlen(conf.control_url) > CONTROL_URL_MAX) {
        return err_set(msg, ERR_INVALID, "control_url: longer than %d", CONTROL_URL_MAX);
    }
    if (conf.image_after_records < 2 || conf.image_after_records > 254) {
        return err_set(msg, ERR_INVALID, "image_after_records: expected 2 to 254");
    }
    if (conf.object_store[0] == '\0') {
        return err_set(msg, ERR_INVALID, "setting object_store is required");
    }
    struct server_options options = {
        .loop = app_loop(app),
        .executor = app_executor(app),
        .background_threads = (unsigned)conf.background_threads,
        .http = app_http(app),
        .data_dir = app_data_dir(app),
        .node_id = conf.node_id,
        .host = conf.listen_host,
        .port = (uint16_t)conf.listen_port,
        .connections_max = conf.connections_max,
        .secret = conf.auth_token,
        .object_store = conf.object_store,
        .block_cache_bytes = conf.block_cache,
        .layers_bytes = conf.layers_memory,
        .page_cache_bytes = conf.page_cache,
        .flush_bytes = conf.flush_size,
        .slot_wal_keep_max = conf.slot_wal_keep_max,
        .flush_age_ms = conf.flush_age,
        .wait_timeout_ms = conf.wait_timeout,
        .hello_timeout_ms = conf.hello_timeout,
        .ingest_queue_bytes = conf.ingest_queue,
        .record_size_max = conf.record_size_max,
        .records_bytes_max = conf.records_memory_max,
        .image_after_records = (unsigned)conf.image_after_records,
        .safekeeper_silence_ms = conf.safekeeper_silence,
        .feed_idle_ms = conf.feed_idle,
        .upload_threads = (unsigned)conf.upload_threads,
        .upload_interval_ms = conf.upload_interval,
        .leaked_after_ms = conf.leaked_after,
        .control_url = conf.control_url,
        .control_token = conf.control_token,
        .tls_authorities = conf.tls_authorities,
        .retention =
            {
                .seconds = conf.history_retention_seconds,
                .wal_bytes = conf.history_retention_bytes,
            },
        .gc_period_ms = conf.gc_period,
        .disk_reserve_bytes = conf.disk_reserve,
    };
    app_of_server = app;
    TRY(server_start(&server, &options, msg));
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
        .name = "pageserver",
        .help = "Turns the WAL of timelines into page versions and serves pages at any LSN.",
        .conf = &conf,
        .settings = settings,
        .settings_count = ARRAY_LEN(settings),
        .start = start,
        .stop = stop,
        .not_ready = not_ready,
    };
    return app_main(argc, argv, &spec);
}
