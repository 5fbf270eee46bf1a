/*
 * address.h - which endpoint a client means: by the host name that it connects to (TLS server
 * name), or, without one, by `options=endpoint=NAME`. Pure.
 *
 *   ep-calm-sea-1a2b3c4d.DOMAIN          the endpoint
 *   ep-calm-sea-1a2b3c4d-pooler.DOMAIN   the same, its sessions shared by transactions
 *   br-old-bird-5e6f7a8b.DOMAIN          the read-write endpoint of a branch
 *
 * The options may also name a moment: `lsn=0/16B3748` or `timestamp=2026-11-22T10:00:00Z`; then the
 * branch is shown as it was. Known clients write `neon_lsn:`, `neon_timestamp:` and `project=`.
 */
#pragma once

#include "common/base/bytes.h"

#define ADDRESS_NAME_SIZE   64
#define ADDRESS_MOMENT_SIZE 40

struct address {
    char name[ADDRESS_NAME_SIZE]; /* "ep-.." or "br-.."; "" when the client did not say */
    bool pooled;
    bool moment_is_lsn;
    char moment[ADDRESS_MOMENT_SIZE]; /* as the client wrote it; "": now */
};

/*
 * `server_name` is "" and `options` NULL when the client sent none. What is left of the options for
 * Postgres is appended to `rest`, as a text. ERR_INVALID: a name that is none of ours.
 */
NODISCARD err_t address_of(
    const char *server_name,
    const char *options,
    struct address *ret_address,
    struct buf *rest,
    struct errmsg *msg);
