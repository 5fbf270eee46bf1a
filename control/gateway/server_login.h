/*
 * server_login.h - the gateway's half of a log-in to a compute, with the client key that the proof
 * of a client revealed (common/auth/scram.h). Pure but for the nonce.
 */
#pragma once

#include "common/auth/scram.h"
#include "control/gateway/pg_wire.h"

struct server_login {
    struct scram_verifier verifier;
    uint8_t client_key[SCRAM_KEY_SIZE];
    struct scram_client scram; /* private */
};

/*
 * Take the body of an authentication message; what has to be answered is appended to `reply`.
 * `ret_done`: the compute let us in. ERR_STALE: the role's password was changed.
 */
NODISCARD err_t server_login_step(
    struct server_login *login,
    struct bytes body,
    struct buf *reply,
    bool *ret_done,
    struct errmsg *msg);
