#include "compute/agent/compute_metrics.h"

#include "common/base/mem.h"
#include "common/base/str.h"
#include "compute/agent/compute_sql.h"

/* One row a line of the answer, grouped by metric; no relation of a user is read. */
static const char query[] =
    "SET statement_timeout = '5s';"
    "WITH d AS (SELECT s.*, '{datname=\"' || replace(replace(replace(s.datname, '\\', '\\\\'),"
    "   '\"', '\\\"'), E'\\n', '\\n') || '\"}' AS label"
    "  FROM pg_stat_database s WHERE s.datname IS NOT NULL),"
    " m(name, type, label, value) AS ("
    " SELECT 'postgres_sessions', 'gauge', label, numbackends::text FROM d UNION ALL"
    " SELECT 'postgres_commits_total', 'counter', label, xact_commit::text FROM d UNION ALL"
    " SELECT 'postgres_rollbacks_total', 'counter', label, xact_rollback::text FROM d UNION ALL"
    " SELECT 'postgres_blocks_hit_total', 'counter', label, blks_hit::text FROM d UNION ALL"
    " SELECT 'postgres_blocks_read_total', 'counter', label, blks_read::text FROM d UNION ALL"
    " SELECT 'postgres_rows_returned_total', 'counter', label, tup_returned::text FROM d UNION ALL"
    " SELECT 'postgres_rows_inserted_total', 'counter', label, tup_inserted::text FROM d UNION ALL"
    " SELECT 'postgres_rows_updated_total', 'counter', label, tup_updated::text FROM d UNION ALL"
    " SELECT 'postgres_rows_deleted_total', 'counter', label, tup_deleted::text FROM d UNION ALL"
    " SELECT 'postgres_deadlocks_total', 'counter', label, deadlocks::text FROM d UNION ALL"
    " SELECT 'postgres_temp_bytes_total', 'counter', label, temp_bytes::text FROM d UNION ALL"
    " SELECT 'postgres_xid_age', 'gauge', '{datname=\"' || replace(replace(replace(datname, '\\',"
    "   '\\\\'), '\"', '\\\"'), E'\\n', '\\n') || '\"}', age(datfrozenxid)::text FROM pg_database"
    "   UNION ALL"
    " SELECT 'postgres_client_sessions', 'gauge', '{state=\"' || coalesce(state, 'none') || '\"}',"
    "   count(*)::text FROM pg_stat_activity WHERE backend_type = 'client backend'"
    "   AND pid <> pg_backend_pid() GROUP BY state UNION ALL"
    " SELECT 'postgres_sessions_max', 'gauge', '', current_setting('max_connections') UNION ALL"
    " SELECT 'postgres_started_seconds', 'gauge', '',"
    "   extract(epoch FROM pg_postmaster_start_time())::text UNION ALL"
    " SELECT 'postgres_wal_bytes_total', 'counter', '', wal_bytes::text FROM pg_stat_wal UNION ALL"
    " SELECT 'postgres_wal_unacknowledged_bytes', 'gauge', '',"
    "   (pg_current_wal_insert_lsn() - flush_lsn)::text FROM pg_stat_replication"
    "   WHERE application_name = 'walproposer' UNION ALL"
    " SELECT 'postgres_checkpoints_total', 'counter', '', (num_timed + num_requested)::text"
    "   FROM pg_stat_checkpointer UNION ALL"
    " SELECT 'postgres_prepared_transactions', 'gauge', '', count(*)::text FROM pg_prepared_xacts)"
    " SELECT CASE WHEN row_number() OVER (PARTITION BY name ORDER BY label) = 1"
    "   THEN '# TYPE ' || name || ' ' || type || E'\\n' ELSE '' END || name || label || ' ' || "
    "value"
    " FROM m ORDER BY name, label";

struct question {
    struct job job;
    struct http_request *request;
    char socket_dir[PATH_SIZE];
    uint16_t port;
    struct buf text;
};

static err_t run(struct job *job)
{
    struct question *question = CONTAINER_OF(job, struct question, job);
    struct compute_sql sql = {.socket_dir = question->socket_dir, .port = question->port};
    return compute_sql_lines(&sql, query, &question->text, &job->msg);
}

static void done(struct job *job)
{
    struct question *question = CONTAINER_OF(job, struct question, job);
    if (job->result != ERR_OK) {
        http_respond_problem(question->request, 503, "ERR_BUSY", job->msg.text);
    } else {
        http_respond_buf(question->request, 200, "text/plain; version=0.0.4", &question->text);
    }
    buf_deinit(&question->text);
    mem_free(question);
}

void compute_metrics_answer(
    struct executor *sessions, const char *socket_dir, uint16_t port, struct http_request *request)
{
    struct errmsg msg;
    struct question *question = MEM_NEW(struct question);
    question->request = request;
    question->port = port;
    question->job = (struct job){.run = run, .done = done};
    err_t err = str_copy(question->socket_dir, sizeof(question->socket_dir), socket_dir, &msg);
    if (err != ERR_OK) {
        mem_free(question);
        http_respond_error(request, err, &msg);
        return;
    }
    executor_submit(sessions, &question->job);
}
