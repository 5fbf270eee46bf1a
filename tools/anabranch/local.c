#include "tools/anabranch/local.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/parse.h"
#include "common/io/file.h"
#include "common/rpc/rpc.h"
#include "tools/anabranch/output.h"
#include "tools/anabranch/process.h"

#define READY_TIMEOUT_MS   30000
#define CONTROL_TIMEOUT_MS 180000 /* the first time initdb runs */
#define COMPUTES_STOP_MS   30000
#define AGENT_TIMEOUT_MS   5000

/* ---- where things are ---- */

static err_t default_binaries(char ret_path[PATH_SIZE], struct errmsg *msg)
{
    char self[PATH_SIZE];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    if (size <= 0) {
        return err_set(msg, ERR_IO, "/proc/self/exe cannot be read: say --binaries DIR");
    }
    self[size] = '\0';
    for (int i = 0; i < 3; i++) { /* BUILD/tools/anabranch/anabranch */
        char *slash = strrchr(self, '/');
        if (slash == NULL || slash == self) {
            return err_set(msg, ERR_INVALID, "no build folder around %s: say --binaries DIR", self);
        }
        *slash = '\0';
    }
    return str_copy(ret_path, PATH_SIZE, self, msg);
}

static err_t absolute(const char *path, char ret_path[PATH_SIZE], struct errmsg *msg)
{
    char *real = realpath(path, NULL);
    if (real == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "%s: no such folder", path);
    }
    err_t err = str_copy(ret_path, PATH_SIZE, real, msg);
    free(real); // NOLINT: realpath's
    return err;
}

/* The last line of `tools/build-postgres --print-path`. */
static err_t default_postgres(char ret_path[PATH_SIZE], struct errmsg *msg)
{
    char line[PATH_SIZE] = "";
    FILE *output = popen( // NOLINT(cert-env33-c): our own script
        "\"" ANABRANCH_SOURCE_DIR "/tools/build-postgres\" --print-path 2>/dev/null", "re");
    if (output != NULL) {
        while (fgets(line, sizeof line, output) != NULL) {
            line[strcspn(line, "\n")] = '\0';
        }
        (void)pclose(output);
    }
    if (line[0] == '\0') {
        return err_set(
            msg, ERR_NOT_FOUND,
            "the patched Postgres is not built: run tools/build-postgres, or say --postgres DIR");
    }
    return str_copy(ret_path, PATH_SIZE, line, msg);
}

/* Postgres runs as another user when we are root: it must be able to come here. */
static err_t check_reachable(const char *data_dir, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(str_copy(path, sizeof path, data_dir, msg));
    while (geteuid() == 0 && path[0] != '\0') {
        struct stat info;
        if (stat(path, &info) == 0 && (info.st_mode & S_IXOTH) == 0) {
            return err_set(
                msg, ERR_DENIED,
                "%s cannot be entered by the user postgres, who runs the computes because we are "
                "root: choose --data elsewhere, or chmod o+x it",
                path);
        }
        *strrchr(path, '/') = '\0';
    }
    return ERR_OK;
}

/* ---- up ---- */

#define EXTENSION_DIR ANABRANCH_SOURCE_DIR "/compute/extension"

/* Does nothing when it is there and new. Two clusters that come up at once wait for each other. */
static err_t build_extension(const struct cluster *cluster, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(str_format(path, sizeof path, msg, "%.900s/extension/anabranch.so", cluster->binaries));
    bool there = file_exists(path);
    if (there && !file_exists(EXTENSION_DIR "/Makefile")) {
        return ERR_OK;
    }
    if (!there) {
        output_progress("building the extension into %s/extension\n", cluster->binaries);
    }
    struct buf command = {0};
    buf_printf(
        &command,
        "flock \"" EXTENSION_DIR "/Makefile\" make -s -C \"" EXTENSION_DIR
        "\" OUT=\"%s/extension\" PG_CONFIG=\"%s/bin/pg_config\" 1>&2",
        cluster->binaries, cluster->postgres);
    int status = system(buf_cstr(&command)); // NOLINT: our own make
    err_t err = ERR_OK;
    if (status != 0) {
        err = err_set(msg, ERR_FAILED, "the extension was not built by: %s", buf_cstr(&command));
    }
    buf_deinit(&command);
    return err;
}

