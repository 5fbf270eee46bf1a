/*
 * wal_fetch.h - brings WAL that logical slots need from the safekeepers into a data directory.
 *
 * Piece by piece, each from the first safekeeper that has it. A piece that one of them has given up
 * and none has is left out: Postgres tells those whose slot needs it that it was removed.
 *
 * Threads: loop only; files are written by workers.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/http_client.h"
#include "compute/agent/wal_files.h"

struct wal_fetch {
    /* Filled in by the caller; all of it outlives the fetch. */
    struct http_client *http;
    struct executor *executor;
    const struct compute_spec *spec;
    const char *token;
    const struct log *log;
    struct wal_files files; /* user, dir, system_id */
    lsn_t needed_lsn, timeline_start_lsn, end_lsn;
    void (*done)(struct wal_fetch *fetch, err_t result, const struct errmsg *msg); /* once */

    /* Its own. */
    bool is_canceled, is_gone; /* is_gone: a safekeeper has given the piece up */
    size_t keeper;             /* whom we ask */
    size_t tried;              /* how many did not have the piece */
    lsn_t begin_lsn, piece_end_lsn;
    struct errmsg last_error;
    char url[512];
    struct http_call call;
    struct job job;
};

void wal_fetch_start(struct wal_fetch *fetch);
void wal_fetch_cancel(struct wal_fetch *fetch); /* done(ERR_CANCELED) follows if it was under way */
