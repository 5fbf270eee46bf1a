/*
 * agent_conf.h - the settings of compute-agent.
 */
#pragma once

#include "common/app/app.h"

#define AGENT_SETTINGS(X)                                                                          \
    APP_SETTINGS(X, "7440")                                                                        \
    X(str, postgres_dir, "", RESTART,                                                              \
      "install prefix of the Postgres 17 that computes run (tools/build-postgres); required")      \
    X(str, extension_dir, "", RESTART,                                                             \
      "folder with anabranch.so; empty: the library folder of postgres_dir")                       \
    X(str, walproposer_binary, "", RESTART,                                                        \
      "path of walproposer; empty: beside this program, or where the build puts it")               \
    X(str, object_store, "", RESTART, "where bootstrap images go, as of the pageserver")           \
    X(str, run_as_user, "", RESTART,                                                               \
      "user that runs Postgres when this process is root; empty: postgres")                        \
    X(str, auth_token, "", RESTART, "secret that computes show to pageserver and safekeepers")     \
    X(str, pageserver_token, "", RESTART, "HTTP bearer token for the pageserver")                  \
    X(str, safekeeper_token, "", RESTART, "HTTP bearer token for the safekeepers")                 \
    X(str, tls_cert_file, "", RESTART,                                                             \
      "certificate chain (PEM) that computes show on their own port; empty: no TLS")               \
    X(str, tls_key_file, "", RESTART, "its private key (PEM), without a passphrase")               \
    X(bool, tls_required, "false", RESTART, "computes refuse who comes over TCP without TLS")      \
    X(ms, sync_timeout_ms, "20s", RELOAD, "limit of the election before a compute starts")         \
    X(ms, base_backup_timeout_ms, "60s", RELOAD, "limit of the download of a base backup")         \
    X(ms, start_timeout_ms, "60s", RELOAD, "limit from the start of Postgres to its readiness")    \
    X(ms, stale_reads_max_ms, "60s", RELOAD,                                                       \
      "a compute without a majority of its safekeepers is stopped after that; 0: never")           \
    X(u64, local_cache_mb, "1024", RESTART,                                                        \
      "disk that a compute may fill with cached pages, unless its settings say otherwise; 0: "     \
      "none")                                                                                      \
    X(str, cgroup_dir, "", RESTART,                                                                \
      "delegated cgroup (version 2) for computes; empty: look for one, or rlimits; none: rlimits") \
    X(u64, file_size_max_mb, "0", RESTART,                                                         \
      "largest file that a process of a compute may write; 0: any")                                \
    X(ms, activity_interval_ms, "2s", RESTART, "how often computes are asked whether they work")   \
    X(str, control_url, "", RESTART,                                                               \
      "where this agent registers itself, http://HOST:PORT; empty: control's setting lists it")    \
    X(str, control_token, "", RESTART, "bearer token for control; empty: none")                    \
    X(u64, agent_id, "0", RESTART, "number of this host, not of any other; with control_url")      \
    X(str, advertise_host, "", RESTART,                                                            \
      "address at which control and gateways reach this host; with control_url")                   \
    X(str, compute_listen_host, "", RESTART,                                                       \
      "address that computes listen on; empty: as control's setting says")                         \
    X(ms, lease_ms, "10s", RESTART,                                                                \
      "a host that is not heard of for so long has its computes started elsewhere")                \
    X(u64, computes_max, "1000", RESTART, "computes on this host; more are refused")

struct agent_conf {
    AGENT_SETTINGS(CONF_FIELD)
};
