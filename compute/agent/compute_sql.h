/*
 * compute_sql.h - roles and databases of a compute, made so by SQL as superuser over its socket.
 *
 * Idempotent, and without a write when nothing is missing: a branch that is only read does not
 * grow. Blocking: on workers; ends when Postgres does.
 */
#pragma once

#include "compute/agent/compute_spec.h"

struct compute_sql {
    const struct compute_spec *spec;
    const char *socket_dir;
    uint16_t port;
    bool quarantine; /* first cut what the branch inherited: quarantine.h */
    /* Not NULL: filled in by compute_sql_apply, {role: what compute_sql_verifier() would say}. */
    struct doc **ret_verifiers;
};

/*
 * ERR_INVALID when no session can begin with a setting of the spec: a library to preload that is
 * not there, or refuses. Our own sessions load none, so without the question the server would seem
 * well.
 */
NODISCARD err_t compute_sql_try_settings(const struct compute_sql *sql, struct errmsg *msg);
/* ERR_INVALID is never its answer. */
NODISCARD err_t compute_sql_apply(const struct compute_sql *sql, struct errmsg *msg);
/* What the spec wants gone; apart, because a compute is useful also while that cannot be done. */
NODISCARD err_t compute_sql_drop(const struct compute_sql *sql, struct errmsg *msg);

/* Append the stored password of a role that may log in; nothing when there is none. */
NODISCARD err_t compute_sql_verifier(
    const struct compute_sql *sql, const char *role, struct buf *verifier, struct errmsg *msg);

/*
 * Append the first column of the only row of the last of `statements`, run in `database`; nothing
 * when it is null. ERR_NOT_FOUND: there is no such database.
 */
NODISCARD err_t compute_sql_value(
    const struct compute_sql *sql,
    const char *database,
    const char *statements,
    struct buf *to,
    struct errmsg *msg);

/* Append the first column of every row, each as a line. */
NODISCARD err_t compute_sql_lines(
    const struct compute_sql *sql, const char *query, struct buf *to, struct errmsg *msg);
