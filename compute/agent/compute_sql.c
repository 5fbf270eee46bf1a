#include "compute/agent/compute_sql.h"

#include <libpq-fe.h>
#include <stdio.h>

#define CONNECT_TIMEOUT_S "10"

/* What the settings of the user must not change for us. */
#define SESSION_OPTIONS                                                                            \
    "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 "               \
    "-c synchronous_commit=on -c search_path=pg_catalog -c log_statement=none "                    \
    "-c log_min_duration_statement=-1"

static err_t failed(const char *what, const char *text, struct errmsg *msg)
{
    char line[300];
    (void)snprintf(line, sizeof(line), "%s", text);
    line[strcspn(line, "\n")] = '\0';
    return err_set(msg, ERR_IO, "%s: %s", what, line);
}

/* `what` is for people; the statement itself may hold a password verifier. */
static err_t run(
    PGconn *conn, const char *statement, const char *what, bool *ret_has_rows, struct errmsg *msg)
{
    PGresult *result = PQexec(conn, statement);
    ExecStatusType status = PQresultStatus(result);
    err_t err = ERR_OK;
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        err = failed(what, PQerrorMessage(conn), msg);
    } else if (ret_has_rows != NULL) {
        *ret_has_rows = PQntuples(result) > 0;
    }
    PQclear(result);
    return err;
}

static void append_identifier(PGconn *conn, const char *name, struct buf *to)
{
    char *quoted = PQescapeIdentifier(conn, name, strlen(name));
    buf_printf(to, "%s", quoted != NULL ? quoted : "\"\"");
    PQfreemem(quoted);
}

static void append_literal(PGconn *conn, const char *text, struct buf *to)
{
    char *quoted = PQescapeLiteral(conn, text, strlen(text));
    buf_printf(to, "%s", quoted != NULL ? quoted : "''");
    PQfreemem(quoted);
}

static err_t exists(
    PGconn *conn, const char *query, const char *name, bool *ret_exists, struct errmsg *msg)
{
    struct buf statement = {0};
    buf_printf(&statement, "%s", query);
    append_literal(conn, name, &statement);
    err_t err = run(conn, buf_cstr(&statement), "read the catalog", ret_exists, msg);
    buf_deinit(&statement);
    return err;
}

/* Only the verifier leaves us, so that no log of the server can show the password. */
static err_t append_password(
    PGconn *conn, const char *name, const char *password, struct buf *to, struct errmsg *msg)
{
    char *verifier = PQencryptPasswordConn(conn, password, name, "scram-sha-256");
    if (verifier == NULL) {
        return failed("hash a password", PQerrorMessage(conn), msg);
    }
    buf_printf(to, " PASSWORD ");
    append_literal(conn, verifier, to);
    PQfreemem(verifier);
    return ERR_OK;
}

/* A login is the cheapest proof that the stored verifier is of this password. */
static bool password_works(const struct compute_sql *sql, const char *name, const char *password)
{
    const char *host = sql->spec->listen_host;
    bool any = strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
    char port[8];
    (void)snprintf(port, sizeof(port), "%u", sql->port);
    const char *const keys[] = {"host",    "port", "user", "password", "dbname", "connect_timeout",
                                "sslmode", NULL};
    const char *const values[] = {any ? "127.0.0.1" : host, port,      name, password, "postgres",
                                  CONNECT_TIMEOUT_S,        "disable", NULL};
    PGconn *conn = PQconnectdbParams(keys, values, 0);
    bool works = PQstatus(conn) == CONNECTION_OK;
    PQfinish(conn);
    return works;
}

static err_t set_password(
    const struct compute_sql *sql,
    PGconn *conn,
    const char *name,
    const char *password,
    struct errmsg *msg)
{
    if (password == NULL || password_works(sql, name, password)) {
        return ERR_OK;
    }
    struct buf statement = {0};
    buf_printf(&statement, "ALTER ROLE ");
    append_identifier(conn, name, &statement);
    err_t err = append_password(conn, name, password, &statement, msg);
    if (err == ERR_OK) {
        err = run(conn, buf_cstr(&statement), "set the password of a role", NULL, msg);
    }
    buf_deinit(&statement);
    return err;
}

