/*
 * remote_state.h - which index a disk belongs to: the file "anabranch.remote" in a tenant's folder.
 *
 * It names the index that this disk wrote last or was restored from. Blocking.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/id.h"

#define REMOTE_STATE_FILE "anabranch.remote"

struct remote_state {
    generation_t generation; /* 0: none */
    uint64_t sequence;
};

/* No file, or one that cannot be understood: none. That costs a comparison, nothing else. */
NODISCARD err_t
remote_state_read(const char *folder, struct remote_state *ret_state, struct errmsg *msg);
NODISCARD err_t
remote_state_write(const char *folder, struct remote_state state, struct errmsg *msg);
