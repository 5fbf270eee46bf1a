/*
 * compute_cage.h - what the Postgres of one compute may take of its host.
 *
 * Memory, processor time and processes are limited by a cgroup of its own where the kernel lets us
 * make one: version 2 in a folder that is delegated to us, or version 1 below our own groups. Where
 * it does not, each process has a limit of its private memory instead (RLIMIT_DATA), and nothing
 * holds processor time and processes: RLIMIT_NPROC counts all processes of the user who runs all
 * computes. The walproposer is outside: it belongs to the storage, and must not die of a query.
 *
 * Blocking, but for files of the kernel only. Threads: any, one at a time for a compute.
 */
#pragma once

#include "common/io/child.h"
#include "compute/agent/compute_spec.h"

enum cage_kind { CAGE_RLIMIT, CAGE_CGROUP_V1, CAGE_CGROUP_V2 };
enum cage_limit { CAGE_MEMORY, CAGE_CPU, CAGE_PROCESSES, CAGE_LIMIT_COUNT };

/* Where cages are made: once for an agent. */
struct cage_host {
    enum cage_kind kind;
    char dirs[CAGE_LIMIT_COUNT][PATH_SIZE]; /* empty: not possible here */
};

/* `setting`: empty to look for one, "none", or the folder of a delegated cgroup (version 2). */
NODISCARD err_t cage_host_find(const char *setting, struct cage_host *ret_host, struct errmsg *msg);

struct cage {
    enum cage_kind kind;
    bool holds[CAGE_LIMIT_COUNT];
    char procs[CAGE_LIMIT_COUNT][PATH_SIZE]; /* files that take a process; empty: none */
    char events[PATH_SIZE];                  /* says how often memory ran out; empty: nothing */
};

/* A cage with these limits, for the next start. What cannot be limited is not held: see `holds`. */
void cage_make(
    const struct cage_host *host,
    const char *compute_id,
    const struct compute_size *size,
    struct cage *ret_cage);
/* Once its processes have gone. There may be none. */
void cage_remove(const struct cage_host *host, const char *compute_id);

/* What the child that is started in it needs; points into `cage`. */
struct child_limits cage_limits(const struct cage *cage, const struct compute_size *size);

/* How often the kernel ended a process of it because its memory was used up. */
uint64_t cage_memory_kills(const struct cage *cage);

/* "cgroup", "rlimit of each process" or "none", as the status shows it. */
const char *cage_holder(
    const struct cage *cage, const struct compute_size *size, enum cage_limit limit);
