/*
 * tls.h - TLS (OpenSSL) for streams: the server's certificate, whom a client trusts, and one
 * session over bytes in memory.
 *
 * TLS 1.2 and later. Sessions do no I/O: ciphertext goes in, ciphertext and plain bytes come out; a
 * stream (stream.h) drives one. Threads: loop only.
 */
#pragma once

#include "common/base/bytes.h"

struct tls_context;
struct tls_session;

#define TLS_NAME_SIZE    256 /* a host name with its NUL */
#define TLS_BINDING_SIZE 64  /* longest digest */

/* PEM files: the certificate with its chain, and its key. ERR_INVALID says which file and why. */
NODISCARD err_t tls_context_create(
    const char *certificate_path,
    const char *key_path,
    struct tls_context **ret_context,
    struct errmsg *msg);
/*
 * For the client's end. `authorities_path`: PEM file of those who may sign the server's
 * certificate, or that certificate itself; NULL: any certificate will do. `check_name`: it has to
 * be made for the host that is connected to.
 */
NODISCARD err_t tls_client_context_create(
    const char *authorities_path,
    bool check_name,
    struct tls_context **ret_context,
    struct errmsg *msg);
/* Sessions that were begun with it go on. NULL is fine. */
void tls_context_destroy(struct tls_context *context);

/* Data of the channel binding tls-server-end-point (RFC 5929): a digest of the certificate. */
struct bytes tls_context_binding(const struct tls_context *context);

/*
 * Write a self-signed certificate for `domain` and everything one level below it, and its key (mode
 * 0600), valid for ten years. For a cluster on one machine; clients cannot verify it unless they
 * are given the file.
 */
NODISCARD err_t tls_certificate_write(
    const char *domain, const char *certificate_path, const char *key_path, struct errmsg *msg);

/*
 * The server's end. When the client offers ALPN names, "postgresql" is chosen if it is among them.
 */
struct tls_session *tls_session_create(struct tls_context *context);
/* The client's end, to `host`, a name or an address. Feed it nothing once: it speaks first. */
struct tls_session *tls_client_session_create(struct tls_context *context, const char *host);
void tls_session_destroy(struct tls_session *session); /* NULL is fine */

/*
 * Feed what the peer sent; plain bytes are appended to `plain`, what has to be sent to the peer to
 * `wire`. ERR_OK also when nothing came out. ERR_CORRUPT: the peer broke the protocol (an alert may
 * stand in `wire`); ERR_IO: the peer has closed the session in an orderly way.
 */
NODISCARD err_t tls_session_receive(
    struct tls_session *session,
    struct bytes ciphertext,
    struct buf *plain,
    struct buf *wire,
    struct errmsg *msg);
/* Encrypt; only after the handshake. */
NODISCARD err_t tls_session_send(
    struct tls_session *session, struct bytes plain, struct buf *wire, struct errmsg *msg);
/* Tell the peer that nothing follows. */
void tls_session_close(struct tls_session *session, struct buf *wire);

bool tls_session_is_secure(const struct tls_session *session);          /* the handshake is done */
const char *tls_session_server_name(const struct tls_session *session); /* SNI; "" when not sent */
bool tls_session_has_protocol(const struct tls_session *session); /* ALPN chose "postgresql" */
