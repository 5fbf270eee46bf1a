#include "compute/agent/verifier.h"

#include "common/base/mem.h"
#include "common/base/str.h"
#include "compute/agent/compute_sql.h"

struct lookup {
    struct job job;
    struct http_request *request;
    char socket_dir[PATH_SIZE];
    uint16_t port;
    char role[64];
    struct buf verifier;
};

static err_t run(struct job *job)
{
    struct lookup *lookup = CONTAINER_OF(job, struct lookup, job);
    struct compute_sql sql = {.socket_dir = lookup->socket_dir, .port = lookup->port};
    return compute_sql_verifier(&sql, lookup->role, &lookup->verifier, &job->msg);
}

static void done(struct job *job)
{
    struct lookup *lookup = CONTAINER_OF(job, struct lookup, job);
    if (job->result != ERR_OK) {
        http_respond_error(lookup->request, job->result, &job->msg);
    } else {
        const char *verifier = lookup->verifier.size == 0 ? NULL : buf_cstr(&lookup->verifier);
        http_respond_json(
            lookup->request, 200, doc_set(doc_object(), "verifier", doc_str(verifier)));
    }
    buf_deinit(&lookup->verifier);
    mem_free(lookup);
}

static err_t fill(struct lookup *lookup, const char *socket_dir, struct errmsg *msg)
{
    struct doc *body = NULL;
    const char *role = NULL;
    TRY(http_request_json(lookup->request, &body, msg));
    TRY(doc_get_str(body, "role", &role, msg));
    TRY(str_copy(lookup->role, sizeof lookup->role, role, msg));
    return str_copy(lookup->socket_dir, sizeof lookup->socket_dir, socket_dir, msg);
}

void verifier_answer(
    struct executor *sessions,
    const struct compute *compute,
    const char *socket_dir,
    uint16_t port,
    struct http_request *request)
{
    struct errmsg msg;
    struct lookup *lookup = MEM_NEW(struct lookup);
    lookup->request = request;
    lookup->port = port;
    lookup->job = (struct job){.run = run, .done = done};
    err_t err = fill(lookup, socket_dir, &msg);
    if (err != ERR_OK) {
        mem_free(lookup);
        http_respond_error(request, err, &msg);
        return;
    }
    const char *known = compute_verifier(compute, lookup->role);
    if (known != NULL) {
        http_respond_json(request, 200, doc_set(doc_object(), "verifier", doc_str(known)));
        mem_free(lookup);
        return;
    }
    executor_submit(sessions, &lookup->job);
}
