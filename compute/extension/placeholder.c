#include "compute/extension/placeholder.h"

#include <fcntl.h>
#include <unistd.h>

#include "catalog/pg_tablespace_d.h"
#include "commands/tablespace.h"
#include "common/relpath.h"
#include "storage/fd.h"

static bool
is_needed(const RelFileLocator *rlocator)
{
	return rlocator->spcOid != DEFAULTTABLESPACE_OID && rlocator->spcOid != GLOBALTABLESPACE_OID;
}

/* No palloc: relations are removed where that is not allowed. */
static void
path_of(const RelFileLocator *rlocator, char path[MAXPGPATH])
{
	snprintf(path, MAXPGPATH, "pg_tblspc/%u/%s/%u/%u.remote", rlocator->spcOid,
			 TABLESPACE_VERSION_DIRECTORY, rlocator->dbOid, rlocator->relNumber);
}

void
placeholder_make(const RelFileLocator *rlocator, bool isRedo)
{
	char		path[MAXPGPATH];
	int			fd;

	if (!is_needed(rlocator))
		return;
	TablespaceCreateDbspace(rlocator->spcOid, rlocator->dbOid, isRedo);
	path_of(rlocator, path);
	fd = BasicOpenFile(path, O_RDWR | O_CREAT | O_CLOEXEC | PG_BINARY);
	if (fd < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));
	close(fd);
}

void
placeholder_remove(const RelFileLocator *rlocator)
{
	char		path[MAXPGPATH];

	if (!is_needed(rlocator))
		return;
	path_of(rlocator, path);
	if (unlink(path) < 0 && errno != ENOENT)
		ereport(WARNING,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", path)));
}
