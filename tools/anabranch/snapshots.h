/*
 * snapshots.h - the commands that make snapshots, restore them, and make them by the calendar.
 */
#pragma once

#include "tools/anabranch/context.h"

NODISCARD err_t snapshots_create(struct context *context, const char *project, struct errmsg *msg);
/* `path`: of the snapshot, or of the branch. */
NODISCARD err_t snapshots_restore(struct context *context, const char *path, struct errmsg *msg);
NODISCARD err_t snapshots_finalize(struct context *context, const char *path, struct errmsg *msg);
NODISCARD err_t snapshots_schedule(struct context *context, const char *path, struct errmsg *msg);
