/*
 * safekeeper_address.h - where a timeline's safekeepers are, as its row has it:
 * "1@127.0.0.1:7411,2@[::1]:7411".
 */
#pragma once

#include "common/base/err.h"

#define SAFEKEEPERS_MAX 9 /* of a timeline; what follows is not used */

struct safekeeper_address {
    uint64_t id;
    char host[128];
    uint16_t port;
};

/* The first entry; moves *text behind it. ERR_NOT_FOUND at the end. */
NODISCARD err_t safekeeper_address_take(
    const char **text, struct safekeeper_address *ret_address, struct errmsg *msg);
