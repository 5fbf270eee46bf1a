/*
 * objects.h - the commands about projects, branches, endpoints and operations: one API call each,
 * then, unless --no-wait, until its operations have ended.
 */
#pragma once

#include "tools/anabranch/context.h"

/* words[0] is "projects", "branches", "endpoints", "operations" or "connection-string". */
NODISCARD err_t objects_command(struct context *context, struct errmsg *msg);
bool objects_knows(const char *word);
