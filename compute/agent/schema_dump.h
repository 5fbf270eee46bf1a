/*
 * schema_dump.h - POST /v1/computes/{id}/schema {database}: {"sql"} as pg_dump of the compute's own
 * release writes it, without data. 404 DATABASE_NOT_FOUND; 422 SCHEMA_TOO_LARGE, more than 16 MiB;
 * 503 SCHEMA_NOT_READ, in time or at all; 503 ERR_BUSY, when as many are being read as may be.
 *
 * Threads: loop only; pg_dump is a child as the user of the computes, and is killed when it takes
 * too long or writes too much.
 */
#pragma once

#include "common/io/http_server.h"
#include "compute/agent/compute.h"

/* Answers the request. `socket_dir` is copied. */
void schema_dump_answer(
    struct compute_host *host, const char *socket_dir, uint16_t port, struct http_request *request);
