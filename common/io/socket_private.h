/*
 * socket_private.h - addresses and options that links, streams and listeners share.
 */
#pragma once

#include <netdb.h>
#include <uv.h>

#include "common/base/err.h"

#define SOCKET_PEER_SIZE 128

/* A numeric address, or a name known to the resolver (blocking). */
NODISCARD err_t
address_resolve(const char *host, uint16_t port, struct sockaddr_storage *ret, struct errmsg *msg);
/* Only a numeric address; false for anything else. */
bool address_parse(const char *host, uint16_t port, struct sockaddr_storage *ret);
/* The one of a name's addresses that everybody here takes. */
void address_take(const struct addrinfo *found, struct sockaddr_storage *ret);

/*
 * No delay; notice a dead peer: probes while the line is quiet, and TCP_USER_TIMEOUT for what it
 * does not acknowledge. That one also ends a connection whose peer lives and does not read: 0 where
 * it may leave bytes unread for as long as it likes.
 */
void socket_set_options(uv_tcp_t *tcp, unsigned unread_ms);

enum socket_peer {
    SOCKET_PEER_HAS_ALL, /* of what was written */
    SOCKET_PEER_ANSWERS, /* or nothing is known yet: it may not be reading */
    SOCKET_PEER_SILENT,  /* for limit_ms no answer to anything, though it was asked again */
};
/*
 * Where TCP_USER_TIMEOUT is not set: a peer that does not read still answers each probe of its
 * window, one that has gone answers nothing. A retransmission that was sent this moment looks
 * unanswered too, so SILENT counts when it is said twice.
 */
enum socket_peer socket_ask_about_peer(const uv_tcp_t *tcp, unsigned limit_ms);
/* "127.0.0.1:41234"; leaves `peer` as it is when there is none. */
void socket_name_peer(const uv_tcp_t *tcp, char peer[SOCKET_PEER_SIZE]);
/* The port that a bound socket has. */
NODISCARD err_t socket_own_port(const uv_tcp_t *tcp, uint16_t *ret_port, struct errmsg *msg);
