/*
 * page_client.h - one backend's connection to the pageserver.
 *
 * Framed TCP (common/wire/page_proto.h), requests pipelined, replies matched
 * by request id. A pageserver that is restarted or replaced looks like a slow
 * read: the connection is made again and what is unanswered is asked again,
 * until anabranch.request_timeout_ms has passed.
 *
 * An interrupt may end a wait at any byte: what has been received stays in the
 * buffer of the connection, a reply that nobody waits for any more is
 * recognised by its id and thrown away.
 *
 * Whatever waits ends with an ERROR when the time is up, when the pageserver
 * refuses for good, and by an interrupt: no lock may be held that an ERROR would
 * not release. page_client_try_read() and page_client_ahead() never ERROR.
 */
#pragma once

#include "postgres.h"

#include "access/xlogdefs.h"
#include "common/relpath.h"
#include "storage/block.h"
#include "storage/relfilelocator.h"

#define PAGE_READ_BLOCKS_MAX 32 /* in one request, and in one call */

typedef struct PageRead
{
	RelFileLocator rlocator;
	ForkNumber	fork;
	BlockNumber block;
	int			count;
	XLogRecPtr	since;			/* not_modified_since */
	void	   *pages[PAGE_READ_BLOCKS_MAX];
	XLogRecPtr	lsn;			/* result: read at; invalid when there is no such fork */

	/* private to the page client */
	uint64		request_id;
	bool		done;
} PageRead;

extern char *page_client_tenant;
extern char *page_client_timeline;
extern int	page_client_timeout_ms;

/* anabranch.pageserver_host and the like; may change while the server runs */
extern void page_client_define_address(void);

extern Size page_client_shmem_size(void);
extern void page_client_shmem_init(void);
extern bool page_client_is_configured(void);

/* Waits for all of them. A relation or block that the pageserver does not have yields zeros. */
extern void page_client_read(PageRead *reads, int read_count);

/*
 * One read for a caller who holds locks and has no state that an ERROR would
 * clean up: what goes wrong is logged, and returned as a number for errno. A
 * fork that does not exist is ENOENT. Interrupts are not processed; that
 * one is pending which ends a statement or the session ends the wait
 * (ECANCELED), but not in a critical section.
 */
extern int	page_client_try_read(PageRead *read, const char *what);

/* false: the fork does not exist */
extern bool page_client_rel_size(const RelFileLocator *rlocator, ForkNumber fork,
								 XLogRecPtr since, BlockNumber *blocks);

/* Until the pageserver has ingested `lsn`, which the quorum has acknowledged. */
extern void page_client_await(XLogRecPtr lsn);

/* In bytes, of what the pageserver has of it. */
extern int64 page_client_database_size(Oid tablespace, Oid database, XLogRecPtr since);

/* Keep this list for the next compute of the timeline or of a branch of it. */
extern void page_client_put_working_set(const char *list, size_t size);

/* palloc'd; size 0: there is none */
extern char *page_client_get_working_set(size_t *size);

/*
 * Read ahead: ask now, without waiting, for at most PAGE_READ_BLOCKS_MAX
 * blocks. Does nothing without a connection or when too much is under way.
 * `on_reply` may be called from any later call into this module; count 0 says
 * that the pageserver refused. After `on_lost` no reply comes to any of them.
 */
typedef void (*PageAheadReply) (uint64 request_id, XLogRecPtr lsn, const char *pages, int count);
typedef void (*PageAheadLost) (void);

extern void page_client_ahead_init(PageAheadReply on_reply, PageAheadLost on_lost);
extern uint64 page_client_ahead(const RelFileLocator *rlocator, ForkNumber fork,
								BlockNumber block, int count, XLogRecPtr since);

/* Wait until the reply has come or the connection is lost. */
extern void page_client_ahead_wait(uint64 request_id);
