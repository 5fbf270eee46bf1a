/*
 * allowed_ips.h - settings.allowed_ips of a project: {ips: [range], protected_branches_only}.
 *
 * An empty list, or none, lets everybody in. Ranges: common/base/ip_range.h. The gateway enforces
 * it by asking (POST /v1/connect); who reaches a compute's own port is not asked.
 */
#pragma once

#include "control/model/model.h"

/* `list` may be NULL. The message follows "settings.allowed_ips". */
NODISCARD err_t allowed_ips_check(const struct doc *list, struct errmsg *msg);
/* `model` knows whose past a read-only endpoint shows: it is as protected as that branch. */
bool allowed_ips_let_in(
    const struct model *model, const struct endpoint *endpoint, const char *address);
