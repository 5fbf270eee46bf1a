#include "tools/anabranch/cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/prng.h"
#include "common/io/file.h"

#define CLUSTER_FILE_MAX (1 * MIB)
#define OWN_SETTINGS_MAX (64 * KIB)
#define HOST             "127.0.0.1"
/* Ports relative to the base. */
#define PORT_CONTROL          0
#define PORT_GATEWAY          5
#define PORT_GATEWAY_HTTP     6
#define PORT_SAFEKEEPER       10 /* + id: framed */
#define PORT_SAFEKEEPER_HTTP  20 /* + id */
#define PORT_PAGESERVER       30
#define PORT_PAGESERVER_HTTP  31
#define PORT_AGENT            40
#define PORT_COMPUTES         100
#define COMPUTES_MAX          300
#define PORT_SEARCH_FIRST     12000 /* below the range that the system hands out by itself */
#define PORT_SEARCH_LAST      31000
#define PORT_SEARCH_TRIES_MAX 200

/* ---- the lock ---- */

/* With parents, and open to other users, because Postgres runs as one of them when we are root. */
static err_t make_folder(const char *path, struct errmsg *msg)
{
    char part[PATH_SIZE];
    TRY(str_copy(part, sizeof part, path, msg));
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(part, 0755); /* the last one tells */
        *slash = '/';
    }
    if (mkdir(part, 0755) != 0 && errno != EEXIST) {
        return err_set(msg, err_from_errno(errno), "create %s: error %d", path, errno);
    }
    return ERR_OK;
}

err_t cluster_lock(struct cluster *cluster, const char *data_dir, struct errmsg *msg)
{
    char path[PATH_SIZE];
    *cluster = (struct cluster){.lock_fd = -1};
    TRY(str_copy(cluster->data_dir, sizeof cluster->data_dir, data_dir, msg));
    TRY(make_folder(data_dir, msg));
    TRY(str_format(path, sizeof path, msg, "%.900s/lock", data_dir));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        return err_set(msg, err_from_errno(errno), "open %s: error %d", path, errno);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return err_set(
            msg, ERR_BUSY, "another anabranch command works on %s: wait for it", data_dir);
    }
    cluster->lock_fd = fd;
    return ERR_OK;
}

void cluster_unlock(struct cluster *cluster)
{
    if (cluster->lock_fd >= 0) {
        close(cluster->lock_fd);
        cluster->lock_fd = -1;
    }
}

/* ---- layout ---- */

static const char *const binary_paths[] = {
    [PROCESS_SAFEKEEPER] = "safekeeper/serve/safekeeper",
    [PROCESS_PAGESERVER] = "pageserver/serve/pageserver",
    [PROCESS_AGENT] = "compute/agent/compute-agent",
    [PROCESS_CONTROL] = "control/control",
    [PROCESS_GATEWAY] = "control/gateway/gateway",
};

static err_t set_paths(struct cluster *cluster, struct process *process, struct errmsg *msg)
{
    const char *data = cluster->data_dir;
    const char *name = process->name;
    TRY(str_format(
        process->binary, PATH_SIZE, msg, "%.900s/%s", cluster->binaries,
        binary_paths[process->kind]));
    TRY(str_format(process->dir, PATH_SIZE, msg, "%.900s/%s", data, name));
    TRY(str_format(process->log, PATH_SIZE, msg, "%.900s/logs/%s.log", data, name));
    return str_format(process->conf, PATH_SIZE, msg, "%.900s/conf/%s.conf", data, name);
}

