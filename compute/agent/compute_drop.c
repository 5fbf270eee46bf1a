#include "compute/agent/compute_drop.h"

#include "compute/agent/compute_sql_private.h"

#define SESSION_END_MS "5000"
#define ROLE_QUERY     "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1"
#define DATABASES_MAX  1000 /* of a compute; a role in more of them is not dropped */

/* "VERB IDENTIFIER TAIL" */
static err_t run_on(
    PGconn *conn, const char *verb, const char *name, const char *tail, struct errmsg *msg)
{
    struct buf statement = {0};
    err_t err = ERR_OK;
    buf_printf(&statement, "%s ", verb);
    compute_sql_append_identifier(conn, name, &statement);
    buf_printf(&statement, "%s", tail);
    PGresult *result = PQexec(conn, buf_cstr(&statement));
    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
        err = compute_sql_failed(verb, conn, msg);
    }
    PQclear(result);
    buf_deinit(&statement);
    return err;
}

/* The rows of a query with one parameter; NULL: it failed. */
static PGresult *ask(PGconn *conn, const char *query, const char *name)
{
    const char *const values[] = {name};
    PGresult *result = PQexecParams(conn, query, name == NULL ? 0 : 1, NULL, values, NULL, NULL, 0);
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        PQclear(result);
        return NULL;
    }
    return result;
}

static err_t exists(
    PGconn *conn, const char *query, const char *name, bool *ret, struct errmsg *msg)
{
    PGresult *result = ask(conn, query, name);
    if (result == NULL) {
        return compute_sql_failed("read the catalog", conn, msg);
    }
    *ret = PQntuples(result) > 0;
    PQclear(result);
    return ERR_OK;
}

err_t compute_drop_databases(PGconn *conn, const struct doc *names, struct errmsg *msg)
{
    static const char query[] = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1";
    for (size_t i = 0; i < doc_count(names); i++) {
        const char *name = doc_value_str(doc_at(names, i));
        bool there = false;
        TRY(exists(conn, query, name, &there, msg));
        if (there) {
            err_t err = run_on(conn, "DROP DATABASE", name, " WITH (FORCE)", msg);
            if (err != ERR_OK) {
                return err_wrap(msg, err, "database %s", name);
            }
        }
    }
    return ERR_OK;
}

/* ---- new names ---- */

static err_t is_database(PGconn *conn, const char *name, bool *ret, struct errmsg *msg)
{
    return exists(conn, "SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1", name, ret, msg);
}

static err_t end_sessions(PGconn *conn, const char *name, struct errmsg *msg)
{
    static const char query[] =
        "SELECT pg_catalog.pg_terminate_backend(pid, " SESSION_END_MS
        ") FROM pg_catalog.pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()";
    PGresult *result = ask(conn, query, name);
    if (result == NULL) {
        return compute_sql_failed("end the sessions", conn, msg);
    }
    PQclear(result);
    return ERR_OK;
}

/* It would hold off the new name, and only a session in the database can end it. */
static err_t check_prepared(PGconn *conn, const char *name, struct errmsg *msg)
{
    bool there = false;
    TRY(exists(
        conn, "SELECT 1 FROM pg_catalog.pg_prepared_xacts WHERE database = $1", name, &there, msg));
    return there ? err_set(msg, ERR_BUSY, "it has prepared transactions") : ERR_OK;
}

static err_t rename_closed(PGconn *conn, const char *from, const char *to, struct errmsg *msg)
{
    struct buf tail = {0};
    TRY(end_sessions(conn, from, msg));
    buf_printf(&tail, " RENAME TO ");
    compute_sql_append_identifier(conn, to, &tail);
    err_t err = run_on(conn, "ALTER DATABASE", from, buf_cstr(&tail), msg);
    buf_deinit(&tail);
    return err;
}

/* Also after a death in between: then it may have its new name, and is still closed. */
static err_t open_database(PGconn *conn, const char *name, struct errmsg *msg)
{
    bool closed = false;
    TRY(exists(
        conn, "SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1 AND NOT datallowconn", name,
        &closed, msg));
    return closed ? run_on(conn, "ALTER DATABASE", name, " ALLOW_CONNECTIONS true", msg) : ERR_OK;
}

/* One that cannot be renamed is open as it was: who is to end what is in the way has to come in. */
static err_t rename_database(PGconn *conn, const char *from, const char *to, struct errmsg *msg)
{
    struct errmsg unused;
    err_t err = check_prepared(conn, from, msg);
    if (err == ERR_OK) {
        err = run_on(conn, "ALTER DATABASE", from, " ALLOW_CONNECTIONS false", msg);
    }
    if (err == ERR_OK) {
        err = rename_closed(conn, from, to, msg);
    }
    if (err != ERR_OK) {
        err_ignore(open_database(conn, from, &unused), "the first error counts");
    }
    return err;
}

