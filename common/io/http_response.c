/* http_response.c - what a handler answers. */
#include "common/io/http_private.h"

#include <stdio.h>

#include "common/base/log.h"
#include "common/base/str.h"

static bool drop_answer(struct http_request *request)
{
    ASSERT(request->owed); /* exactly one answer */
    if (request->given_up) {
        request->owed = false;
        http_request_free_if_done(request);
        return true;
    }
    return false;
}

static void set_answer(struct http_request *request, unsigned status, const char *content_type)
{
    ASSERT(request->status == 0);
    request->status = status;
    (void)snprintf(request->content_type, sizeof(request->content_type), "%s", content_type);
    buf_clear(&request->answer);
}

void http_respond_bytes(
    struct http_request *request, unsigned status, const char *content_type, struct bytes body)
{
    if (drop_answer(request)) {
        return;
    }
    set_answer(request, status, content_type);
    buf_append(&request->answer, body.data, body.size);
    http_request_answered(request);
}

void http_respond_buf(
    struct http_request *request, unsigned status, const char *content_type, struct buf *body)
{
    if (drop_answer(request)) {
        buf_deinit(body);
        return;
    }
    set_answer(request, status, content_type);
    buf_deinit(&request->answer);
    request->answer = *body;
    *body = (struct buf){0};
    http_request_answered(request);
}

void http_respond_json(struct http_request *request, unsigned status, struct doc *body)
{
    if (drop_answer(request)) {
        doc_unref(body);
        return;
    }
    set_answer(request, status, status >= 400 ? "application/problem+json" : "application/json");
    doc_print(body, false, &request->answer);
    buf_append(&request->answer, "\n", 1);
    doc_unref(body);
    http_request_answered(request);
}

void http_response_header(struct http_request *request, const char *name, const char *value)
{
    ASSERT(request->header_count < HTTP_ADDED_HEADERS_MAX);
    struct added_header *header = &request->headers[request->header_count++];
    (void)snprintf(header->name, sizeof(header->name), "%s", name);
    (void)snprintf(header->value, sizeof(header->value), "%s", value);
    for (char *next = header->value; *next != '\0'; next++) {
        if ((unsigned char)*next < ' ') {
            *next = ' '; /* a value cannot end the header */
        }
    }
}

bool http_request_has_header(const struct http_request *request, const char *name)
{
    for (size_t i = 0; i < request->header_count; i++) {
        if (strcmp(request->headers[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Problems. */

static const char *status_title(unsigned status)
{
    switch (status) {
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 422: return "Unprocessable Content";
    case 423: return "Locked";
    case 429: return "Too Many Requests";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    default: return "Error";
    }
}

struct doc *http_problem_doc(
    const struct http_request *request, unsigned status, const char *code, const char *message)
{
    struct doc *body = doc_object();
    (void)doc_set_str(body, "type", "about:blank");
    (void)doc_set_str(body, "title", status_title(status));
    (void)doc_set_int(body, "status", status);
    (void)doc_set_str(body, "detail", message);
    (void)doc_set_str(body, "message", message);
    (void)doc_set_str(body, "code", code);
    (void)doc_set_str(body, "request_id", request->id);
    return body;
}

void http_respond_problem(
    struct http_request *request, unsigned status, const char *code, const char *message)
{
    if (status >= 500) {
        log_warn(
            NULL, "%s %s answers %u: %s (request %s)", request->method, request->path, status,
            message, request->id);
    }
    bool may_pass = status == 423 || status == 429 || status == 503;
    if (may_pass && !http_request_has_header(request, "Retry-After")) {
        http_response_header(request, "Retry-After", "1");
    }
    http_respond_json(request, status, http_problem_doc(request, status, code, message));
}

unsigned http_status_of(err_t err)
{
    switch (err) {
    case ERR_OK: return 200;
    case ERR_INVALID:
    case ERR_RANGE: return 400;
    case ERR_DENIED: return 403;
    case ERR_NOT_FOUND: return 404;
    case ERR_EXISTS:
    case ERR_STALE: return 409;
    case ERR_UNSUPPORTED: return 501;
    case ERR_BUSY:
    case ERR_FULL:
    case ERR_FAILED:
    case ERR_CANCELED: return 503;
    case ERR_TIMEOUT: return 504;
    case ERR_CORRUPT:
    case ERR_IO:
    case ERR_COUNT: break;
    }
    return 500;
}

void http_respond_error(struct http_request *request, err_t err, const struct errmsg *msg)
{
    ASSERT(err != ERR_OK);
    if (err == ERR_BUSY || err == ERR_FULL) {
        http_response_header(request, "Retry-After", "1");
    }
    http_respond_problem(
        request, http_status_of(err), err_code(err),
        msg != NULL && msg->text[0] != '\0' ? msg->text : err_name(err));
}
