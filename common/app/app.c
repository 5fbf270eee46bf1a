/*
 * app.c - settings, lock, loop, HTTP, signals; then the daemon's own start().
 *
 * Order: nothing is touched on disk before the settings are valid; the lock is held before anything
 * else in the data folder is read or written; ports.json is written last, when everything listens.
 * What has started is stopped before it is torn down, also when ports.json cannot be written.
 */
#include "common/app/app_private.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "common/io/signals.h"
#include "common/io/timer.h"
#include "common/json/doc.h"

#define WORKERS_MAX 256
#define STOP_MS     30000 /* a daemon that does not come to an end by itself is ended */

struct app_conf {
    APP_SETTINGS(CONF_FIELD, "0")
};

struct app {
    const struct app_spec *spec;
    struct app_conf *conf; /* the first part of spec->conf */
    const char *config_path;
    char **argv;
    int argc;
    bool faults, runs, stopping, stopped;
    struct loop *loop;
    struct executor *executor;
    struct http_server *http;
    struct app_client client;
    struct http_context routes;
    struct signal_user signals;
    struct signal_watch *watches[3];
    struct timer stop_timer;
    int lock_fd;
    uint16_t listen_port;
    wall_us_t started_at;
};

struct loop *app_loop(struct app *app)
{
    return app->loop;
}

struct executor *app_executor(struct app *app)
{
    return app->executor;
}

struct http_server *app_http(struct app *app)
{
    return app->http;
}

struct app_client *app_client(struct app *app)
{
    return &app->client;
}

const char *app_tls_authorities(const struct app *app)
{
    return app->conf->tls_authorities;
}

const char *app_data_dir(const struct app *app)
{
    return app->conf->data_dir;
}

void app_set_listen_port(struct app *app, uint16_t port)
{
    app->listen_port = port;
}

void app_stopped(struct app *app)
{
    app->stopped = true;
    loop_stop(app->loop);
}

/* Settings. */

static size_t conf_size(const struct app_spec *spec)
{
    static const size_t sizes[] = {
        [CONF_STR] = sizeof(conf_str_t),   [CONF_U64] = sizeof(conf_u64_t),
        [CONF_BOOL] = sizeof(conf_bool_t), [CONF_SIZE] = sizeof(conf_size_t),
        [CONF_MS] = sizeof(conf_ms_t),
    };
    size_t size = 0;
    for (size_t i = 0; i < spec->settings_count; i++) {
        const struct conf_setting *setting = &spec->settings[i];
        size = MAX_OF(size, setting->offset + sizes[setting->type]);
    }
    return size;
}

/* app.c reads the first settings through struct app_conf: they must be what it thinks they are. */
static void assert_app_settings_first(const struct app_spec *spec)
{
#define CONF_OWNER struct app_conf
    static const struct conf_setting expected[] = {APP_SETTINGS(CONF_ROW, "0")};
#undef CONF_OWNER
    ASSERT(spec->settings_count >= ARRAY_LEN(expected));
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        ASSERT(strcmp(spec->settings[i].name, expected[i].name) == 0);
        ASSERT(spec->settings[i].offset == expected[i].offset);
    }
}

static bool is_flag(const char *argument, const char *name)
{
    return strcmp(argument, name) == 0;
}

/* "--name=value", or "--name value" for --config only. Flags of the app itself are skipped. */
static err_t apply_flags(struct app *app, void *conf, struct errmsg *msg)
{
    const struct app_spec *spec = app->spec;
    for (int i = 1; i < app->argc; i++) {
        const char *argument = app->argv[i];
        if (is_flag(argument, "--config")) {
            i++;
            continue;
        }
        if (str_starts_with(argument, "--config=") || str_starts_with(argument, "--faults") ||
            is_flag(argument, "--print-config")) {
            continue;
        }
        const char *equals = strchr(argument, '=');
        char name[64];
        if (!str_starts_with(argument, "--") || equals == NULL ||
            (size_t)(equals - argument) - 2 >= sizeof(name)) {
            return err_set(
                msg, ERR_INVALID, "\"%.80s\" is not a flag such as --log-level=info; see --help",
                argument);
        }
        size_t size = (size_t)(equals - argument) - 2;
        for (size_t c = 0; c < size; c++) {
            name[c] = argument[2 + c];
            if (name[c] == '-') {
                name[c] = '_';
            }
        }
        name[size] = '\0';
        TRY(conf_set(conf, spec->settings, spec->settings_count, name, equals + 1, msg));
    }
    return ERR_OK;
}

