#include "compute/agent/compute_sql.h"

#include <libpq-fe.h>
#include <stdio.h>

#include "common/auth/scram.h"
#include "common/base/log.h"
#include "compute/agent/compute_drop.h"
#include "compute/agent/compute_sql_private.h"
#include "compute/agent/quarantine.h"

#define CONNECT_TIMEOUT_S "10"
#define MAIN_DATABASE     "postgres"

/* What the settings of the user must not change for us, nor we count as what his users do. */
#define SESSION_OPTIONS                                                                            \
    "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 "               \
    "-c event_triggers=off "                                                                       \
    "-c synchronous_commit=on -c search_path=pg_catalog -c log_statement=none "                    \
    "-c log_min_duration_statement=-1 -c pg_stat_statements.track=none "                           \
    "-c auto_explain.log_min_duration=-1"
#define NO_LIBRARIES " -c session_preload_libraries= -c local_preload_libraries="

#define MAY_LOG_IN " WHERE rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > now())"

static err_t failed(const char *what, const char *text, struct errmsg *msg)
{
    char line[300];
    (void)snprintf(line, sizeof(line), "%s", text);
    line[strcspn(line, "\n")] = '\0';
    return err_set(msg, ERR_IO, "%s: %s", what, line);
}

err_t compute_sql_failed(const char *what, const PGconn *conn, struct errmsg *msg)
{
    return failed(what, PQerrorMessage(conn), msg);
}

void compute_sql_append_identifier(PGconn *conn, const char *name, struct buf *to)
{
    char *quoted = PQescapeIdentifier(conn, name, strlen(name));
    buf_printf(to, "%s", quoted != NULL ? quoted : "\"\"");
    PQfreemem(quoted);
}

/* `what` is for people; the statement itself may hold a password verifier. */
static err_t run(PGconn *conn, const char *statement, const char *what, struct errmsg *msg)
{
    PGresult *result = PQexec(conn, statement);
    ExecStatusType status = PQresultStatus(result);
    err_t err = ERR_OK;
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        err = compute_sql_failed(what, conn, msg);
    }
    PQclear(result);
    return err;
}

static void append_literal(PGconn *conn, const char *text, struct buf *to)
{
    char *quoted = PQescapeLiteral(conn, text, strlen(text));
    buf_printf(to, "%s", quoted != NULL ? quoted : "''");
    PQfreemem(quoted);
}

/* Appends the first column of the row of that name to `value`. */
static err_t look_up(
    PGconn *conn,
    const char *query,
    const char *name,
    bool *ret_there,
    struct buf *value,
    struct errmsg *msg)
{
    struct buf statement = {0};
    err_t err = ERR_OK;
    buf_printf(&statement, "%s", query);
    append_literal(conn, name, &statement);
    PGresult *result = PQexec(conn, buf_cstr(&statement));
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        err = compute_sql_failed("read the catalog", conn, msg);
    } else {
        *ret_there = PQntuples(result) > 0;
        if (*ret_there) {
            buf_printf(value, "%s", PQgetvalue(result, 0, 0));
        }
    }
    PQclear(result);
    buf_deinit(&statement);
    return err;
}

/* Only the verifier leaves us, so that no log of the server can show the password. */
static err_t append_password(
    PGconn *conn, const char *name, const char *password, struct buf *to, struct errmsg *msg)
{
    char *verifier = PQencryptPasswordConn(conn, password, name, "scram-sha-256");
    if (verifier == NULL) {
        return compute_sql_failed("hash a password", conn, msg);
    }
    buf_printf(to, " PASSWORD ");
    append_literal(conn, verifier, to);
    PQfreemem(verifier);
    return ERR_OK;
}

static err_t set_password(PGconn *conn, const char *name, const char *password, struct errmsg *msg)
{
    struct buf statement = {0};
    buf_printf(&statement, "ALTER ROLE ");
    compute_sql_append_identifier(conn, name, &statement);
    err_t err = append_password(conn, name, password, &statement, msg);
    if (err == ERR_OK) {
        err = run(conn, buf_cstr(&statement), "set the password of a role", msg);
    }
    buf_deinit(&statement);
    return err;
}

