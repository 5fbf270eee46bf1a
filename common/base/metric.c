#include "common/base/metric.h"

static struct metric *all_metrics; /* written by constructors only, before main */

void metric_register(struct metric *metric)
{
    metric->next = all_metrics;
    all_metrics = metric;
}

void metric_observe_ns(struct metric *metric, mono_ns_t duration)
{
    size_t bucket = 0;
    mono_ns_t bound = 1000;
    while (bucket < METRIC_BUCKETS - 1 && duration > bound) {
        bucket++;
        bound *= 2;
    }
    atomic_fetch_add_explicit(&metric->buckets[bucket], 1, memory_order_relaxed);
    metric_add(metric, (int64_t)duration);
}

static void print_histogram(const struct metric *metric, struct buf *to)
{
    uint64_t total = 0;
    mono_ns_t bound = 1000;
    for (size_t i = 0; i < METRIC_BUCKETS; i++, bound *= 2) {
        total += atomic_load_explicit(&metric->buckets[i], memory_order_relaxed);
        if (i < METRIC_BUCKETS - 1) {
            buf_printf(
                to, "%s_bucket{le=\"%.6f\"} %" PRIu64 "\n", metric->name, (double)bound / 1e9,
                total);
        }
    }
    buf_printf(to, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", metric->name, total);
    int64_t sum = atomic_load_explicit(&metric->value, memory_order_relaxed);
    buf_printf(to, "%s_sum %.9f\n", metric->name, (double)sum / 1e9);
    buf_printf(to, "%s_count %" PRIu64 "\n", metric->name, total);
}

void metric_print_all(struct buf *to)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    for (const struct metric *metric = all_metrics; metric != NULL; metric = metric->next) {
        buf_printf(to, "# HELP %s %s\n", metric->name, metric->help);
        buf_printf(to, "# TYPE %s %s\n", metric->name, kinds[metric->kind]);
        if (metric->kind == METRIC_KIND_HISTOGRAM) {
            print_histogram(metric, to);
        } else {
            int64_t value = atomic_load_explicit(&metric->value, memory_order_relaxed);
            buf_printf(to, "%s %" PRId64 "\n", metric->name, value);
        }
    }
}
