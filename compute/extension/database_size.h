/*
 * database_size.h - pg_database_size() and pg_tablespace_size(): what the pageserver has
 * of a database, added to the local files.
 */
#pragma once

extern void database_size_install(void);
