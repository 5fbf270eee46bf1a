/*
 * main.c - compute-agent: computes on this host, by HTTP (docs/protocol/rpc.md).
 *
 * Stateless: which computes shall run is control's knowledge. After a restart whatever an earlier
 * agent left is ended and removed, and control asks for its computes again.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/parse.h"
#include "common/io/file.h"
#include "common/io/timer.h"
#include "common/rpc/rpc.h"
#include "compute/agent/activity.h"
#include "compute/agent/bootstrap_image.h"
#include "compute/agent/compute.h"
#include "compute/agent/compute_metrics.h"
#include "compute/agent/leftovers.h"
#include "compute/agent/registration.h"
#include "compute/agent/schema_dump.h"
#include "compute/agent/schema_json.h"
#include "compute/agent/verifier.h"

METRIC_GAUGE(computes_known, "agent_computes", "Computes that this agent knows, in any state.");

#define SESSION_THREADS 16
#define WAIT_MAX_MS     10000
#define WAITS_MAX       512 /* more are answered at once */

struct member {
    struct list_link link;
    struct compute *compute;
};

/* A GET that is answered when the compute is no longer in a state, or after a while. */
struct wait {
    struct list_link link;
    struct http_request *request;
    char id[COMPUTE_ID_SIZE];
    char state[16]; /* that it waits for the end of */
    struct timer timer;
};

struct agent {
    struct app *app;
    struct compute_host host;
    struct http_context http;
    struct bootstrap_maker *maker;
    struct activity *activity;
    struct activity_user activity_user;
    struct registration *registration;
    struct list members, waits;
    size_t count, wait_count;
    bool stopping, at_rest; /* at_rest: and nothing is left to wait for */
    struct loop_task finish_stop;
};

#define CONF_OWNER struct agent_conf
static const struct conf_setting settings[] = {AGENT_SETTINGS(CONF_ROW)};
static struct agent_conf conf;
static struct agent agent;

static struct member *find(const char *id)
{
    LIST_FOR_EACH(&agent.members, link)
    {
        struct member *member = CONTAINER_OF(link, struct member, link);
        if (strcmp(compute_id(member->compute), id) == 0) {
            return member;
        }
    }
    return NULL;
}

/* Answers 404 itself. */
static struct compute *asked_for(struct http_request *request)
{
    const char *id = http_request_param(request, "id");
    struct member *member = find(id);
    if (member == NULL) {
        char message[120];
        (void)snprintf(message, sizeof(message), "there is no compute \"%.64s\" here", id);
        http_respond_problem(request, 404, "ERR_NOT_FOUND", message);
        return NULL;
    }
    return member->compute;
}

static void answer_wait(struct wait *wait)
{
    const struct member *member = find(wait->id);
    timer_stop(&wait->timer);
    list_remove(&wait->link);
    agent.wait_count--;
    if (member != NULL) {
        http_respond_json(wait->request, 200, compute_status(member->compute));
    } else {
        http_respond_problem(wait->request, 404, "ERR_NOT_FOUND", "the compute was deleted");
    }
    mem_free(wait);
}

/* Those whose state is another one; all of them when we stop. */
static void answer_waits(void)
{
    LIST_FOR_EACH(&agent.waits, link)
    {
        struct wait *wait = CONTAINER_OF(link, struct wait, link);
        const struct member *member = find(wait->id);
        if (agent.stopping || member == NULL ||
            strcmp(compute_state(member->compute), wait->state) != 0) {
            answer_wait(wait);
        }
    }
}

static void on_wait_over(struct timer *timer)
{
    answer_wait(CONTAINER_OF(timer, struct wait, timer));
}

/* On its own: what came to rest last may be a job of these sessions, whose end is just told. */
static void on_finish_stop(struct loop_task *task)
{
    (void)task;
    executor_destroy(agent.host.sessions); /* no Postgres is left: what still waits ends now */
    agent.host.sessions = NULL;
    app_stopped(agent.app);
}

static void check_stopped(void)
{
    if (!agent.stopping || agent.at_rest || bootstrap_maker_is_busy(agent.maker)) {
        return;
    }
    LIST_FOR_EACH(&agent.members, link)
    {
        if (!compute_is_off(CONTAINER_OF(link, struct member, link)->compute)) {
            return;
        }
    }
    agent.at_rest = true;
    loop_post(agent.host.loop, &agent.finish_stop);
}

static void on_change(struct compute_host *host, struct compute *compute)
{
    (void)host;
    (void)compute;
    answer_waits();
    check_stopped();
}