static err_t find_folders(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    const char *binaries = args_flag(context->args, "binaries");
    const char *postgres = args_flag(context->args, "postgres");
    if (binaries != NULL) {
        TRY(absolute(binaries, cluster->binaries, msg));
    } else if (cluster->binaries[0] == '\0') {
        TRY(default_binaries(cluster->binaries, msg));
    }
    if (postgres != NULL) {
        char server[PATH_SIZE];
        TRY(absolute(postgres, cluster->postgres, msg));
        TRY(str_format(server, sizeof server, msg, "%.900s/bin/postgres", cluster->postgres));
        if (!file_exists(server)) {
            return err_set(
                msg, ERR_NOT_FOUND, "--postgres %s: there is no bin/postgres in it", postgres);
        }
    } else if (cluster->postgres[0] == '\0') {
        TRY(default_postgres(cluster->postgres, msg));
    }
    return ERR_OK;
}

/* As objstore_open takes it, which only the daemons call. */
static bool is_object_store(const char *url)
{
    return url[0] == '/' || str_starts_with(url, "dir:/") || str_starts_with(url, "s3://");
}

/* What is in it stays there: another store would be without the objects of the old one. */
static err_t find_object_store(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    const char *wanted = args_flag(context->args, "object-store");
    if (wanted == NULL || strcmp(wanted, cluster->object_store) == 0) {
        return ERR_OK;
    }
    if (cluster_exists(cluster)) {
        return err_set(
            msg, ERR_INVALID,
            "the cluster in %s has its objects in %s, they stay there (`anabranch local down "
            "--delete` ends it with all that it has)",
            cluster->data_dir,
            cluster->object_store[0] == '\0' ? "a folder of its own" : cluster->object_store);
    }
    if (!is_object_store(wanted)) {
        return err_set(
            msg, ERR_INVALID, "--object-store %s: expected dir:/path or s3://bucket/prefix",
            wanted);
    }
    if (strpbrk(wanted, "\"\n") != NULL) {
        return err_set(msg, ERR_INVALID, "--object-store: a quote or line break is not possible");
    }
    return str_copy(cluster->object_store, sizeof cluster->object_store, wanted, msg);
}

