/*
 * slru_segments.c - see slru_segments.h.
 *
 * What the pageserver says of a segment is true for as long as its file is
 * cold: nobody but this compute writes to the timeline, and it cannot have
 * changed a page without a file of it. So it is asked for the head, nothing of
 * this compute's own WAL is waited for, and no lock is held meanwhile. The lock
 * is for what comes then: look again, and rename. Without it a second reader
 * would put the old pages over a file that the first has fetched and changed.
 *
 * We are called with the I/O lock of an SLRU buffer held, so that nothing may
 * be thrown: a failure is an errno, which Postgres reports as that of an open.
 * In a critical section that is a PANIC, as in any server that cannot read its
 * pg_xact. Only COMMIT PREPARED goes to pages from before the start in one, and
 * their segments are never cold (pageserver/read/base_backup.c).
 */
#include "postgres.h"

#include "compute/extension/slru_segments.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/slru.h"
#include "storage/fd.h"

#include "compute/extension/counters.h"
#include "compute/extension/page_client.h"
#include "compute/extension/position.h"
#include "compute/extension/wire.h"

#include "common/pg/page_key.h"

#define SEGMENT_BYTES (SLRU_PAGES_PER_SEGMENT * BLCKSZ)
#define COLD_BYTES (sizeof(SLRU_COLD_TEXT) - 1)

StaticAssertDecl(SLRU_PAGES_PER_SEGMENT <= PAGE_READ_BLOCKS_MAX, "a segment is one request");

static LWLock *lock;

/* 0: an SLRU that is not kept beyond the end of the server. */
static Oid
kind_of(SlruCtl ctl)
{
	switch (ctl->sync_handler)
	{
		case SYNC_HANDLER_CLOG:
			return STATE_CLOG;
		case SYNC_HANDLER_COMMIT_TS:
			return STATE_COMMIT_TS;
		case SYNC_HANDLER_MULTIXACT_OFFSET:
			return STATE_MULTI_OFFSETS;
		case SYNC_HANDLER_MULTIXACT_MEMBER:
			return STATE_MULTI_MEMBERS;
		default:
			return InvalidOid;
	}
}

/* One that is not there is not cold: it was truncated, and whoever opens it will see. */
static bool
is_cold(const char *path)
{
	struct stat status;

	return stat(path, &status) == 0 && status.st_size == COLD_BYTES;
}

/* Where the name is not one of a segment: what a crash leaves is never read. */
static int
write_file(const char *path, const char *pages)
{
	int			fd = OpenTransientFile(path, O_RDWR | O_CREAT | O_TRUNC | PG_BINARY);
	int			error = 0;

	if (fd < 0)
		return errno;
	errno = 0;
	if (pg_pwrite(fd, pages, SEGMENT_BYTES, 0) != SEGMENT_BYTES)
		error = errno != 0 ? errno : ENOSPC;
	if (CloseTransientFile(fd) != 0 && error == 0)
		error = errno;
	return error;
}

/* Not synced: after a crash of the host a compute begins with a new base backup. */
static int
put_in_place(const char *path, const char *pages)
{
	char		beside[MAXPGPATH];
	int			error = 0;

	snprintf(beside, sizeof(beside), "%s.fetched", path);
	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (is_cold(path))
	{
		error = write_file(beside, pages);
		if (error == 0 && rename(beside, path) != 0)
			error = errno;
		if (error != 0)
			(void) unlink(beside);
		else
			counter_add(COUNTER_SLRU_FETCH, 1);
	}
	LWLockRelease(lock);
	return error;
}

static int
fetch(Oid kind, int64 segno, const char *path)
{
	PageRead	read = {
		.rlocator = {.spcOid = KEY_SPC_STATE, .dbOid = kind},
		.block = (BlockNumber) (segno * SLRU_PAGES_PER_SEGMENT),
		.count = SLRU_PAGES_PER_SEGMENT,
		.since = position_start(),
	};
	char	   *pages = malloc(SEGMENT_BYTES);	/* palloc() would throw */
	int			error;

	if (pages == NULL)
		return ENOMEM;
	for (int i = 0; i < SLRU_PAGES_PER_SEGMENT; i++)
		read.pages[i] = pages + (Size) i * BLCKSZ;
	error = page_client_try_read(&read, path);
	if (error == 0)
		error = put_in_place(path, pages);
	free(pages);
	return error;
}

static bool
on_slru_segment(SlruCtl ctl, int64 segno, const char *path)
{
	Oid			kind = kind_of(ctl);
	int			error;

	if (kind == InvalidOid || !is_cold(path))
		return true;
	error = fetch(kind, segno, path);
	errno = error;
	return error == 0;
}

void
slru_segments_init(LWLockPadded *locks)
{
	lock = &locks->lock;
}

void
slru_segments_install(void)
{
	SlruSegment_hook = on_slru_segment;
}
