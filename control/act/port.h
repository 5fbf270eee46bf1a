/*
 * port.h - a free TCP port for a new compute, so that its connection URI is final before it runs.
 */
#pragma once

#include "control/act/nodes.h"
#include "control/model/model.h"

/* "7500-8499" */
NODISCARD err_t
port_range_parse(const char *text, uint64_t *ret_first, uint64_t *ret_last, struct errmsg *msg);

struct port_wish {
    uint64_t agent;       /* its id */
    const char *host;     /* of the agent; NULL: it is away */
    uint64_t first, last; /* the range */
    /* What the same change recovers, all or one branch of it: it has its ports. NULL: nothing. */
    const struct project *project;
    const struct branch *branch;
};

/*
 * The first of the range that no other endpoint of the agent has; when the agent is on this
 * machine, also nobody else listens there. What is recoverable loses its port only when no other
 * is left. ERR_FULL names the setting.
 */
NODISCARD err_t port_choose(
    const struct model *model,
    const struct port_wish *wish,
    uint64_t *ret_port,
    struct errmsg *msg);
