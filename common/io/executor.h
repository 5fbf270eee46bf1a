/*
 * executor.h - worker threads for blocking work (files, RocksDB, redo), and ordered lanes on them.
 *
 * Threads: loop only; a job's run() is on a worker, its done() on the loop.
 */
#pragma once

#include "common/base/job.h"
#include "common/io/loop.h"

struct executor;

NODISCARD err_t executor_create(
    struct loop *loop, unsigned threads, struct executor **ret_executor, struct errmsg *msg);
/*
 * Waits for all jobs, also those that their done() submits, and calls done() of each from inside:
 * none is dropped. Never from inside a done() of its own. NULL is fine.
 */
void executor_destroy(struct executor *executor);

/* job->run on a worker, then job->done on the loop; never from inside this call. */
void executor_submit(struct executor *executor, struct job *job);
/*
 * Two jobs at the same time, if there are workers: the done() of both, `first` before `second`,
 * when both have run.
 */
void executor_submit_pair(struct executor *executor, struct job *first, struct job *second);
size_t executor_queued(const struct executor *executor);
unsigned executor_threads(const struct executor *executor);

/* Jobs of one lane run one after the other, in order of submission, on any worker. */
struct lane {
    struct executor *executor;
    struct list waiting;
    struct job *running;
};

void lane_init(struct lane *lane, struct executor *executor);
void lane_submit(struct lane *lane, struct job *job);
bool lane_is_idle(const struct lane *lane);
