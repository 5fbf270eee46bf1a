/*
 * node_file.h - whose data folder this is: DATA_DIR/node.json {node_id, incarnation}.
 *
 * The incarnation is random and is born with an empty folder. Who remembers it (control) can tell a
 * safekeeper that came back from one whose disk was lost under the same node_id: the latter has
 * forgotten what it acknowledged and must not simply be given its timelines again.
 * Blocking: at start.
 */
#pragma once

#include "common/base/id.h"

#define INCARNATION_TEXT_SIZE 33

/* Read or create. ERR_INVALID: the folder is another node's. ERR_CORRUPT: not readable. */
NODISCARD err_t node_file_load(
    const char *data_dir,
    node_id_t node_id,
    char ret_incarnation[INCARNATION_TEXT_SIZE],
    struct errmsg *msg);
