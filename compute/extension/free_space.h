/*
 * free_space.h - free space maps kept over a clean stop.
 *
 * Postgres does not log them: a compute has them in its buffers and its spill,
 * and both end with it. A worker that sleeps until the server is shut down then
 * writes them into the WAL as page images, before the shutdown checkpoint.
 */
#pragma once

#include "postgres.h"

extern void free_space_register_worker(void);
extern PGDLLEXPORT void free_space_worker_main(Datum argument);
