/*
 * management_remote.c - routes about a tenant's copy in the object store.
 */
#include "common/base/mem.h"
#include "pageserver/remote/mirror.h"
#include "pageserver/serve/management_private.h"

static err_t find_mirror(
    struct server *server,
    struct http_request *http,
    struct tenant **ret_tenant,
    struct mirror **ret_mirror,
    struct errmsg *msg)
{
    struct tenant_id id;
    TRY(tenant_id_parse(http_request_param(http, "tenant"), &id, msg));
    struct tenant *tenant = tenants_find(server->tenants, id);
    struct mirror *mirror = tenant == NULL ? NULL : mirror_find(tenant);
    if (mirror == NULL) {
        return tenants_why_missing(server->tenants, id, msg);
    }
    *ret_tenant = tenant;
    *ret_mirror = mirror;
    return ERR_OK;
}

static struct doc *timelines_doc(struct tenant *tenant)
{
    struct doc *timelines = doc_array();
    for (struct timeline *tl = tenant_first_timeline(tenant); tl != NULL;
         tl = tenant_next_timeline(tenant, tl)) {
        struct doc *doc = doc_set_timeline(doc_object(), "timeline", timeline_info(tl)->id);
        doc_set_lsn(doc, "last_record_lsn", timeline_last_lsn(tl));
        doc_set_lsn(doc, "durable_lsn", timeline_durable_lsn(tl));
        doc_push(timelines, doc_set_lsn(doc, "remote_lsn", timeline_remote_lsn(tl)));
    }
    return timelines;
}

void handle_get_remote(struct http_context *context, struct http_request *http)
{
    struct errmsg msg;
    struct tenant *tenant = NULL;
    struct mirror *mirror = NULL;
    struct mirror_status status;
    err_t err = find_mirror(management_server(context), http, &tenant, &mirror, &msg);
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
        return;
    }
    mirror_status(mirror, &status);
    struct doc *doc = doc_set_int(doc_object(), "generation", status.generation);
    doc_set_int(doc, "sequence", (int64_t)status.sequence);
    doc_set_bool(doc, "uploading", status.uploading);
    doc_set_bool(doc, "waiting", status.waiting);
    doc_set_int(doc, "doomed_objects", (int64_t)status.doomed);
    doc_set_str(doc, "error", status.error);
    http_respond_json(http, 200, doc_set(doc, "timelines", timelines_doc(tenant)));
}

/* Control attaches it again as soon as it misses it. */
void handle_post_restore(struct http_context *context, struct http_request *http)
{
    call_for_tenant(context, http, tenant_give_up);
}

struct scrub_call {
    struct mirror_scrub scrub;
    struct http_request *http;
};

static void on_scrubbed(struct mirror_scrub *scrub, err_t result)
{
    struct scrub_call *call = CONTAINER_OF(scrub, struct scrub_call, scrub);
    if (result != ERR_OK) {
        http_respond_error(call->http, result, &scrub->msg);
    } else {
        struct doc *doc = doc_set_int(doc_object(), "objects", (int64_t)scrub->result.objects);
        doc_set_int(doc, "dangling", (int64_t)scrub->result.dangling);
        doc_set_int(doc, "repaired", (int64_t)scrub->result.repaired);
        doc_set_int(doc, "leaked", (int64_t)scrub->result.leaked);
        http_respond_json(call->http, 200, doc);
    }
    mem_free(call);
}

void handle_post_scrub(struct http_context *context, struct http_request *http)
{
    struct errmsg msg;
    struct tenant *tenant = NULL;
    struct mirror *mirror = NULL;
    err_t err = find_mirror(management_server(context), http, &tenant, &mirror, &msg);
    if (err == ERR_OK) {
        struct scrub_call *call = MEM_NEW(struct scrub_call);
        call->http = http;
        call->scrub.done = on_scrubbed;
        err = mirror_scrub(mirror, &call->scrub, &msg);
        if (err != ERR_OK) {
            mem_free(call);
        }
    }
    if (err != ERR_OK) {
        http_respond_error(http, err, &msg);
    }
}
