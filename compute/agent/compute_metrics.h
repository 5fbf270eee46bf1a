/*
 * compute_metrics.h - GET /v1/computes/{id}/metrics: what a Postgres says of itself, as Prometheus
 * reads it. A session of its own asks each time, as superuser over the socket.
 *
 * Threads: loop only; the question is worked on by `sessions`.
 */
#pragma once

#include "common/io/executor.h"
#include "common/io/http_server.h"

/* Answers the request; 503 when Postgres does not within a few seconds. `socket_dir` is copied. */
void compute_metrics_answer(
    struct executor *sessions, const char *socket_dir, uint16_t port, struct http_request *request);
