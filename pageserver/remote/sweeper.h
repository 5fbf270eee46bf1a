/*
 * sweeper.h - now and then remove what killed uploads left in the object store (objstore_sweep).
 *
 * Every pageserver of a store does it: a sweep that another one did finds nothing. The first comes
 * a whole interval after the start, so that a process that dies again and again asks for nothing.
 * Threads: loop only; the sweep itself runs on `executor`.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/timer.h"
#include "common/objstore/objstore.h"

struct sweeper_options {
    struct loop *loop;
    struct executor *executor;
    struct objstore *objects;
    uint64_t interval_ms;
    uint64_t older_than_ms; /* more than the longest upload takes */
};

struct sweeper {
    uint64_t sweeps;                /* that have ended, well or not */
    struct sweeper_options options; /* private from here on */
    struct timer timer;
    struct job job;
    size_t removed; /* by the last sweep */
    bool running, stopping;
};

void sweeper_start(struct sweeper *sweeper, const struct sweeper_options *options);
/* Cancel the store first, then the one that is under way ends soon. */
void sweeper_stop(struct sweeper *sweeper);
bool sweeper_is_idle(const struct sweeper *sweeper); /* none is under way: it may be freed */
