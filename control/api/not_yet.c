/*
 * not_yet.c - published routes that are not there yet: 501, and the message names what is missing.
 */
#include <stdio.h>

#include "control/api/api_private.h"

static void answer(struct http_context *context, struct http_request *request)
{
    char text[200];
    (void)context;
    (void)snprintf(
        text, sizeof text, "%s %.120s is not supported yet", http_request_method(request),
        http_request_path(request));
    http_respond_problem(request, 501, "NOT_SUPPORTED", text);
}

#define P                     "/api/v2/projects/{project}"
#define B                     P "/branches/{branch}"
#define NOT_YET(method, path) ROUTE(method, path, answer, "not yet: 501")
const struct http_route not_yet_routes[] = {
    NOT_YET("GET", "/api/v2/consumption_history/v2/branches"),
};
const size_t not_yet_route_count = ARRAY_LEN(not_yet_routes);