static err_t create_role(PGconn *conn, const char *name, const char *password, struct errmsg *msg)
{
    struct buf statement = {0};
    buf_printf(&statement, "CREATE ROLE ");
    append_identifier(conn, name, &statement);
    buf_printf(
        &statement, " LOGIN CREATEDB CREATEROLE BYPASSRLS"
                    " IN ROLE pg_monitor, pg_signal_backend, pg_checkpoint, pg_maintain");
    err_t err = ERR_OK;
    if (password != NULL) {
        err = append_password(conn, name, password, &statement, msg);
    }
    if (err == ERR_OK) {
        err = run(conn, buf_cstr(&statement), "create role", NULL, msg);
    }
    buf_deinit(&statement);
    return err;
}

static err_t apply_role(
    const struct compute_sql *sql, PGconn *conn, const struct doc *role, struct errmsg *msg)
{
    const char *name = NULL;
    const char *password = NULL;
    bool there = false;
    TRY(doc_get_str(role, "name", &name, msg));
    TRY(doc_opt_str(role, "password", &password, msg));
    TRY(exists(conn, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = ", name, &there, msg));
    err_t err = there ? set_password(sql, conn, name, password, msg)
                      : create_role(conn, name, password, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "role %s", name);
}

static err_t create_database(PGconn *conn, const char *name, const char *owner, struct errmsg *msg)
{
    struct buf statement = {0};
    buf_printf(&statement, "CREATE DATABASE ");
    append_identifier(conn, name, &statement);
    if (owner != NULL) {
        buf_printf(&statement, " OWNER ");
        append_identifier(conn, owner, &statement);
    }
    err_t err = run(conn, buf_cstr(&statement), "create", NULL, msg);
    buf_deinit(&statement);
    return err;
}

static err_t apply_database(PGconn *conn, const struct doc *database, struct errmsg *msg)
{
    const char *name = NULL;
    const char *owner = NULL;
    bool there = false;
    TRY(doc_get_str(database, "name", &name, msg));
    TRY(doc_opt_str(database, "owner", &owner, msg));
    TRY(exists(conn, "SELECT 1 FROM pg_catalog.pg_database WHERE datname = ", name, &there, msg));
    err_t err = there ? ERR_OK : create_database(conn, name, owner, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "database %s", name);
}

static err_t apply_all(const struct compute_sql *sql, PGconn *conn, struct errmsg *msg)
{
    for (size_t i = 0; i < doc_count(sql->spec->roles); i++) {
        TRY(apply_role(sql, conn, doc_at(sql->spec->roles, i), msg));
    }
    TRY(set_password(sql, conn, "postgres", sql->spec->superuser_password, msg));
    for (size_t i = 0; i < doc_count(sql->spec->databases); i++) {
        TRY(apply_database(conn, doc_at(sql->spec->databases, i), msg));
    }
    return ERR_OK;
}

err_t compute_sql_apply(const struct compute_sql *sql, struct errmsg *msg)
{
    char port[8];
    (void)snprintf(port, sizeof(port), "%u", sql->port);
    const char *const keys[] = {
        "host", "port", "user", "dbname", "connect_timeout", "application_name", "options", NULL};
    const char *const values[] = {
        sql->socket_dir, port, "postgres", "postgres", CONNECT_TIMEOUT_S, "compute-agent",
        SESSION_OPTIONS, NULL};
    PGconn *conn = PQconnectdbParams(keys, values, 0);
    err_t err = PQstatus(conn) == CONNECTION_OK ? apply_all(sql, conn, msg)
                                                : failed("connect", PQerrorMessage(conn), msg);
    PQfinish(conn);
    return err;
}
