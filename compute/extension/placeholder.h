/*
 * placeholder.h - an empty file for each relation in a tablespace that was created.
 *
 * Postgres looks into the folders of a tablespace to decide whether it may be
 * dropped, and which ones to copy or remove with a database. A compute has
 * nothing there but these, so they must be as lasting as the relations: the
 * base backup brings them again (pageserver/read/base_backup.c).
 */
#pragma once

#include "postgres.h"

#include "storage/relfilelocator.h"

/* Nothing in the tablespaces that initdb made. */
extern void placeholder_make(const RelFileLocator *rlocator, bool isRedo);

/* Never an ERROR. */
extern void placeholder_remove(const RelFileLocator *rlocator);
