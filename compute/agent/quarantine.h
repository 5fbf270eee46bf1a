/*
 * quarantine.h - cuts what a branch inherited from its parent and would use on the outside.
 *
 * Subscriptions are disabled and forget the slot on the publisher, which belongs to the parent: so
 * neither their workers nor a DROP SUBSCRIPTION touch it. Idempotent, and without a write when
 * there is none. The end of the quarantine in the server (compute/extension/quarantine.h) is the
 * last thing it does. Blocking: on workers.
 */
#pragma once

#include <libpq-fe.h>

#include "common/base/err.h"

/* Connects as `conn` does, to another database; NULL: with the reason in msg. */
typedef PGconn *(*quarantine_connect_fn)(
    const void *context, const char *database, struct errmsg *msg);

NODISCARD err_t quarantine_apply(
    PGconn *conn,
    quarantine_connect_fn connect,
    const void *context,
    size_t *ret_subscriptions,
    struct errmsg *msg);