static err_t create_role(PGconn *conn, const char *name, const char *password, struct errmsg *msg)
{
    struct buf statement = {0};
    buf_printf(&statement, "CREATE ROLE ");
    compute_sql_append_identifier(conn, name, &statement);
    buf_printf(
        &statement, " LOGIN CREATEDB CREATEROLE BYPASSRLS"
                    " IN ROLE pg_monitor, pg_signal_backend, pg_checkpoint, pg_maintain");
    err_t err = ERR_OK;
    if (password != NULL) {
        err = append_password(conn, name, password, &statement, msg);
    }
    if (err == ERR_OK) {
        err = run(conn, buf_cstr(&statement), "create role", msg);
    }
    buf_deinit(&statement);
    return err;
}

static err_t apply_role(PGconn *conn, const char *name, const char *password, struct errmsg *msg)
{
    static const char query[] =
        "SELECT coalesce(rolpassword, '') FROM pg_catalog.pg_authid WHERE rolname = ";
    bool there = false;
    struct buf verifier = {0};
    err_t err = look_up(conn, query, name, &there, &verifier, msg);
    if (err == ERR_OK && !there) {
        err = create_role(conn, name, password, msg);
    } else if (err == ERR_OK && password != NULL && !scram_matches(buf_cstr(&verifier), password)) {
        err = set_password(conn, name, password, msg);
    }
    buf_deinit(&verifier);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "role %s", name);
}

static err_t apply_roles(const struct compute_spec *spec, PGconn *conn, struct errmsg *msg)
{
    for (size_t i = 0; i < doc_count(spec->roles); i++) {
        const struct doc *role = doc_at(spec->roles, i);
        const char *name = NULL;
        const char *password = NULL;
        TRY(doc_get_str(role, "name", &name, msg));
        TRY(doc_opt_str(role, "password", &password, msg));
        TRY(apply_role(conn, name, password, msg));
    }
    return spec->superuser_password == NULL
               ? ERR_OK
               : apply_role(conn, "postgres", spec->superuser_password, msg);
}

static err_t create_database(PGconn *conn, const char *name, const char *owner, struct errmsg *msg)
{
    struct buf statement = {0};
    buf_printf(&statement, "CREATE DATABASE ");
    compute_sql_append_identifier(conn, name, &statement);
    if (owner != NULL) {
        buf_printf(&statement, " OWNER ");
        compute_sql_append_identifier(conn, owner, &statement);
    }
    err_t err = run(conn, buf_cstr(&statement), "create", msg);
    buf_deinit(&statement);
    return err;
}

static err_t apply_database(PGconn *conn, const struct doc *database, struct errmsg *msg)
{
    static const char query[] = "SELECT datname FROM pg_catalog.pg_database WHERE datname = ";
    const char *name = NULL;
    const char *owner = NULL;
    bool there = false;
    struct buf found = {0};
    TRY(doc_get_str(database, "name", &name, msg));
    TRY(doc_opt_str(database, "owner", &owner, msg));
    err_t err = look_up(conn, query, name, &there, &found, msg);
    buf_deinit(&found);
    if (err == ERR_OK && !there) {
        err = create_database(conn, name, owner, msg);
    }
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "database %s", name);
}

static err_t create_all(const struct compute_spec *spec, PGconn *conn, struct errmsg *msg)
{
    TRY(apply_roles(spec, conn, msg));
    TRY(compute_change_databases(conn, doc_get(spec->dropped, "changed"), msg));
    for (size_t i = 0; i < doc_count(spec->databases); i++) {
        TRY(apply_database(conn, doc_at(spec->databases, i), msg));
    }
    return ERR_OK;
}

