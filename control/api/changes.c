/*
 * changes.c - POST /v1/changes: gateways hear of which endpoints they may remember what is wrong.
 *
 * A gateway remembers for a while where an endpoint runs, the verifiers of its roles, and who is
 * let in. Each time that an operation on an endpoint has ended (its roles have new passwords), or
 * that its row (it moves to another host, which is no operation), its branch or its project has
 * changed, the endpoint gets the next number. A gateway asks for what came since the number that it
 * has, and waits for it. The numbers of each control begin with the time of its start, so those of
 * another one are no numbers of its own: then, as when there were more than are kept, everything is
 * to be forgotten.
 */
#include <stdio.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "control/api/api_private.h"

#define CHANGES_MAX 1024
#define WAIT_MAX_MS 55000

struct changes {
    struct api *api;
    struct store_watcher watcher;
    uint64_t begin, next; /* the numbers that are known: begin..next, at number % CHANGES_MAX */
    row_id_t endpoints[CHANGES_MAX];
    struct list waiters;
    struct loop_task tell;
    bool is_telling, is_stopping;
};

struct waiter {
    struct list_link link;
    struct timer timer;
    struct changes *changes;
    struct http_request *request;
    uint64_t since;
};

static void answer(const struct changes *changes, struct http_request *request, uint64_t since)
{
    bool is_all = since < changes->begin || since > changes->next;
    struct doc *endpoints = doc_array();
    for (uint64_t number = since; !is_all && number < changes->next; number++) {
        doc_push(endpoints, doc_str(changes->endpoints[number % CHANGES_MAX]));
    }
    struct doc *doc = doc_set_int(doc_object(), "next", (int64_t)changes->next);
    doc_set_bool(doc, "all", is_all);
    http_respond_json(request, 200, doc_set(doc, "endpoints", endpoints));
}

static void finish(struct waiter *waiter)
{
    timer_stop(&waiter->timer);
    list_remove(&waiter->link);
    answer(waiter->changes, waiter->request, waiter->since);
    mem_free(waiter);
}

static void on_time_up(struct timer *timer)
{
    finish(CONTAINER_OF(timer, struct waiter, timer));
}

/* After all rows of a change are there. */
static void on_tell(struct loop_task *task)
{
    struct changes *changes = CONTAINER_OF(task, struct changes, tell);
    changes->is_telling = false;
    LIST_FOR_EACH(&changes->waiters, link)
    {
        finish(CONTAINER_OF(link, struct waiter, link));
    }
}

static void note(struct changes *changes, const char *endpoint_id)
{
    snprintf(
        changes->endpoints[changes->next % CHANGES_MAX], sizeof changes->endpoints[0], "%s",
        endpoint_id);
    changes->next++;
    if (changes->next - changes->begin > CHANGES_MAX) {
        changes->begin = changes->next - CHANGES_MAX;
    }
    if (!changes->is_telling) {
        changes->is_telling = true;
        loop_post(changes->api->loop, &changes->tell);
    }
}

static void on_applied(struct store_watcher *watcher, enum row_kind kind, void *object)
{
    struct changes *changes = CONTAINER_OF(watcher, struct changes, watcher);
    if (kind == ROW_OPERATION) {
        const struct operation *operation = object;
        if (operation->row.status != STATUS_RUNNING && operation->row.endpoint_id[0] != '\0') {
            note(changes, operation->row.endpoint_id);
        }
    } else if (kind == ROW_ENDPOINT) {
        const struct endpoint *endpoint = object;
        note(changes, endpoint->row.id);
    } else if (kind == ROW_BRANCH) {
        const struct branch *branch = object;
        FOR_EACH_ENDPOINT_OF(branch, endpoint)
        {
            note(changes, endpoint->row.id);
        }
    } else if (kind == ROW_PROJECT) {
        const struct project *project = object;
        FOR_EACH_ENDPOINT(project, endpoint)
        {
            note(changes, endpoint->row.id);
        }
    }
}

static void on_removed(struct store_watcher *watcher, enum row_kind kind, const union any_row *row)
{
    if (kind == ROW_ENDPOINT) {
        note(CONTAINER_OF(watcher, struct changes, watcher), row->endpoint.id);
    }
}

void changes_start(struct api *api)
{
    struct changes *changes = MEM_NEW(struct changes);
    changes->api = api;
    changes->begin = changes->next = (uint64_t)clock_wall();
    changes->watcher.on_applied = on_applied;
    changes->watcher.on_removed = on_removed;
    changes->tell.run = on_tell;
    list_init(&changes->waiters);
    store_watch(api->store, &changes->watcher);
    api->changes = changes;
}

void changes_stop(struct api *api)
{
    if (api->changes != NULL) {
        api->changes->is_stopping = true;
        on_tell(&api->changes->tell); /* who waits hears nothing more from this control */
    }
}

void handle_post_changes(struct http_context *context, struct http_request *request)
{
    struct changes *changes = api_of(context)->changes;
    struct doc *body = NULL;
    struct errmsg msg = {0};
    uint64_t since = 0, wait_ms = 0;
    err_t err = http_request_json(request, &body, &msg);
    if (err == ERR_OK) {
        err = doc_get_u64(body, "since", &since, &msg);
    }
    if (err == ERR_OK) {
        err = doc_opt_u64(body, "wait_ms", &wait_ms, &msg);
    }
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    if (changes->is_stopping) { /* who is told nothing new would ask again at once */
        http_respond_problem(request, 503, "STOPPING", "control stops: ask the next one");
        return;
    }
    if (since != changes->next || wait_ms == 0) {
        answer(changes, request, since);
        return;
    }
    struct waiter *waiter = MEM_NEW(struct waiter);
    waiter->changes = changes;
    waiter->request = request;
    waiter->since = since;
    waiter->timer.on_fire = on_time_up;
    list_push_back(&changes->waiters, &waiter->link);
    timer_start(changes->api->loop, &waiter->timer, MIN_OF(wait_ms, WAIT_MAX_MS));
}
