/*
 * verifier.h - POST /v1/computes/{id}/verifier {role}: the stored password of a role, as pg_authid
 * has it, for a gateway that logs people in. {"verifier": null}: no such role, or it may not log
 * in.
 *
 * Threads: loop only; the question to Postgres is worked on by `sessions`.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/http_server.h"
#include "compute/agent/compute.h"

/* Answers the request. `socket_dir` is copied. */
void verifier_answer(
    struct executor *sessions,
    const struct compute *compute,
    const char *socket_dir,
    uint16_t port,
    struct http_request *request);