/* May change from one start to the next: URIs are made when they are asked for. */
static err_t find_gateway(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    const char *wanted = args_flag(context->args, "gateway");
    if (wanted == NULL) {
        return ERR_OK;
    }
    if (strspn(wanted, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") !=
        strlen(wanted)) {
        return err_set(
            msg, ERR_INVALID, "--gateway: expected a host name or address, got \"%s\"", wanted);
    }
    err_t err = str_copy(cluster->gateway, sizeof cluster->gateway, wanted, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "--gateway");
}

static err_t number(
    const char *flag,
    const char *text,
    uint64_t least,
    uint64_t most,
    uint64_t *ret_number,
    struct errmsg *msg)
{
    err_t err = parse_u64(text, least, most, ret_number, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "--%s", flag);
}

/* May change from one start to the next. */
static err_t find_local_cache(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    const char *wanted = args_flag(context->args, "local-cache-mb");
    uint64_t mb = 0;
    if (wanted == NULL) {
        return ERR_OK;
    }
    TRY(number("local-cache-mb", wanted, 0, CLUSTER_LOCAL_CACHE_MB_MAX, &mb, msg));
    cluster->local_cache_mb = (unsigned)mb;
    return ERR_OK;
}

static err_t prepare(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    const char *port_text = args_flag(context->args, "port-base");
    const char *safekeepers_text = args_flag(context->args, "safekeepers");
    uint64_t port_base = 0, safekeepers = CLUSTER_SAFEKEEPERS_MIN;
    if (safekeepers_text != NULL) {
        TRY(number(
            "safekeepers", safekeepers_text, CLUSTER_SAFEKEEPERS_MIN, CLUSTER_SAFEKEEPERS_MAX,
            &safekeepers, msg));
    }
    if (port_text != NULL) {
        TRY(number("port-base", port_text, 1024, 65000, &port_base, msg));
    }
    if (cluster_exists(cluster)) {
        TRY(cluster_load(cluster, msg));
        if (port_base != 0 && port_base != cluster->port_base) {
            return err_set(
                msg, ERR_INVALID, "the cluster in %s has port base %u, it stays as it is",
                cluster->data_dir, (unsigned)cluster->port_base);
        }
        port_base = cluster->port_base;
        if (safekeepers_text != NULL && safekeepers != cluster->safekeepers) {
            return err_set(
                msg, ERR_INVALID, "the cluster in %s has %u safekeepers, it stays as it is",
                cluster->data_dir, cluster->safekeepers);
        }
    } else {
        cluster->safekeepers = (unsigned)safekeepers;
        cluster->local_cache_mb = CLUSTER_LOCAL_CACHE_MB;
    }
    TRY(find_folders(context, cluster, msg));
    TRY(find_object_store(context, cluster, msg));
    TRY(find_gateway(context, cluster, msg));
    TRY(find_local_cache(context, cluster, msg));
    TRY(args_check_used(context->args, msg));
    if (!cluster_exists(cluster)) {
        char binaries[PATH_SIZE], postgres[PATH_SIZE];
        memcpy(binaries, cluster->binaries, sizeof binaries);
        memcpy(postgres, cluster->postgres, sizeof postgres);
        TRY(check_reachable(cluster->data_dir, msg));
        TRY(cluster_create(cluster, binaries, postgres, (uint16_t)port_base, msg));
    }
    TRY(cluster_set_paths(cluster, msg));
    TRY(cluster_write_settings(cluster, msg));
    TRY(cluster_save(cluster, msg)); /* before anything runs: its ports are taken from now on */
    return build_extension(cluster, msg);
}

static uint64_t ready_timeout_ms(const struct process *process)
{
    return process->kind == PROCESS_CONTROL ? CONTROL_TIMEOUT_MS : READY_TIMEOUT_MS;
}

static err_t up(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    mono_ns_t began = clock_mono();
    size_t started = 0;
    TRY(prepare(context, cluster, msg));
    for (size_t i = 0; i < cluster->process_count; i++) {
        struct process *process = &cluster->processes[i];
        if (!process_is_running(process)) {
            output_progress("starting %s\n", process->name);
            TRY(process_start(process, msg));
            TRY(cluster_save(cluster, msg));
            started++;
        }
    }
    for (size_t i = 0; i < cluster->process_count; i++) {
        struct process *process = &cluster->processes[i];
        err_t err = process_wait_ready(cluster, process, ready_timeout_ms(process), msg);
        if (err != ERR_OK) {
            fprintf(
                stderr, "what has started runs on: `anabranch local up` goes on from here, "
                        "`anabranch local down` stops it\n");
            return err;
        }
    }
    if (context->json) {
        struct doc *doc = cluster_doc(cluster);
        output_json(doc);
        doc_unref(doc);
        return ERR_OK;
    }
    printf(
        "%zu of %zu processes started in %.1f s; API http://127.0.0.1:%u/api/v2, data %s\n",
        started, cluster->process_count, (double)(clock_mono() - began) / (double)NS_PER_S,
        (unsigned)cluster->port_base, cluster->data_dir);
    return ERR_OK;
}

/* ---- down ---- */

/* A call to the agent; its answer, or an error. */
static err_t ask_agent(
    const char *agent_url,
    enum rpc_id id,
    const char *compute,
    struct doc *body,
    struct doc **ret_answer,
    struct errmsg *msg)
{
    struct buf url = {0};
    buf_printf(&url, "%s", agent_url);
    rpc_path_of(&url, id, (const char *const[]){compute, NULL});
    err_t err = call_url(
        rpc_method(id)->verb, buf_cstr(&url), (struct api_access){0}, body, AGENT_TIMEOUT_MS,
        ret_answer, msg);
    buf_deinit(&url);
    return err;
}

/* Fast shutdown of every compute, so that nothing has to be repaired at the next start. */
static void stop_computes(const struct cluster *cluster, const struct process *agent)
{
    char url[64];
    mono_ns_t began = clock_mono();
    size_t left = 1;
    cluster_url(cluster, agent, url);
    while (left > 0 && clock_mono() - began < COMPUTES_STOP_MS * NS_PER_MS) {
        struct doc *answer = NULL;
        struct errmsg msg = {0};
        if (ask_agent(url, RPC_AGENT_COMPUTES, NULL, NULL, &answer, &msg) != ERR_OK) {
            return; /* it does not answer: what is left is ended as a stray */
        }
        const struct doc *computes = doc_get(answer, "computes");
        left = 0;
        for (size_t i = 0; i < doc_count(computes); i++) {
            const char *id = doc_value_str(doc_get(doc_at(computes, i), "id"));
            const char *state = doc_value_str(doc_get(doc_at(computes, i), "state"));
            if (id == NULL || state == NULL || strcmp(state, "stopped") == 0 ||
                strcmp(state, "failed") == 0 || strcmp(state, "refused") == 0 ||
                strcmp(state, "fenced") == 0) {
                continue;
            }
            left++;
            if (strcmp(state, "stopping") != 0) {
                struct doc *stopped = NULL;
                struct doc *fast = doc_set_str(doc_object(), "mode", "fast");
                err_ignore(
                    ask_agent(url, RPC_AGENT_STOP, id, fast, &stopped, &msg), "asked again below");
                doc_unref(stopped);
            }
        }
        doc_unref(answer);
        struct timespec pause = {.tv_nsec = 50000000L};
        nanosleep(&pause, NULL);
    }
}

static err_t down(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    bool delete_data = args_has(context->args, "delete");
    TRY(args_check_used(context->args, msg));
    TRY(cluster_load(cluster, msg));
    struct process *agent = cluster_process_of(cluster, PROCESS_AGENT);
    process_stop(cluster_process_of(cluster, PROCESS_CONTROL)); /* or it starts them again */
    if (process_is_running(agent)) {
        output_progress("stopping the computes\n");
        stop_computes(cluster, agent);
    }
    process_stop(agent);
    process_end_strays(agent->dir);
    for (size_t i = cluster->process_count; i > 0; i--) {
        process_stop(&cluster->processes[i - 1]);
    }
    if (delete_data) {
        TRY(dir_remove(cluster->data_dir, msg));
    }
    if (!context->json) {
        printf("stopped%s\n", delete_data ? ", data deleted" : "");
    }
    return ERR_OK;
}

/* ---- status, restart, kill ---- */

static const char *state_of(const struct cluster *cluster, const struct process *process)
{
    char url[96];
    struct doc *answer = NULL;
    struct errmsg msg = {0};
    if (!process_is_running(process)) {
        return "stopped";
    }
    cluster_url(cluster, process, url);
    strncat(url, "/readyz", sizeof url - strlen(url) - 1);
    err_t err = call_url("GET", url, (struct api_access){0}, NULL, 2000, &answer, &msg);
    doc_unref(answer);
    return err == ERR_OK ? "ready" : err == ERR_IO || err == ERR_TIMEOUT ? "silent" : "not ready";
}

static err_t status(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    static const char *const columns[] = {"NAME=name", "STATE=state",   "PID=pid",
                                          "HTTP=http", "LISTEN=listen", "LOG=log"};
    TRY(args_check_used(context->args, msg));
    TRY(cluster_load(cluster, msg));
    struct doc *doc = cluster_doc(cluster);
    struct doc *rows = doc_get(doc, "processes");
    for (size_t i = 0; i < doc_count(rows); i++) {
        const char *state = state_of(cluster, &cluster->processes[i]);
        doc_set_str(doc_at(rows, i), "state", state);
        if (strcmp(state, "stopped") == 0) {
            doc_set(doc_at(rows, i), "pid", doc_null());
        }
    }
    if (context->json) {
        output_json(doc);
    } else {
        printf("API   %s\ndata  %s\n\n", doc_value_str(doc_get(doc, "api_url")), cluster->data_dir);
        output_table(rows, columns, ARRAY_LEN(columns));
    }
    doc_unref(doc);
    return ERR_OK;
}

/* For scripts: API=$(anabranch local url) */
static err_t print_url(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    TRY(args_check_used(context->args, msg));
    TRY(cluster_load(cluster, msg));
    struct doc *doc = cluster_doc(cluster);
    printf("%s\n", doc_value_str(doc_get(doc, "api_url")));
    doc_unref(doc);
    return ERR_OK;
}

static err_t named_process(
    struct context *context,
    struct cluster *cluster,
    struct process **ret_process,
    struct errmsg *msg)
{
    const char *name = args_word(context->args, 2);
    TRY(cluster_load(cluster, msg));
    *ret_process = name == NULL ? NULL : cluster_process(cluster, name);
    if (*ret_process == NULL) {
        return err_set(
            msg, ERR_NOT_FOUND,
            "no process \"%s\": expected safekeeper-1..N, pageserver-1, compute-agent, control or "
            "gateway",
            name == NULL ? "" : name);
    }
    return ERR_OK;
}

static err_t restart(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    struct process *process = NULL;
    TRY(args_check_used(context->args, msg));
    TRY(named_process(context, cluster, &process, msg));
    process_stop(process);
    TRY(cluster_write_settings(cluster, msg));
    TRY(process_start(process, msg));
    TRY(cluster_save(cluster, msg));
    TRY(process_wait_ready(cluster, process, READY_TIMEOUT_MS, msg));
    if (!context->json) {
        printf("%s runs with pid %d\n", process->name, process->pid);
    }
    return ERR_OK;
}

static err_t kill_one(struct context *context, struct cluster *cluster, struct errmsg *msg)
{
    struct process *process = NULL;
    const char *text = args_flag(context->args, "signal");
    int number = SIGKILL;
    TRY(args_check_used(context->args, msg));
    TRY(named_process(context, cluster, &process, msg));
    if (text != NULL) {
        TRY(process_signal_parse(text, &number, msg));
    }
    if (!process_is_running(process)) {
        return err_set(msg, ERR_NOT_FOUND, "%s does not run", process->name);
    }
    kill(process->pid, number);
    if (number == SIGKILL) {
        process_wait_end(process->pid, 5000);
    }
    return ERR_OK;
}

err_t local_command(struct context *context, struct errmsg *msg)
{
    static const struct {
        const char *verb;
        err_t (*run)(struct context *context, struct cluster *cluster, struct errmsg *msg);
        bool locked, named; /* named: behind it is which process */
    } verbs[] = {{"up", up, true, false},          {"down", down, true, false},
                 {"status", status, false, false}, {"url", print_url, false, false},
                 {"restart", restart, true, true}, {"kill", kill_one, false, true}};
    const char *verb = args_word(context->args, 1);
    struct cluster cluster = {.lock_fd = -1};
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        if (verb == NULL || strcmp(verbs[i].verb, verb) != 0) {
            continue;
        }
        TRY(args_check_words(context->args, verbs[i].named ? 3 : 2, msg));
        if (verbs[i].locked) {
            TRY(cluster_lock(&cluster, context->data_dir, msg));
        } else {
            TRY(str_copy(cluster.data_dir, sizeof cluster.data_dir, context->data_dir, msg));
        }
        err_t err = verbs[i].run(context, &cluster, msg);
        cluster_unlock(&cluster);
        return err;
    }
    return err_set(
        msg, ERR_INVALID,
        "expected anabranch local up, down, status, url, restart NAME or kill NAME");
}
