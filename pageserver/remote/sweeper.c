#include "pageserver/remote/sweeper.h"

#include "common/base/log.h"
#include "common/base/metric.h"

METRIC_COUNTER(swept, "pageserver_swept_uploads_total", "what killed uploads left, removed");
METRIC_COUNTER(failures, "pageserver_sweep_failures_total", "sweeps that ended in an error");

static void on_swept(struct job *job)
{
    struct sweeper *sweeper = CONTAINER_OF(job, struct sweeper, job);
    sweeper->running = false;
    sweeper->sweeps++;
    if (sweeper->stopping) {
        return;
    }
    if (job->result != ERR_OK) {
        metric_add(&failures, 1);
        log_warn(NULL, "object store: sweep: %s; the next one tries again", job->msg.text);
    } else if (sweeper->removed > 0) {
        metric_add(&swept, (int64_t)sweeper->removed);
        log_info(NULL, "object store: %zu unfinished uploads removed", sweeper->removed);
    }
    timer_start(sweeper->options.loop, &sweeper->timer, sweeper->options.interval_ms);
}

static err_t sweep(struct job *job)
{
    struct sweeper *sweeper = CONTAINER_OF(job, struct sweeper, job);
    return objstore_sweep(
        sweeper->options.objects, sweeper->options.older_than_ms, &sweeper->removed, &job->msg);
}

static void on_timer(struct timer *timer)
{
    struct sweeper *sweeper = CONTAINER_OF(timer, struct sweeper, timer);
    sweeper->running = true;
    sweeper->removed = 0;
    sweeper->job = (struct job){.run = sweep, .done = on_swept};
    executor_submit(sweeper->options.executor, &sweeper->job);
}

void sweeper_start(struct sweeper *sweeper, const struct sweeper_options *options)
{
    *sweeper = (struct sweeper){.options = *options, .timer.on_fire = on_timer};
    timer_start(options->loop, &sweeper->timer, options->interval_ms);
}

void sweeper_stop(struct sweeper *sweeper)
{
    sweeper->stopping = true;
    timer_stop(&sweeper->timer);
}

bool sweeper_is_idle(const struct sweeper *sweeper)
{
    return !sweeper->running;
}
