/*
 * session.c - the states of a session in their order:
 *
 *   STARTUP   the client asks for TLS, names role, database and (by the host name) its endpoint
 *   ROUTE     control is asked where that runs, and starts it when it sleeps
 *   LOGIN     SCRAM with the client
 *   CONNECT   to the compute
 *   SERVE     SCRAM with the compute, then its greeting, up to the first ReadyForQuery
 *   RELAY     bytes both ways, each side held back when the other does not read
 *
 * The role is looked for before the client has proved anything; one that does not exist goes
 * through the same exchange, with a verifier that nothing fits, and fails like a wrong password.
 *
 * Lifetime: a session is freed when both streams are gone and no question is open.
 */
#include "control/gateway/session.h"

#include <openssl/crypto.h>
#include <stdio.h>

#include "common/auth/scram.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/prng.h"
#include "common/io/timer.h"

METRIC_GAUGE(sessions_open, "gateway_sessions", "Sessions in any state.");
METRIC_COUNTER(sessions_begun, "gateway_sessions_total", "Connections that clients have made.");
METRIC_COUNTER(logins, "gateway_logins_total", "Sessions that reached their compute.");
METRIC_COUNTER(logins_denied, "gateway_logins_denied_total", "Wrong passwords and unknown roles.");
METRIC_COUNTER(cancels, "gateway_cancels_total", "Requests to cancel a query that were passed on.");
METRIC_HISTOGRAM(
    login_seconds,
    "gateway_login_seconds",
    "From the first byte to the first query, waking included.");

#define TLS_HANDSHAKE_BYTE                                                                         \
    0x16 /* the first byte of a client that begins TLS at once (Postgres 17) */

#define CODE_PROTOCOL      "08P01"
#define CODE_REJECTED      "08004"
#define CODE_NO_COMPUTE    "57P03"
#define CODE_LOST_COMPUTE  "57P01"
#define CODE_AUTHORIZATION "28000"
#define CODE_PASSWORD      "28P01"
#define CODE_TOO_MANY      "53300"

enum session_state {
    SESSION_STARTUP,
    SESSION_ROUTE,
    SESSION_LOGIN,
    SESSION_CONNECT,
    SESSION_SERVE,
    SESSION_RELAY,
    SESSION_CANCEL,
    SESSION_ENDED
};

struct session {
    struct list_link link;
    struct sessions *sessions;
    enum session_state state;
    struct stream_user client, server;
    struct buf in;          /* of the client, before RELAY */
    struct buf from_server; /* of the compute, before RELAY */
    struct buf startup;     /* the packet, as it goes to the compute */
    struct timer timer;     /* limit of the log-in */
    mono_ns_t began;

    struct address address;
    char role[PG_NAME_SIZE];
    bool role_exists, retried;
    bool is_leaving; /* the compute says that it is going down, or has not come up */
    bool greeted;    /* the compute let us in: what it says goes to the client */
    struct route_ask ask;
    bool asking;

    struct scram_verifier verifier;
    struct scram_server login;
    struct scram_client serve;
    bool mechanism_chosen;

    uint32_t pid, key;               /* as the client knows them */
    uint32_t server_pid, server_key; /* as the compute does */
};

static void advance(struct session *session);

/* ---- the end ---- */

static void free_when_done(struct session *session)
{
    if (session->client.stream != NULL || session->server.stream != NULL || session->asking) {
        return;
    }
    struct sessions *sessions = session->sessions;
    timer_stop(&session->timer);
    list_remove(&session->link);
    sessions->count--;
    metric_set(&sessions_open, (int64_t)sessions->count);
    buf_deinit(&session->in);
    buf_deinit(&session->from_server);
    buf_deinit(&session->startup);
    OPENSSL_cleanse(session, sizeof *session);
    mem_free(session);
    sessions->on_gone(sessions);
}

static void end(struct session *session)
{
    if (session->state == SESSION_ENDED) {
        return;
    }
    session->state = SESSION_ENDED;
    timer_stop(&session->timer);
    if (session->client.stream != NULL) {
        stream_close(session->client.stream);
    }
    if (session->server.stream != NULL) {
        stream_close(session->server.stream);
    }
    if (session->asking) {
        route_ask_cancel(&session->ask);
    }
}