static err_t find_config_path(struct app *app, struct errmsg *msg)
{
    for (int i = 1; i < app->argc; i++) {
        const char *argument = app->argv[i];
        if (is_flag(argument, "--config")) {
            if (i + 1 == app->argc) {
                return err_set(msg, ERR_INVALID, "--config wants the path of a file behind it");
            }
            app->config_path = app->argv[++i];
        } else if (str_starts_with(argument, "--config=")) {
            app->config_path = strchr(argument, '=') + 1;
        }
    }
    return ERR_OK;
}

static err_t read_settings(struct app *app, void *conf, struct errmsg *msg)
{
    const struct app_spec *spec = app->spec;
    TRY(conf_set_defaults(conf, spec->settings, spec->settings_count, msg));
    if (app->config_path != NULL) {
        TRY(conf_load_file(conf, spec->settings, spec->settings_count, app->config_path, msg));
    }
    return apply_flags(app, conf, msg);
}

static err_t check_settings(const struct app *app, struct errmsg *msg)
{
    const struct app_conf *conf = app->conf;
    enum log_level level;
    TRY(log_level_parse(conf->log_level, &level, msg));
    if (conf->data_dir[0] == '\0') {
        return err_set(
            msg, ERR_INVALID, "setting data_dir is required: --data_dir=FOLDER or in --config");
    }
    if (conf->http_port > UINT16_MAX) {
        return err_set(msg, ERR_INVALID, "setting http_port: at most %d", UINT16_MAX);
    }
    if (conf->worker_threads < 1 || conf->worker_threads > WORKERS_MAX) {
        return err_set(msg, ERR_INVALID, "setting worker_threads: from 1 to %d", WORKERS_MAX);
    }
    return ERR_OK;
}

static void apply_log_level(const struct app *app)
{
    enum log_level level = LOG_LEVEL_INFO;
    err_ignore(log_level_parse(app->conf->log_level, &level, NULL), "checked before");
    log_init(app->spec->name, level);
}

static void reload(struct app *app)
{
    const struct app_spec *spec = app->spec;
    struct errmsg msg;
    size_t size = conf_size(spec);
    char *fresh = mem_zalloc(size);
    err_t err = read_settings(app, fresh, &msg);
    if (err == ERR_OK) {
        enum log_level level;
        err = log_level_parse(((const struct app_conf *)(void *)fresh)->log_level, &level, &msg);
    }
    if (err != ERR_OK) {
        log_error(NULL, "settings are not read again, the old ones stay: %s", msg.text);
        mem_free(fresh);
        return;
    }
    for (size_t i = 0; i < spec->settings_count; i++) {
        const struct conf_setting *setting = &spec->settings[i];
        if (setting->change == CONF_RELOAD) {
            size_t field = setting->type == CONF_STR    ? sizeof(conf_str_t)
                           : setting->type == CONF_BOOL ? sizeof(conf_bool_t)
                                                        : sizeof(uint64_t);
            memcpy((char *)spec->conf + setting->offset, fresh + setting->offset, field);
        }
    }
    mem_free(fresh);
    apply_log_level(app);
    log_info(NULL, "settings read again");
    if (spec->reload != NULL) {
        spec->reload(app);
    }
}

/* Routes that every daemon has. */

static struct app *app_of(struct http_context *context)
{
    return CONTAINER_OF(context, struct app, routes);
}

static void get_healthz(struct http_context *context, struct http_request *request)
{
    struct app *app = app_of(context);
    struct doc *body = doc_object();
    (void)doc_set_str(body, "status", app->stopping ? "stopping" : "alive");
    (void)doc_set_str(body, "name", app->spec->name);
    (void)doc_set_str(body, "version", ANABRANCH_VERSION);
    (void)doc_set_int(body, "pid", getpid());
    (void)doc_set_time(body, "started_at", app->started_at);
    http_respond_json(request, 200, body);
}

