#include "compute/agent/activity.h"

#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "compute/agent/compute_sql.h"

#define ID_TEXT_SIZE_MAX 65

struct known {
    struct list_link link;
    char id[ID_TEXT_SIZE_MAX];
    bool asking;
    mono_ns_t worked_at, answered_at;
};

struct activity {
    struct loop *loop;
    struct executor *sessions;
    struct activity_user *user;
    struct timer timer;
    uint64_t interval_ms;
    struct list all;
    bool stopped;
};

/* Lives by itself: the compute may be deleted while Postgres is asked. */
struct question {
    struct job job;
    struct activity *activity;
    char id[ID_TEXT_SIZE_MAX];
    char socket_dir[PATH_SIZE];
    uint16_t port;
    uint64_t idle_ms;
};

static struct known *find(const struct activity *activity, const char *id)
{
    LIST_FOR_EACH(&activity->all, link)
    {
        struct known *known = CONTAINER_OF(link, struct known, link);
        if (strcmp(known->id, id) == 0) {
            return known;
        }
    }
    return NULL;
}

static void on_tick(struct timer *timer)
{
    struct activity *activity = CONTAINER_OF(timer, struct activity, timer);
    activity->user->each_id(activity->user, activity);
    timer_start(activity->loop, timer, activity->interval_ms);
}

struct activity *activity_create(
    struct loop *loop, struct executor *sessions, uint64_t interval_ms, struct activity_user *user)
{
    struct activity *activity = MEM_NEW(struct activity);
    activity->loop = loop;
    activity->sessions = sessions;
    activity->interval_ms = interval_ms;
    activity->user = user;
    activity->timer.on_fire = on_tick;
    list_init(&activity->all);
    timer_start(loop, &activity->timer, interval_ms);
    return activity;
}

void activity_stop(struct activity *activity)
{
    activity->stopped = true;
    timer_stop(&activity->timer);
}

/* Sessions that have ended leave no trace here; what they did has been seen while they lived. */
static const char idle_query[] =
    "SELECT CASE WHEN count(*) FILTER (WHERE"
    " (backend_type = 'client backend' AND state <> 'idle')"
    " OR (backend_type = 'walsender' AND application_name <> 'walproposer')"
    " OR backend_type = 'autovacuum worker') > 0 THEN 0 ELSE coalesce(round(1000 *"
    " extract(epoch FROM clock_timestamp() - max(state_change)"
    " FILTER (WHERE backend_type = 'client backend'))), 1000000000) END::bigint"
    " FROM pg_catalog.pg_stat_activity WHERE pid <> pg_catalog.pg_backend_pid()"
    " AND application_name <> 'compute-agent'";

static err_t run(struct job *job)
{
    struct question *question = CONTAINER_OF(job, struct question, job);
    struct compute_sql sql = {.socket_dir = question->socket_dir, .port = question->port};
    struct buf line = {0};
    err_t err = compute_sql_lines(&sql, idle_query, &line, &job->msg);
    if (err == ERR_OK) {
        line.size -= line.size > 0; /* its line break */
        err = parse_u64(buf_cstr(&line), 0, UINT64_MAX, &question->idle_ms, &job->msg);
    }
    buf_deinit(&line);
    return err;
}

/* An answer that did not come says nothing: it counts as work, and the next one decides. */
static void done(struct job *job)
{
    struct question *question = CONTAINER_OF(job, struct question, job);
    struct activity *activity = question->activity;
    struct known *known = find(activity, question->id);
    if (known != NULL) {
        mono_ns_t now = clock_mono();
        uint64_t idle_ms = job->result == ERR_OK ? question->idle_ms : 0;
        bool is_older = idle_ms >= now / NS_PER_MS; /* than this machine's clock */
        known->asking = false;
        known->answered_at = now;
        known->worked_at = MAX_OF(known->worked_at, is_older ? 0 : now - idle_ms * NS_PER_MS);
    }
    mem_free(question);
}

void activity_ask(struct activity *activity, const char *id)
{
    struct known *known = find(activity, id);
    const struct compute *compute = activity->user->find_running(activity->user, id);
    if (activity->stopped || (known != NULL && known->asking)) {
        return;
    }
    if (compute == NULL) {
        activity_forget(activity, id); /* a new start begins anew */
        return;
    }
    struct question *question = MEM_NEW(struct question);
    if (!compute_socket(compute, question->socket_dir, &question->port)) {
        mem_free(question);
        return;
    }
    if (known == NULL) {
        known = MEM_NEW(struct known);
        (void)snprintf(known->id, sizeof known->id, "%s", id);
        known->worked_at = known->answered_at = clock_mono(); /* it has just come up */
        list_push_back(&activity->all, &known->link);
    }
    known->asking = true;
    question->activity = activity;
    question->job = (struct job){.run = run, .done = done};
    memcpy(question->id, known->id, sizeof question->id);
    executor_submit(activity->sessions, &question->job);
}

void activity_forget(struct activity *activity, const char *id)
{
    struct known *known = find(activity, id);
    if (known != NULL) {
        list_remove(&known->link);
        mem_free(known);
    }
}

uint64_t activity_idle_ms(const struct activity *activity, const char *id)
{
    const struct known *known = find(activity, id);
    return known == NULL || known->answered_at < known->worked_at
               ? 0
               : (known->answered_at - known->worked_at) / NS_PER_MS;
}
