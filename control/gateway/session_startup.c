/*
 * session_startup.c - a client's first packets: TLS, a request to cancel, or who it is and what it
 * wants.
 */
#include <stdio.h>
#include <strings.h>

#include "common/base/mem.h"
#include "common/base/metric.h"
#include "control/gateway/session_private.h"

METRIC_COUNTER(cancels, "gateway_cancels_total", "Requests to cancel a query that were passed on.");

#define TLS_HANDSHAKE_BYTE                                                                         \
    0x16 /* the first byte of a client that begins TLS at once (Postgres 17) */

static const char *server_name_of(const struct session *session)
{
    const struct tls_session *tls = stream_tls(session->client.stream);
    return tls == NULL ? "" : tls_session_server_name(tls);
}

static void put_pair(struct buf *to, const char *name, const char *value)
{
    buf_append(to, name, strlen(name) + 1);
    buf_append(to, value, strlen(value) + 1);
}

static size_t begin_packet(struct buf *to)
{
    pg_put_u32(to, 0);
    pg_put_u32(to, 3u << 16);
    return to->size;
}

static void end_packet(struct buf *to)
{
    *buf_extend(to, 1) = 0;
    uint8_t *size_at = to->data;
    size_at[0] = 0;
    size_at[1] = 0;
    size_at[2] = (uint8_t)(to->size >> 8);
    size_at[3] = (uint8_t)to->size;
}

/* The packet for the compute: all parameters, but of the options only what is Postgres'. */
static void write_startup(
    struct session *session, const struct pg_startup *startup, struct buf *options)
{
    const char *name = NULL;
    const char *value = NULL;
    struct buf *to = &session->startup;
    (void)begin_packet(to);
    for (size_t at = 0; pg_startup_next(startup, &at, &name, &value);) {
        bool is_options = strcmp(name, "options") == 0;
        if (strncmp(name, "_pq_.", 5) != 0 && !(is_options && options->size == 0)) {
            put_pair(to, name, is_options ? buf_cstr(options) : value);
        }
    }
    end_packet(to);
}

/*
 * What a pool's connections have in common. Settings that can follow a client from one connection
 * to the next are not in it; all others make a pool of their own, so that they hold.
 */
static err_t write_pooled_startup(
    struct session *session,
    const struct pg_startup *startup,
    struct buf *options,
    struct errmsg *msg)
{
    const char *name = NULL;
    const char *value = NULL;
    struct buf *to = &session->startup;
    const char *database = pg_startup_parameter(startup, "database");
    session->pooled = MEM_NEW(struct pooled_client);
    (void)begin_packet(to);
    put_pair(to, "user", session->role);
    put_pair(to, "database", database == NULL || database[0] == '\0' ? session->role : database);
    for (size_t at = 0; pg_startup_next(startup, &at, &name, &value);) {
        enum parameter parameter = parameter_find(name);
        bool is_ours = strcmp(name, "user") == 0 || strcmp(name, "database") == 0 ||
                       strcmp(name, "options") == 0 || strcmp(name, "replication") == 0 ||
                       strncmp(name, "_pq_.", 5) == 0;
        if (is_ours) {
            continue;
        }
        if (parameter == PARAMETER_COUNT || parameter == PARAMETER_search_path) {
            put_pair(to, name, value);
        } else if (parameter_value_is_sane(value)) {
            parameters_set(&session->pooled->exchange.parameters, parameter, value);
        } else {
            return err_set(msg, ERR_INVALID, "the value of %s is not plain text", name);
        }
    }
    if (options->size > 0) {
        put_pair(to, "options", buf_cstr(options));
    }
    end_packet(to);
    return ERR_OK;
}

/* As Postgres reads it: a database's name there asks for logical replication. */
static bool wants_replication(const char *value)
{
    static const char *const no[] = {"false", "off", "no", "0", "f", "n"};
    for (size_t i = 0; value != NULL && i < ARRAY_LEN(no); i++) {
        if (strcasecmp(value, no[i]) == 0) {
            return false;
        }
    }
    return value != NULL;
}

static err_t read_startup(
    struct session *session, const struct pg_startup *startup, struct errmsg *msg)
{
    struct buf options = {0};
    const char *role = pg_startup_parameter(startup, "user");
    const char *replication = pg_startup_parameter(startup, "replication");
    if (role == NULL || role[0] == '\0') {
        return err_set(msg, ERR_INVALID, "no role (user) in the start-up packet");
    }
    if (strlen(role) >= sizeof session->role) {
        return err_set(msg, ERR_INVALID, "the name of the role is too long");
    }
    (void)snprintf(session->role, sizeof session->role, "%s", role);
    err_t err = address_of(
        server_name_of(session), pg_startup_parameter(startup, "options"), &session->address,
        &options, msg);
    if (err == ERR_OK && session->address.name[0] == '\0') {
        err = err_set(
            msg, ERR_INVALID,
            "which endpoint? connect to ep-NAME.DOMAIN with TLS, or add options=endpoint=ep-NAME");
    }
    if (err == ERR_OK && session->address.pooled && wants_replication(replication)) {
        err = err_set(
            msg, ERR_INVALID,
            "replication needs a session of its own: use the host without -pooler");
    }
    if (err == ERR_OK && session->address.pooled) {
        err = write_pooled_startup(session, startup, &options, msg);
    } else if (err == ERR_OK) {
        write_startup(session, startup, &options);
    }
    buf_deinit(&options);
    return err;
}

