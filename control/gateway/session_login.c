/*
 * session_login.c - where a client's endpoint runs, and the proof that the client may go there.
 *
 * The role is looked for before the client has proved anything; one that does not exist goes
 * through the same exchange, with a verifier that nothing fits, and fails like a wrong password.
 */
#include <stdio.h>

#include "common/base/metric.h"
#include "common/base/prng.h"
#include "control/gateway/session_private.h"

METRIC_COUNTER(
    refused_too_many, "gateway_refused_too_many_total", "Log-ins over a limit of connections.");
METRIC_COUNTER(logins_denied, "gateway_logins_denied_total", "Wrong passwords and unknown roles.");

void session_start_route(struct session *session)
{
    struct route_ask *ask = &session->ask;
    session->state = SESSION_ROUTE;
    timer_start(
        session->sessions->loop, &session->timer, session->sessions->options->login_timeout_ms);
    ask->address = session->address;
    memcpy(ask->role, session->role, sizeof ask->role);
    stream_peer_host(session->client.stream, ask->client);
    session->asking = true;
    route_ask_start(session->sessions->routes, ask);
}

/*
 * Sessions with a connection of their own, that have logged in: the others would keep everybody out
 * without a password. Those in pools are counted by the pools.
 */
static void count_sessions(const struct session *session, size_t *ret_endpoint, size_t *ret_role)
{
    *ret_endpoint = *ret_role = 0;
    LIST_FOR_EACH(&session->sessions->list, link)
    {
        const struct session *other = CONTAINER_OF(link, struct session, link);
        bool counts = other->state >= SESSION_CONNECT && other->state <= SESSION_RELAY &&
                      other->pooled == NULL &&
                      strcmp(other->ask.route.endpoint_id, session->ask.route.endpoint_id) == 0;
        *ret_endpoint += counts;
        *ret_role += counts && strcmp(other->role, session->role) == 0;
    }
}

bool session_refuse_too_many(struct session *session)
{
    const struct gateway_options *options = session->sessions->options;
    bool pooled = session->pooled != NULL;
    size_t endpoint_max =
        pooled ? options->pool_clients_per_endpoint_max : options->connections_per_endpoint_max;
    size_t role_max =
        pooled ? options->pool_clients_per_role_max : options->connections_per_role_max;
    size_t of_endpoint = 0;
    size_t of_role = 0;
    char text[200];
    if (endpoint_max == 0 && role_max == 0) {
        return false;
    }
    if (pooled) {
        pools_count_clients(
            session->sessions->pools, session->ask.route.endpoint_id, session->role, &of_endpoint,
            &of_role);
    } else {
        count_sessions(session, &of_endpoint, &of_role);
    }
    bool by_role = role_max != 0 && of_role >= role_max;
    if (!by_role && (endpoint_max == 0 || of_endpoint < endpoint_max)) {
        return false;
    }
    (void)snprintf(
        text, sizeof text, "too many %sconnections %s through the gateway: at most %zu",
        pooled ? "pooled " : "", by_role ? "of this role to this endpoint" : "to this endpoint",
        by_role ? role_max : endpoint_max);
    metric_add(&refused_too_many, 1);
    session_refuse(session, CODE_TOO_MANY, text, NULL);
    return true;
}

static void refuse_route(struct session *session)
{
    const struct route_ask *ask = &session->ask;
    bool is_wrong = ask->result == ERR_NOT_FOUND || ask->result == ERR_INVALID;
    const char *code = is_wrong                    ? CODE_REJECTED
                       : ask->result == ERR_DENIED ? CODE_AUTHORIZATION
                                                   : CODE_NO_COMPUTE;
    session_refuse(session, code, ask->msg.text, NULL);
}

/*
 * The salt that a client sees must not tell whether there is a role: it is the same in all branches
 * of a project, and after a restart, as that of a role is, and another one in other projects.
 */
static void make_up_verifier(struct session *session)
{
    const struct sessions *sessions = session->sessions;
    char name[ADDRESS_NAME_SIZE + PG_NAME_SIZE + 1];
    (void)snprintf(name, sizeof name, "%s/%s", session->ask.route.project_id, session->role);
    scram_verifier_mock(
        bytes_of(sessions->options->mock_secret, sizeof sessions->options->mock_secret), name,
        &session->verifier);
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
        make_up_verifier(session);
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

void session_on_routed(struct route_ask *ask)
{
    struct session *session = CONTAINER_OF(ask, struct session, ask);
    session->asking = false;
    if (session->state == SESSION_ENDED) {
        session_free_when_done(session);
    } else if (ask->result != ERR_OK) {
        refuse_route(session);
    } else if (session->state == SESSION_CONNECT) {
        session_advance(session); /* asked again after the log-in: the compute has moved */
    } else if (!session_refuse_too_many(session)) {
        start_login(session);
        session_advance(session);
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

static void deny(struct session *session, err_t err, const struct errmsg *msg)
{
    char text[160];
    /* Roles that do not exist get here too. A remembered verifier may be out of date. */
    session_forget_route(session);
    if (err != ERR_DENIED) {
        session_refuse(session, CODE_PROTOCOL, msg->text, NULL);
        return;
    }
    metric_add(&logins_denied, 1);
    (void)snprintf(
        text, sizeof text, "password authentication failed for user \"%s\"", session->role);
    session_refuse(session, CODE_PASSWORD, text, NULL);
}

/* True: look again. */
bool session_take_login(struct session *session)
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
    list_remove(&session->in_strangers);
    memcpy(session->serve.client_key, scram_server_client_key(&session->login), SCRAM_KEY_SIZE);
    session->serve.verifier = session->verifier;
    if (session->pooled != NULL) {
        session_start_pooled(session);
        return false;
    }
    if (session_refuse_too_many(session)) { /* others have logged in meanwhile */
        return false;
    }
    session->state = SESSION_CONNECT;
    session_connect_server(session);
    return false;
}
