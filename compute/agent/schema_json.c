#include "compute/agent/schema_json.h"

#include "common/base/mem.h"
#include "common/base/str.h"
#include "compute/agent/compute_sql.h"

#define READINGS_MAX  4         /* at once: each reads the whole catalog */
#define JSON_SIZE_MAX "8388608" /* of text; parsed, as clients do, about ten times that */
#define TIME_MAX      "30s"
#define LOCK_TIME_MAX "10s" /* behind who locks the catalog itself: VACUUM FULL */

/*
 * Names of types are those of the newest catalog, all else is of one snapshot. A partition has the
 * foreign keys of its table as its own; what Postgres writes down for each partition of a
 * referenced table is not shown, it is one key for people. Postgres measures the whole before it
 * makes one text of it, so that neither it nor we hold what is too large: null.
 */
static const char statements[] =
    "SET client_encoding = 'UTF8'; SET statement_timeout = '" TIME_MAX "';"
    "SET lock_timeout = '" LOCK_TIME_MAX "';"
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
    "WITH RECURSIVE refuses_null(oid) AS ("
    "  SELECT oid FROM pg_type WHERE typtype = 'd' AND typnotnull"
    "  UNION SELECT t.oid FROM pg_type t JOIN refuses_null r ON t.typbasetype = r.oid"
    "   WHERE t.typtype = 'd'),"
    " tables AS MATERIALIZED (SELECT n.nspname, c.relname, json_build_object("
    "  'schema', n.nspname, 'name', c.relname,"
    "  'columns', (SELECT coalesce(json_agg(json_build_object("
    "     'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),"
    "     'nullable', NOT a.attnotnull AND a.atttypid NOT IN (SELECT oid FROM refuses_null),"
    "     'generated', a.attgenerated <> '') ORDER BY a.attnum), '[]')"
    "    FROM pg_attribute a"
    "    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),"
    "  'constraints', (SELECT coalesce(json_agg(CASE k.contype"
    "     WHEN 'f' THEN json_build_object("
    "      'type', 'foreign_key', 'name', k.conname, 'columns', own.names,"
    "      'referenced_table', json_build_object("
    "       'schema', rn.nspname, 'table', r.relname, 'columns', other.names))"
    "     ELSE json_build_object("
    "      'type', CASE k.contype WHEN 'p' THEN 'primary_key' ELSE 'unique' END,"
    "      'name', k.conname, 'columns', own.names) END"
    "     ORDER BY array_position('{p,u,f}', k.contype), k.conname), '[]')"
    "    FROM pg_constraint k"
    "    LEFT JOIN pg_class r ON r.oid = k.confrelid"
    "    LEFT JOIN pg_namespace rn ON rn.oid = r.relnamespace"
    "    LEFT JOIN pg_constraint parent ON parent.oid = k.conparentid,"
    "    LATERAL (SELECT json_agg(a.attname ORDER BY i) AS names"
    "     FROM unnest(k.conkey) WITH ORDINALITY AS key(num, i)"
    "     JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = key.num) own,"
    "    LATERAL (SELECT json_agg(a.attname ORDER BY i) AS names"
    "     FROM unnest(k.confkey) WITH ORDINALITY AS key(num, i)"
    "     JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = key.num) other"
    "    WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f')"
    "     AND parent.conrelid IS DISTINCT FROM k.conrelid))::text AS body"
    "  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    "  WHERE c.relkind IN ('r', 'p', 'f')"
    "   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
    "   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass"
    "    AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e'))"
    " SELECT CASE WHEN (SELECT coalesce(sum(octet_length(body)), 0) <= " JSON_SIZE_MAX
    "  FROM tables) THEN '{\"tables\": ['"
    "   || (SELECT coalesce(string_agg(body, ', ' ORDER BY nspname, relname), '') FROM tables)"
    "   || ']}' END";

struct reading {
    struct job job;
    struct http_request *request;
    char socket_dir[PATH_SIZE], database[64];
    uint16_t port;
    struct buf answer; /* the text of Postgres, which control hands on as it is */
};

static size_t running;

/*
 * As format_type() says of a type that was dropped with its table between the snapshot and the look
 * at it. No name can hold this text: its quotes would be escaped.
 */
#define GONE_TYPE "\"type\" : \"???\""

static err_t run(struct job *job)
{
    struct reading *reading = CONTAINER_OF(job, struct reading, job);
    struct compute_sql sql = {.socket_dir = reading->socket_dir, .port = reading->port};
    struct buf *answer = &reading->answer;
    buf_printf(answer, "{\"json\": ");
    size_t head_size = answer->size;
    TRY(compute_sql_value(&sql, reading->database, statements, answer, &job->msg));
    if (answer->size == head_size) {
        return err_set(
            &job->msg, ERR_FULL,
            "the schema is larger than 8 MiB of JSON, which is the limit; format=sql has 16 MiB");
    }
    if (strstr(buf_cstr(answer), GONE_TYPE) != NULL) {
        return err_set(&job->msg, ERR_BUSY, "a table was dropped meanwhile, try again");
    }
    buf_printf(answer, "}");
    return ERR_OK;
}

static void done(struct job *job)
{
    struct reading *reading = CONTAINER_OF(job, struct reading, job);
    if (job->result == ERR_NOT_FOUND) {
        http_respond_problem(reading->request, 404, "DATABASE_NOT_FOUND", job->msg.text);
    } else if (job->result == ERR_FULL) {
        http_respond_problem(reading->request, 422, "SCHEMA_TOO_LARGE", job->msg.text);
    } else if (job->result != ERR_OK) {
        http_respond_problem(reading->request, 503, "SCHEMA_NOT_READ", job->msg.text);
    } else {
        http_respond_buf(reading->request, 200, "application/json", &reading->answer);
    }
    buf_deinit(&reading->answer);
    mem_free(reading);
    running--;
}

static err_t fill(struct reading *reading, const char *socket_dir, struct errmsg *msg)
{
    struct doc *body = NULL;
    const char *database = NULL;
    TRY(http_request_json(reading->request, &body, msg));
    TRY(doc_get_str(body, "database", &database, msg));
    TRY(str_copy(reading->database, sizeof reading->database, database, msg));
    return str_copy(reading->socket_dir, sizeof reading->socket_dir, socket_dir, msg);
}

void schema_json_answer(
    struct executor *sessions, const char *socket_dir, uint16_t port, struct http_request *request)
{
    struct errmsg msg;
    if (running >= READINGS_MAX) {
        http_respond_problem(
            request, 503, "ERR_BUSY", "too many schemas are being read, try again");
        return;
    }
    struct reading *reading = MEM_NEW(struct reading);
    reading->request = request;
    reading->port = port;
    reading->job = (struct job){.run = run, .done = done};
    err_t err = fill(reading, socket_dir, &msg);
    if (err != ERR_OK) {
        mem_free(reading);
        http_respond_error(request, err, &msg);
        return;
    }
    running++;
    executor_submit(sessions, &reading->job);
}
