/*
 * compute_drop.h - roles and databases that shall be gone. Idempotent; nothing is written for what
 * is gone already. Blocking: see compute_sql.h.
 */
#pragma once

#include <libpq-fe.h>

#include "compute/agent/compute_sql.h"

/* Sessions in the databases are ended. */
NODISCARD err_t compute_drop_databases(PGconn *conn, const struct doc *names, struct errmsg *msg);

/*
 * What a role owns goes to the owner of the database that it is in, its privileges are revoked,
 * then it is dropped. Goes through all databases; `connect` opens a superuser's connection to one.
 */
typedef PGconn *(*compute_connect_fn)(const struct compute_sql *sql, const char *database);
NODISCARD err_t compute_drop_roles(
    const struct compute_sql *sql,
    compute_connect_fn connect,
    PGconn *conn,
    const struct doc *names,
    struct errmsg *msg);
