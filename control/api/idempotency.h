/*
 * idempotency.h - the request header Idempotency-Key: what was done once is not done again.
 *
 * With the rows of the request a row of its own goes into the same commit: the key's hash, and the
 * ids with which the answer can be made. So whoever died when, a repetition finds either both or
 * nothing. The answer itself is put into that row before it is given, and a repetition gets it as
 * it was, for 24 hours, also from another process. One of more than 8 KiB is not kept but made anew
 * from what is there by then. A request that was refused has changed nothing:
 * it leaves no row and may come again with another body.
 *
 * A key belongs to its caller (the owner, or one API key), the method and the path. Each caller may
 * have REPLIES_PER_CALLER_MAX of them. Threads: loop only.
 */
#pragma once

#include "control/api/api_private.h"

#define REPLIES_PER_CALLER_MAX 5000

enum idempotency {
    KEY_FIRST,    /* or there is no key: go on */
    KEY_ANSWERED, /* nothing is left to do */
    KEY_LOST,     /* it is done, its answer was not kept: the mutation can make it anew */
};

enum idempotency idempotency_begin(struct mutation *mutation);
/* In prepare, after decide. */
NODISCARD err_t idempotency_put(struct mutation *mutation, struct errmsg *msg);
/* Is `answered` to be kept? Then by this, in a change of its own. */
bool idempotency_keeps(const struct mutation *mutation);
void idempotency_keep(struct mutation *mutation);