static void refuse(struct session *session, const char *code, const char *message, const char *hint)
{
    if (session->state != SESSION_ENDED && session->client.stream != NULL) {
        log_info(
            NULL, "%s: %s%s%s: refused, %s: %s", stream_peer(session->client.stream), session->role,
            session->address.name[0] == '\0' ? "" : " at ", session->address.name, code, message);
        pg_put_fatal(stream_send_buffer(session->client.stream), code, message, hint);
    }
    end(session);
}

void session_end(struct session *session, const char *code, const char *message)
{
    refuse(session, code, message, NULL);
}

static void on_login_timeout(struct timer *timer)
{
    struct session *session = CONTAINER_OF(timer, struct session, timer);
    refuse(session, CODE_REJECTED, "the log-in took too long", NULL);
}

/* ---- STARTUP ---- */

static const char *server_name_of(const struct session *session)
{
    const struct tls_session *tls = stream_tls(session->client.stream);
    return tls == NULL ? "" : tls_session_server_name(tls);
}

/* The packet for the compute: all parameters, but of the options only what is Postgres'. */
static void write_startup(
    struct session *session, const struct pg_startup *startup, struct buf *options)
{
    const char *name = NULL;
    const char *value = NULL;
    struct buf *to = &session->startup;
    pg_put_u32(to, 0);
    pg_put_u32(to, 3u << 16);
    for (size_t at = 0; pg_startup_next(startup, &at, &name, &value);) {
        bool is_options = strcmp(name, "options") == 0;
        if (strncmp(name, "_pq_.", 5) != 0 && !(is_options && options->size == 0)) {
            buf_append(to, name, strlen(name) + 1);
            value = is_options ? buf_cstr(options) : value;
            buf_append(to, value, strlen(value) + 1);
        }
    }
    *buf_extend(to, 1) = 0;
    uint8_t *size_at = to->data;
    size_at[0] = 0;
    size_at[1] = 0;
    size_at[2] = (uint8_t)(to->size >> 8);
    size_at[3] = (uint8_t)to->size;
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
    if (err == ERR_OK && session->address.pooled && replication != NULL) {
        err = err_set(
            msg, ERR_INVALID,
            "replication needs a session of its own: use the host without -pooler");
    }
    if (err == ERR_OK) {
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
        if (session->state == SESSION_RELAY && session->pid == pid && session->key == key) {
            return session;
        }
    }
    return NULL;
}

/* A cancel request gets no answer, whatever becomes of it. */
static void start_cancel(struct session *session, const struct pg_startup *startup)
{
    const struct session *target =
        find_by_key(session->sessions, startup->cancel_pid, startup->cancel_key);
    struct errmsg msg;
    if (target == NULL) {
        end(session);
        return;
    }
    metric_add(&cancels, 1);
    session->state = SESSION_CANCEL;
    session->server_pid = target->server_pid;
    session->server_key = target->server_key;
    err_t err = stream_connect(
        session->sessions->loop, target->ask.route.host, target->ask.route.port, NULL,
        &session->server, &msg);
    if (err != ERR_OK) {
        end(session);
    }
}

static void forget_route(struct session *session)
{
    routes_forget(session->sessions->routes, &session->address, session->role, session->ask.client);
}

static void start_route(struct session *session)
{
    struct route_ask *ask = &session->ask;
    session->state = SESSION_ROUTE;
    ask->address = session->address;
    memcpy(ask->role, session->role, sizeof ask->role);
    stream_peer_host(session->client.stream, ask->client);
    session->asking = true;
    route_ask_start(session->sessions->routes, ask);
}

static void start_session(struct session *session, const struct pg_startup *startup)
{
    struct errmsg msg;
    bool secure = stream_is_secure(session->client.stream);
    if (!secure && session->sessions->options->tls_required) {
        refuse(
            session, CODE_AUTHORIZATION, "connection is insecure: TLS is required",
            "Connect with sslmode=require.");
        return;
    }
    if (pg_startup_wants_negotiation(startup)) {
        pg_put_negotiation(stream_send_buffer(session->client.stream), startup);
    }
    if (read_startup(session, startup, &msg) != ERR_OK) {
        refuse(session, CODE_REJECTED, msg.text, NULL);
        return;
    }
    start_route(session);
}

