/*
 * shape.h - which fields an object has, as one line: "generation:u64! time:str".
 *
 * NAME, then :TYPE (u64, str, bool, lsn, object, array), then ! when it must be there. null counts
 * as not there. Fields that the shape does not have are left alone: they are a newer caller's.
 */
#pragma once

#include "common/json/doc.h"

/* ERR_INVALID names the field and what was expected. */
NODISCARD err_t shape_check(const char *shape, const struct doc *object, struct errmsg *msg);

/* One field after the other: moves *shape behind it. False: there is none left. */
struct shape_field {
    char name[40];
    char type[8];
    bool is_required;
};
bool shape_next(const char **shape, struct shape_field *ret_field);
