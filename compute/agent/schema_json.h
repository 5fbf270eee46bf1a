/*
 * schema_json.h - POST /v1/computes/{id}/schema {database, format: "json"}: {"json": {"tables"}},
 * the tables of a database with their columns, primary and foreign keys and unique constraints, in
 * the shape that API clients know. No views, sequences, indexes, checks and defaults: it has no
 * place for them. As in pg_dump, what belongs to an extension is left out.
 *
 * 404 DATABASE_NOT_FOUND; 422 SCHEMA_TOO_LARGE, more than 8 MiB; 503 SCHEMA_NOT_READ, in time or at
 * all; 503 ERR_BUSY, when as many are being read as may be; 400 for a body that says no database.
 * Threads: loop only; Postgres is asked on `sessions`, in one transaction that only reads.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/http_server.h"

/* Answers the request, now or later. Postgres listens in `socket_dir` (copied), on `port`. */
void schema_json_answer(
    struct executor *sessions, const char *socket_dir, uint16_t port, struct http_request *request);
