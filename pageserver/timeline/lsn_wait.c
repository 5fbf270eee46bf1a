/* Waiting for an LSN: the second half of timeline.h. */
#include "common/base/assert.h"
#include "common/base/metric.h"
#include "pageserver/timeline/timeline_private.h"

METRIC_GAUGE(waiting, "pageserver_lsn_waits", "requests that wait for WAL to arrive");

static void finish(struct lsn_wait *wait, err_t result)
{
    struct timeline *tl = wait->timeline;
    list_remove(&wait->link);
    timer_stop(&wait->timer);
    wait->timeline = NULL;
    metric_add(&waiting, -1);
    wait->done(wait, result); /* `wait` belongs to the caller from here on */
    timeline_unref(tl);
}

/* What a wait would end with right now; ERR_BUSY: go on waiting. */
static err_t outcome(const struct timeline *tl, lsn_t lsn)
{
    if (tl->info.state == TIMELINE_DELETING) {
        return ERR_NOT_FOUND;
    }
    if (timeline_has_lsn(tl, lsn)) {
        return ERR_OK;
    }
    return tl->failure != NULL ? ERR_FAILED : ERR_BUSY;
}

static void on_timer(struct timer *timer)
{
    struct lsn_wait *wait = CONTAINER_OF(timer, struct lsn_wait, timer);
    err_t now = outcome(wait->timeline, wait->lsn);
    finish(wait, now == ERR_BUSY ? ERR_TIMEOUT : now);
}

void lsn_wait_start(
    struct lsn_wait *wait,
    struct timeline *tl,
    lsn_t lsn,
    uint64_t timeout_ms,
    void (*done)(struct lsn_wait *wait, err_t result))
{
    ASSERT(wait->timeline == NULL);
    *wait = (struct lsn_wait){
        .done = done, .timeline = timeline_ref(tl), .lsn = lsn, .timer.on_fire = on_timer};
    list_push_back(&tl->waiters, &wait->link);
    metric_add(&waiting, 1);
    if (outcome(tl, lsn) != ERR_BUSY) {
        timer_start(tl->loop, &wait->timer, 0); /* done comes from the loop, not from here */
    } else if (timeout_ms != LSN_WAIT_FOREVER) {
        timer_start(tl->loop, &wait->timer, timeout_ms);
    }
    if (outcome(tl, lsn) == ERR_BUSY && tl->user != NULL && tl->user->on_wait != NULL) {
        tl->user->on_wait(tl->user);
    }
}

void lsn_wait_cancel(struct lsn_wait *wait)
{
    if (wait->timeline != NULL) {
        finish(wait, ERR_CANCELED);
    }
}

void timeline_cancel_waiters(struct timeline *tl)
{
    timeline_ref(tl);
    while (!list_is_empty(&tl->waiters)) {
        lsn_wait_cancel(CONTAINER_OF(list_first(&tl->waiters), struct lsn_wait, link));
    }
    timeline_unref(tl);
}

bool timeline_has_lsn(const struct timeline *tl, lsn_t lsn)
{
    return timeline_is_ready(tl) && tl->position.lsn >= lsn;
}

bool timeline_has_waiters(const struct timeline *tl)
{
    return !list_is_empty(&tl->waiters);
}

/*
 * `done` may start or cancel other waits of this timeline, so the list is taken from the front anew
 * after each: those that go on waiting move to `later`.
 */
void timeline_wake_waiters(struct timeline *tl)
{
    struct list later;
    list_init(&later);
    timeline_ref(tl);
    struct list_link *first;
    while ((first = list_pop_front(&tl->waiters)) != NULL) {
        struct lsn_wait *wait = CONTAINER_OF(first, struct lsn_wait, link);
        err_t result = outcome(tl, wait->lsn);
        if (result == ERR_BUSY) {
            list_push_back(&later, first);
        } else {
            finish(wait, result);
        }
    }
    while ((first = list_pop_front(&later)) != NULL) {
        list_push_back(&tl->waiters, first);
    }
    timeline_unref(tl);
}
