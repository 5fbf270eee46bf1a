/*
 * session.c - the states of a session in their order:
 *
 *   STARTUP   the client asks for TLS, names role, database and (by the host name) its endpoint
 *   ROUTE     control is asked where that runs, and starts it when it sleeps
 *   LOGIN     SCRAM with the client
 *
 * and then, with a connection of its own:
 *
 *   CONNECT   to the compute
 *   SERVE     SCRAM with the compute, then its greeting, up to the first ReadyForQuery
 *   RELAY     bytes both ways, each side held back when the other does not read
 *
 * or, at a host with -pooler:
 *
 *   POOLED    transactions go over connections that it shares (pools.h)
 *
 * Lifetime: a session is freed when both streams are gone and no question is open.
 */
#include <openssl/crypto.h>
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/prng.h"
#include "control/gateway/session_private.h"

METRIC_GAUGE(sessions_open, "gateway_sessions", "Sessions in any state.");
METRIC_COUNTER(sessions_begun, "gateway_sessions_total", "Connections that clients have made.");
METRIC_COUNTER(logins, "gateway_logins_total", "Sessions that reached their compute.");
METRIC_COUNTER(
    strangers_ended,
    "gateway_strangers_ended_total",
    "Sessions ended before their log-in, for want of places.");
METRIC_HISTOGRAM(
    login_seconds,
    "gateway_login_seconds",
    "From the first byte to the first query, waking included.");

/* ---- the end ---- */

void session_free_when_done(struct session *session)
{
    if (session->client.stream != NULL || session->server.stream != NULL || session->asking) {
        return;
    }
    struct sessions *sessions = session->sessions;
    timer_stop(&session->timer);
    list_remove(&session->in_strangers);
    list_remove(&session->link);
    sessions->live_count -= session->state != SESSION_ENDED;
    sessions->count--;
    metric_set(&sessions_open, (int64_t)sessions->count);
    buf_deinit(&session->in);
    buf_deinit(&session->from_server);
    buf_deinit(&session->startup);
    if (session->pooled != NULL) {
        pooled_client_deinit(session->pooled);
        mem_free(session->pooled);
    }
    if (session->pooled_cancel != NULL) { /* there was no connection for it */
        pooled_cancel_end(session->pooled_cancel, true);
    }
    OPENSSL_cleanse(session, sizeof *session);
    mem_free(session);
    sessions->on_gone(sessions);
}

