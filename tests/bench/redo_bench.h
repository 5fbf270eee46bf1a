/*
 * redo_bench.h - what the parts of redo_bench share: its clock, and one function a part.
 *
 * Time is the CPU time of the thread: other work on the machine does not count.
 */
#pragma once

#include "common/base/types.h"
#include "tests/bench/redo_trace.h"

uint64_t cpu_ns(void);
uint64_t cpu_clock_cost_ns(void);            /* of one cpu_ns(), to be subtracted */
double median(double *values, size_t count); /* sorts them; 0 of none */

/* Each prints JSON lines. ERR_CORRUPT: the bench itself came to a wrong page. */
NODISCARD err_t bench_replay(const struct wal_source *source, struct errmsg *msg);
NODISCARD err_t bench_kinds(const struct wal_source *source, struct errmsg *msg);
NODISCARD err_t
bench_pages(const struct wal_source *source, const char *store_dir, struct errmsg *msg);
