/*
 * session_relay.c - a connection to the compute for one session: connect, log in, then bytes both
 * ways, each side held back when the other does not read.
 */
#include <stdio.h>

#include "control/gateway/session_private.h"

/* ---- CONNECT ---- */

void session_connect_server(struct session *session)
{
    struct errmsg msg;
    const struct route *route = &session->ask.route;
    if (session->server.stream != NULL) {
        return;
    }
    (void)snprintf(session->server_host, sizeof session->server_host, "%s", route->host);
    if (stream_connect(
            session->sessions->loop, route->host, route->port, NULL, &session->server, &msg) !=
        ERR_OK) {
        session_refuse(session, CODE_NO_COMPUTE, msg.text, NULL);
    }
}

/* Nobody listens where a compute was: it may have been started elsewhere since. Ask control once
 * more. */
static void lost_before_relay(struct session *session, const struct errmsg *msg)
{
    session_forget_route(session);
    if (!session->retried) {
        session->retried = true;
        session->state = SESSION_CONNECT;
        buf_clear(&session->from_server);
        session->ask.again = true;
        session->asking = true;
        route_ask_start(session->sessions->routes, &session->ask);
        return;
    }
    session_refuse(session, CODE_NO_COMPUTE, msg->text, NULL);
}

/* Connected, and in TLS if that is asked for. */
static void on_secured(struct stream_user *user)
{
    struct session *session = CONTAINER_OF(user, struct session, server);
    if (session->state == SESSION_CANCEL) {
        pg_put_cancel(stream_send_buffer(user->stream), session->server_pid, session->server_key);
        if (session->pooled_cancel == NULL) {
            session_finish(session);
        } /* otherwise until the compute has taken it, which it shows by closing */
        return;
    }
    if (session->state == SESSION_CONNECT) {
        session->state = SESSION_SERVE;
        stream_send(user->stream, buf_view(&session->startup));
    }
}

static void on_open(struct stream_user *user)
{
    struct session *session = CONTAINER_OF(user, struct session, server);
    if (upstream_is_ready(session->sessions->upstream, user->stream)) {
        on_secured(user);
    }
}

static void take_tls_answer(struct session *session, struct bytes bytes)
{
    struct errmsg msg;
    err_t err = upstream_take_answer(
        session->sessions->upstream, session->server.stream, session->server_host, bytes, &msg);
    if (err != ERR_OK) {
        session_refuse(session, CODE_NO_COMPUTE, msg.text, NULL);
    }
}

/* ---- SERVE ---- */

/* The compute's half of the log-in. */
static err_t take_authentication(struct session *session, struct bytes body, struct errmsg *msg)
{
    bool done = false;
    TRY(server_login_step(
        &session->serve, body, stream_send_buffer(session->server.stream), &done, msg));
    if (done) {
        session->greeted = true;
        pg_put_authentication(
            stream_send_buffer(session->client.stream), PG_AUTH_OK, bytes_of(NULL, 0));
    }
    return ERR_OK;
}

static void start_relay(struct session *session)
{
    session->state = SESSION_RELAY;
    session_logged_in(session);
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
        session_make_key(session);
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
bool session_take_greeting(struct session *session)
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
            session_forget_route(session);
        }
        stream_send(session->client.stream, bytes_of(session->from_server.data, message.size));
    }
    if (err != ERR_OK) {
        session_forget_route(session);
        session_refuse(session, err == ERR_STALE ? CODE_PASSWORD : CODE_NO_COMPUTE, msg.text, NULL);
        return false;
    }
    bool ready = message.type == PG_READY_FOR_QUERY;
    buf_consume(&session->from_server, message.size);
    if (ready) {
        start_relay(session);
    }
    return !ready;
}

/* ---- streams ---- */

static void on_bytes(struct stream_user *user, struct bytes bytes)
{
    struct session *session = CONTAINER_OF(user, struct session, server);
    if (session->state == SESSION_RELAY) {
        if (session->client.stream != NULL) {
            session_pass_on(user->stream, session->client.stream, bytes);
        }
        return;
    }
    bool is_asking = session->state == SESSION_CONNECT || session->state == SESSION_CANCEL;
    bool is_plain = stream_tls(user->stream) == NULL;
    if (is_asking && is_plain && session->sessions->upstream != NULL) {
        take_tls_answer(session, bytes);
        return;
    }
    if (session->state == SESSION_SERVE) {
        buf_append(&session->from_server, bytes.data, bytes.size);
        session_advance(session);
    }
}

static void on_drained(struct stream_user *user)
{
    struct session *session = CONTAINER_OF(user, struct session, server);
    if (session->client.stream != NULL) {
        stream_resume(session->client.stream);
    }
}

static void on_closed(struct stream_user *user, err_t reason, bool ended, const struct errmsg *msg)
{
    struct session *session = CONTAINER_OF(user, struct session, server);
    /* Postgres says why in a message, which has gone to the client already. */
    bool is_early = session->state == SESSION_CONNECT || session->state == SESSION_SERVE;
    if (is_early && !session->greeted && (reason != ERR_OK || session->is_leaving)) {
        lost_before_relay(session, msg);
    }
    if (session->pooled_cancel != NULL) {
        /* Closed by the compute: taken. Not connected: never sent. Otherwise who knows. */
        pooled_cancel_end(session->pooled_cancel, ended);
        session->pooled_cancel = NULL;
    }
    if (session->state != SESSION_CONNECT) {
        session_finish(session);
    }
    session_free_when_done(session);
}

const struct stream_callbacks session_server_callbacks = {
    .on_open = on_open,
    .on_secured = on_secured,
    .on_bytes = on_bytes,
    .on_drained = on_drained,
    .on_closed = on_closed,
};
