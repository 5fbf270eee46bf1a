#include "compute/agent/quarantine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The catalog itself is changed and not ALTER SUBSCRIPTION used: one statement for those of all
 * databases, in one transaction.
 */
static const char disable_text[] =
    "UPDATE pg_catalog.pg_subscription SET subenabled = false, subslotname = NULL"
    " WHERE subenabled OR subslotname IS NOT NULL";

static const char databases_text[] =
    "SELECT DISTINCT d.datname FROM pg_catalog.pg_subscription s"
    " JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datallowconn";

/*
 * A table whose first copy is under way has a slot of its own on the publisher, named after the
 * subscription and the system, which are the parent's: DROP SUBSCRIPTION would drop it there.
 * REFRESH PUBLICATION takes such a table up again.
 */
static const char forget_text[] = "DELETE FROM pg_catalog.pg_subscription_rel WHERE srsubstate"
                                  " NOT IN ('r', 's')";

static err_t run(
    PGconn *conn,
    const char *statement,
    const char *what,
    PGresult **ret_result,
    struct errmsg *msg)
{
    PGresult *result = PQexec(conn, statement);
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
        *ret_result = result;
        return ERR_OK;
    }
    char line[300];
    (void)snprintf(line, sizeof(line), "%s", PQerrorMessage(conn));
    line[strcspn(line, "\n")] = '\0';
    PQclear(result);
    return err_set(msg, ERR_IO, "quarantine: %s: %s", what, line);
}

static err_t run_simply(PGconn *conn, const char *statement, const char *what, struct errmsg *msg)
{
    PGresult *result = NULL;
    err_t err = run(conn, statement, what, &result, msg);
    PQclear(result);
    return err;
}

static err_t forget_copies(
    const PGresult *databases,
    quarantine_connect_fn connect,
    const void *context,
    struct errmsg *msg)
{
    err_t err = ERR_OK;
    for (int i = 0; i < PQntuples(databases) && err == ERR_OK; i++) {
        PGconn *conn = connect(context, PQgetvalue(databases, i, 0), msg);
        err = conn == NULL ? ERR_IO : run_simply(conn, forget_text, "forget first copies", msg);
        PQfinish(conn);
    }
    return err;
}

err_t quarantine_apply(
    PGconn *conn,
    quarantine_connect_fn connect,
    const void *context,
    size_t *ret_subscriptions,
    struct errmsg *msg)
{
    PGresult *disabled = NULL;
    PGresult *databases = NULL;
    TRY(run(conn, disable_text, "disable subscriptions", &disabled, msg));
    *ret_subscriptions = strtoul(PQcmdTuples(disabled), NULL, 10);
    PQclear(disabled);
    TRY(run(conn, databases_text, "read pg_subscription", &databases, msg));
    err_t err = forget_copies(databases, connect, context, msg);
    PQclear(databases);
    return err != ERR_OK ? err : run_simply(conn, "SET anabranch.quarantine = off", "end it", msg);
}
