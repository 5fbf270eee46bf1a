/*
 * position.h - the places in the WAL that storage decisions hang on.
 *
 * start   where this compute began: everything before it is in the pageserver
 * acked   what the quorum has acknowledged, as the walsender of the
 *         synchronous standby reported it; on a standby, what is replayed
 * ingested what the pageserver had ingested, as the newest reply said
 * floor   relations of other than shared catalogs may have been created in
 *         bulk up to here, by a file copy of a whole database
 */
#pragma once

#include "postgres.h"

#include "access/xlogdefs.h"
#include "storage/relfilelocator.h"

extern Size position_shmem_size(void);
extern void position_shmem_init(void);

extern XLogRecPtr position_start(void);
extern XLogRecPtr position_acked(void);

/*
 * A position right behind a page header stands for the page boundary: no
 * record ends behind a header, so nobody would ever report reaching it.
 */
extern XLogRecPtr position_before_page_header(XLogRecPtr lsn);

/* The newest LSN that a reply of the pageserver to this primary was read at. */
extern XLogRecPtr position_ingested(void);
extern void position_saw_ingested(XLogRecPtr lsn);

/* End of the last record inserted. Takes a spinlock; fine in a critical section. */
extern XLogRecPtr position_inserted(void);

/* A whole database was copied or dropped: flush, and remember it as floor. */
extern void position_database_copied(void);

/* The least LSN at which anything about this relation may be asked. */
extern XLogRecPtr position_floor(const RelFileLocator *rlocator);

/* For the `lsn` of a request: HEAD on a primary, the replay LSN on a standby. */
extern XLogRecPtr position_request(void);
