/*
 * space.h - what lies in the folder of a closed store, against what least.h has marked as needed.
 */
#pragma once

#include "tests/model/store/least.h"

struct space {
    uint64_t least, found; /* bytes of keys and values: what is needed and there, all there is */
    uint64_t superfluous_page, superfluous_size, superfluous_state; /* found and not needed */
    size_t missing;                                                 /* needed and not there */
    uint64_t missing_bytes;
    uint64_t disk, disk_least; /* sorted files: of the folder, of a store with what is needed */
};

/* Ends the process with a message when the store cannot be read. */

/* Every version that the store in `folder` holds, appended; not the meta records. */
void space_read(const char *folder, struct least_version **versions, size_t *count);
/* `versions` as least_mark left them. */
void space_measure(
    const char *folder, struct least_version *versions, size_t count, struct space *ret_space);
void space_print(const struct space *space);
