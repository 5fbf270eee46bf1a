#include "control/gateway/gateway.h"

#include "common/base/mem.h"
#include "control/gateway/session.h"

struct gateway {
    struct sessions sessions;
    struct stream_listener_user user;
    struct stream_listener *listener;
    struct gateway_options options;
    void (*on_closed)(void);
};

#define CLOSING_MAX 1024 /* connections beside those of sessions, as many as may come at once */

static struct stream_user *on_accept(struct stream_listener_user *user, struct stream *stream)
{
    struct gateway *gateway = CONTAINER_OF(user, struct gateway, user);
    return session_create(&gateway->sessions, stream);
}

static void on_pools_closed(void *owner)
{
    struct gateway *gateway = owner;
    void (*on_closed)(void) = gateway->on_closed;
    mem_free(gateway);
    on_closed();
}

static void close_pools(struct gateway *gateway)
{
    pools_close(gateway->sessions.pools, on_pools_closed, gateway);
}

static void on_session_gone(struct sessions *sessions)
{
    struct gateway *gateway = CONTAINER_OF(sessions, struct gateway, sessions);
    if (gateway->on_closed != NULL && sessions->count == 0) {
        close_pools(gateway);
    }
}

err_t gateway_open(
    struct loop *loop,
    struct routes *routes,
    struct pools *pools,
    struct tls_context *tls,
    const struct upstream_tls *upstream,
    const struct gateway_options *options,
    struct gateway **ret_gateway,
    struct errmsg *msg)
{
    struct gateway *gateway = MEM_NEW(struct gateway);
    gateway->options = *options;
    gateway->user.on_accept = on_accept;
    gateway->sessions = (struct sessions){
        .loop = loop,
        .routes = routes,
        .pools = pools,
        .tls = tls,
        .upstream = upstream,
        .options = &gateway->options,
        .on_gone = on_session_gone,
    };
    list_init(&gateway->sessions.list);
    list_init(&gateway->sessions.strangers);
    err_t err = stream_listener_open(
        loop, options->listen_host, options->listen_port, options->connections_max + CLOSING_MAX,
        NULL, &gateway->user, &gateway->listener, msg);
    if (err != ERR_OK) {
        mem_free(gateway);
        return err;
    }
    *ret_gateway = gateway;
    return ERR_OK;
}

uint16_t gateway_port(const struct gateway *gateway)
{
    return stream_listener_port(gateway->listener);
}

void gateway_close(struct gateway *gateway, void (*on_closed)(void))
{
    stream_listener_close(gateway->listener);
    gateway->on_closed = on_closed;
    if (gateway->sessions.count == 0) {
        close_pools(gateway);
        return;
    }
    sessions_end_all(&gateway->sessions);
}
