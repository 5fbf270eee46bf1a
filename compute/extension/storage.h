/*
 * storage.h - the storage manager of a compute.
 *
 * Relations are read from the pageserver and never written to it: it builds
 * pages from the WAL. A page that leaves the buffer pool is dropped, or kept
 * in the spill when WAL cannot rebuild it (page_rules.h). Temporary and
 * unlogged relations stay in md.c.
 *
 * What callbacks may do:
 * - truncate runs in a critical section: no palloc, no ERROR, no network;
 * - unlink only warns;
 * - writev runs in any process with the buffer's content lock held.
 */
#pragma once

#include "postgres.h"

#include "compute/extension/page_client.h"

/* Put our functions in place of md.c's. Only while libraries are preloaded. */
extern void storage_install(void);

/* What came from the pageserver, to the local cache, if the relation still is as it was read. */
extern void storage_offer_to_cache(const PageRead *read);
