/*
 * auth.h - the hook that every hello and every HTTP request passes: may this token do that?
 *
 * For now one shared secret per cluster: the daemon's `http_token` / `auth_token` setting. Empty
 * means that everything is allowed (a cluster on loopback). Compared in constant time.
 */
#pragma once

#include "common/base/bytes.h"
#include "common/base/id.h"

enum auth_scope { AUTH_PAGES, AUTH_WAL, AUTH_FEED, AUTH_MANAGE };

/* ERR_DENIED with a message that never repeats the token. */
NODISCARD err_t auth_check(
    const char *secret,
    struct bytes token,
    enum auth_scope scope,
    struct tenant_id tenant,
    struct errmsg *msg);
