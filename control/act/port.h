/*
 * port.h - a free TCP port for a new compute, so that its connection URI is final before it runs.
 */
#pragma once

#include "control/act/nodes.h"
#include "control/model/model.h"

/* "7500-8499" */
NODISCARD err_t
port_range_parse(const char *text, uint64_t *ret_first, uint64_t *ret_last, struct errmsg *msg);

/*
 * The first of the range that no other endpoint of the agent has; when the agent is on this
 * machine, also nobody else listens there. ERR_FULL names the setting.
 */
NODISCARD err_t port_choose(
    const struct model *model,
    const struct node *agent,
    uint64_t first,
    uint64_t last,
    uint64_t *ret_port,
    struct errmsg *msg);