static void on_deleted(struct compute_host *host, struct compute *compute)
{
    (void)host;
    struct member *member = find(compute_id(compute));
    activity_forget(agent.activity, compute_id(compute));
    ASSERT(member != NULL && member->compute == compute);
    list_remove(&member->link);
    mem_free(member);
    agent.count--;
    metric_set(&computes_known, (int64_t)agent.count);
    answer_waits();
    check_stopped();
}

/* -- PUT: create, start again, or nothing to do -- */

static err_t add(const char *id, struct compute_spec *spec, struct errmsg *msg)
{
    struct compute *compute = NULL;
    if (agent.count >= conf.computes_max) {
        return err_set(
            msg, ERR_BUSY, "this host has %" PRIu64 " computes already: computes_max",
            conf.computes_max);
    }
    TRY(compute_create(&agent.host, id, spec, &compute, msg));
    struct member *member = MEM_NEW(struct member);
    member->compute = compute;
    list_push_back(&agent.members, &member->link);
    agent.count++;
    metric_set(&computes_known, (int64_t)agent.count);
    log_info(NULL, "compute %s: timeline %s", id, timeline_id_text(spec->timeline).text);
    compute_start(compute);
    return ERR_OK;
}

/*
 * Roles and databases may change while it runs, and who its safekeepers are: its walproposer learns
 * of a newer membership from them. Everything else needs a new start.
 */
static bool differs_only_in_what_may_change(
    const struct compute_spec *a, const struct compute_spec *b)
{
    static const char *const contents[] = {
        "roles", "databases", "dropped", "superuser_password", "quarantine"};
    static const char *const members[] = {"safekeepers", "membership_generation"};
    struct doc *first = doc_copy(a->body);
    struct doc *second = doc_copy(b->body);
    for (size_t i = 0; i < ARRAY_LEN(contents); i++) {
        doc_remove(first, contents[i]);
        doc_remove(second, contents[i]);
    }
    for (size_t i = 0;
         i < ARRAY_LEN(members) && b->membership_generation > a->membership_generation; i++) {
        doc_remove(first, members[i]);
        doc_remove(second, members[i]);
    }
    bool same = doc_equal(first, second);
    doc_unref(first);
    doc_unref(second);
    return same;
}

/* A PUT that is answered when roles and databases are as it wants. */
struct put_wait {
    struct compute_waiter waiter;
    struct http_request *request;
    char id[65];
};

static void on_put_applied(struct compute_waiter *waiter, err_t result, const struct errmsg *msg)
{
    struct put_wait *wait = CONTAINER_OF(waiter, struct put_wait, waiter);
    const struct member *member = find(wait->id);
    if (result == ERR_OK && member != NULL) {
        http_respond_json(wait->request, 200, compute_status(member->compute));
    } else {
        http_respond_error(wait->request, result == ERR_OK ? ERR_CANCELED : result, msg);
    }
    mem_free(wait);
}

static bool apply(struct compute *compute, struct compute_spec *spec, struct http_request *request)
{
    struct put_wait *wait = MEM_NEW(struct put_wait);
    wait->waiter.done = on_put_applied;
    wait->request = request;
    (void)snprintf(wait->id, sizeof(wait->id), "%s", compute_id(compute));
    if (!compute_apply_spec(compute, spec, &wait->waiter)) {
        mem_free(wait);
        return false;
    }
    return true;
}

/* Takes over `spec` when it answers ERR_OK; `*ret_waits`: the request is answered later. */
static err_t renew(
    struct compute *compute,
    struct compute_spec *spec,
    struct http_request *request,
    bool *ret_waits,
    struct errmsg *msg)
{
    bool same = compute_spec_equal(compute_spec_of(compute), spec);
    if (compute_is_going(compute)) {
        return err_set(msg, ERR_BUSY, "compute %s is being deleted", compute_id(compute));
    }
    if (compute_is_off(compute)) {
        compute_set_spec(compute, spec);
        compute_start(compute);
        return ERR_OK;
    }
    if (same && !(compute_is_running(compute) && compute_is_unapplied(compute))) {
        compute_start(compute); /* of interest only while it is being stopped */
        compute_spec_destroy(spec);
        return ERR_OK;
    }
    if (compute_is_running(compute) &&
        differs_only_in_what_may_change(compute_spec_of(compute), spec)) {
        *ret_waits = apply(compute, spec, request);
        return *ret_waits ? ERR_OK
                          : err_set(msg, ERR_BUSY, "an earlier change of roles is under way");
    }
    return err_set(
        msg, ERR_EXISTS, "compute %s exists with another spec: stop it first", compute_id(compute));
}

