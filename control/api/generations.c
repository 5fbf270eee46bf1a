/*
 * generations.c - whether the attachment generation that a pageserver has is still the newest one.
 *
 * A pageserver asks before it deletes an object or lets safekeepers forget WAL: one that was
 * replaced while it was asleep must do neither. What is answered comes from the catalog as it is on
 * disk, once nobody else has written it (store.h, `confirms`): a control that was itself replaced
 * knows nothing of newer generations. One that was issued later than the answer is as good as one
 * issued later than the deed, because the successor reads the index that the deed was decided from.
 */
#include "common/base/mem.h"
#include "control/api/api_private.h"

#define TENANTS_MAX 10000 /* in one question */

/* A tenant that no project has, or another node: not valid. */
static err_t judge(
    const struct api *api,
    uint64_t node_id,
    const struct doc *claim,
    struct doc *verdicts,
    struct errmsg *msg)
{
    const char *text = NULL;
    struct tenant_id tenant;
    uint64_t generation = 0;
    TRY(doc_get_str(claim, "tenant", &text, msg));
    TRY(tenant_id_parse(text, &tenant, msg));
    TRY(doc_get_u64(claim, "generation", &generation, msg));
    const struct project *project =
        model_project_of_tenant(api->model, tenant_id_text(tenant).text);
    bool valid = project != NULL && project->row.pageserver == node_id &&
                 project->row.generation == generation;
    struct doc *verdict = doc_set_tenant(doc_object(), "tenant", tenant);
    doc_push(verdicts, doc_set_bool(verdict, "valid", valid));
    return ERR_OK;
}

static err_t judge_all(
    const struct api *api, const struct doc *body, struct doc *verdicts, struct errmsg *msg)
{
    uint64_t node_id = 0;
    struct doc *claims = NULL;
    TRY(doc_get_u64(body, "node_id", &node_id, msg));
    TRY(doc_get_array(body, "tenants", &claims, msg));
    if (doc_count(claims) > TENANTS_MAX) {
        return err_set(
            msg, ERR_INVALID, "body.tenants: %zu at once, at most %d", doc_count(claims),
            TENANTS_MAX);
    }
    for (size_t i = 0; i < doc_count(claims); i++) {
        err_t err = judge(api, node_id, doc_at(claims, i), verdicts, msg);
        if (err != ERR_OK) {
            return err_wrap(msg, err, "body.tenants[%zu]", i);
        }
    }
    return ERR_OK;
}

struct validation {
    struct change change;
    const struct api *api;
    struct http_request *request;
    struct doc *body;     /* the request's */
    struct doc *verdicts; /* as of its turn */
};

static err_t prepare_verdicts(struct change *change, struct errmsg *msg)
{
    struct validation *validation = CONTAINER_OF(change, struct validation, change);
    return judge_all(validation->api, validation->body, validation->verdicts, msg);
}

static void on_confirmed(struct change *change, err_t result, const struct errmsg *msg)
{
    struct validation *validation = CONTAINER_OF(change, struct validation, change);
    if (result == ERR_OK) {
        struct doc *answer = doc_object();
        doc_set(answer, "tenants", doc_ref(validation->verdicts));
        http_respond_json(validation->request, 200, answer);
    } else {
        http_respond_error(validation->request, result, msg);
    }
    doc_unref(validation->verdicts);
    mem_free(validation);
}

void handle_post_validate(struct http_context *context, struct http_request *request)
{
    struct errmsg msg;
    struct doc *body = NULL;
    err_t err = http_request_json(request, &body, &msg);
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    struct validation *validation = MEM_NEW(struct validation);
    validation->change = (struct change){
        .prepare = prepare_verdicts,
        .confirms = true,
        .done = on_confirmed,
    };
    validation->api = api_of(context);
    validation->request = request;
    validation->body = body;
    validation->verdicts = doc_array();
    store_submit(validation->api->store, &validation->change);
}
