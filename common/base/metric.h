/*
 * metric.h - counters, gauges and latency histograms in Prometheus' text format.
 *
 * A metric lives beside the code that it counts, as a static: it registers itself on first use of
 * METRIC_COUNTER(...) at file scope (constructor). Names carry the daemon and the base unit:
 * pageserver_page_read_seconds. No ids as labels. Threads: updates are [any] (relaxed atomics).
 */
#pragma once

#include <stdatomic.h>

#include "common/base/bytes.h"

enum metric_kind { METRIC_KIND_COUNTER, METRIC_KIND_GAUGE, METRIC_KIND_HISTOGRAM };

#define METRIC_BUCKETS 24 /* powers of two from 1 us to 8 s, then +Inf */

struct metric {
    enum metric_kind kind;
    const char *name, *help;
    _Atomic int64_t value;                    /* counter, gauge; histogram: sum in ns */
    _Atomic uint64_t buckets[METRIC_BUCKETS]; /* histogram */
    struct metric *next;
};

void metric_register(struct metric *metric);

#define METRIC_DEFINE(variable, metric_kind_, name_, help_)                                        \
    static struct metric variable = {.kind = (metric_kind_), .name = (name_), .help = (help_)};    \
    __attribute__((constructor)) static void variable##_register(void)                             \
    {                                                                                              \
        metric_register(&(variable));                                                              \
    }                                                                                              \
    static_assert(sizeof(name_) > 1, "a metric has a name")

#define METRIC_COUNTER(variable, name, help)                                                       \
    METRIC_DEFINE(variable, METRIC_KIND_COUNTER, name, help)
#define METRIC_GAUGE(variable, name, help) METRIC_DEFINE(variable, METRIC_KIND_GAUGE, name, help)
#define METRIC_HISTOGRAM(variable, name, help)                                                     \
    METRIC_DEFINE(variable, METRIC_KIND_HISTOGRAM, name, help)

static inline void metric_add(struct metric *metric, int64_t amount)
{
    atomic_fetch_add_explicit(&metric->value, amount, memory_order_relaxed);
}

static inline void metric_set(struct metric *metric, int64_t value)
{
    atomic_store_explicit(&metric->value, value, memory_order_relaxed);
}

void metric_observe_ns(struct metric *metric, mono_ns_t duration);

/* All metrics of the process, as Prometheus text. */
void metric_print_all(struct buf *to);