static void handle_put_compute(struct http_context *context, struct http_request *request)
{
    (void)context;
    struct errmsg msg;
    struct doc *body = NULL;
    struct compute_spec *spec = NULL;
    const char *id = http_request_param(request, "id");
    struct member *member = find(id);
    bool waits = false;
    err_t err = agent.stopping ? err_set(&msg, ERR_CANCELED, "the agent is stopping") : ERR_OK;
    err = err != ERR_OK ? err : http_request_json(request, &body, &msg);
    err = err != ERR_OK ? err : compute_spec_parse(body, &spec, &msg);
    if (err == ERR_OK) {
        err = member == NULL ? add(id, spec, &msg)
                             : renew(member->compute, spec, request, &waits, &msg);
        if (err != ERR_OK) {
            compute_spec_destroy(spec);
        }
    }
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    if (waits) {
        return;
    }
    struct compute *compute = find(id)->compute;
    http_respond_json(request, compute_is_running(compute) ? 200 : 202, compute_status(compute));
}

static void wait_for_change(
    struct http_request *request, const struct compute *compute, uint64_t wait_ms)
{
    struct wait *wait = MEM_NEW(struct wait);
    wait->request = request;
    (void)snprintf(wait->id, sizeof(wait->id), "%s", compute_id(compute));
    (void)snprintf(wait->state, sizeof(wait->state), "%s", compute_state(compute));
    wait->timer.on_fire = on_wait_over;
    timer_start(agent.host.loop, &wait->timer, wait_ms);
    list_push_back(&agent.waits, &wait->link);
    agent.wait_count++;
}

/* ?wait_ms=N: answered when it is in another state, at the latest after N. */
static bool wants_to_wait(struct http_request *request, uint64_t *ret_wait_ms)
{
    const char *wait_ms = http_request_query(request, "wait_ms");
    return wait_ms != NULL && parse_u64(wait_ms, 1, WAIT_MAX_MS, ret_wait_ms, NULL) == ERR_OK &&
           agent.wait_count < WAITS_MAX && !agent.stopping;
}

static void handle_get_compute(struct http_context *context, struct http_request *request)
{
    (void)context;
    uint64_t wait_ms = 0;
    struct compute *compute = asked_for(request);
    if (compute == NULL) {
        return;
    }
    const char *state = http_request_query(request, "while");
    bool is_in_it = state != NULL && strcmp(state, compute_state(compute)) == 0;
    if (!is_in_it || !wants_to_wait(request, &wait_ms)) {
        http_respond_json(request, 200, compute_status(compute));
        return;
    }
    wait_for_change(request, compute, wait_ms);
}

static void handle_get_spec(struct http_context *context, struct http_request *request)
{
    (void)context;
    struct compute *compute = asked_for(request);
    if (compute != NULL) {
        http_respond_json(request, 200, compute_spec_redacted(compute_spec_of(compute)));
    }
}

/* Answers 404 and 503 itself. */
static bool running_socket(struct http_request *request, char dir[PATH_SIZE], uint16_t *ret_port)
{
    const struct compute *compute = asked_for(request);
    if (compute == NULL) {
        return false;
    }
    if (!compute_socket(compute, dir, ret_port)) {
        http_respond_problem(request, 503, "ERR_BUSY", "the compute is not running");
        return false;
    }
    return true;
}

static void handle_post_verifier(struct http_context *context, struct http_request *request)
{
    (void)context;
    char dir[PATH_SIZE];
    uint16_t port = 0;
    if (running_socket(request, dir, &port)) {
        const struct compute *compute = find(http_request_param(request, "id"))->compute;
        verifier_answer(agent.host.sessions, compute, dir, port, request);
    }
}

static void handle_get_metrics(struct http_context *context, struct http_request *request)
{
    (void)context;
    char dir[PATH_SIZE];
    uint16_t port = 0;
    if (running_socket(request, dir, &port)) {
        compute_metrics_answer(agent.host.sessions, dir, port, request);
    }
}

static void handle_post_schema(struct http_context *context, struct http_request *request)
{
    (void)context;
    char dir[PATH_SIZE];
    uint16_t port = 0;
    struct doc *body = NULL;
    const char *format = "sql";
    struct errmsg msg;
    err_t err = http_request_json(request, &body, &msg);
    if (err == ERR_OK) {
        err = doc_opt_str(body, "format", &format, &msg);
    }
    if (err == ERR_OK && strcmp(format, "sql") != 0 && strcmp(format, "json") != 0) {
        err = err_set(&msg, ERR_INVALID, "format: expected sql or json");
    }
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    if (!running_socket(request, dir, &port)) {
        return;
    }
    if (strcmp(format, "json") == 0) {
        schema_json_answer(agent.host.sessions, dir, port, request);
    } else {
        schema_dump_answer(&agent.host, dir, port, request);
    }
}

