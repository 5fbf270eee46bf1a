/*
 * wal_files.h - WAL from before a compute's start, put where Postgres looks for it.
 *
 * Logical slots read WAL from their restart_lsn on. It comes in pieces, in order, from
 * wal_files_begin() on, each of one segment: into pg_wal. The files of pg_logical/mappings (where
 * rows of catalogs went when these were rewritten) are made of the records that say so, as recovery
 * would. After a gap, or where the WAL cannot be read, there are no more of these; Postgres reads
 * the same WAL and says what is wrong with it.
 *
 * Threads: blocking, on workers; one at a time.
 */
#pragma once

#include "common/base/bytes.h"
#include "compute/agent/compute_files.h"

#define WAL_FILES_PIECE (4 * MIB)

struct wal_reader;

struct wal_files {
    const struct run_as *user;
    const char *dir; /* computes/ID */
    uint64_t system_id;
    lsn_t next_lsn;            /* of the piece that would leave no gap */
    struct wal_reader *reader; /* NULL: mappings are not looked for */
};

/* The page that `needed` lies in, or the begin of the timeline's own WAL if that is later. */
lsn_t wal_files_begin(lsn_t needed, lsn_t timeline_start);
/* The end of the piece that begins at `begin`. */
lsn_t wal_files_piece_end(lsn_t begin, lsn_t end);

/* `needed` is where a record begins or ends. */
void wal_files_init(struct wal_files *files, lsn_t needed, lsn_t timeline_start);
void wal_files_deinit(struct wal_files *files);

/* ERR_CORRUPT: `wal` is not as long as a piece. */
NODISCARD err_t
wal_files_put(struct wal_files *files, lsn_t begin, struct bytes wal, struct errmsg *msg);
