/*
 * compute_sql_private.h - how compute_sql.c and compute_drop.c put statements together and say what
 * went wrong with them. Blocking: on workers.
 */
#pragma once

#include <libpq-fe.h>

#include "common/base/bytes.h"
#include "common/base/err.h"

/* ERR_IO: `what`, and the first line of what libpq says of the connection. */
NODISCARD err_t compute_sql_failed(const char *what, const PGconn *conn, struct errmsg *msg);
/* As SQL wants it. */
void compute_sql_append_identifier(PGconn *conn, const char *name, struct buf *to);
