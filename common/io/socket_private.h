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
/* "127.0.0.1:41234"; leaves `peer` as it is when there is none. */
void socket_name_peer(const uv_tcp_t *tcp, char peer[SOCKET_PEER_SIZE]);
/* The port that a bound socket has. */
NODISCARD err_t socket_own_port(const uv_tcp_t *tcp, uint16_t *ret_port, struct errmsg *msg);
