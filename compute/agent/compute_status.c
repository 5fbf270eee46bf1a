/* compute_status.c - what a compute says of itself: GET /v1/computes. */
#include "compute/agent/compute_private.h"

static struct doc *limits_doc(const struct compute *compute)
{
    static const char *const names[] = {"memory_by", "cpu_by", "processes_by"};
    struct doc *limits = doc_object();
    (void)doc_set_int(limits, "memory_mb", (int64_t)compute->size.memory_mb);
    (void)doc_set_int(limits, "cpu_milli", (int64_t)compute->size.cpu_milli);
    (void)doc_set_int(limits, "processes", (int64_t)compute->size.processes);
    (void)doc_set_int(limits, "file_size_mb", (int64_t)compute->size.file_size_mb);
    for (enum cage_limit limit = 0; limit < CAGE_LIMIT_COUNT; limit++) {
        (void)doc_set_str(limits, names[limit], cage_holder(&compute->cage, &compute->size, limit));
    }
    return limits;
}

struct doc *compute_status(const struct compute *compute)
{
    struct doc *status = doc_object();
    struct doc *pids = doc_object();
    struct doc *laps = doc_object();
    struct buf uri = {0};
    (void)doc_set_str(status, "id", compute->id);
    (void)doc_set_tenant(status, "tenant", compute->spec->tenant);
    (void)doc_set_timeline(status, "timeline", compute->spec->timeline);
    (void)doc_set_str(status, "state", compute_plan_state(&compute->plan));
    (void)doc_set_str(status, "step", compute_plan_step_name(&compute->plan));
    (void)doc_set_int(status, "port", compute->port != 0 ? compute->port : compute->spec->port);
    if (compute->postgres.child != NULL) {
        (void)doc_set_int(pids, "postgres", child_pid(compute->postgres.child));
    }
    if (compute->proposer.child != NULL) {
        (void)doc_set_int(pids, "walproposer", child_pid(compute->proposer.child));
    }
    (void)doc_set(status, "pids", pids);
    (void)doc_set_lsn(status, "start_lsn", compute->start_lsn);
    (void)doc_set_str(status, "error", compute->error.text[0] != '\0' ? compute->error.text : NULL);
    (void)doc_set_str(
        status, "last_failure",
        compute->last_failure.text[0] != '\0' ? compute->last_failure.text : NULL);
    (void)doc_set(status, "limits", limits_doc(compute));
    buf_printf(
        &uri, "postgresql://postgres@/postgres?host=%s/s&port=%u", compute->dir, compute->port);
    (void)doc_set_str(status, "superuser_uri", buf_cstr(&uri));
    buf_deinit(&uri);
    (void)doc_set_int(laps, "sync", (int64_t)compute->sync_ms);
    (void)doc_set_int(laps, "base_backup", (int64_t)compute->backup_ms);
    (void)doc_set_int(laps, "postgres", (int64_t)compute->postgres_ms);
    (void)doc_set_int(laps, "total", (int64_t)compute->total_ms);
    (void)doc_set(status, "started_ms", laps);
    (void)doc_set_int(status, "failures", compute->plan.failures);
    (void)doc_set_time(status, "created_at", compute->created_at);
    return status;
}
