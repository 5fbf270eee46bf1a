/*
 * permissions.c - who else may come to a project: nobody, by e-mail.
 *
 * There are no accounts here that an address could stand for. What the published routes are for is
 * done with an API key of the project (keys.c), and the refusal says so.
 */
#include <stdio.h>

#include "control/api/api_private.h"

static void list_permissions(struct http_context *context, struct http_request *request)
{
    if (request_project(api_of(context), request) != NULL) {
        http_respond_json(request, 200, doc_set(doc_object(), "project_permissions", doc_array()));
    }
}

static void grant_permission(struct http_context *context, struct http_request *request)
{
    const struct project *project = request_project(api_of(context), request);
    struct doc *body = NULL;
    const char *code = NULL;
    struct errmsg msg = {0};
    char text[240];
    if (project == NULL) {
        return;
    }
    err_t err = request_body(request, &body, &code, &msg);
    doc_unref(body);
    if (err != ERR_OK) {
        http_respond_problem(request, 400, code == NULL ? "BAD_REQUEST" : code, msg.text);
        return;
    }
    (void)snprintf(
        text, sizeof text,
        "there are no accounts with an e-mail here: give others an API key of this project, POST "
        "/api/v2/api_keys {\"key_name\": \"..\", \"project_id\": \"%s\"}",
        project->row.id);
    http_respond_problem(request, 422, "NO_ACCOUNTS", text);
}

static void revoke_permission(struct http_context *context, struct http_request *request)
{
    if (request_project(api_of(context), request) != NULL) {
        http_respond_problem(
            request, 404, "PERMISSION_NOT_FOUND",
            "nobody has a permission on this project: there are API keys, DELETE "
            "/api/v2/api_keys/ID");
    }
}

#define PERMISSIONS "/api/v2/projects/{project}/permissions"
const struct http_route permission_routes[] = {
    ROUTE("GET", PERMISSIONS, list_permissions, "always empty: see API keys"),
    ROUTE("POST", PERMISSIONS, grant_permission, "refused: there are API keys"),
    ROUTE("DELETE", PERMISSIONS "/{permission}", revoke_permission, "there is none"),
};
const size_t permission_route_count = ARRAY_LEN(permission_routes);
