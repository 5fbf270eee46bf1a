/*
 * leftovers.h - processes of computes that outlived the agent that started them.
 *
 * Each start writes computes/ID/pids: "name pid start-time" a line. The start time (of
 * /proc/PID/stat) tells a process from another one that got its number later.
 */
#pragma once

#include <sys/types.h>

#include "common/base/err.h"
#include "compute/agent/compute_cage.h"

/* Replaces the file. A pid of 0 is left out. */
NODISCARD err_t leftovers_note(const char *dir, int postgres, int proposer, struct errmsg *msg);

/*
 * `owner` runs them. Blocking, at start: ends the processes that computes/(any)/pids names, if they
 * are still the same, and removes the folders and cages. Nothing else is touched.
 */
NODISCARD err_t leftovers_clear(
    const char *computes_dir, uid_t owner, const struct cage_host *cages, struct errmsg *msg);
