/*
 * compute_wait.h - waits for the compute of an endpoint that somebody has asked to run.
 *
 * Who waits looks once at first, when the reconciler says that something of the endpoint may have
 * changed (endpoint_changed(), api.h), and when the time is up; in between it costs nothing. The
 * endpoint may go at any time, so it is looked up by its id. Threads: loop only.
 */
#pragma once

#include "control/api/api.h"

struct compute_wait {
    struct api *api;
    row_id_t endpoint_id;
    mono_ns_t deadline;
    /* Once, never from inside start: `endpoint` runs. NULL: it will not; the rest is the answer. */
    void (*done)(struct compute_wait *wait, struct endpoint *endpoint);
    unsigned status;
    const char *code;
    struct errmsg msg;

    /* private */
    struct list_link in_endpoint;
    struct timer timer;
    struct loop_task first;
};

/* Zero but for api, endpoint_id, deadline and done; after done() it may be started again. */
void compute_wait_start(struct compute_wait *wait);