static void lay_out(struct cluster *cluster)
{
    uint16_t base = cluster->port_base;
    unsigned safekeepers = cluster->safekeepers;
    cluster->process_count = safekeepers + 4;
    for (unsigned i = 0; i < safekeepers; i++) {
        struct process *safekeeper = &cluster->processes[i];
        safekeeper->kind = PROCESS_SAFEKEEPER;
        safekeeper->node_id = i + 1;
        safekeeper->listen_port = (uint16_t)(base + PORT_SAFEKEEPER + i + 1);
        safekeeper->http_port = (uint16_t)(base + PORT_SAFEKEEPER_HTTP + i + 1);
        snprintf(safekeeper->name, sizeof safekeeper->name, "safekeeper-%u", i + 1);
    }
    cluster->processes[safekeepers] = (struct process){
        .kind = PROCESS_PAGESERVER,
        .node_id = 1,
        .name = "pageserver-1",
        .listen_port = (uint16_t)(base + PORT_PAGESERVER),
        .http_port = (uint16_t)(base + PORT_PAGESERVER_HTTP)};
    cluster->processes[safekeepers + 1] = (struct process){
        .kind = PROCESS_AGENT,
        .node_id = 1,
        .name = "compute-agent",
        .http_port = (uint16_t)(base + PORT_AGENT)};
    cluster->processes[safekeepers + 2] = (struct process){
        .kind = PROCESS_CONTROL,
        .node_id = 1,
        .name = "control",
        .http_port = (uint16_t)(base + PORT_CONTROL)};
    cluster->processes[safekeepers + 3] = (struct process){
        .kind = PROCESS_GATEWAY,
        .name = "gateway",
        .listen_port = (uint16_t)(base + PORT_GATEWAY),
        .http_port = (uint16_t)(base + PORT_GATEWAY_HTTP)};
}

err_t cluster_set_paths(struct cluster *cluster, struct errmsg *msg)
{
    for (size_t i = 0; i < cluster->process_count; i++) {
        TRY(set_paths(cluster, &cluster->processes[i], msg));
    }
    return ERR_OK;
}

static bool can_bind(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    bool free_port = bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return free_port;
}

/* The first port that somebody has; 0: all are free. */
static uint16_t taken_port(struct cluster *cluster, uint16_t base)
{
    cluster->port_base = base;
    lay_out(cluster);
    for (size_t i = 0; i < cluster->process_count; i++) {
        const struct process *process = &cluster->processes[i];
        if (!can_bind(process->http_port)) {
            return process->http_port;
        }
        if (process->listen_port != 0 && !can_bind(process->listen_port)) {
            return process->listen_port;
        }
    }
    for (unsigned i = 0; i < 20; i++) { /* the first computes */
        uint16_t port = (uint16_t)(base + PORT_COMPUTES + i);
        if (!can_bind(port)) {
            return port;
        }
    }
    return 0;
}

static err_t find_ports(struct cluster *cluster, struct errmsg *msg)
{
    for (unsigned i = 0; i < PORT_SEARCH_TRIES_MAX; i++) {
        uint32_t random = 0;
        prng_secure(&random, sizeof random);
        uint32_t windows = (PORT_SEARCH_LAST - PORT_SEARCH_FIRST) / (PORT_COMPUTES + COMPUTES_MAX);
        uint32_t base = PORT_SEARCH_FIRST + random % windows * (PORT_COMPUTES + COMPUTES_MAX);
        if (taken_port(cluster, (uint16_t)base) == 0) {
            return ERR_OK;
        }
    }
    return err_set(msg, ERR_FULL, "no free ports between 12000 and 31000: say --port-base N");
}

err_t cluster_create(
    struct cluster *cluster,
    const char *binaries,
    const char *postgres,
    uint16_t port_base,
    struct errmsg *msg)
{
    TRY(str_copy(cluster->binaries, sizeof cluster->binaries, binaries, msg));
    TRY(str_copy(cluster->postgres, sizeof cluster->postgres, postgres, msg));
    if (port_base == 0) {
        TRY(find_ports(cluster, msg));
    } else if (port_base > UINT16_MAX - PORT_COMPUTES - COMPUTES_MAX) {
        return err_set(
            msg, ERR_INVALID, "--port-base %u: at most %d", (unsigned)port_base,
            UINT16_MAX - PORT_COMPUTES - COMPUTES_MAX);
    } else {
        uint16_t taken = taken_port(cluster, port_base);
        if (taken != 0) {
            return err_set(
                msg, ERR_BUSY, "--port-base %u: port %u is in use, and %u to %u are wanted",
                (unsigned)port_base, (unsigned)taken, (unsigned)port_base,
                (unsigned)port_base + PORT_COMPUTES + COMPUTES_MAX - 1);
        }
    }
    return cluster_set_paths(cluster, msg);
}

