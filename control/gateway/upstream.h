/*
 * upstream.h - TLS to a compute, asked for as Postgres' clients do: a request in plain, one byte of
 * answer, then the handshake. Off unless the gateway is told otherwise: on one host there is
 * nothing between them.
 */
#pragma once

#include "common/io/stream.h"

/* NULL: computes are spoken to in plain. */
struct upstream_tls {
    struct tls_context *context;
};

/* compute_sslmode: disable, require, verify-ca or verify-full; `authorities` for the last two. */
NODISCARD err_t upstream_tls_create(
    const char *mode,
    const char *authorities_path,
    struct upstream_tls **ret_tls,
    struct errmsg *msg);
void upstream_tls_destroy(struct upstream_tls *tls); /* NULL is fine */

/* In on_open: false when TLS is asked for; on_secured says when it is there. */
bool upstream_is_ready(const struct upstream_tls *tls, struct stream *stream);

/* The answer, in on_bytes. ERR_UNSUPPORTED: the compute does not speak TLS. */
NODISCARD err_t upstream_take_answer(
    const struct upstream_tls *tls,
    struct stream *stream,
    const char *host,
    struct bytes bytes,
    struct errmsg *msg);