/* -- activity -- */

static const struct compute *find_running(struct activity_user *user, const char *id)
{
    (void)user;
    const struct member *member = find(id);
    return member != NULL && compute_is_running(member->compute) ? member->compute : NULL;
}

static void each_id(struct activity_user *user, struct activity *activity)
{
    (void)user;
    LIST_FOR_EACH(&agent.members, link)
    {
        activity_ask(activity, compute_id(CONTAINER_OF(link, struct member, link)->compute));
    }
}

static struct doc *status_of(const struct compute *compute)
{
    uint64_t idle_ms = activity_idle_ms(agent.activity, compute_id(compute));
    return doc_set_int(compute_status(compute), "idle_ms", (int64_t)idle_ms);
}

static void handle_get_computes(struct http_context *context, struct http_request *request)
{
    (void)context;
    struct doc *list = doc_array();
    LIST_FOR_EACH(&agent.members, link)
    {
        (void)doc_push(list, status_of(CONTAINER_OF(link, struct member, link)->compute));
    }
    http_respond_json(request, 200, doc_set(doc_object(), "computes", list));
}

static void handle_post_stop(struct http_context *context, struct http_request *request)
{
    (void)context;
    struct errmsg msg;
    struct doc *body = NULL;
    const char *mode = "fast";
    struct compute *compute = asked_for(request);
    if (compute == NULL) {
        return;
    }
    err_t err = http_request_json(request, &body, &msg);
    err = err != ERR_OK ? err : doc_opt_str(body, "mode", &mode, &msg);
    if (err == ERR_OK && strcmp(mode, "fast") != 0 && strcmp(mode, "immediate") != 0) {
        err = err_set(&msg, ERR_INVALID, "mode: expected \"fast\" or \"immediate\"");
    }
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    compute_stop(compute, strcmp(mode, "fast") == 0);
    http_respond_json(request, 202, compute_status(compute));
}

static void handle_delete_compute(struct http_context *context, struct http_request *request)
{
    (void)context;
    uint64_t wait_ms = 0;
    struct compute *compute = asked_for(request);
    if (compute == NULL) {
        return;
    }
    compute_delete(compute); /* frees it later, never from inside */
    if (wants_to_wait(request, &wait_ms)) {
        wait_for_change(request, compute, wait_ms);
    } else {
        http_respond_json(request, 202, compute_status(compute));
    }
}

static void handle_post_bootstrap_images(struct http_context *context, struct http_request *request)
{
    (void)context;
    bootstrap_maker_handle(agent.maker, request);
}

static void handle_get_status(struct http_context *context, struct http_request *request)
{
    (void)context;
    struct doc *body = doc_object();
    (void)doc_set_int(body, "computes", (int64_t)agent.count);
    (void)doc_set_str(body, "postgres", agent.host.postgres);
    (void)doc_set_str(body, "walproposer", agent.host.walproposer);
    (void)doc_set_str(body, "run_as_user", agent.host.user.name);
    http_respond_json(request, 200, body);
}

static const struct http_route routes[] = {RPC_AGENT(RPC_ROUTE)};

/* -- start and stop -- */

static err_t find_walproposer(char *to, struct errmsg *msg)
{
    char self[PATH_SIZE];
    if (conf.walproposer_binary[0] != '\0') {
        TRY(str_copy(to, PATH_SIZE, conf.walproposer_binary, msg));
        return access(to, X_OK) == 0
                   ? ERR_OK
                   : err_set(msg, ERR_NOT_FOUND, "walproposer_binary: %s: %m", to);
    }
    ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (size <= 0) {
        return err_set(msg, ERR_IO, "find this program: %m");
    }
    self[size] = '\0';
    *strrchr(self, '/') = '\0';
    /* Installed, it stands beside us (where the build has a folder of that name). */
    static const char *const places[] = {"walproposer", "../walproposer/walproposer"};
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        struct stat status;
        TRY(str_format(to, PATH_SIZE, msg, "%s/%s", self, places[i]));
        if (stat(to, &status) == 0 && S_ISREG(status.st_mode) && access(to, X_OK) == 0) {
            return ERR_OK;
        }
    }
    return err_set(
        msg, ERR_NOT_FOUND, "walproposer is not beside this program (%s): set walproposer_binary",
        self);
}

static err_t check_tls(struct errmsg *msg)
{
    bool with_cert = conf.tls_cert_file[0] != '\0', with_key = conf.tls_key_file[0] != '\0';
    if (with_cert != with_key) {
        return err_set(msg, ERR_INVALID, "tls_cert_file and tls_key_file go together");
    }
    if (conf.tls_required && !with_cert) {
        return err_set(msg, ERR_INVALID, "tls_required needs tls_cert_file");
    }
    return ERR_OK;
}

