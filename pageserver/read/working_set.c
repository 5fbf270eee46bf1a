#include "pageserver/read/working_set.h"

#include "common/base/assert.h"
#include "common/base/metric.h"

METRIC_COUNTER(sets_kept, "pageserver_working_sets_kept_total", "working sets that computes left");
METRIC_COUNTER(sets_asked, "pageserver_working_sets_asked_total", "working sets asked for");

static err_t put(struct working_set *set, struct errmsg *msg)
{
    struct meta_change change = {
        .kind = META_WORKING_SET, .id = set->numbers[0], .value = buf_view(&set->list)};
    return page_store_meta_write(timeline_store(set->timeline), &change, 1, msg);
}

static err_t get(struct working_set *set, struct errmsg *msg)
{
    err_t err = ERR_NOT_FOUND;
    for (size_t i = 0; i < set->number_count && err == ERR_NOT_FOUND; i++) {
        err = page_store_meta_get(
            timeline_store(set->timeline), META_WORKING_SET, set->numbers[i], &set->list, msg);
    }
    if (set->list.size > set->size_max) {
        buf_clear(&set->list);
    }
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static err_t work(struct job *job)
{
    struct working_set *set = CONTAINER_OF(job, struct working_set, job);
    if (set->timeline == NULL) {
        return ERR_NOT_FOUND; /* the message is there already */
    }
    return set->is_put ? put(set, &job->msg) : get(set, &job->msg);
}

static void on_worked(struct job *job)
{
    struct working_set *set = CONTAINER_OF(job, struct working_set, job);
    struct timeline *tl = set->timeline;
    set->timeline = NULL;
    if (tl != NULL) {
        set->msg = job->msg;
        timeline_read_end(tl);
    }
    set->done(set, job->result);
}

void working_set_start(
    struct working_set *set,
    struct executor *executor,
    struct timeline *tl,
    working_set_done_fn done)
{
    ASSERT(set->list.size <= WORKING_SET_BYTES_MAX);
    metric_add(set->is_put ? &sets_kept : &sets_asked, 1);
    set->done = done;
    set->number_count = 0;
    for (const struct timeline *at = tl; at != NULL && set->number_count < WORKING_SET_LEVELS;
         at = timeline_parent(at)) {
        set->numbers[set->number_count++] = timeline_number(at);
    }
    set->timeline = timeline_read_begin(tl, &set->msg) == ERR_OK ? tl : NULL;
    set->job.run = work;
    set->job.done = on_worked;
    executor_submit(executor, &set->job);
}

void working_set_deinit(struct working_set *set)
{
    ASSERT(set->timeline == NULL);
    buf_deinit(&set->list);
}