static void get_readyz(struct http_context *context, struct http_request *request)
{
    struct app *app = app_of(context);
    struct buf reasons = {0};
    if (app->stopping) {
        buf_printf(&reasons, "stopping\n");
    } else if (app->spec->not_ready != NULL) {
        app->spec->not_ready(app, &reasons);
    }
    struct doc *body = doc_object();
    struct doc *list = doc_array();
    char *rest = (char *)buf_cstr(&reasons);
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        if (line[0] != '\0') {
            (void)doc_push(list, doc_str(line));
        }
    }
    bool ready = doc_count(list) == 0;
    (void)doc_set_bool(body, "ready", ready);
    (void)doc_set(body, "reasons", list);
    buf_deinit(&reasons);
    http_respond_json(request, ready ? 200 : 503, body);
}

static void get_metrics(struct http_context *context, struct http_request *request)
{
    (void)context;
    struct buf text = {0};
    metric_print_all(&text);
    http_respond_buf(request, 200, "text/plain; version=0.0.4", &text);
}

static bool is_secret(const char *name)
{
    return str_ends_with(name, "token") || str_ends_with(name, "password") ||
           str_ends_with(name, "secret") || str_ends_with(name, "secret_key");
}

static void get_config(struct http_context *context, struct http_request *request)
{
    const struct app_spec *spec = app_of(context)->spec;
    size_t size = conf_size(spec);
    char *shown = mem_dup(spec->conf, size);
    for (size_t i = 0; i < spec->settings_count; i++) {
        const struct conf_setting *setting = &spec->settings[i];
        char *value = shown + setting->offset;
        if (setting->type == CONF_STR && is_secret(setting->name) && value[0] != '\0') {
            (void)snprintf(value, CONF_STR_SIZE, "(hidden)");
        }
    }
    struct buf text = {0};
    conf_print(shown, spec->settings, spec->settings_count, &text);
    mem_free(shown);
    http_respond_buf(request, 200, "text/plain; charset=utf-8", &text);
}

static void put_faults(struct http_context *context, struct http_request *request)
{
    (void)context;
    struct errmsg msg;
    struct bytes body = http_request_body(request);
    char spec[1024] = "";
    if (body.size >= sizeof(spec) || memchr(body.data, '\0', body.size) != NULL) {
        http_respond_problem(
            request, 400, "ERR_INVALID", "expected a text of less than 1024 bytes");
        return;
    }
    memcpy(spec, body.data, body.size);
    spec[strcspn(spec, "\r\n")] = '\0';
    err_t err = fault_arm(spec, &msg);
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    log_warn(NULL, "failpoints are now \"%s\"", spec);
    http_respond_json(request, 200, doc_set_str(doc_object(), "faults", spec));
}

static const struct http_route app_routes[] = {
    HTTP_ROUTE("GET", "/healthz", get_healthz, "The process is alive.", true),
    HTTP_ROUTE(
        "GET", "/readyz", get_readyz, "200, or 503 and the reasons why it is not ready.", true),
    HTTP_ROUTE("GET", "/metrics", get_metrics, "Counters and histograms for Prometheus.", true),
    HTTP_ROUTE(
        "GET", "/config", get_config, "Every setting with its value, secrets hidden.", false),
    HTTP_ROUTE("PUT", "/faults", put_faults, "Arm failpoints (only with --faults).", false),
};

/* Start and stop. */

static void force_stop(struct timer *timer)
{
    struct app *app = CONTAINER_OF(timer, struct app, stop_timer);
    log_error(NULL, "did not stop within %d ms: ends now", STOP_MS);
    app_stopped(app);
}

static void on_signal(struct signal_user *user, int number)
{
    struct app *app = CONTAINER_OF(user, struct app, signals);
    if (number == SIGHUP) {
        reload(app);
        return;
    }
    if (app->stopping) {
        log_warn(NULL, "second signal %d: ends now", number);
        app_stopped(app);
        return;
    }
    log_info(NULL, "%s: stopping", number == SIGTERM ? "SIGTERM" : "SIGINT");
    app->stopping = true;
    timer_start(app->loop, &app->stop_timer, STOP_MS);
    app->spec->stop(app);
}