static PGconn *connect_with(
    const struct compute_sql *sql, const char *database, const char *options)
{
    char port[8];
    (void)snprintf(port, sizeof(port), "%u", sql->port);
    const char *const keys[] = {
        "host", "port", "user", "dbname", "connect_timeout", "application_name", "options", NULL};
    const char *const values[] = {sql->socket_dir, port,    "postgres", database, CONNECT_TIMEOUT_S,
                                  "compute-agent", options, NULL};
    return PQconnectdbParams(keys, values, 0);
}

static PGconn *connect_to(const struct compute_sql *sql, const char *database)
{
    return connect_with(sql, database, SESSION_OPTIONS NO_LIBRARIES);
}

static PGconn *open_database(const void *context, const char *database, struct errmsg *msg)
{
    PGconn *conn = connect_to(context, database);
    if (PQstatus(conn) != CONNECTION_OK) {
        err_ignore(compute_sql_failed("connect", conn, msg), "the caller sees NULL");
        PQfinish(conn);
        conn = NULL;
    }
    return conn;
}

/* Those who may log in, as compute_sql_verifier() says of one; without an answer there are none. */
static struct doc *read_verifiers(PGconn *conn)
{
    PGresult *result = PQexec(
        conn, "SELECT rolname, coalesce(rolpassword, '') FROM pg_catalog.pg_authid" MAY_LOG_IN
              " LIMIT 100");
    struct doc *verifiers = doc_object();
    for (int i = 0; PQresultStatus(result) == PGRES_TUPLES_OK && i < PQntuples(result); i++) {
        doc_set_str(verifiers, PQgetvalue(result, i, 0), PQgetvalue(result, i, 1));
    }
    PQclear(result);
    return verifiers;
}

/* A session begins with this setting of the spec, whatever database and role have instead. */
static err_t try_setting(
    const struct compute_sql *sql, const char *name, const char *value, struct errmsg *msg)
{
    struct buf options = {0};
    err_t err = ERR_OK;
    buf_printf(&options, "%s%s -c %s=", SESSION_OPTIONS, NO_LIBRARIES, name);
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == ' ' || *c == '\\' || *c == '\t') {
            buf_append(&options, "\\", 1);
        }
        buf_append(&options, c, 1);
    }
    PGconn *conn = connect_with(sql, MAIN_DATABASE, buf_cstr(&options));
    if (PQstatus(conn) != CONNECTION_OK) {
        const char *fatal = strstr(PQerrorMessage(conn), "FATAL:");
        char what[200];
        (void)snprintf(what, sizeof(what), "setting %s = '%s'", name, value);
        err_ignore(failed(what, fatal != NULL ? fatal : PQerrorMessage(conn), msg), "see below");
        err = ERR_INVALID;
    }
    PQfinish(conn);
    buf_deinit(&options);
    return err;
}

err_t compute_sql_try_settings(const struct compute_sql *sql, struct errmsg *msg)
{
    static const char *const names[] = {"session_preload_libraries", "local_preload_libraries"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *value = doc_value_str(doc_get(sql->spec->settings, names[i]));
        if (value == NULL || value[0] == '\0' || try_setting(sql, names[i], value, msg) == ERR_OK) {
            continue;
        }
        /* Not the setting's fault when no session begins without it either: Postgres is dying. */
        struct errmsg unused;
        PGconn *conn = open_database(sql, MAIN_DATABASE, &unused);
        err_t err = conn != NULL ? ERR_INVALID : ERR_IO;
        PQfinish(conn);
        return err;
    }
    return ERR_OK;
}

