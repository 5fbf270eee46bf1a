/* operations.c - operations: list, get, and wait until one has ended. */
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "control/api/access.h"
#include "control/api/api_private.h"

#define WAIT_MAX_MS 55000 /* clients give up after a minute */

/* A long poll: answered when the operation ends or the time is up. */
struct waiter {
    struct list_link in_operation;
    struct timer timer;
    const struct api *api;
    struct operation *operation;
    struct http_request *request;
};

static void respond(struct http_request *request, const struct operation *operation)
{
    http_respond_json(
        request, 200, doc_set(doc_object(), "operation", view_operation_doc(operation)));
}

static void finish_waiter(struct waiter *waiter)
{
    timer_stop(&waiter->timer);
    list_remove(&waiter->in_operation);
    if (!request_refuse_if_key_is_gone(waiter->api, waiter->request)) {
        respond(waiter->request, waiter->operation);
    }
    mem_free(waiter);
}

static void on_time_up(struct timer *timer)
{
    finish_waiter(CONTAINER_OF(timer, struct waiter, timer));
}

void operations_ended(struct operation *operation)
{
    LIST_FOR_EACH(&operation->waiters, link)
    {
        finish_waiter(CONTAINER_OF(link, struct waiter, in_operation));
    }
}

/* "30s", "500ms"; a bare number is seconds, as in the header Prefer: wait=30. */
static err_t wait_of(struct http_request *request, uint64_t *ret_ms, struct errmsg *msg)
{
    const char *wait = request_query(request, "wait");
    const char *prefer = http_request_header(request, "Prefer");
    uint64_t ms = 0;
    if (wait == NULL && prefer != NULL && str_starts_with(prefer, "wait=")) {
        wait = prefer + strlen("wait=");
    }
    if (wait != NULL) {
        if (wait[strspn(wait, "0123456789")] == '\0') {
            TRY(parse_u64(wait, 0, 3600, &ms, msg));
            ms *= 1000;
        } else {
            TRY(parse_duration(wait, &ms, msg));
        }
    }
    *ret_ms = MIN_OF(ms, WAIT_MAX_MS);
    return ERR_OK;
}

/* Also of a project that is deleted: its operations tell when it is gone. */
static void get_operation(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct errmsg msg = {0};
    const char *id = http_request_param(request, "operation");
    const char *project_id = http_request_param(request, "project");
    struct operation *operation = model_operation(api->model, id);
    uint64_t wait_ms = 0;
    bool no_project = model_project(api->model, project_id) == NULL;
    if (operation == NULL || strcmp(operation->row.project_id, project_id) != 0) {
        err_ignore(
            err_set(
                &msg, ERR_NOT_FOUND, "%s %s not found", no_project ? "project" : "operation",
                no_project ? project_id : id),
            "answered below");
        answer_not_found(request, &msg);
        return;
    }
    if (wait_of(request, &wait_ms, &msg) != ERR_OK) {
        http_respond_problem(request, 400, "BAD_REQUEST", msg.text);
        return;
    }
    if (operation->row.status != STATUS_RUNNING || wait_ms == 0) {
        respond(request, operation);
        return;
    }
    struct waiter *waiter = MEM_NEW(struct waiter);
    waiter->api = api;
    waiter->operation = operation;
    waiter->request = request;
    waiter->timer.on_fire = on_time_up;
    list_push_back(&operation->waiters, &waiter->in_operation);
    timer_start(api->loop, &waiter->timer, wait_ms);
}

/* Newest first. */
static void list_operations(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct errmsg msg = {0};
    struct page page;
    const char *id = http_request_param(request, "project");
    const struct project *project = model_project(api->model, id);
    if (project == NULL) {
        err_ignore(err_set(&msg, ERR_NOT_FOUND, "project %s not found", id), "answered below");
        answer_not_found(request, &msg);
        return;
    }
    if (page_of(request, 1000, 1000, &page, &msg) != ERR_OK) {
        http_respond_problem(request, 400, "BAD_REQUEST", msg.text);
        return;
    }
    struct doc *array = doc_array();
    uint64_t last = 0;
    for (const struct list_link *link = project->operations.head.prev;
         link != &project->operations.head; link = link->prev) {
        const struct operation *operation = CONTAINER_OF(link, struct operation, in_project);
        if ((page.after == 0 || operation->row.seq < page.after) && doc_count(array) < page.limit) {
            doc_push(array, view_operation_doc(operation));
            last = operation->row.seq;
        }
    }
    struct doc *doc = doc_set(doc_object(), "operations", array);
    if (last != 0) {
        set_cursor(doc, "cursor", last);
    }
    http_respond_json(request, 200, doc);
}

const struct http_route operation_routes[] = {
    ROUTE("GET", "/api/v2/projects/{project}/operations", list_operations, "newest first"),
    ROUTE(
        "GET",
        "/api/v2/projects/{project}/operations/{operation}",
        get_operation,
        "one operation; ?wait=30s answers when it has ended"),
};
const size_t operation_route_count = ARRAY_LEN(operation_routes);
