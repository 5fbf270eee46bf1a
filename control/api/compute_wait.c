#include "control/api/compute_wait.h"

#include "common/base/clock.h"

static void finish(struct compute_wait *wait, struct endpoint *endpoint)
{
    timer_stop(&wait->timer);
    list_remove(&wait->in_endpoint);
    wait->done(wait, endpoint);
}

static void refuse(
    struct compute_wait *wait, unsigned status, const char *code, const char *what, const char *why)
{
    wait->status = status;
    wait->code = code;
    err_ignore(
        err_set(&wait->msg, ERR_BUSY, "%s%s%s", what, why[0] == '\0' ? "" : ": ", why),
        "the status says what it is");
    finish(wait, NULL);
}

static void go_on_waiting(struct compute_wait *wait, struct endpoint *endpoint, mono_ns_t now)
{
    if (!list_link_is_in(&wait->in_endpoint)) {
        list_push_back(&endpoint->waiters, &wait->in_endpoint);
    }
    if (!timer_is_started(&wait->timer)) {
        uint64_t left_ms = (wait->deadline - now) / NS_PER_MS;
        timer_start(wait->api->loop, &wait->timer, left_ms + 1);
    }
}

static void look(struct compute_wait *wait)
{
    struct endpoint *endpoint = model_endpoint(wait->api->model, wait->endpoint_id);
    mono_ns_t now = clock_mono();
    if (endpoint == NULL || !endpoint_is_shown(endpoint)) {
        refuse(wait, 404, "ENDPOINT_NOT_FOUND", "the endpoint was deleted", "");
        return;
    }
    bool restarts = endpoint->row.wanted == ENDPOINT_RESTARTING;
    if (endpoint->row.wanted != ENDPOINT_ACTIVE && !restarts) {
        refuse(
            wait, 503, "ENDPOINT_SUSPENDED", "the endpoint was suspended while it was starting",
            endpoint->row.last_error);
    } else if (endpoint->seen == COMPUTE_RUNNING && !restarts) {
        finish(wait, endpoint);
    } else if (now >= wait->deadline) {
        refuse(
            wait, 503, "COMPUTE_NOT_READY", "the compute did not come up in time",
            endpoint->seen_error);
    } else {
        go_on_waiting(wait, endpoint, now);
    }
}

static void on_time_up(struct timer *timer)
{
    look(CONTAINER_OF(timer, struct compute_wait, timer));
}

static void on_first(struct loop_task *task)
{
    look(CONTAINER_OF(task, struct compute_wait, first));
}

void compute_wait_start(struct compute_wait *wait)
{
    wait->timer.on_fire = on_time_up;
    wait->first.run = on_first;
    loop_post(wait->api->loop, &wait->first);
}

void endpoint_changed(struct endpoint *endpoint)
{
    LIST_FOR_EACH(&endpoint->waiters, link)
    {
        look(CONTAINER_OF(link, struct compute_wait, in_endpoint));
    }
}
