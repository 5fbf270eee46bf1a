/* main.c - the walproposer: settings, and a driver from them. */
#include <stdio.h>
#include <string.h>

#include "common/app/app.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "compute/walproposer/walproposer.h"

#define WALPROPOSER_SETTINGS(X)                                                                    \
    APP_SETTINGS(X, "0")                                                                           \
    X(str, tenant, "", RESTART, "32 hex digits")                                                   \
    X(str, timeline, "", RESTART, "32 hex digits")                                                 \
    X(u64, system_id, "0", RESTART, "system identifier of the cluster; 0: not checked")            \
    X(u64, pg_version, "0", RESTART, "170011 style; 0: not checked")                               \
    X(u64, generation, "0", RESTART, "of the membership of the safekeepers")                       \
    X(str, safekeepers, "", RESTART, "ID@HOST:PORT,...: the members of that generation")           \
    X(str, token, "", RESTART, "shown to the safekeepers in hello")                                \
    X(str, postgres_conninfo, "", RESTART, "libpq connection string of our Postgres")              \
    X(str, postmaster_pid_file, "", RESTART, "whom to stop when we are fenced")                    \
    X(str, start_lsn, "0/0", RESTART, "where Postgres was prepared to begin; 0/0: anywhere")       \
    X(bool, sync, "false", RESTART,                                                                \
      "elect, repair, commit the end of the log, print \"LSN X/Y\" and exit")                      \
    X(size, window_max, "8MB", RESTART, "newest WAL kept for the safekeepers")                     \
    X(size, inflight_max, "4MB", RESTART, "WAL sent to one safekeeper and not yet flushed there")  \
    X(ms, election_timeout, "2s", RESTART, "for votes, for answers, for progress of a repair")     \
    X(ms, heartbeat_interval, "1s", RESTART, "to each safekeeper when nothing else is sent")       \
    X(ms, link_timeout, "10s", RESTART, "a safekeeper silent for so long is connected again")      \
    X(ms, stale_reads_max, "60s", RESTART,                                                         \
      "Postgres is stopped after so long without a majority of the safekeepers; 0: never")

struct walproposer_conf {
    WALPROPOSER_SETTINGS(CONF_FIELD)
};
#define CONF_OWNER struct walproposer_conf
static const struct conf_setting settings[] = {WALPROPOSER_SETTINGS(CONF_ROW)};

/* docs/design/walking-skeleton.md: the agent acts on these. */
enum exit_code {
    EXIT_STOPPED = 0,
    EXIT_BROKEN = 1,
    EXIT_FENCED = 3,
    EXIT_WRONG_END = 4,
    EXIT_CUT_OFF = 5,
};

static struct walproposer_conf conf;
static struct walproposer *walproposer;
static struct app *walproposer_app;
static struct http_context http;
static enum exit_code exit_code;

static void on_end(enum walproposer_end end, lsn_t lsn)
{
    switch (end) {
    case WALPROPOSER_SYNCED:
        (void)printf("LSN " LSN_FMT "\n", LSN_ARGS(lsn));
        (void)fflush(stdout);
        exit_code = EXIT_STOPPED;
        break;
    case WALPROPOSER_FENCED: exit_code = EXIT_FENCED; break;
    case WALPROPOSER_WRONG_END: exit_code = EXIT_WRONG_END; break;
    case WALPROPOSER_CUT_OFF: exit_code = EXIT_CUT_OFF; break;
    case WALPROPOSER_BROKEN: exit_code = EXIT_BROKEN; break;
    }
    app_stopped(walproposer_app);
}

static void get_status(struct http_context *context, struct http_request *request)
{
    (void)context;
    http_respond_json(request, 200, walproposer_status(walproposer));
}

static const struct http_route routes[] = {
    HTTP_ROUTE(
        "GET", "/v1/status", get_status, "Term, positions, state of each safekeeper.", false),
};

static err_t start(struct app *app, struct errmsg *msg)
{
    struct walproposer_options options = {
        .system_id = conf.system_id,
        .safekeepers = conf.safekeepers,
        .token = conf.token,
        .postgres_conninfo = conf.postgres_conninfo,
        .postmaster_pid_file = conf.postmaster_pid_file,
        .sync = conf.sync,
        .random_seed = conf.random_seed,
        .window_max = conf.window_max,
        .inflight_max = conf.inflight_max,
        .election_timeout_ms = conf.election_timeout,
        .heartbeat_ms = conf.heartbeat_interval,
        .link_timeout_ms = conf.link_timeout,
        .stale_reads_max_ms = conf.stale_reads_max,
        .on_end = on_end,
    };
    if (conf.generation == 0 || conf.generation > UINT32_MAX || conf.pg_version > UINT32_MAX) {
        return err_set(msg, ERR_INVALID, "setting generation is required, from 1 on");
    }
    if (conf.window_max < MIB || conf.inflight_max == 0 || conf.heartbeat_interval == 0) {
        return err_set(
            msg, ERR_INVALID, "window_max is at least 1MB, inflight_max and heartbeat not 0");
    }
    if (conf.stale_reads_max != 0 && conf.stale_reads_max < 2 * conf.heartbeat_interval) {
        return err_set(msg, ERR_INVALID, "stale_reads_max is 0 or at least 2 heartbeat_interval");
    }
    options.generation = (generation_t)conf.generation;
    options.pg_version = (uint32_t)conf.pg_version;
    TRY(tenant_id_parse(conf.tenant, &options.tenant, msg));
    TRY(timeline_id_parse(conf.timeline, &options.timeline, msg));
    TRY(parse_lsn(conf.start_lsn, &options.start_lsn, msg));
    walproposer_app = app;
    TRY(walproposer_start(app_loop(app), &options, &walproposer, msg));
    http_server_add_routes(app_http(app), routes, ARRAY_LEN(routes), &http);
    return ERR_OK;
}

static void stop(struct app *app)
{
    walproposer_stop(walproposer);
    app_stopped(app);
}

static void not_ready(struct app *app, struct buf *reasons)
{
    (void)app;
    walproposer_not_ready(walproposer, reasons);
}

int main(int argc, char **argv)
{
    static const struct app_spec spec = {
        .name = "walproposer",
        .help = "Ships the WAL of one Postgres to its safekeepers and tells Postgres what is "
                "committed. With --sync=true it only finds and repairs the end of the log.",
        .conf = &conf,
        .settings = settings,
        .settings_count = ARRAY_LEN(settings),
        .start = start,
        .stop = stop,
        .not_ready = not_ready,
    };
    static char sync_flag[] = "--sync=true";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--sync") == 0) {
            argv[i] = sync_flag;
        }
    }
    int status = app_main(argc, argv, &spec);
    walproposer_destroy(walproposer);
    return status != 0 ? status : (int)exit_code;
}