/* ---- cluster.json ---- */

bool cluster_exists(const struct cluster *cluster)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%.900s/cluster.json", cluster->data_dir);
    return file_exists(path);
}

void cluster_url(const struct cluster *cluster, const struct process *process, char ret_url[64])
{
    (void)cluster;
    snprintf(ret_url, 64, "http://" HOST ":%u", (unsigned)process->http_port);
}

static struct doc *address(uint16_t port)
{
    char text[32];
    snprintf(text, sizeof text, HOST ":%u", (unsigned)port);
    return doc_str(text);
}

struct doc *cluster_doc(const struct cluster *cluster)
{
    char url[80];
    struct doc *processes = doc_array();
    for (size_t i = 0; i < cluster->process_count; i++) {
        const struct process *process = &cluster->processes[i];
        struct doc *row = doc_set_str(doc_object(), "name", process->name);
        doc_set_int(row, "pid", process->pid);
        doc_set_str(row, "binary", process->binary);
        doc_set(row, "http", address(process->http_port));
        doc_set(
            row, "listen", process->listen_port == 0 ? doc_null() : address(process->listen_port));
        doc_set_str(row, "dir", process->dir);
        doc_set_str(row, "log", process->log);
        doc_set_str(row, "conf", process->conf);
        doc_push(processes, row);
    }
    snprintf(
        url, sizeof url, "http://" HOST ":%u/api/v2", (unsigned)cluster->port_base + PORT_CONTROL);
    struct doc *doc = doc_set_str(doc_object(), "data", cluster->data_dir);
    doc_set_str(doc, "api_url", url);
    doc_set_int(doc, "port_base", cluster->port_base);
    doc_set_str(doc, "binaries", cluster->binaries);
    doc_set_str(doc, "postgres", cluster->postgres);
    doc_set_str(doc, "object_store", cluster->object_store);
    doc_set_str(doc, "gateway", cluster->gateway);
    doc_set_int(doc, "local_cache_mb", cluster->local_cache_mb);
    doc_set_int(doc, "safekeepers", cluster->safekeepers);
    return doc_set(doc, "processes", processes);
}

err_t cluster_save(const struct cluster *cluster, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    struct doc *doc = cluster_doc(cluster);
    doc_print(doc, true, &text);
    buf_append(&text, "\n", 1);
    err_t err = str_format(path, sizeof path, msg, "%.900s/cluster.json", cluster->data_dir);
    if (err == ERR_OK) {
        err = file_write_durably(path, buf_view(&text), msg);
    }
    doc_unref(doc);
    buf_deinit(&text);
    return err;
}

static err_t read_doc(struct cluster *cluster, const struct doc *doc, struct errmsg *msg)
{
    uint64_t base = 0, safekeepers = CLUSTER_SAFEKEEPERS_MIN;
    uint64_t local_cache_mb = CLUSTER_LOCAL_CACHE_MB;
    const char *binaries = NULL, *postgres = NULL, *object_store = "", *gateway = "";
    struct doc *rows = NULL;
    TRY(doc_get_u64(doc, "port_base", &base, msg));
    TRY(doc_get_str(doc, "binaries", &binaries, msg));
    TRY(doc_get_str(doc, "postgres", &postgres, msg));
    TRY(doc_opt_str(doc, "object_store", &object_store, msg));
    TRY(doc_opt_str(doc, "gateway", &gateway, msg));
    TRY(doc_opt_u64(doc, "safekeepers", &safekeepers, msg));
    TRY(doc_opt_u64(doc, "local_cache_mb", &local_cache_mb, msg));
    if (safekeepers < CLUSTER_SAFEKEEPERS_MIN || safekeepers > CLUSTER_SAFEKEEPERS_MAX) {
        return err_set(msg, ERR_CORRUPT, "%" PRIu64 " safekeepers", safekeepers);
    }
    TRY(doc_get_array(doc, "processes", &rows, msg));
    TRY(str_copy(cluster->binaries, sizeof cluster->binaries, binaries, msg));
    TRY(str_copy(cluster->postgres, sizeof cluster->postgres, postgres, msg));
    TRY(str_copy(cluster->object_store, sizeof cluster->object_store, object_store, msg));
    TRY(str_copy(cluster->gateway, sizeof cluster->gateway, gateway, msg));
    cluster->port_base = (uint16_t)base;
    cluster->safekeepers = (unsigned)safekeepers;
    cluster->local_cache_mb = (unsigned)local_cache_mb;
    lay_out(cluster);
    TRY(cluster_set_paths(cluster, msg));
    for (size_t i = 0; i < doc_count(rows); i++) {
        const char *name = NULL;
        uint64_t pid = 0;
        TRY(doc_get_str(doc_at(rows, i), "name", &name, msg));
        TRY(doc_get_u64(doc_at(rows, i), "pid", &pid, msg));
        struct process *process = cluster_process(cluster, name);
        if (process != NULL) {
            process->pid = (int)pid;
        }
    }
    return ERR_OK;
}

