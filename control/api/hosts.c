/*
 * hosts.c - an agent says where it is, and goes on saying so (control/act/hosts.h).
 */
#include "control/act/hosts.h"

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "control/api/api_private.h"

struct saying {
    struct registration registration;
    struct http_request *request;
};

static err_t read_place(const struct doc *body, struct host_row *row, struct errmsg *msg)
{
    const char *address = NULL, *listen_host = "";
    TRY(doc_get_str(body, "host", &address, msg));
    TRY(doc_get_u64(body, "http_port", &row->http_port, msg));
    TRY(doc_opt_str(body, "listen_host", &listen_host, msg));
    TRY(doc_get_u64(body, "lease_ms", &row->lease_ms, msg));
    if (address[0] == '\0' || strlen(address) >= NODE_HOST_SIZE ||
        strlen(listen_host) >= NODE_HOST_SIZE) {
        return err_set(msg, ERR_INVALID, "host: expected 1 to %d bytes", NODE_HOST_SIZE - 1);
    }
    if (row->http_port == 0 || row->http_port > UINT16_MAX) {
        return err_set(msg, ERR_INVALID, "http_port: expected 1 to 65535");
    }
    if (row->lease_ms < HOST_LEASE_MS_MIN || row->lease_ms > HOST_LEASE_MS_MAX) {
        return err_set(
            msg, ERR_INVALID, "lease_ms: expected %d to %d", HOST_LEASE_MS_MIN, HOST_LEASE_MS_MAX);
    }
    TRY(str_copy(row->address, sizeof row->address, address, msg));
    return str_copy(row->listen_host, sizeof row->listen_host, listen_host, msg);
}

static void on_said(struct registration *registration, err_t result, const struct errmsg *msg)
{
    struct saying *saying = CONTAINER_OF(registration, struct saying, registration);
    if (result == ERR_OK) {
        http_respond_json(
            saying->request, 200,
            doc_set_int(doc_object(), "lease_ms", (int64_t)registration->row.lease_ms));
    } else {
        http_respond_error(saying->request, result, msg);
    }
    mem_free(saying);
}

void handle_put_host(struct http_context *context, struct http_request *request)
{
    struct api *api = api_of(context);
    struct host_row row = {0};
    struct doc *body = NULL;
    struct errmsg msg;
    err_t err = parse_u64(http_request_param(request, "host"), 1, INT64_MAX, &row.number, &msg);
    if (err == ERR_OK) {
        err = http_request_json(request, &body, &msg);
    }
    if (err == ERR_OK) {
        err = read_place(body, &row, &msg);
    }
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    struct saying *saying = MEM_NEW(struct saying);
    saying->registration = (struct registration){.done = on_said, .row = row};
    saying->request = request;
    host_register(api->hosts, &saying->registration);
}
