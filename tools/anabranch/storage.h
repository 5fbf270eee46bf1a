/*
 * storage.h - the commands that ask the store: sizes, retention, leases, digests, what keeps
 * history, what differs between two branches.
 */
#pragma once

#include "tools/anabranch/context.h"

/* "branch" "digest", "project" "size", ... */
bool storage_knows(const char *kind, const char *verb);
/* words[1] is the verb; `path`: of the object that words[2] names. */
NODISCARD err_t storage_command(struct context *context, const char *path, struct errmsg *msg);