void session_finish(struct session *session)
{
    if (session->state == SESSION_ENDED) {
        return;
    }
    session->state = SESSION_ENDED;
    timer_stop(&session->timer);
    list_remove(&session->in_strangers);
    session->sessions->live_count--;
    if (session->pooled != NULL) {
        pooled_client_leave(session->pooled);
    }
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

void session_refuse(
    struct session *session, const char *code, const char *message, const char *hint)
{
    bool is_amid = session->pooled != NULL && pooled_client_is_amid_answer(session->pooled);
    if (session->state != SESSION_ENDED && session->client.stream != NULL) {
        log_info(
            NULL, "%s: %s%s%s: refused, %s: %s", stream_peer(session->client.stream), session->role,
            session->address.name[0] == '\0' ? "" : " at ", session->address.name, code, message);
        if (!is_amid) {
            pg_put_fatal(stream_send_buffer(session->client.stream), code, message, hint);
        }
    }
    session_finish(session);
}

void session_end(struct session *session, const char *code, const char *message)
{
    session_refuse(session, code, message, NULL);
}

static void on_login_timeout(struct timer *timer)
{
    struct session *session = CONTAINER_OF(timer, struct session, timer);
    session_refuse(
        session, CODE_REJECTED,
        session->state == SESSION_STARTUP ? "no start-up packet came in time"
                                          : "the log-in took too long",
        NULL);
}

/* ---- what the states share ---- */

void session_forget_route(struct session *session)
{
    routes_forget(session->sessions->routes, &session->address, session->role, session->ask.client);
}

void session_make_key(struct session *session)
{
    prng_secure(&session->pid, sizeof session->pid);
    prng_secure(&session->key, sizeof session->key);
    session->pid &= INT32_MAX; /* clients print it as a process id */
}

void session_logged_in(struct session *session)
{
    timer_stop(&session->timer);
    metric_add(&logins, 1);
    metric_observe_ns(&login_seconds, clock_mono() - session->began);
    OPENSSL_cleanse(&session->login, sizeof session->login);
    OPENSSL_cleanse(&session->serve, sizeof session->serve);
    OPENSSL_cleanse(&session->verifier, sizeof session->verifier);
}

/* ---- the order ---- */

void session_advance(struct session *session)
{
    for (bool again = true; again;) {
        switch (session->state) {
        case SESSION_STARTUP: again = session_take_startup(session); break;
        case SESSION_LOGIN: again = session_take_login(session); break;
        case SESSION_CONNECT:
            session_connect_server(session);
            again = false;
            break;
        case SESSION_SERVE: again = session_take_greeting(session); break;
        case SESSION_ROUTE:
        case SESSION_RELAY:
        case SESSION_POOLED:
        case SESSION_CANCEL:
        case SESSION_ENDED: again = false; break;
        }
    }
}

/* ---- streams ---- */

void session_pass_on(struct stream *from, struct stream *to, struct bytes bytes)
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
            session_pass_on(user->stream, session->server.stream, bytes);
        }
        return;
    }
    if (session->state == SESSION_POOLED) {
        pooled_client_receive(session->pooled, bytes);
        return;
    }
    if (session->state == SESSION_ENDED) {
        return;
    }
    if (session->in.size + bytes.size > PG_AUTH_MAX + PG_HEADER_SIZE) {
        session_refuse(session, CODE_PROTOCOL, "too many bytes before the log-in", NULL);
        return;
    }
    buf_append(&session->in, bytes.data, bytes.size);
    session_advance(session);
}

static void on_client_drained(struct stream_user *user)
{
    struct session *session = CONTAINER_OF(user, struct session, client);
    if (session->state == SESSION_POOLED) {
        pooled_client_drained(session->pooled);
    } else if (session->server.stream != NULL) {
        stream_resume(session->server.stream);
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
        session_finish(
            session); /* a cancel request is passed on also when nobody waits for its end */
    }
    session_free_when_done(session);
}

static const struct stream_callbacks client_callbacks = {
    .on_secured = on_client_secured,
    .on_bytes = on_client_bytes,
    .on_drained = on_client_drained,
    .on_closed = on_client_closed,
};

/*
 * Who has not logged in keeps a place for as long as that may take. When all are taken the one that
 * came first has to go, so that nobody takes all of them without a password. False: there is none.
 */
static bool make_place(struct sessions *sessions, struct stream *stream)
{
    struct list_link *first = list_first(&sessions->strangers);
    if (sessions->live_count < sessions->options->connections_max) {
        return true;
    }
    if (first == NULL) {
        log_warn(
            NULL, "refused %s: the limit is %zu connections", stream_peer(stream),
            sessions->options->connections_max);
        return false;
    }
    metric_add(&strangers_ended, 1);
    session_refuse(
        CONTAINER_OF(first, struct session, in_strangers), CODE_TOO_MANY,
        "too many connections: the log-in took longer than that of others", NULL);
    return true;
}

struct stream_user *session_create(struct sessions *sessions, struct stream *stream)
{
    if (!make_place(sessions, stream)) {
        return NULL;
    }
    struct session *session = MEM_NEW(struct session);
    session->sessions = sessions;
    session->client.callbacks = &client_callbacks;
    session->server.callbacks = &session_server_callbacks;
    session->ask.done = session_on_routed;
    session->began = clock_mono();
    session->timer.on_fire = on_login_timeout;
    timer_start(sessions->loop, &session->timer, sessions->options->startup_timeout_ms);
    list_push_back(&sessions->list, &session->link);
    list_push_back(&sessions->strangers, &session->in_strangers);
    sessions->count++;
    sessions->live_count++;
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
