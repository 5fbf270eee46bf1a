/*
 * local_cache_pages.c - the file of the cached pages: block i of the chunk at place p lies at
 * p * CHUNK_BYTES + i * BLCKSZ.
 *
 * Each process opens it when it first needs it. The first error of the file
 * turns the cache off for all of them, until the server is started again.
 */
#include "compute/extension/local_cache_private.h"

#include <fcntl.h>
#include <unistd.h>

#include "port/pg_iovec.h"
#include "storage/fd.h"
#include "utils/wait_event.h"

#include "common/base/checksum.h"

char		cache_file_path[MAXPGPATH];

static int	cache_fd = -1;

int
cache_file(void)
{
	if (cache_fd < 0)
	{
		cache_fd = BasicOpenFile(cache_file_path, O_RDWR | O_CREAT | O_CLOEXEC | PG_BINARY);
		if (cache_fd >= 0)
			ReserveExternalFD();
	}
	return cache_fd;
}

bool
cache_is_off(void)
{
	return pg_atomic_read_u32(&cache_shared->off) != 0;
}

void
cache_turn_off(const char *what, int error)
{
	uint32		on = 0;

	if (!pg_atomic_compare_exchange_u32(&cache_shared->off, &on, 1))
		return;
	if (cache_fd >= 0 && ftruncate(cache_fd, 0) < 0)
		elog(DEBUG1, "could not truncate file \"%s\": %m", cache_file_path);
	errno = error;
	ereport(WARNING,
			(errcode_for_file_access(),
			 errmsg("could not %s file \"%s\": %m", what, cache_file_path),
			 errdetail("The local cache is off until this server is started again.")));
}

off_t
cache_offset_of(const CacheChunk *chunk, int at)
{
	return (off_t) (chunk - cache_chunks) * CHUNK_BYTES + (off_t) at * BLCKSZ;
}

int
cache_file_write(const CacheChunk *chunk, int at, const struct iovec *pages, int count)
{
	int			fd = cache_file();
	ssize_t		written;

	if (fd < 0)
		return errno;
	errno = 0;
	pgstat_report_wait_start(WAIT_EVENT_BUFFILE_WRITE);
	written = pg_pwritev(fd, pages, count, cache_offset_of(chunk, at));
	pgstat_report_wait_end();
	if (written == (ssize_t) count * BLCKSZ)
		return 0;
	return errno != 0 ? errno : ENOSPC;
}

int
cache_file_read(const CacheChunk *chunk, int at, const struct iovec *pages, int count)
{
	int			fd = cache_file();
	ssize_t		got;

	if (fd < 0)
		return -1;
	pgstat_report_wait_start(WAIT_EVENT_BUFFILE_READ);
	got = pg_preadv(fd, pages, count, cache_offset_of(chunk, at));
	pgstat_report_wait_end();
	if (got < 0)
		return errno;
	for (int i = (int) (got / BLCKSZ); i < count; i++)
		memset(pages[i].iov_base, 0, BLCKSZ);
	return 0;
}

uint32
cache_checksum_of(const void *page)
{
	return (uint32) hash64(page, BLCKSZ, 0);
}
