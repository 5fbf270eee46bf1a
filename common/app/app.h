/*
 * app.h - the main() that all daemons share.
 *
 * Flags: --config FILE, --NAME=VALUE for every setting, --print-config, --version, --help,
 * --faults. It reads the settings, opens the log, creates loop, executor, HTTP server and client,
 * calls start(), writes DATA_DIR/ports.json ({"listen_port":N,"http_port":N}) once everything
 * listens, runs until SIGTERM or SIGINT, then calls stop(). Routes that every daemon has:
 * GET /healthz (alive), /readyz (200 or 503 with the reasons), /metrics (Prometheus), /config,
 * / (all routes), PUT /faults (body: spec of common/base/fault.h; only with --faults).
 * A second start on the same data directory is refused (lock file).
 */
#pragma once

#include "common/conf/conf.h"
#include "common/io/executor.h"
#include "common/io/http_client.h"
#include "common/io/http_server.h"

struct app;

struct app_spec {
    const char *name; /* "safekeeper" */
    const char *help; /* one paragraph for --help */
    void *conf;       /* a static struct of the daemon */
    const struct conf_setting *settings;
    size_t settings_count;
    /* The list must begin with APP_SETTINGS below. */

    err_t (*start)(struct app *app, struct errmsg *msg);
    void (*stop)(struct app *app); /* begin to stop; call app_stopped() when done */
    /* Append one line per reason why the daemon is not ready; nothing means ready. */
    void (*not_ready)(struct app *app, struct buf *reasons);
    void (*reload)(struct app *app); /* SIGHUP: RELOAD settings were read again; may be NULL */
};

int app_main(int argc, char **argv, const struct app_spec *spec);

struct loop *app_loop(struct app *app);
struct executor *app_executor(struct app *app);
struct http_server *app_http(struct app *app);
struct http_client *app_http_client(struct app *app); /* made when it is first asked for */
const char *app_data_dir(const struct app *app);
/* start() tells the port that the framed listener got, for ports.json. */
void app_set_listen_port(struct app *app, uint16_t port);
void app_stopped(struct app *app);

/*
 * Settings that every daemon has; begin your list with APP_SETTINGS(X, "7400"), or, when the work
 * of its workers is mostly to wait, with how many there are: APP_SETTINGS_WORKERS(X, "7400", "16").
 */
#define APP_SETTINGS(X, http_port_default) APP_SETTINGS_WORKERS(X, http_port_default, "4")
#define APP_SETTINGS_WORKERS(X, http_port_default, workers_default)                                \
    X(str, data_dir, "", RESTART, "folder of this process; created when missing; required")        \
    X(str, http_host, "127.0.0.1", RESTART, "address of the HTTP port")                            \
    X(u64, http_port, http_port_default, RESTART, "HTTP port; 0: any free one, see ports.json")    \
    X(str, http_token, "", RESTART, "bearer token that HTTP callers must show; empty: none")       \
    X(str, http_tls_certificate, "", RESTART,                                                      \
      "PEM file with the chain for TLS on the HTTP port; empty: plain HTTP")                       \
    X(str, http_tls_key, "", RESTART, "PEM file of the certificate's key")                         \
    X(str, tls_authorities, "", RESTART,                                                           \
      "PEM file of who signs certificates of https:// addresses called; empty: the system's")      \
    X(str, log_level, "info", RELOAD, "debug, info, warn or error")                                \
    X(u64, worker_threads, workers_default, RESTART, "threads for blocking work")                  \
    X(u64, random_seed, "0", RESTART, "seed of the process's random numbers; 0: pick one")
