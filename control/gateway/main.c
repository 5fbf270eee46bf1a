/*
 * gateway - Postgres' port of a cluster: TLS, routing by host name, log-in, waking computes.
 */
#include <openssl/crypto.h>
#include <sys/stat.h>

#include "common/app/app.h"
#include "common/base/log.h"
#include "common/io/file.h"
#include "control/gateway/gateway.h"
#include "control/gateway/route_watch.h"

#define GATEWAY_SETTINGS(X)                                                                        \
    APP_SETTINGS(X, "7450")                                                                        \
    X(str, listen_host, "127.0.0.1", RESTART, "address of the Postgres port")                      \
    X(u64, listen_port, "7432", RESTART, "Postgres port; 0: any free one, see ports.json")         \
    X(str, control_url, "http://127.0.0.1:7400", RESTART, "where control answers")                 \
    X(str, control_token, "", RESTART, "bearer token of control; empty: none")                     \
    X(str, domain, "localhost", RESTART, "endpoints are ep-NAME.DOMAIN; of the own certificate")   \
    X(str, tls_certificate, "", RESTART, "PEM file with its chain; empty: a self-signed one")      \
    X(str, tls_key, "", RESTART, "PEM file of the certificate's key")                              \
    X(str, compute_sslmode, "disable", RESTART,                                                    \
      "to computes: disable, require, verify-ca, verify-full")                                     \
    X(str, compute_tls_authorities, "", RESTART,                                                   \
      "PEM file of who signs the computes' certificates")                                          \
    X(bool, tls_required, "true", RESTART, "refuse connections in plain")                          \
    X(u64, connections_max, "10000", RESTART, "more are refused")                                  \
    X(u64, connections_per_endpoint_max, "0", RESTART, "more are refused; 0: as many as Postgres") \
    X(u64, connections_per_role_max, "0", RESTART,                                                 \
      "of one endpoint; more are refused; 0: no limit")                                            \
    X(u64, pool_clients_per_endpoint_max, "0", RESTART, "clients of -pooler; 0: no limit")         \
    X(u64, pool_clients_per_role_max, "0", RESTART, "the same, of one role; 0: no limit")          \
    X(u64, pool_size_max, "20", RESTART, "server connections of an endpoint, role and database")   \
    X(u64, pool_endpoint_size_max, "80", RESTART,                                                  \
      "server connections of all pools of an endpoint")                                            \
    X(ms, pool_wait_ms, "120s", RESTART,                                                           \
      "a client that gets no server connection is ended after it")                                 \
    X(ms, pool_idle_ms, "600s", RESTART, "a server connection without clients is closed after it") \
    X(ms, pool_age_ms, "3600s", RESTART, "older server connections are closed when they are free") \
    X(u64, pool_statements_max, "1000", RESTART, "named prepared statements of a pooled client")   \
    X(u64, pool_statement_bytes_max, "4194304", RESTART, "bytes of their names and texts")         \
    X(u64, pool_server_statements_max, "200", RESTART, "kept prepared on a server connection")     \
    X(u64, pool_server_statement_bytes_max, "4194304", RESTART, "bytes of their texts")            \
    X(ms, startup_timeout_ms, "10s", RESTART, "a client has to say by then what it wants, in TLS") \
    X(ms, login_timeout_ms, "60s", RESTART, "from there to the first query, with waking")          \
    X(ms, wake_timeout_ms, "55s", RESTART, "a compute that does not come up is reported after it") \
    X(ms, route_keep_ms, "60s", RESTART, "where an endpoint runs is remembered for so long")

#define POOL_RETRY_MS 1000 /* between attempts to connect, when one has failed */

struct gateway_conf {
    GATEWAY_SETTINGS(CONF_FIELD)
};
#define CONF_OWNER struct gateway_conf
static const struct conf_setting settings[] = {GATEWAY_SETTINGS(CONF_ROW)};
static struct gateway_conf conf;

static struct {
    struct app *app;
    struct gateway *gateway;
    struct routes *routes;
    struct route_watch watch;
    struct tls_context *tls;
    struct upstream_tls *upstream;
} state;

/* The same after a restart, and for all gateways with this key; nobody else can make it. */
static err_t make_mock_secret(const char *key_path, char *ret_secret, struct errmsg *msg)
{
    struct buf key = {0};
    TRY(file_read_all(key_path, MIB, &key, msg));
    buf_append(&key, "roles that do not exist", 23);
    token_hash(buf_view(&key), ret_secret);
    OPENSSL_cleanse(key.data, key.size);
    buf_deinit(&key);
    return ERR_OK;
}

