/*
 * queries.h - what a request may say behind the `?`, route by route: one table for the check and
 * for the OpenAPI file, in the words of bodies.h.
 *
 * What the table has is checked before the handler runs; what it does not have is ignored, because
 * clients send arguments of their own, and a handler that asks for it aborts. What is handed out
 * lives as long as its request. Threads: [any]; a request is its loop's.
 */
#pragma once

#include "control/api/bodies.h"

/* The arguments of a route of /api/v2; an empty table: it has none. */
const struct body_field *query_of_route(const struct http_route *route);

/* ERR_INVALID names the argument that is missing or wrong; `ret_code` is for the answer. */
NODISCARD err_t
query_check(const struct http_request *request, const char **ret_code, struct errmsg *msg);

/* NULL: not said, or said as nothing. The route's table has it, also below. */
const char *request_query(const struct http_request *request, const char *name);
/* Of a list: "a,b", also when it came as several arguments. */
const char *request_query_list(const struct http_request *request, const char *name);
bool request_says(const struct http_request *request, const char *name); /* "true" */

/* One OpenAPI parameter for each argument, pushed to `to`. */
void query_parameters(const struct http_route *route, struct doc *to);