static err_t lock_data_dir(struct app *app, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(dir_create(app->conf->data_dir, msg));
    TRY(str_format(path, sizeof(path), msg, "%s/lock", app->conf->data_dir));
    TRY(file_open(&app->lock_fd, path, FILE_CREATE, msg));
    if (flock(app->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        return err_set(
            msg, ERR_BUSY, "%s is in use by another process (%s is locked)", app->conf->data_dir,
            path);
    }
    char pid[32];
    int size = snprintf(pid, sizeof(pid), "%d\n", getpid());
    TRY(file_resize(app->lock_fd, path, 0, false, msg));
    return file_write_at(app->lock_fd, path, bytes_of(pid, (size_t)size), 0, msg);
}

static err_t ports_path(const struct app *app, char *to, struct errmsg *msg)
{
    return str_format(to, PATH_SIZE, msg, "%s/ports.json", app->conf->data_dir);
}

static err_t write_ports(const struct app *app, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(ports_path(app, path, msg));
    struct buf text = {0};
    struct doc *ports = doc_object();
    (void)doc_set_int(ports, "listen_port", app->listen_port);
    (void)doc_set_int(ports, "http_port", http_server_port(app->http));
    (void)doc_set_int(ports, "pid", getpid());
    doc_print(ports, false, &text);
    buf_append(&text, "\n", 1);
    err_t err = file_write_atomically(path, buf_view(&text), msg);
    doc_unref(ports);
    buf_deinit(&text);
    return err;
}

static err_t watch_signals(struct app *app, struct errmsg *msg)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    (void)signal(SIGPIPE, SIG_IGN); /* a peer that is gone is an error of write() */
    app->signals.on_signal = on_signal;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        TRY(signals_watch(app->loop, numbers[i], &app->signals, &app->watches[i], msg));
    }
    return ERR_OK;
}

/* Connections and RocksDB want descriptors: take all that the system lets us have. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* else it stays as it was */
    }
}

static err_t start(struct app *app, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct app_conf *conf = app->conf;
    raise_file_limit();
    TRY(lock_data_dir(app, msg));
    TRY(ports_path(app, path, msg));
    TRY(file_remove(path, msg)); /* of an earlier run: nobody may believe it */
    if (conf->random_seed == 0) {
        prng_secure(&conf->random_seed, sizeof(conf->random_seed));
    }
    log_info(
        NULL, "version %s starts in %s, random_seed %" PRIu64, ANABRANCH_VERSION, conf->data_dir,
        conf->random_seed);
    TRY(loop_create(&app->loop, msg));
    TRY(watch_signals(app, msg));
    TRY(executor_create(app->loop, (unsigned)conf->worker_threads, &app->executor, msg));
    struct http_options options = {
        .token = conf->http_token,
        .tls_certificate = conf->http_tls_certificate,
        .tls_key = conf->http_tls_key,
    };
    TRY(http_server_open(
        app->loop, conf->http_host, (uint16_t)conf->http_port, &options, &app->http, msg));
    http_server_add_routes(app->http, app_routes, ARRAY_LEN(app_routes), &app->routes);
    TRY(app->spec->start(app, msg));
    app->runs = true;
    TRY(write_ports(app, msg));
    log_info(
        NULL, "listens: HTTP %s:%u, frames on port %u", conf->http_host,
        http_server_port(app->http), app->listen_port);
    return ERR_OK;
}

/* It did not say its ports, but all else runs, and ends as it always does. */
static void end_in_order(struct app *app)
{
    app->stopping = true;
    timer_start(app->loop, &app->stop_timer, STOP_MS);
    app->spec->stop(app);
    loop_run(app->loop);
}