err_t compute_sql_apply(const struct compute_sql *sql, struct errmsg *msg)
{
    size_t subscriptions = 0;
    err_t err = ERR_OK;
    PGconn *conn = open_database(sql, MAIN_DATABASE, msg);
    if (conn == NULL) {
        return ERR_IO;
    }
    if (sql->quarantine) {
        err = quarantine_apply(conn, open_database, sql, &subscriptions, msg);
    }
    if (err == ERR_OK && subscriptions > 0) {
        log_info(NULL, "%s: %zu subscriptions were disabled", sql->socket_dir, subscriptions);
    }
    if (err == ERR_OK) {
        err = create_all(sql->spec, conn, msg);
    }
    if (err == ERR_OK && sql->ret_verifiers != NULL) {
        *sql->ret_verifiers = read_verifiers(conn);
    }
    PQfinish(conn);
    return err;
}

static err_t drop_all(const struct compute_sql *sql, PGconn *conn, struct errmsg *msg)
{
    const struct doc *dropped = sql->spec->dropped;
    /* What is to be dropped may have got its name just before. */
    TRY(compute_change_databases(conn, doc_get(dropped, "changed"), msg));
    TRY(compute_drop_databases(conn, doc_get(dropped, "databases"), msg));
    return compute_drop_roles(sql, connect_to, conn, doc_get(dropped, "roles"), msg);
}

err_t compute_sql_drop(const struct compute_sql *sql, struct errmsg *msg)
{
    if (sql->spec->dropped == NULL) {
        return ERR_OK;
    }
    PGconn *conn = connect_to(sql, MAIN_DATABASE);
    err_t err = PQstatus(conn) == CONNECTION_OK ? drop_all(sql, conn, msg)
                                                : compute_sql_failed("connect", conn, msg);
    PQfinish(conn);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "drop");
}

err_t compute_sql_verifier(
    const struct compute_sql *sql, const char *role, struct buf *verifier, struct errmsg *msg)
{
    static const char query[] =
        "SELECT coalesce(rolpassword, '') FROM pg_catalog.pg_authid" MAY_LOG_IN " AND rolname = ";
    bool there = false;
    PGconn *conn = connect_to(sql, MAIN_DATABASE);
    err_t err = PQstatus(conn) == CONNECTION_OK ? look_up(conn, query, role, &there, verifier, msg)
                                                : compute_sql_failed("connect", conn, msg);
    PQfinish(conn);
    return err;
}

err_t compute_sql_lines(
    const struct compute_sql *sql, const char *query, struct buf *to, struct errmsg *msg)
{
    PGconn *conn = open_database(sql, MAIN_DATABASE, msg);
    if (conn == NULL) {
        return ERR_IO;
    }
    PGresult *result = PQexec(conn, query);
    err_t err = ERR_OK;
    if (PQresultStatus(result) != PGRES_TUPLES_OK) {
        err = compute_sql_failed("ask Postgres", conn, msg);
    }
    for (int i = 0; err == ERR_OK && i < PQntuples(result); i++) {
        buf_printf(to, "%s\n", PQgetvalue(result, i, 0));
    }
    PQclear(result);
    PQfinish(conn);
    return err;
}

/* A session that was refused is not told why by a code, only by a text. */
static bool is_absent(const PGconn *conn)
{
    const char *fatal = strstr(PQerrorMessage(conn), "FATAL:  database \"");
    return fatal != NULL && strstr(fatal, "\" does not exist\n") != NULL;
}

err_t compute_sql_value(
    const struct compute_sql *sql,
    const char *database,
    const char *statements,
    struct buf *to,
    struct errmsg *msg)
{
    err_t err = ERR_OK;
    PGresult *result = NULL;
    PGconn *conn = connect_to(sql, database);
    if (PQstatus(conn) != CONNECTION_OK) {
        err = is_absent(conn) ? err_set(msg, ERR_NOT_FOUND, "there is no database \"%s\"", database)
                              : compute_sql_failed("connect", conn, msg);
        goto out;
    }
    result = PQexec(conn, statements);
    if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1) {
        err = compute_sql_failed("ask Postgres", conn, msg);
        goto out;
    }
    buf_append(to, PQgetvalue(result, 0, 0), (size_t)PQgetlength(result, 0, 0));
out:
    PQclear(result);
    PQfinish(conn);
    return err;
}
