/*
 * tombstone.h - the durable memory that a timeline was deleted, and under which generation.
 *
 * Without it a late PUT of an older generation would bring an empty timeline back to life, which
 * then votes as if it had never acknowledged anything. Blocking; one owner at a time.
 */
#pragma once

#include "common/base/id.h"

/* `dir` is the folder of the tenant; the file is TIMELINE.deleted. */
NODISCARD err_t tombstone_write(
    const char *dir,
    struct tenant_id tenant,
    struct timeline_id timeline,
    generation_t generation,
    struct errmsg *msg);
NODISCARD err_t tombstone_remove(const char *dir, struct timeline_id timeline, struct errmsg *msg);

#define TOMBSTONE_SUFFIX ".deleted"

/* ERR_NOT_FOUND, ERR_CORRUPT. */
NODISCARD err_t tombstone_read(
    const char *dir,
    struct tenant_id tenant,
    struct timeline_id timeline,
    generation_t *ret_generation,
    struct errmsg *msg);
