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
 * [{from, to, owner}], in order; `to` may be the name that it has, `owner` may be missing or a
 * role that is not there: then it keeps the one it has. Before the databases that are missing are
 * created, or a renamed one would be made anew, and before what is dropped goes, which may have got
 * its name here. Sessions in it are ended and none begins until it has its name. Again is fine.
 */
NODISCARD err_t
compute_change_databases(PGconn *conn, const struct doc *changed, struct errmsg *msg);

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
