/*
 * session_pooled.c - a session whose transactions go over shared connections: what pools.c says to
 * its client.
 */
#include "control/gateway/session_private.h"

static struct session *session_of(struct pooled_client *client)
{
    return CONTAINER_OF(client->user, struct session, client);
}

static void on_greeting(struct pooled_client *client)
{
    struct session *session = session_of(client);
    struct buf *to = stream_send_buffer(session->client.stream);
    pg_put_authentication(to, PG_AUTH_OK, bytes_of(NULL, 0));
    pooled_client_put_greeting(client, to);
    session_make_key(session);
    pg_put_key_data(to, session->pid, session->key);
    pg_put(to, PG_READY_FOR_QUERY, bytes_of("I", 1));
    session_logged_in(session);
}

static void on_failed(
    struct pooled_client *client, const char *code, const char *text, struct bytes error)
{
    struct session *session = session_of(client);
    if (error.size > 0 && session->client.stream != NULL) { /* as the compute has put it */
        stream_send(session->client.stream, error);
        session_finish(session);
        return;
    }
    session_refuse(session, code, text, NULL);
}

static void on_ended(struct pooled_client *client)
{
    session_finish(session_of(client));
}

static const struct pooled_callbacks callbacks = {
    .on_greeting = on_greeting,
    .on_failed = on_failed,
    .on_ended = on_ended,
};

void session_start_pooled(struct session *session)
{
    struct pooled_client *client = session->pooled;
    const struct pool_spec spec = {
        .endpoint_id = session->ask.route.endpoint_id,
        .role = session->role,
        .startup = buf_view(&session->startup),
        .verifier = &session->verifier,
        .client_key = session->serve.client_key,
        .asked_at = session->ask.route.asked_at,
    };
    if (session_refuse_too_many(session)) { /* others have joined while it logged in */
        return;
    }
    session->state = SESSION_POOLED;
    client->callbacks = &callbacks;
    client->user = &session->client;
    client->endpoint = session->address;
    memcpy(client->address, session->ask.client, sizeof client->address);
    client->exchange.held = session->in; /* what came too early, if any */
    session->in = (struct buf){0};
    pools_join(session->sessions->pools, &spec, client);
}
