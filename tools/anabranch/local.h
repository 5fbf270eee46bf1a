/*
 * local.h - `anabranch local`: a whole cluster on this machine, in one folder.
 */
#pragma once

#include "tools/anabranch/context.h"

/* words: local up|down|status|restart NAME|kill NAME */
NODISCARD err_t local_command(struct context *context, struct errmsg *msg);
