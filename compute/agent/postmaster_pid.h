/*
 * postmaster_pid.h - what Postgres says of itself in postmaster.pid of its data directory.
 *
 * Its lines: pid, data directory, start time, port, socket folder, address, "key id" of a small
 * System V memory segment, status.
 */
#pragma once

#include <sys/types.h>

#include "common/base/str.h"

struct postmaster_pid {
    bool ready;           /* takes connections */
    int shared_memory_id; /* -1: not told (yet) */
};

/* False when there is no such file, or it is not one. */
bool postmaster_pid_read(const char *pgdata, struct postmaster_pid *ret_info);

/*
 * After a Postgres that was killed: its segment stays for ever (the system has 4096), because only
 * a start in the same data directory would remove it, and ours never comes. Nothing happens unless
 * the segment belongs to `owner`: the file could have been written by a user of that Postgres.
 */
void postmaster_pid_drop_memory(const char *pgdata, uid_t owner);