static err_t give_database(PGconn *conn, const char *name, const char *owner, struct errmsg *msg)
{
    struct buf tail = {0};
    buf_printf(&tail, " OWNER TO ");
    compute_sql_append_identifier(conn, owner, &tail);
    err_t err = run_on(conn, "ALTER DATABASE", name, buf_cstr(&tail), msg);
    buf_deinit(&tail);
    return err;
}

/* An owner that is not there: made later, and asked for again then, or deleted since. */
static err_t give_to(PGconn *conn, const char *name, const char *owner, struct errmsg *msg)
{
    bool there = false;
    TRY(exists(conn, ROLE_QUERY, owner, &there, msg));
    return there ? give_database(conn, name, owner, msg) : ERR_OK;
}

err_t compute_change_databases(PGconn *conn, const struct doc *changed, struct errmsg *msg)
{
    for (size_t i = 0; i < doc_count(changed); i++) {
        const char *from = NULL, *to = NULL, *owner = NULL;
        bool there = false, taken = false;
        TRY(doc_get_str(doc_at(changed, i), "from", &from, msg));
        TRY(doc_get_str(doc_at(changed, i), "to", &to, msg));
        TRY(doc_opt_str(doc_at(changed, i), "owner", &owner, msg));
        TRY(is_database(conn, from, &there, msg));
        TRY(is_database(conn, to, &taken, msg));
        err_t err = ERR_OK;
        if (there && !taken) {
            err = rename_database(conn, from, to, msg);
        }
        if (err == ERR_OK) {
            err = open_database(conn, to, msg);
        }
        if (err == ERR_OK && owner != NULL && (there || taken)) {
            err = give_to(conn, to, owner, msg);
        }
        if (err != ERR_OK) {
            return err_wrap(msg, err, "database %s", from);
        }
    }
    return ERR_OK;
}

/* ---- roles ---- */

static err_t give_away(PGconn *conn, const char *role, struct errmsg *msg)
{
    static const char query[] =
        "SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database"
        " WHERE datname = pg_catalog.current_database()";
    PGresult *result = ask(conn, query, NULL);
    if (result == NULL || PQntuples(result) != 1) {
        PQclear(result);
        return compute_sql_failed("read the catalog", conn, msg);
    }
    struct buf tail = {0};
    buf_printf(&tail, " TO ");
    const char *owner = PQgetvalue(result, 0, 0);
    compute_sql_append_identifier(conn, strcmp(owner, role) == 0 ? "postgres" : owner, &tail);
    PQclear(result);
    err_t err = run_on(conn, "REASSIGN OWNED BY", role, buf_cstr(&tail), msg);
    buf_deinit(&tail);
    return err == ERR_OK ? run_on(conn, "DROP OWNED BY", role, "", msg) : err;
}

static err_t give_away_in(
    const struct compute_sql *sql,
    compute_connect_fn connect,
    const char *database,
    const char *role,
    struct errmsg *msg)
{
    PGconn *conn = connect(sql, database);
    err_t err = PQstatus(conn) == CONNECTION_OK ? give_away(conn, role, msg)
                                                : compute_sql_failed("connect", conn, msg);
    PQfinish(conn);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "database %s", database);
}

static err_t drop_role(
    const struct compute_sql *sql,
    compute_connect_fn connect,
    PGconn *conn,
    const char *role,
    struct errmsg *msg)
{
    PGresult *databases =
        ask(conn, "SELECT datname FROM pg_catalog.pg_database WHERE datallowconn", NULL);
    if (databases == NULL) {
        return compute_sql_failed("list the databases", conn, msg);
    }
    err_t err = ERR_OK;
    if (PQntuples(databases) > DATABASES_MAX) {
        err = err_set(msg, ERR_FULL, "more than %d databases", DATABASES_MAX);
    }
    for (int i = 0; i < PQntuples(databases) && err == ERR_OK; i++) {
        err = give_away_in(sql, connect, PQgetvalue(databases, i, 0), role, msg);
    }
    PQclear(databases);
    return err == ERR_OK ? run_on(conn, "DROP ROLE", role, "", msg) : err;
}

err_t compute_drop_roles(
    const struct compute_sql *sql,
    compute_connect_fn connect,
    PGconn *conn,
    const struct doc *names,
    struct errmsg *msg)
{
    for (size_t i = 0; i < doc_count(names); i++) {
        const char *name = doc_value_str(doc_at(names, i));
        bool there = false;
        TRY(exists(conn, ROLE_QUERY, name, &there, msg));
        if (there) {
            err_t err = drop_role(sql, connect, conn, name, msg);
            if (err != ERR_OK) {
                return err_wrap(msg, err, "role %s", name);
            }
        }
    }
    return ERR_OK;
}