err_t cluster_load(struct cluster *cluster, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    struct doc *doc = NULL;
    TRY(str_format(path, sizeof path, msg, "%.900s/cluster.json", cluster->data_dir));
    if (!file_exists(path)) {
        return err_set(
            msg, ERR_NOT_FOUND, "no cluster in %s: start one with `anabranch local up`",
            cluster->data_dir);
    }
    err_t err = file_read_all(path, CLUSTER_FILE_MAX, &text, msg);
    if (err == ERR_OK) {
        err = doc_parse(buf_view(&text), &doc, msg);
    }
    if (err == ERR_OK) {
        err = read_doc(cluster, doc, msg);
    }
    doc_unref(doc);
    buf_deinit(&text);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "%s", path);
}

struct process *cluster_process(struct cluster *cluster, const char *name)
{
    for (size_t i = 0; i < cluster->process_count; i++) {
        if (strcmp(cluster->processes[i].name, name) == 0) {
            return &cluster->processes[i];
        }
    }
    return NULL;
}

struct process *cluster_process_of(struct cluster *cluster, enum process_kind kind)
{
    for (size_t i = 0; i < cluster->process_count; i++) {
        if (cluster->processes[i].kind == kind) {
            return &cluster->processes[i];
        }
    }
    return NULL;
}

/* ---- settings files ---- */

err_t cluster_object_store(
    const struct cluster *cluster, char ret_url[PATH_SIZE], struct errmsg *msg)
{
    if (cluster->object_store[0] != '\0') {
        return str_copy(ret_url, PATH_SIZE, cluster->object_store, msg);
    }
    return str_format(ret_url, PATH_SIZE, msg, "dir:%.900s/objects", cluster->data_dir);
}

static void print_object_store(const struct cluster *cluster, struct buf *to)
{
    char url[PATH_SIZE];
    struct errmsg msg;
    if (cluster_object_store(cluster, url, &msg) == ERR_OK) { /* else data_dir were too long */
        buf_printf(to, "object_store = \"%s\"\n", url);
    }
}

static void print_control(const struct cluster *cluster, struct buf *to)
{
    buf_printf(to, "safekeepers = \"");
    for (size_t i = 0; i < cluster->process_count; i++) {
        const struct process *process = &cluster->processes[i];
        if (process->kind == PROCESS_SAFEKEEPER) {
            buf_printf(
                to, "%s%u@" HOST ":%u/%u", i == 0 ? "" : ",", process->node_id,
                (unsigned)process->listen_port, (unsigned)process->http_port);
        }
    }
    unsigned base = cluster->port_base;
    if (cluster->gateway[0] != '\0') {
        buf_printf(
            to, "\"\nsuspend_after_ms = 300s\ngateway_host = \"%s\"\ngateway_port = \"%u",
            cluster->gateway, base + PORT_GATEWAY);
    }
    buf_printf(
        to, "\"\npageservers = \"1@" HOST ":%u/%u\"\nagents = \"1@" HOST ":%u\"\n",
        base + PORT_PAGESERVER, base + PORT_PAGESERVER_HTTP, base + PORT_AGENT);
    buf_printf(
        to, "compute_ports = \"%u-%u\"\n", base + PORT_COMPUTES,
        base + PORT_COMPUTES + COMPUTES_MAX - 1);
    print_object_store(cluster, to);
}

