/*
 * preview.h - `anabranch branch up NAME` and `branch down NAME`: a branch for a pull request.
 *
 * Both may be said any number of times: what is there stays and lives on, what is gone is gone.
 */
#pragma once

#include "tools/anabranch/context.h"

/* words: "branch", "up" or "down", NAME */
bool preview_knows(const char *verb);
NODISCARD err_t preview_command(struct context *context, struct errmsg *msg);
