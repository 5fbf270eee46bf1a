/*
 * walproposer.h - the driver of the proposer core beside one Postgres.
 *
 * Links to the safekeepers (common/io), the replication connection to Postgres (wal_source.h) and
 * the window of its WAL (wal_window.h) feed events into safekeeper/consensus/proposer.h and carry
 * its actions out. Nothing on the path of a commit waits for a timer: WAL is sent in the turn of
 * the loop in which it came, the reply to Postgres leaves in the turn in which the quorum has it.
 *
 * A Postgres that lost its quorum commits nothing, but it reads, and cannot know whether another
 * one writes meanwhile. Every append carries its time, safekeepers give it back with their reply;
 * so it is known up to when a quorum still followed this term. stale_reads_max_ms later Postgres is
 * stopped: no read is staler than that (monotonic clock of this machine; docs/compute.md).
 *
 * It ends in one of the ways of enum walproposer_end; the owner turns that into an exit code.
 * Threads: loop only.
 */
#pragma once

#include "common/base/prng.h"
#include "common/io/http_server.h"
#include "common/io/link.h"
#include "common/pg/wal_reader.h"
#include "compute/walproposer/wal_source.h"
#include "compute/walproposer/wal_window.h"
#include "safekeeper/consensus/proposer.h"

enum walproposer_end {
    WALPROPOSER_SYNCED,    /* --sync: a quorum knows that its log ends at `lsn` */
    WALPROPOSER_FENCED,    /* a higher term; Postgres was told to quit at once */
    WALPROPOSER_WRONG_END, /* the log does not end at start_lsn: take a new base backup */
    WALPROPOSER_BROKEN,    /* Postgres sends WAL that cannot be read, has removed it, or is another
                              cluster */
    WALPROPOSER_CUT_OFF,   /* no quorum for stale_reads_max_ms; Postgres was told to quit at once */
};

struct walproposer;

struct walproposer_options {
    struct tenant_id tenant;
    struct timeline_id timeline;
    uint64_t system_id;
    uint32_t pg_version;
    generation_t generation;
    const char *safekeepers;         /* "1@127.0.0.1:7411,2@..." */
    const char *token;               /* for the hello */
    const char *postgres_conninfo;   /* lives as long as the walproposer */
    const char *postmaster_pid_file; /* may be empty; lives as long as the walproposer */
    lsn_t start_lsn;                 /* LSN_NONE: not checked */
    bool sync;
    uint64_t random_seed;
    size_t window_max, inflight_max;
    uint64_t election_timeout_ms, heartbeat_ms, link_timeout_ms;
    /* Postgres runs on for so long without word from a quorum; 0: for ever. Not with `sync`. */
    uint64_t stale_reads_max_ms;
    /* Once; the walproposer does nothing any more. */
    void (*on_end)(enum walproposer_end end, lsn_t lsn);
};

NODISCARD err_t walproposer_start(
    struct loop *loop,
    const struct walproposer_options *options,
    struct walproposer **ret_walproposer,
    struct errmsg *msg);

/* Nothing is sent or received any more; memory stays until destroy, after the loop has ended. */
void walproposer_stop(struct walproposer *walproposer);
void walproposer_destroy(struct walproposer *walproposer); /* NULL is fine */

void walproposer_not_ready(const struct walproposer *walproposer, struct buf *reasons);
struct doc *walproposer_status(const struct walproposer *walproposer);
