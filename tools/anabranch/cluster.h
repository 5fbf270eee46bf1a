/*
 * cluster.h - the processes of a local cluster: where they are, what runs, cluster.json.
 *
 * cluster.json in the data folder is the record: {data, api_url, port_base, binaries, postgres,
 * object_store, gateway, safekeepers, processes: [{name, pid, binary, http, listen, dir, log,
 * conf}]}. Ports never change after the first `up`. Every command holds the lock file, so two never
 * start or stop the same process.
 */
#pragma once

#include "common/base/str.h"
#include "common/json/doc.h"

#define CLUSTER_SAFEKEEPERS_MIN 3 /* of a new cluster, unless --safekeepers says more */
#define CLUSTER_SAFEKEEPERS_MAX 6
#define CLUSTER_PROCESSES_MAX   (CLUSTER_SAFEKEEPERS_MAX + 4)

enum process_kind {
    PROCESS_SAFEKEEPER,
    PROCESS_PAGESERVER,
    PROCESS_AGENT,
    PROCESS_CONTROL,
    PROCESS_GATEWAY
};

#define CLUSTER_LOCAL_CACHE_MB     1024
#define CLUSTER_LOCAL_CACHE_MB_MAX 1048576

struct process {
    enum process_kind kind;
    unsigned node_id;
    char name[32];
    int pid;                         /* 0: never started */
    uint16_t http_port, listen_port; /* listen_port 0: it has none */
    char binary[PATH_SIZE], dir[PATH_SIZE], log[PATH_SIZE], conf[PATH_SIZE];
};

struct cluster {
    char data_dir[PATH_SIZE], binaries[PATH_SIZE], postgres[PATH_SIZE];
    char object_store[PATH_SIZE]; /* as set with --object-store; "": DATA/objects */
    char gateway[64]; /* host name in connection URIs, see --gateway; "": straight to computes */
    uint16_t port_base;
    unsigned safekeepers;
    unsigned local_cache_mb; /* of a compute, see the agent's setting */
    size_t process_count;
    struct process processes[CLUSTER_PROCESSES_MAX]; /* in the order of starting */
    int lock_fd;
};

/* Takes the lock. ERR_BUSY: another command works on this cluster. */
NODISCARD err_t cluster_lock(struct cluster *cluster, const char *data_dir, struct errmsg *msg);
void cluster_unlock(struct cluster *cluster);

bool cluster_exists(const struct cluster *cluster);
/* From cluster.json; ERR_NOT_FOUND says to start one. */
NODISCARD err_t cluster_load(struct cluster *cluster, struct errmsg *msg);
/* A new one, with `safekeepers` of them. port_base 0: free ports are looked for. */
NODISCARD err_t cluster_create(
    struct cluster *cluster,
    const char *binaries,
    const char *postgres,
    uint16_t port_base,
    struct errmsg *msg);
NODISCARD err_t cluster_save(const struct cluster *cluster, struct errmsg *msg);
/* After `binaries` was changed. */
NODISCARD err_t cluster_set_paths(struct cluster *cluster, struct errmsg *msg);
void cluster_url(const struct cluster *cluster, const struct process *process, char ret_url[64]);
struct doc *cluster_doc(const struct cluster *cluster); /* what cluster.json holds */

struct process *cluster_process(struct cluster *cluster, const char *name); /* NULL: none */
struct process *cluster_process_of(struct cluster *cluster, enum process_kind kind);

/* As objstore_open takes it. */
NODISCARD err_t
cluster_object_store(const struct cluster *cluster, char ret_url[PATH_SIZE], struct errmsg *msg);

/* The settings file of each process, written anew: binaries and Postgres may have moved. */
NODISCARD err_t cluster_write_settings(const struct cluster *cluster, struct errmsg *msg);