/* Bytes behind the request would be taken for part of the encrypted session (CVE-2021-23214). */
static void answer_tls_request(struct session *session)
{
    struct tls_context *tls = session->sessions->tls;
    bool secure = stream_is_secure(session->client.stream);
    if (session->in.size > 0 || secure) {
        refuse(session, CODE_PROTOCOL, "unencrypted data after a request for TLS", NULL);
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
static bool take_startup(struct session *session)
{
    struct pg_startup startup;
    struct errmsg msg;
    size_t taken = 0;
    if (began_tls_itself(session)) {
        return false;
    }
    err_t err = pg_startup_parse(buf_view(&session->in), &startup, &taken, &msg);
    if (err != ERR_OK) {
        refuse(session, err == ERR_UNSUPPORTED ? "0A000" : CODE_PROTOCOL, msg.text, NULL);
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

/* ---- ROUTE ---- */

static bool endpoint_is_full(const struct session *session)
{
    size_t limit = session->sessions->options->connections_per_endpoint_max;
    size_t count = 0;
    if (limit == 0) {
        return false;
    }
    LIST_FOR_EACH(&session->sessions->list, link)
    {
        const struct session *other = CONTAINER_OF(link, struct session, link);
        count += other->state >= SESSION_LOGIN && other->state <= SESSION_RELAY &&
                 strcmp(other->ask.route.endpoint_id, session->ask.route.endpoint_id) == 0;
    }
    return count >= limit;
}

static void refuse_route(struct session *session)
{
    const struct route_ask *ask = &session->ask;
    const char *code = ask->result == ERR_NOT_FOUND ? CODE_REJECTED
                       : ask->result == ERR_DENIED  ? CODE_AUTHORIZATION
                                                    : CODE_NO_COMPUTE;
    refuse(session, code, ask->msg.text, NULL);
}

static void start_login(struct session *session)
{
    static const char plain_mechanisms[] = SCRAM_SHA_256 "\0";
    static const char all_mechanisms[] = SCRAM_SHA_256_PLUS "\0" SCRAM_SHA_256 "\0";
    struct sessions *sessions = session->sessions;
    bool secure = stream_is_secure(session->client.stream);
    session->role_exists =
        scram_verifier_parse(session->ask.route.verifier, &session->verifier, NULL) == ERR_OK;
    if (!session->role_exists) {
        scram_verifier_mock(
            bytes_of(sessions->mock_secret, sizeof sessions->mock_secret), session->role,
            &session->verifier);
    }
    session->state = SESSION_LOGIN;
    session->login = (struct scram_server){.verifier = &session->verifier};
    if (secure) {
        session->login.binding = tls_context_binding(sessions->tls);
    }
    prng_secure(session->login.nonce, sizeof session->login.nonce);
    pg_put_authentication(
        stream_send_buffer(session->client.stream), PG_AUTH_SASL,
        secure ? bytes_of(all_mechanisms, sizeof all_mechanisms)
               : bytes_of(plain_mechanisms, sizeof plain_mechanisms));
}

static void on_routed(struct route_ask *ask)
{
    struct session *session = CONTAINER_OF(ask, struct session, ask);
    session->asking = false;
    if (session->state == SESSION_ENDED) {
        free_when_done(session);
    } else if (ask->result != ERR_OK) {
        refuse_route(session);
    } else if (session->state == SESSION_CONNECT) {
        advance(session); /* asked again after the log-in: the compute has moved */
    } else if (endpoint_is_full(session)) {
        refuse(
            session, CODE_TOO_MANY, "too many connections to this endpoint through the gateway",
            NULL);
    } else {
        start_login(session);
        advance(session);
    }
}

/* ---- LOGIN ---- */

/* SASLInitialResponse: mechanism, size, data. */
static err_t choose_mechanism(
    struct session *session, struct bytes body, struct bytes *ret_data, struct errmsg *msg)
{
    const char *name = (const char *)body.data;
    size_t name_size = body.size == 0 ? 0 : strnlen(name, body.size);
    if (name_size == body.size || body.size < name_size + 5) {
        return err_set(msg, ERR_INVALID, "malformed SASL message");
    }
    bool plus = strcmp(name, SCRAM_SHA_256_PLUS) == 0;
    if (!plus && strcmp(name, SCRAM_SHA_256) != 0) {
        return err_set(msg, ERR_INVALID, "SASL mechanism \"%.40s\" was not offered", name);
    }
    if (plus && !stream_is_secure(session->client.stream)) {
        return err_set(msg, ERR_INVALID, "channel binding without TLS");
    }
    session->login.plus = plus;
    session->mechanism_chosen = true;
    *ret_data = bytes_of(body.data + name_size + 5, body.size - name_size - 5);
    return ERR_OK;
}

static err_t step_login(struct session *session, struct bytes body, struct errmsg *msg)
{
    struct bytes data = body;
    struct buf reply = {0};
    if (!session->mechanism_chosen) {
        TRY(choose_mechanism(session, body, &data, msg));
    }
    err_t err = scram_server_step(&session->login, data, &reply, msg);
    if (err == ERR_OK) {
        pg_put_authentication(
            stream_send_buffer(session->client.stream),
            session->login.state == SCRAM_DONE ? PG_AUTH_SASL_FINAL : PG_AUTH_SASL_CONTINUE,
            buf_view(&reply));
    }
    buf_deinit(&reply);
    return err;
}

static void connect_server(struct session *session);

static void deny(struct session *session, err_t err, const struct errmsg *msg)
{
    char text[160];
    /* Roles that do not exist get here too. A remembered verifier may be out of date. */
    forget_route(session);
    if (err != ERR_DENIED) {
        refuse(session, CODE_PROTOCOL, msg->text, NULL);
        return;
    }
    metric_add(&logins_denied, 1);
    (void)snprintf(
        text, sizeof text, "password authentication failed for user \"%s\"", session->role);
    refuse(session, CODE_PASSWORD, text, NULL);
}

/* True: look again. */
static bool take_login(struct session *session)
{
    struct pg_message message;
    struct errmsg msg;
    err_t err = pg_message_parse(buf_view(&session->in), PG_AUTH_MAX, &message, &msg);
    if (err == ERR_OK && message.size == 0) {
        return false;
    }
    if (err == ERR_OK && message.type != PG_PASSWORD) {
        err = err_set(&msg, ERR_INVALID, "expected a SASL message, got type 0x%02x", message.type);
    }
    err = err != ERR_OK ? err : step_login(session, message.body, &msg);
    if (err != ERR_OK) {
        deny(session, err, &msg);
        return false;
    }
    buf_consume(&session->in, message.size);
    if (session->login.state != SCRAM_DONE) {
        return true;
    }
    memcpy(session->serve.client_key, scram_server_client_key(&session->login), SCRAM_KEY_SIZE);
    session->state = SESSION_CONNECT;
    connect_server(session);
    return false;
}

/* ---- CONNECT ---- */

static void connect_server(struct session *session)
{
    struct errmsg msg;
    const struct route *route = &session->ask.route;
    if (session->server.stream != NULL) {
        return;
    }
    if (stream_connect(
            session->sessions->loop, route->host, route->port, NULL, &session->server, &msg) !=
        ERR_OK) {
        refuse(session, CODE_NO_COMPUTE, msg.text, NULL);
    }
}

/* Nobody listens where a compute was: it may have been started elsewhere since. Ask control once
 * more. */
static void lost_before_relay(struct session *session, const struct errmsg *msg)
{
    forget_route(session);
    if (!session->retried) {
        session->retried = true;
        session->state = SESSION_CONNECT;
        buf_clear(&session->from_server);
        session->ask.again = true;
        session->asking = true;
        route_ask_start(session->sessions->routes, &session->ask);
        return;
    }
    refuse(session, CODE_NO_COMPUTE, msg->text, NULL);
}

static void on_server_open(struct stream_user *user)
{
    struct session *session = CONTAINER_OF(user, struct session, server);
    if (session->state == SESSION_CANCEL) {
        pg_put_cancel(stream_send_buffer(user->stream), session->server_pid, session->server_key);
        end(session);
        return;
    }
    if (session->state == SESSION_CONNECT) {
        session->state = SESSION_SERVE;
        stream_send(user->stream, buf_view(&session->startup));
    }
}

/* ---- SERVE ---- */

static void send_sasl(struct session *session, bool initial, struct buf *data)
{
    struct buf body = {0};
    if (initial) {
        buf_append(&body, SCRAM_SHA_256, sizeof SCRAM_SHA_256);
        pg_put_u32(&body, (uint32_t)data->size);
    }
    buf_append(&body, data->data, data->size);
    pg_put(stream_send_buffer(session->server.stream), PG_PASSWORD, buf_view(&body));
    buf_deinit(&body);
}

/* The compute's half of the log-in. */
static err_t take_authentication(struct session *session, struct bytes body, struct errmsg *msg)
{
    struct buf data = {0};
    err_t err = ERR_OK;
    if (body.size < 4) {
        return err_set(msg, ERR_CORRUPT, "the compute sent a malformed authentication request");
    }
    uint32_t code = pg_get_u32(body.data);
    struct bytes rest = bytes_of(body.data + 4, body.size - 4);
    switch (code) {
    case PG_AUTH_OK:
        session->greeted = true;
        pg_put_authentication(
            stream_send_buffer(session->client.stream), PG_AUTH_OK, bytes_of(NULL, 0));
        break;
    case PG_AUTH_SASL:
        session->serve.verifier = &session->verifier;
        prng_secure(session->serve.nonce, sizeof session->serve.nonce);
        scram_client_first(&session->serve, &data);
        send_sasl(session, true, &data);
        break;
    case PG_AUTH_SASL_CONTINUE:
        err = scram_client_final(&session->serve, rest, &data, msg);
        if (err == ERR_OK) {
            send_sasl(session, false, &data);
        }
        break;
    case PG_AUTH_SASL_FINAL: err = scram_client_check(&session->serve, rest, msg); break;
    default:
        err = err_set(msg, ERR_UNSUPPORTED, "the compute asks for authentication method %u", code);
        break;
    }
    buf_deinit(&data);
    return err;
}

static void start_relay(struct session *session)
{
    session->state = SESSION_RELAY;
    timer_stop(&session->timer);
    metric_add(&logins, 1);
    metric_observe_ns(&login_seconds, clock_mono() - session->began);
    OPENSSL_cleanse(&session->login, sizeof session->login);
    OPENSSL_cleanse(&session->serve, sizeof session->serve);
    OPENSSL_cleanse(&session->verifier, sizeof session->verifier);
    /* What either side has sent already goes through. */
    if (session->from_server.size > 0) {
        stream_send(session->client.stream, buf_view(&session->from_server));
    }
    if (session->in.size > 0) {
        stream_send(session->server.stream, buf_view(&session->in));
    }
    buf_deinit(&session->from_server);
    buf_deinit(&session->in);
}

static void take_key_data(struct session *session, struct bytes body)
{
    if (body.size == 8) {
        session->server_pid = pg_get_u32(body.data);
        session->server_key = pg_get_u32(body.data + 4);
        prng_secure(&session->pid, sizeof session->pid);
        prng_secure(&session->key, sizeof session->key);
        session->pid &= INT32_MAX; /* clients print it as a process id */
        pg_put_key_data(stream_send_buffer(session->client.stream), session->pid, session->key);
    }
}

/* It was suspended a moment ago, or is starting: control is asked, which waits for it. */
static bool is_going_or_coming(struct session *session, const struct pg_message *message)
{
    char code[6];
    char text[100];
    if (message->type != PG_ERROR_RESPONSE || session->greeted || session->retried) {
        return false;
    }
    pg_error_fields(message->body, code, text, sizeof text);
    return strcmp(code, CODE_NO_COMPUTE) == 0;
}

/* True: look again. */
static bool take_greeting(struct session *session)
{
    struct pg_message message;
    struct errmsg msg;
    err_t err = pg_message_parse(buf_view(&session->from_server), MIB, &message, &msg);
    if (err == ERR_OK && message.size == 0) {
        return false;
    }
    if (err == ERR_OK && is_going_or_coming(session, &message)) {
        session->is_leaving = true;
        stream_abort(session->server.stream);
        return false;
    }
    if (err == ERR_OK && message.type == PG_AUTHENTICATION) {
        err = take_authentication(session, message.body, &msg);
    } else if (err == ERR_OK && message.type == PG_BACKEND_KEY_DATA) {
        take_key_data(session, message.body);
    } else if (err == ERR_OK && message.type != PG_NEGOTIATE_PROTOCOL) {
        if (message.type == PG_ERROR_RESPONSE) {
            forget_route(session);
        }
        stream_send(session->client.stream, bytes_of(session->from_server.data, message.size));
    }
    if (err != ERR_OK) {
        forget_route(session);
        refuse(session, err == ERR_STALE ? CODE_PASSWORD : CODE_NO_COMPUTE, msg.text, NULL);
        return false;
    }
    bool ready = message.type == PG_READY_FOR_QUERY;
    buf_consume(&session->from_server, message.size);
    if (ready) {
        start_relay(session);
    }
    return !ready;
}

/* ---- the order ---- */

static void advance(struct session *session)
{
    for (bool again = true; again;) {
        switch (session->state) {
        case SESSION_STARTUP: again = take_startup(session); break;
        case SESSION_LOGIN: again = take_login(session); break;
        case SESSION_CONNECT:
            connect_server(session);
            again = false;
            break;
        case SESSION_SERVE: again = take_greeting(session); break;
        case SESSION_ROUTE:
        case SESSION_RELAY:
        case SESSION_CANCEL:
        case SESSION_ENDED: again = false; break;
        }
    }
}

/* ---- streams ---- */

static void pass_on(struct stream *from, struct stream *to, struct bytes bytes)
{
    stream_send(to, bytes);
    if (stream_is_congested(to)) {
        stream_pause(from); /* until on_drained of `to` */
    }
}

static void on_client_bytes(struct stream_user *user, struct bytes bytes)
{
    struct session *session = CONTAINER_OF(user, struct session, client);
    if (session->state == SESSION_RELAY) {
        if (session->server.stream != NULL) {
            pass_on(user->stream, session->server.stream, bytes);
        }
        return;
    }
    if (session->state == SESSION_ENDED) {
        return;
    }
    if (session->in.size + bytes.size > PG_AUTH_MAX + PG_HEADER_SIZE) {
        refuse(session, CODE_PROTOCOL, "too many bytes before the log-in", NULL);
        return;
    }
    buf_append(&session->in, bytes.data, bytes.size);
    advance(session);
}

static void on_server_bytes(struct stream_user *user, struct bytes bytes)
{
    struct session *session = CONTAINER_OF(user, struct session, server);
    if (session->state == SESSION_RELAY) {
        if (session->client.stream != NULL) {
            pass_on(user->stream, session->client.stream, bytes);
        }
        return;
    }
    if (session->state == SESSION_SERVE) {
        buf_append(&session->from_server, bytes.data, bytes.size);
        advance(session);
    }
}

static void on_client_drained(struct stream_user *user)
{
    struct session *session = CONTAINER_OF(user, struct session, client);
    if (session->server.stream != NULL) {
        stream_resume(session->server.stream);
    }
}

static void on_server_drained(struct stream_user *user)
{
    struct session *session = CONTAINER_OF(user, struct session, server);
    if (session->client.stream != NULL) {
        stream_resume(session->client.stream);
    }
}

static void on_client_secured(struct stream_user *user)
{
    (void)user; /* a start-up packet follows */
}

static void on_client_closed(
    struct stream_user *user, err_t reason, bool ended, const struct errmsg *msg)
{
    struct session *session = CONTAINER_OF(user, struct session, client);
    if (reason != ERR_OK && !ended) {
        log_debug(NULL, "%s", msg->text);
    }
    if (session->state != SESSION_CANCEL || session->server.stream == NULL) {
        end(session); /* a cancel request is passed on also when nobody waits for its end */
    }
    free_when_done(session);
}

static void on_server_closed(
    struct stream_user *user, err_t reason, bool ended, const struct errmsg *msg)
{
    struct session *session = CONTAINER_OF(user, struct session, server);
    (void)ended; /* Postgres says why in a message, which has gone to the client already */
    bool is_early = session->state == SESSION_CONNECT || session->state == SESSION_SERVE;
    if (is_early && !session->greeted && (reason != ERR_OK || session->is_leaving)) {
        lost_before_relay(session, msg);
    }
    if (session->state != SESSION_CONNECT) {
        end(session);
    }
    free_when_done(session);
}

static const struct stream_callbacks client_callbacks = {
    .on_secured = on_client_secured,
    .on_bytes = on_client_bytes,
    .on_drained = on_client_drained,
    .on_closed = on_client_closed,
};
static const struct stream_callbacks server_callbacks = {
    .on_open = on_server_open,
    .on_bytes = on_server_bytes,
    .on_drained = on_server_drained,
    .on_closed = on_server_closed,
};

struct stream_user *session_create(struct sessions *sessions, struct stream *stream)
{
    struct session *session = MEM_NEW(struct session);
    (void)stream;
    session->sessions = sessions;
    session->client.callbacks = &client_callbacks;
    session->server.callbacks = &server_callbacks;
    session->ask.done = on_routed;
    session->began = clock_mono();
    session->timer.on_fire = on_login_timeout;
    timer_start(sessions->loop, &session->timer, sessions->options->login_timeout_ms);
    list_push_back(&sessions->list, &session->link);
    sessions->count++;
    metric_add(&sessions_begun, 1);
    metric_set(&sessions_open, (int64_t)sessions->count);
    return &session->client;
}

void sessions_end_all(struct sessions *sessions)
{
    LIST_FOR_EACH(&sessions->list, link)
    {
        session_end(
            CONTAINER_OF(link, struct session, link), CODE_LOST_COMPUTE,
            "terminating connection: the gateway is shutting down");
    }
}
