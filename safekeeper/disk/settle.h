/*
 * settle.h - before a file is judged at a start: make the disk and the page cache agree.
 *
 * A killed process may have left bytes in the cache that were never synced; and after a failed sync
 * the cache may hold, as if they were clean, bytes that the disk does not have. Both would verify
 * and be counted on. So the file is synced and then dropped from the cache: what is read next is
 * what is there. Blocking.
 */
#pragma once

#include "common/base/err.h"

/* A missing file is ERR_OK. ERR_FAILED: the disk refuses. */
NODISCARD err_t file_settle(const char *path, struct errmsg *msg);