static struct session *find_by_key(struct sessions *sessions, uint32_t pid, uint32_t key)
{
    LIST_FOR_EACH(&sessions->list, link)
    {
        struct session *session = CONTAINER_OF(link, struct session, link);
        if ((session->state == SESSION_RELAY || session->state == SESSION_POOLED) &&
            session->pid == pid && session->key == key) {
            return session;
        }
    }
    return NULL;
}

/* Where the target's query runs; false: it runs none that could be meant. */
static bool aim(struct session *session, struct session *target, struct pooled_target *ret_target)
{
    if (target == NULL) {
        return false;
    }
    if (target->state == SESSION_POOLED) {
        session->pooled_cancel = pooled_cancel_begin(target->pooled, ret_target);
        return session->pooled_cancel != NULL;
    }
    *ret_target = (struct pooled_target){
        .host = target->ask.route.host,
        .port = target->ask.route.port,
        .pid = target->server_pid,
        .key = target->server_key,
    };
    return true;
}

/* A cancel request gets no answer, whatever becomes of it. */
static void start_cancel(struct session *session, const struct pg_startup *startup)
{
    struct session *found =
        find_by_key(session->sessions, startup->cancel_pid, startup->cancel_key);
    struct pooled_target target;
    struct errmsg msg;
    if (!aim(session, found, &target)) {
        session_finish(session);
        return;
    }
    metric_add(&cancels, 1);
    session->state = SESSION_CANCEL;
    (void)snprintf(session->server_host, sizeof session->server_host, "%s", target.host);
    session->server_pid = target.pid;
    session->server_key = target.key;
    err_t err = stream_connect(
        session->sessions->loop, target.host, target.port, NULL, &session->server, &msg);
    if (err != ERR_OK) {
        session_finish(session);
    }
}

static void start_session(struct session *session, const struct pg_startup *startup)
{
    struct errmsg msg;
    bool secure = stream_is_secure(session->client.stream);
    if (!secure && session->sessions->options->tls_required) {
        session_refuse(
            session, CODE_AUTHORIZATION, "connection is insecure: TLS is required",
            "Connect with sslmode=require.");
        return;
    }
    if (pg_startup_wants_negotiation(startup)) {
        pg_put_negotiation(stream_send_buffer(session->client.stream), startup);
    }
    if (read_startup(session, startup, &msg) != ERR_OK) {
        session_refuse(session, CODE_REJECTED, msg.text, NULL);
        return;
    }
    session_start_route(session);
}

/* Bytes behind the request would be taken for part of the encrypted session (CVE-2021-23214). */
static void answer_tls_request(struct session *session)
{
    struct tls_context *tls = session->sessions->tls;
    bool secure = stream_is_secure(session->client.stream);
    if (session->in.size > 0 || secure) {
        session_refuse(session, CODE_PROTOCOL, "unencrypted data after a request for TLS", NULL);
        return;
    }
    stream_send(session->client.stream, bytes_of(tls != NULL ? "S" : "N", 1));
    if (tls != NULL) {
        stream_start_tls(session->client.stream, tls, bytes_of(NULL, 0));
    }
}

/* A client that knows that we speak TLS says so in its first byte, and has to name the protocol. */
static bool began_tls_itself(struct session *session)
{
    struct tls_context *tls = session->sessions->tls;
    if (tls == NULL || session->in.size == 0 || session->in.data[0] != TLS_HANDSHAKE_BYTE ||
        stream_tls(session->client.stream) != NULL) {
        return false;
    }
    struct buf first = session->in;
    session->in = (struct buf){0};
    stream_start_tls(session->client.stream, tls, buf_view(&first));
    buf_deinit(&first);
    return true;
}

/* True: look again, another packet may follow. */
bool session_take_startup(struct session *session)
{
    struct pg_startup startup;
    struct errmsg msg;
    size_t taken = 0;
    if (began_tls_itself(session)) {
        return false;
    }
    err_t err = pg_startup_parse(buf_view(&session->in), &startup, &taken, &msg);
    if (err != ERR_OK) {
        session_refuse(session, err == ERR_UNSUPPORTED ? "0A000" : CODE_PROTOCOL, msg.text, NULL);
        return false;
    }
    if (taken == 0) {
        return false;
    }
    if (startup.kind == PG_STARTUP_SESSION || startup.kind == PG_STARTUP_CANCEL) {
        if (startup.kind == PG_STARTUP_SESSION) {
            start_session(session, &startup);
        } else {
            start_cancel(session, &startup);
        }
        buf_consume(&session->in, taken);
        return false;
    }
    buf_consume(&session->in, taken);
    if (startup.kind == PG_STARTUP_GSS) {
        stream_send(session->client.stream, bytes_of("N", 1));
        return true;
    }
    answer_tls_request(session);
    return false;
}