/* The given files, or a certificate that is made once and kept in the data directory. */
static err_t open_tls(char *ret_mock_secret, struct errmsg *msg)
{
    char certificate[PATH_SIZE];
    char key[PATH_SIZE];
    struct stat status;
    if ((conf.tls_certificate[0] == '\0') != (conf.tls_key[0] == '\0')) {
        return err_set(msg, ERR_INVALID, "settings tls_certificate and tls_key: give both or none");
    }
    if (conf.tls_certificate[0] != '\0') {
        TRY(make_mock_secret(conf.tls_key, ret_mock_secret, msg));
        return tls_context_create(conf.tls_certificate, conf.tls_key, &state.tls, msg);
    }
    TRY(str_format(
        certificate, sizeof certificate, msg, "%s/gateway.crt", app_data_dir(state.app)));
    TRY(str_format(key, sizeof key, msg, "%s/gateway.key", app_data_dir(state.app)));
    if (stat(certificate, &status) != 0 || stat(key, &status) != 0) {
        TRY(tls_certificate_write(conf.domain, certificate, key, msg));
        log_info(NULL, "made a self-signed certificate for %s: %s", conf.domain, certificate);
    }
    TRY(make_mock_secret(key, ret_mock_secret, msg));
    return tls_context_create(certificate, key, &state.tls, msg);
}

static struct pools *open_pools(struct app *app)
{
    const struct pools_options options = {
        .limits =
            {
                .pool_servers_max = MAX_OF(conf.pool_size_max, 1),
                .endpoint_servers_max = MAX_OF(conf.pool_endpoint_size_max, 1),
                .wait_max = conf.pool_wait_ms * NS_PER_MS,
                .idle_max = conf.pool_idle_ms * NS_PER_MS,
                .age_max = conf.pool_age_ms * NS_PER_MS,
                .retry_after = POOL_RETRY_MS * NS_PER_MS,
            },
        .exchange =
            {
                .client_statements_max = conf.pool_statements_max,
                .client_statement_bytes_max = conf.pool_statement_bytes_max,
                .server_statements_max = MAX_OF(conf.pool_server_statements_max, 1),
                .server_statement_bytes_max = conf.pool_server_statement_bytes_max,
            },
        .login_timeout_ms = conf.login_timeout_ms,
        .upstream = state.upstream,
    };
    return pools_create(app_loop(app), state.routes, &options);
}

static err_t start(struct app *app, struct errmsg *msg)
{
    struct routes_options routes = {
        .control_url = conf.control_url,
        .token = conf.control_token,
        .wake_timeout_ms = conf.wake_timeout_ms,
        .keep_ms = conf.route_keep_ms,
    };
    struct gateway_options options = {
        .listen_host = conf.listen_host,
        .listen_port = (uint16_t)conf.listen_port,
        .connections_max = conf.connections_max,
        .connections_per_endpoint_max = conf.connections_per_endpoint_max,
        .connections_per_role_max = conf.connections_per_role_max,
        .pool_clients_per_endpoint_max = conf.pool_clients_per_endpoint_max,
        .pool_clients_per_role_max = conf.pool_clients_per_role_max,
        .startup_timeout_ms = conf.startup_timeout_ms,
        .login_timeout_ms = conf.login_timeout_ms,
        .tls_required = conf.tls_required,
    };
    state.app = app;
    if (conf.listen_port > UINT16_MAX) {
        return err_set(msg, ERR_INVALID, "setting listen_port: expected 0 to 65535");
    }
    TRY(open_tls(options.mock_secret, msg));
    TRY(upstream_tls_create(
        conf.compute_sslmode, conf.compute_tls_authorities, &state.upstream, msg));
    TRY(routes_create(app_loop(app), app_http_client(app), &routes, &state.routes, msg));
    TRY(gateway_open(
        app_loop(app), state.routes, open_pools(app), state.tls, state.upstream, &options,
        &state.gateway, msg));
    TRY(route_watch_start(
        &state.watch, app_loop(app), app_http_client(app), state.routes, &routes, msg));
    app_set_listen_port(app, gateway_port(state.gateway));
    return ERR_OK;
}

static void on_closed(void)
{
    routes_destroy(state.routes);
    tls_context_destroy(state.tls);
    upstream_tls_destroy(state.upstream);
    app_stopped(state.app);
}

static void stop(struct app *app)
{
    (void)app;
    route_watch_stop(&state.watch);
    gateway_close(state.gateway, on_closed);
}

int main(int argc, char **argv)
{
    static const struct app_spec spec = {
        .name = "gateway",
        .help = "The Postgres port of an Anabranch cluster: routes clients to the computes of "
                "endpoints.",
        .conf = &conf,
        .settings = settings,
        .settings_count = ARRAY_LEN(settings),
        .start = start,
        .stop = stop,
    };
    return app_main(argc, argv, &spec);
}
