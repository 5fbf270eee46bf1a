/*
 * local_cache_index.c - the cache over a restart.
 *
 * A clean stop leaves an index beside the pages. It is written by the
 * postmaster when all others are gone, and only if the shutdown checkpoint was
 * written (so every page that was dirty has been put or forgotten) and the
 * quorum has acknowledged its end, E. From then on E is committed for ever: who
 * starts at E starts where this server ended, and whoever wrote in between, on
 * any host, has moved the end beyond E. So the index is used by a server of the
 * same timeline that starts at exactly E, and by nobody else. It is removed
 * before anything changes; a server that crashes leaves none, and without one
 * the pages are dropped. Nothing is synced: what a crash of the machine leaves
 * is told by the checksums.
 */
#include "compute/extension/local_cache_private.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#include "common/base/checksum.h"
#include "compute/extension/page_client.h"
#include "compute/extension/position.h"

#define PAGES_FILE "anabranch.pages"
#define INDEX_FILE "anabranch.index"
#define INDEX_MAGIC UINT64CONST(0x31786469686372)	/* "rchidx1" */

typedef struct IndexEntry
{
	CacheKey	key;
	uint32		place;			/* index of the chunk */
	uint32		valid;
	uint32		checksums[CHUNK_BLOCKS];
} IndexEntry;

typedef struct IndexHeader
{
	uint64		magic;
	uint64		checksum;		/* of what follows, entries included */
	XLogRecPtr	end_lsn;
	uint32		chunk_bytes;
	uint32		count;
	char		tenant[40];
	char		timeline[40];
} IndexHeader;

static char index_path[MAXPGPATH];

static uint64
index_checksum(const IndexHeader *header, const IndexEntry *entries)
{
	uint64		seed = hash64((const char *) header + offsetof(IndexHeader, end_lsn),
							  sizeof(*header) - offsetof(IndexHeader, end_lsn), 0);

	return hash64(entries, header->count * sizeof(IndexEntry), seed);
}

/* ---------------------------------------------------------------- saving */

/* Invalid: what is here may not be used by anybody. */
static XLogRecPtr
clean_end(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	bool		clean = crc_ok && control->state == DB_SHUTDOWNED;
	XLogRecPtr	end;

	pfree(control);
	if (!clean)
		return InvalidXLogRecPtr;
	end = position_inserted();
	return position_acked() >= end ? end : InvalidXLogRecPtr;
}

static IndexEntry *
collect(uint32 *count)
{
	IndexEntry *entries = palloc_extended(sizeof(IndexEntry) * (Size) local_cache_used(),
										  MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);

	*count = 0;
	for (uint32 i = 0; entries != NULL && i < pg_atomic_read_u32(&cache_shared->limit); i++)
	{
		const CacheChunk *chunk = &cache_chunks[i];
		IndexEntry *entry = &entries[*count];

		if (pg_atomic_read_u32(&cache_chunks[i].state) != CHUNK_HASHED || chunk->valid == 0)
			continue;
		*entry = (IndexEntry)
		{
			.key = chunk->key, .place = i, .valid = chunk->valid
		};
		memcpy(entry->checksums, chunk->checksums, sizeof(entry->checksums));
		(*count)++;
	}
	return entries;
}

static bool
write_index(const IndexHeader *header, const IndexEntry *entries)
{
	char		path[MAXPGPATH + 8];
	int			fd;
	size_t		size = header->count * sizeof(IndexEntry);
	bool		written;

	snprintf(path, sizeof(path), "%s.new", index_path);
	fd = BasicOpenFile(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | PG_BINARY);
	if (fd < 0)
		return false;
	written = write(fd, header, sizeof(*header)) == (ssize_t) sizeof(*header) &&
		write(fd, entries, size) == (ssize_t) size;
	close(fd);
	return written && rename(path, index_path) == 0;
}

/* In the postmaster, as the last one. */
static void
save_index(int code, Datum arg)
{
	IndexHeader header = {.magic = INDEX_MAGIC, .chunk_bytes = CHUNK_BYTES};
	IndexEntry *entries;

	if (code != 0 || local_cache_used() == 0 || pg_atomic_read_u32(&cache_shared->off) != 0)
		return;
	header.end_lsn = clean_end();
	if (XLogRecPtrIsInvalid(header.end_lsn))
		return;
	strlcpy(header.tenant, page_client_tenant, sizeof(header.tenant));
	strlcpy(header.timeline, page_client_timeline, sizeof(header.timeline));
	entries = collect(&header.count);
	if (entries == NULL)
		return;
	header.checksum = index_checksum(&header, entries);
	if (!write_index(&header, entries))
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", index_path),
				 errdetail("The local cache will be empty when the server starts again.")));
}

/* ---------------------------------------------------------------- loading */

/* NULL: there is none that is whole. */
static IndexEntry *
read_index(IndexHeader *header)
{
	int			fd = BasicOpenFile(index_path, O_RDONLY | O_CLOEXEC | PG_BINARY);
	IndexEntry *entries = NULL;
	struct stat status;
	size_t		size;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &status) == 0 && read(fd, header, sizeof(*header)) == (ssize_t) sizeof(*header) &&
		header->magic == INDEX_MAGIC && header->count <= cache_shared->chunk_max &&
		(uint64) status.st_size == sizeof(*header) + header->count * sizeof(IndexEntry))
	{
		size = header->count * sizeof(IndexEntry);
		entries = palloc_extended(Max(size, 1), MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
		if (entries != NULL && (read(fd, entries, size) != (ssize_t) size ||
								header->checksum != index_checksum(header, entries)))
		{
			pfree(entries);
			entries = NULL;
		}
	}
	close(fd);
	return entries;
}

static bool
is_of_this_start(const IndexHeader *header)
{
	return header->chunk_bytes == CHUNK_BYTES &&
		header->end_lsn == position_start() &&
		strncmp(header->tenant, page_client_tenant, sizeof(header->tenant)) == 0 &&
		strncmp(header->timeline, page_client_timeline, sizeof(header->timeline)) == 0;
}

/* true: the pages are to be kept. Nobody else is there yet. */
static bool
load_index(void)
{
	IndexHeader header;
	IndexEntry *entries = read_index(&header);
	bool		loaded = false;

	if (unlink(index_path) < 0 && errno != ENOENT)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", index_path)));
	if (entries == NULL)
		return false;
	if (is_of_this_start(&header))
	{
		for (uint32 i = 0; i < header.count; i++)
			if (entries[i].place < pg_atomic_read_u32(&cache_shared->limit))
				cache_chunk_restore(entries[i].place, &entries[i].key, (uint8) entries[i].valid,
									entries[i].checksums);
		loaded = true;
		cache_shared->restored = header.count > 0;
	}
	pfree(entries);
	return loaded;
}

void
cache_file_open_first(void)
{
	const char *slash = local_cache_dir[0] != '\0' ? "/" : "";

	snprintf(cache_file_path, sizeof(cache_file_path), "%s%s" PAGES_FILE, local_cache_dir, slash);
	snprintf(index_path, sizeof(index_path), "%s%s" INDEX_FILE, local_cache_dir, slash);
	if (!load_index() && unlink(cache_file_path) < 0 && errno != ENOENT)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", cache_file_path)));
	on_shmem_exit(save_index, (Datum) 0);
}
