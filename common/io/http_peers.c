/*
 * http_peers.c - connections of an HTTP server while nobody works for them: they wait for a
 * request, for the rest of one, or to be rid of an answer.
 *
 * MHD's own time-out begins anew with every byte, so who sends one now and then keeps a place for
 * ever. Here the headers of a request have a time of their own, and when all places are taken the
 * one that has waited for longest is closed: nobody who waits is worth more than who asks.
 */
#include "common/io/http_private.h"

#include <sys/socket.h>

#include "common/base/mem.h"
#include "common/base/metric.h"

METRIC_COUNTER(
    evicted_total,
    "http_connections_evicted_total",
    "Connections closed because their headers took too long, or because others had no place.");

struct http_peer *http_peer_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    ASSERT(info != NULL && info->socket_context != NULL);
    return info->socket_context;
}

void http_peer_waits(struct http_server *server, struct http_peer *peer, bool in_request)
{
    peer->since = clock_mono();
    peer->in_request = in_request;
    list_remove(&peer->in_waiting);
    list_push_back(&server->waiting, &peer->in_waiting);
}

void http_peer_is_served(struct http_peer *peer)
{
    list_remove(&peer->in_waiting);
}

void http_peer_on_change(
    void *context,
    struct MHD_Connection *connection,
    void **slot,
    enum MHD_ConnectionNotificationCode code)
{
    struct http_peer *peer = *slot;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        peer = MEM_NEW(struct http_peer);
        peer->connection = connection;
        *slot = peer;
        http_peer_waits(context, peer, false);
    } else {
        list_remove(&peer->in_waiting);
        mem_free(peer);
        *slot = NULL;
    }
}

/* MHD sees the end, and closes. */
static void evict(struct http_peer *peer)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(peer->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    list_remove(&peer->in_waiting);
    metric_add(&evicted_total, 1);
    if (info != NULL) {
        (void)shutdown(info->connect_fd, SHUT_RDWR);
    }
}

void http_peers_evict(struct http_server *server, bool is_full)
{
    mono_ns_t now = clock_mono();
    LIST_FOR_EACH(&server->waiting, link)
    {
        struct http_peer *peer = CONTAINER_OF(link, struct http_peer, in_waiting);
        if (!is_full && now - peer->since <= server->headers_max_ns) {
            return;
        }
        if (is_full || !peer->in_request) {
            evict(peer);
            is_full = false;
        }
    }
}
