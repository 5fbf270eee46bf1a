/*
 * registration.h - says to control where this agent is, again and again, so that its lease does not
 * end (control/act/hosts.h). Without `control_url` nobody is told: then control's setting lists us.
 *
 * When control does not answer, computes go on: their safety is in the terms. Threads: loop only.
 */
#pragma once

#include "compute/agent/agent_conf.h"

struct registration;

NODISCARD err_t registration_create(
    struct loop *loop,
    struct http_client *client,
    const struct agent_conf *conf,
    uint16_t http_port,
    struct registration **ret_registration,
    struct errmsg *msg);
void registration_stop(struct registration *registration); /* NULL is fine; calls end as they may */
/*
 * Two calls that hang leave time for a third within the lease: how long one may take, and how long
 * after it, when it took `took_ms`, the next one begins.
 */
uint64_t registration_timeout_ms(uint64_t lease_ms);
uint64_t registration_pause_ms(uint64_t lease_ms, bool heard, uint64_t took_ms);
/* Empty: control has heard of us, or nobody is to be told. */
const char *registration_trouble(const struct registration *registration);