static err_t find_programs(struct errmsg *msg)
{
    if (conf.postgres_dir[0] == '\0') {
        return err_set(msg, ERR_INVALID, "setting postgres_dir is required");
    }
    TRY(str_format(
        agent.host.postgres, sizeof(agent.host.postgres), msg, "%s/bin/postgres",
        conf.postgres_dir));
    if (access(agent.host.postgres, X_OK) != 0) {
        return err_set(msg, ERR_NOT_FOUND, "postgres_dir: %s: %m", agent.host.postgres);
    }
    return find_walproposer(agent.host.walproposer, msg);
}

/* Paths go into settings of processes that run elsewhere: make them absolute. */
static err_t make_absolute(const char *path, char *to, struct errmsg *msg)
{
    char here[PATH_SIZE];
    if (path[0] == '/') {
        return str_copy(to, PATH_SIZE, path, msg);
    }
    if (getcwd(here, sizeof(here)) == NULL) {
        return err_set(msg, err_from_errno(errno), "find the current folder: %m");
    }
    return str_format(to, PATH_SIZE, msg, "%s/%s", here, path);
}

/* The run-as user must be able to pass through to its computes. */
static err_t open_way(const char *path, struct errmsg *msg)
{
    TRY(dir_create(path, msg));
    if (chmod(path, 0711) != 0) {
        return err_set(msg, err_from_errno(errno), "chmod %s: %m", path);
    }
    return ERR_OK;
}

static err_t start(struct app *app, struct errmsg *msg)
{
    char data_dir[PATH_SIZE];
    agent.app = app;
    agent.host.conf = &conf;
    agent.host.loop = app_loop(app);
    agent.host.files = app_executor(app);
    agent.host.http = app_http_client(app);
    agent.host.on_change = on_change;
    agent.host.on_deleted = on_deleted;
    list_init(&agent.members);
    list_init(&agent.waits);
    agent.finish_stop.run = on_finish_stop;
    TRY(run_as_find(&conf, &agent.host.user, msg));
    TRY(check_tls(msg));
    TRY(find_programs(msg));
    TRY(cage_host_find(conf.cgroup_dir, &agent.host.cages, msg));
    TRY(make_absolute(app_data_dir(app), data_dir, msg));
    TRY(str_format(
        agent.host.computes_dir, sizeof(agent.host.computes_dir), msg, "%s/computes", data_dir));
    TRY(leftovers_clear(agent.host.computes_dir, agent.host.user.uid, &agent.host.cages, msg));
    TRY(open_way(data_dir, msg));
    TRY(open_way(agent.host.computes_dir, msg));
    TRY(executor_create(agent.host.loop, SESSION_THREADS, &agent.host.sessions, msg));
    agent.activity_user = (struct activity_user){.find_running = find_running, .each_id = each_id};
    agent.activity = activity_create(
        agent.host.loop, agent.host.sessions, conf.activity_interval_ms, &agent.activity_user);
    agent.maker = bootstrap_maker_create(&agent.host, data_dir);
    http_server_add_routes(app_http(app), routes, ARRAY_LEN(routes), &agent.http);
    return registration_create(
        agent.host.loop, agent.host.http, &conf, http_server_port(app_http(app)),
        &agent.registration, msg);
}

/* Sessions end their way; after a while they are cut off (compute_plan.c), WAL is safe anyway. */
static void stop(struct app *app)
{
    (void)app;
    agent.stopping = true;
    registration_stop(agent.registration);
    answer_waits();
    activity_stop(agent.activity);
    bootstrap_maker_stop(agent.maker, check_stopped);
    LIST_FOR_EACH(&agent.members, link)
    {
        compute_stop(CONTAINER_OF(link, struct member, link)->compute, true);
    }
    check_stopped();
}

static void not_ready(struct app *app, struct buf *reasons)
{
    (void)app;
    if (registration_trouble(agent.registration)[0] != '\0') {
        buf_printf(
            reasons, "control does not know this host: %s\n",
            registration_trouble(agent.registration));
    }
}

int main(int argc, char **argv)
{
    static const struct app_spec spec = {
        .name = "compute-agent",
        .help = "prepares and runs the computes of this host: Postgres and its walproposer.",
        .conf = &conf,
        .settings = settings,
        .settings_count = ARRAY_LEN(settings),
        .start = start,
        .stop = stop,
        .not_ready = not_ready,
    };
    return app_main(argc, argv, &spec);
}
