#include "postgres.h"

#include "compute/extension/database_size.h"

#include <unistd.h>

#include "catalog/pg_tablespace_d.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/smgr.h"

#include "compute/extension/page_client.h"
#include "compute/extension/position.h"

typedef int64 (*VisitOid) (Oid each, Oid fixed);

/*
 * Of everything that is acknowledged: a commit that returned is in it, and
 * nobody waits for WAL that only he could ship.
 */
static int64
ask(Oid tablespace, Oid database)
{
	return page_client_database_size(tablespace, database, position_acked());
}

static int64
ask_in_tablespace(Oid database, Oid tablespace)
{
	return ask(tablespace, database);
}

/* In which tablespaces a database has something, the folders tell: placeholder.h. */
static int64
ask_if_present(Oid tablespace, Oid database)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), "pg_tblspc/%u/%s/%u", tablespace,
			 TABLESPACE_VERSION_DIRECTORY, database);
	return access(path, F_OK) == 0 ? ask(tablespace, database) : 0;
}

/* The sum over the entries of a folder whose names are numbers. */
static int64
sum_over_folder(const char *path, VisitOid visit, Oid fixed)
{
	DIR		   *folder = AllocateDir(path);
	struct dirent *entry;
	int64		sum = 0;

	while ((entry = ReadDir(folder, path)) != NULL)
	{
		char	   *end;
		unsigned long each = strtoul(entry->d_name, &end, 10);

		CHECK_FOR_INTERRUPTS();
		if (each != 0 && *end == '\0')
			sum += visit((Oid) each, fixed);
	}
	FreeDir(folder);
	return sum;
}

static int64
tablespace_bytes(Oid tablespace)
{
	char		path[MAXPGPATH];

	if (tablespace == GLOBALTABLESPACE_OID)
		return ask(tablespace, InvalidOid);
	if (tablespace == DEFAULTTABLESPACE_OID)
		return sum_over_folder("base", ask_in_tablespace, tablespace);
	snprintf(path, sizeof(path), "pg_tblspc/%u/%s", tablespace, TABLESPACE_VERSION_DIRECTORY);
	return sum_over_folder(path, ask_in_tablespace, tablespace);
}

static int64
on_storage_size(Oid tablespace, Oid database)
{
	if (OidIsValid(tablespace))
		return tablespace_bytes(tablespace);
	return ask(DEFAULTTABLESPACE_OID, database) +
		sum_over_folder("pg_tblspc", ask_if_present, database);
}

void
database_size_install(void)
{
	storage_size_hook = on_storage_size;
}