static void tear_down(struct app *app)
{
    struct errmsg msg;
    char path[PATH_SIZE];
    if (app->http != NULL) {
        http_server_close(app->http);
    }
    if (app->client.client != NULL) {
        app->client.destroy(app->client.client);
    }
    executor_destroy(app->executor);
    timer_stop(&app->stop_timer);
    loop_destroy(app->loop);
    if (app->lock_fd >= 0 && ports_path(app, path, &msg) == ERR_OK) {
        err_ignore(file_remove(path, &msg), "the next start removes it too");
    }
    file_close(&app->lock_fd);
}

static void print_help(const struct app_spec *spec)
{
    struct buf text = {0};
    buf_printf(
        &text,
        "%s - %s\n\n"
        "Usage: %s [--config FILE] [--NAME=VALUE ...]\n\n"
        "  --config FILE    read settings from FILE; flags win over it\n"
        "  --print-config   print every setting with its value and explanation, then exit\n"
        "  --faults[=SPEC]  allow failpoints (tests), and arm those of SPEC\n"
        "  --version        print the version, then exit\n"
        "  --help           print this, then exit\n\nSettings:\n",
        spec->name, spec->help, spec->name);
    for (size_t i = 0; i < spec->settings_count; i++) {
        const struct conf_setting *setting = &spec->settings[i];
        buf_printf(
            &text, "  --%s=%s\n        %s\n", setting->name, setting->default_text, setting->help);
    }
    (void)fputs(buf_cstr(&text), stdout);
    buf_deinit(&text);
}

/* Flags that print something and end the process; also --faults. */
static bool early_flags(struct app *app, err_t *ret_err, struct errmsg *msg)
{
    *ret_err = ERR_OK;
    for (int i = 1; i < app->argc; i++) {
        const char *argument = app->argv[i];
        if (is_flag(argument, "--help") || is_flag(argument, "-h")) {
            print_help(app->spec);
            return true;
        }
        if (is_flag(argument, "--version")) {
            (void)printf("%s %s\n", app->spec->name, ANABRANCH_VERSION);
            return true;
        }
        if (is_flag(argument, "--faults") || str_starts_with(argument, "--faults=")) {
            fault_enable();
            if (argument[strlen("--faults")] == '=') {
                *ret_err = fault_arm(argument + strlen("--faults="), msg);
            }
        }
    }
    return *ret_err != ERR_OK;
}

static bool wants_print_config(const struct app *app)
{
    for (int i = 1; i < app->argc; i++) {
        if (is_flag(app->argv[i], "--print-config")) {
            return true;
        }
    }
    return false;
}

int app_main(int argc, char **argv, const struct app_spec *spec)
{
    struct app *app = MEM_NEW(struct app);
    struct errmsg msg = {0};
    int status = EXIT_FAILURE;
    app->spec = spec;
    app->conf = spec->conf;
    app->argc = argc;
    app->argv = argv;
    app->lock_fd = -1;
    app->started_at = clock_wall();
    app->stop_timer.on_fire = force_stop;
    assert_app_settings_first(spec);
    log_init(spec->name, LOG_LEVEL_INFO);

    err_t err = ERR_OK;
    if (early_flags(app, &err, &msg)) {
        status = err == ERR_OK ? EXIT_SUCCESS : EXIT_FAILURE;
        goto out;
    }
    err = find_config_path(app, &msg);
    if (err == ERR_OK) {
        err = read_settings(app, spec->conf, &msg);
    }
    if (err == ERR_OK && wants_print_config(app)) {
        struct buf text = {0};
        conf_print(spec->conf, spec->settings, spec->settings_count, &text);
        (void)fputs(buf_cstr(&text), stdout);
        buf_deinit(&text);
        status = EXIT_SUCCESS;
        goto out;
    }
    if (err == ERR_OK) {
        err = check_settings(app, &msg);
    }
    if (err != ERR_OK) {
        goto out;
    }
    apply_log_level(app);
    err = start(app, &msg);
    if (err == ERR_OK) {
        loop_run(app->loop);
        log_info(NULL, "stopped");
        status = EXIT_SUCCESS;
    } else if (app->runs) {
        end_in_order(app);
    }
    tear_down(app);
out:
    if (err != ERR_OK) {
        log_error(NULL, "does not start: %s", msg.text);
    }
    mem_free(app);
    return status;
}
