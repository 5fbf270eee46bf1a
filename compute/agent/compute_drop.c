#include "compute/agent/compute_drop.h"

#include <stdio.h>

#define DATABASES_MAX 1000 /* of a compute; a role in more of them is not dropped */

static err_t failed(const char *what, const PGconn *conn, struct errmsg *msg)
{
    char line[300];
    (void)snprintf(line, sizeof line, "%s", PQerrorMessage(conn));
    line[strcspn(line, "\n")] = '\0';
    return err_set(msg, ERR_IO, "%s: %s", what, line);
}

static void append_identifier(PGconn *conn, const char *name, struct buf *to)
{
    char *quoted = PQescapeIdentifier(conn, name, strlen(name));
    buf_printf(to, "%s", quoted != NULL ? quoted : "\"\"");
    PQfreemem(quoted);
}

/* "VERB IDENTIFIER TAIL" */
static err_t run_on(
    PGconn *conn, const char *verb, const char *name, const char *tail, struct errmsg *msg)
{
    struct buf statement = {0};
    err_t err = ERR_OK;
    buf_printf(&statement, "%s ", verb);
    append_identifier(conn, name, &statement);
    buf_printf(&statement, "%s", tail);
    PGresult *result = PQexec(conn, buf_cstr(&statement));
    if (PQresultStatus(result) != PGRES_COMMAND_OK) {
        err = failed(verb, conn, msg);
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
        return failed("read the catalog", conn, msg);
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

/* ---- roles ---- */

static err_t give_away(PGconn *conn, const char *role, struct errmsg *msg)
{
    static const char query[] =
        "SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database"
        " WHERE datname = pg_catalog.current_database()";
    PGresult *result = ask(conn, query, NULL);
    if (result == NULL || PQntuples(result) != 1) {
        PQclear(result);
        return failed("read the catalog", conn, msg);
    }
    struct buf tail = {0};
    buf_printf(&tail, " TO ");
    const char *owner = PQgetvalue(result, 0, 0);
    append_identifier(conn, strcmp(owner, role) == 0 ? "postgres" : owner, &tail);
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
    err_t err =
        PQstatus(conn) == CONNECTION_OK ? give_away(conn, role, msg) : failed("connect", conn, msg);
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
        return failed("list the databases", conn, msg);
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
    static const char query[] = "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1";
    for (size_t i = 0; i < doc_count(names); i++) {
        const char *name = doc_value_str(doc_at(names, i));
        bool there = false;
        TRY(exists(conn, query, name, &there, msg));
        if (there) {
            err_t err = drop_role(sql, connect, conn, name, msg);
            if (err != ERR_OK) {
                return err_wrap(msg, err, "role %s", name);
            }
        }
    }
    return ERR_OK;
}