static void print_gateway(const struct cluster *cluster, struct buf *to)
{
    unsigned control = (unsigned)cluster->port_base + PORT_CONTROL;
    buf_printf(to, "control_url = \"http://" HOST ":%u\"\n", control);
    if (cluster->gateway[0] != '\0') {
        buf_printf(to, "domain = \"%s\"\n", cluster->gateway);
    }
}

static void print_agent(const struct cluster *cluster, struct buf *to)
{
    buf_printf(to, "postgres_dir = \"%s\"\n", cluster->postgres);
    buf_printf(to, "extension_dir = \"%s/extension\"\n", cluster->binaries);
    buf_printf(
        to, "walproposer_binary = \"%s/compute/walproposer/walproposer\"\n", cluster->binaries);
    buf_printf(to, "local_cache_mb = %u\n", cluster->local_cache_mb);
    print_object_store(cluster, to);
    if (geteuid() == 0) {
        buf_printf(to, "run_as_user = postgres\n");
    }
}

/* What people have in NAME.own.conf beside it: the last of two settings wins. */
static err_t append_own_settings(
    const struct process *process, struct buf *text, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(str_format(
        path, sizeof path, msg, "%.*s.own.conf", (int)(strlen(process->conf) - strlen(".conf")),
        process->conf));
    struct buf own = {0};
    if (!file_exists(path)) {
        return ERR_OK;
    }
    TRY(file_read_all(path, OWN_SETTINGS_MAX, &own, msg));
    buf_printf(text, "\n# %s\n", path);
    buf_append(text, own.data, own.size);
    buf_deinit(&own);
    return ERR_OK;
}

static err_t write_settings(
    const struct cluster *cluster, const struct process *process, struct errmsg *msg)
{
    struct buf text = {0};
    buf_printf(
        &text,
        "# Written by `anabranch local` at every start. Settings of your own: %s.own.conf beside "
        "it.\n",
        process->name);
    buf_printf(&text, "data_dir = \"%s\"\n", process->dir);
    buf_printf(&text, "http_host = " HOST "\nhttp_port = %u\n", (unsigned)process->http_port);
    if (process->node_id != 0 && process->listen_port != 0) {
        buf_printf(&text, "node_id = %u\n", process->node_id);
    }
    if (process->listen_port != 0) {
        buf_printf(&text, "listen_host = " HOST "\n");
        buf_printf(&text, "listen_port = %u\n", (unsigned)process->listen_port);
    }
    switch (process->kind) {
    case PROCESS_SAFEKEEPER: break;
    case PROCESS_PAGESERVER:
        print_object_store(cluster, &text);
        buf_printf(
            &text, "control_url = \"http://" HOST ":%u\"\n",
            (unsigned)cluster->port_base + PORT_CONTROL);
        break;
    case PROCESS_AGENT: print_agent(cluster, &text); break;
    case PROCESS_CONTROL: print_control(cluster, &text); break;
    case PROCESS_GATEWAY: print_gateway(cluster, &text); break;
    }
    err_t err = append_own_settings(process, &text, msg);
    if (err == ERR_OK) {
        err = file_write_durably(process->conf, buf_view(&text), msg);
    }
    buf_deinit(&text);
    return err;
}

err_t cluster_write_settings(const struct cluster *cluster, struct errmsg *msg)
{
    static const char *const folders[] = {"conf", "logs", "objects"};
    char path[PATH_SIZE];
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        TRY(str_format(path, sizeof path, msg, "%.900s/%s", cluster->data_dir, folders[i]));
        TRY(dir_create(path, msg));
    }
    for (size_t i = 0; i < cluster->process_count; i++) {
        TRY(write_settings(cluster, &cluster->processes[i], msg));
    }
    return ERR_OK;
}
