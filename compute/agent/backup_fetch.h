/*
 * backup_fetch.h - a base backup from the pageserver, unpacked into a new data directory.
 *
 * At the LSN that is asked for, or at the newest that the pageserver has: nearly always the
 * election that goes on meanwhile finds that the log ends there, too, and then the data directory
 * is ready when it is over. A pageserver has only what is committed, so the log never ends before.
 *
 * Threads: loop only; files are written by workers.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/http_client.h"
#include "compute/agent/compute_files.h"

struct backup_fetch {
    /*
     * Filled in by the caller; all of it outlives the fetch. files.start_lsn LSN_NONE: the newest.
     */
    struct http_client *http;
    struct executor *executor;
    struct compute_files files;
    void (*done)(struct backup_fetch *fetch, err_t result, const struct errmsg *msg); /* once */

    bool is_running;
    /* What was unpacked; LSN_NONE: nothing that can be used. */
    lsn_t lsn;
    struct compute_wal_need need;

    /* Its own. */
    bool is_canceled;
    char *url, *path;
    struct http_call call;
    struct job job;
};

void backup_fetch_start(struct backup_fetch *fetch);
void backup_fetch_cancel(struct backup_fetch *fetch); /* done(ERR_CANCELED) if it was under way */
void backup_fetch_deinit(struct backup_fetch *fetch); /* not while it is running */
