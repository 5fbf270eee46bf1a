/*
 * compute_files.h - the folder of one compute: data directory from a base backup, settings, logs.
 *
 *   computes/ID/pgdata            as in the base backup, plus settings
 *              /s                 unix sockets (short: a socket's path has 107 bytes)
 *              /cache             pages that the extension keeps over a clean stop
 *              /walproposer       data folder of the walproposer
 *              /walproposer.conf  its settings, secrets included: mode 0600
 *              /log               what Postgres and walproposer say
 *
 * Blocking: on workers. Nothing is synced: everything here can be made again from the storage.
 */
#pragma once

#include <sys/types.h>

#include "compute/agent/agent_conf.h"
#include "compute/agent/compute_spec.h"

/* Who runs Postgres. Not root: we cannot change owners and everything runs as we are. */
struct run_as {
    char name[64]; /* empty: as we are */
    uid_t uid;
    gid_t gid;
};

NODISCARD err_t
run_as_find(const struct agent_conf *conf, struct run_as *ret_user, struct errmsg *msg);

struct compute_files {
    const struct compute_spec *spec;
    const struct agent_conf *conf;
    const struct run_as *user;
    const char *dir; /* computes/ID */
    lsn_t start_lsn; /* for unpack only; LSN_NONE: any */
    uint16_t port;
};

/* Where the base backup is downloaded to. */
NODISCARD err_t compute_files_tar_path(const char *dir, char *to, struct errmsg *msg);

/* The folder with everything but pgdata; an earlier pgdata is moved aside, to be removed. */
NODISCARD err_t compute_files_prepare(const struct compute_files *files, struct errmsg *msg);

/* Removes what compute_files_prepare() moved aside: slow, so it waits until the compute runs. */
NODISCARD err_t compute_files_remove_old(const char *dir, struct errmsg *msg);

/* WAL from before the start that logical slots need. */
struct compute_wal_need {
    lsn_t from_lsn; /* LSN_NONE: there are no slots */
    lsn_t timeline_start_lsn;
};

/*
 * A new pgdata from the tar, which is removed. ERR_CORRUPT: the backup is not what was asked for.
 * Without a start_lsn any will do; `ret_lsn` is which it is.
 */
NODISCARD err_t compute_files_unpack(
    const struct compute_files *files,
    lsn_t *ret_lsn,
    struct compute_wal_need *ret_need,
    struct errmsg *msg);

/* postgresql.conf: what the user wants first, what the storage needs last. For tests too. */
void compute_files_print_settings(const struct compute_files *files, struct buf *to);

/* The last FATAL, PANIC or ERROR line of the compute's log behind `from`, or nothing. */
void compute_files_last_fatal(const char *dir, uint64_t from, struct buf *to);
uint64_t compute_files_log_size(const char *dir);
