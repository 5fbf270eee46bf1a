/*
 * http_server.c - libmicrohttpd in its "external epoll" mode: its epoll descriptor is one more
 * descriptor of our loop, and MHD_run() does all of its work on our thread.
 */
#include "common/io/http_server.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/auth/auth.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/parse.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/io/http_private.h"
#include "common/io/link_private.h"
#include "common/json/shape.h"

METRIC_COUNTER(requests_total, "http_requests_total", "HTTP requests that reached a handler.");
METRIC_COUNTER(errors_total, "http_errors_total", "HTTP answers with a status of 400 or more.");
METRIC_HISTOGRAM(request_seconds, "http_request_seconds", "From the first header to the answer.");

#define BODY_MAX        (8 * MIB)
#define BODY_READ_MAX   (64 * MIB)  /* announced more: not even read to the end for a clean 413 */
#define BODIES_MAX      (128 * MIB) /* of all requests at once */
#define HEADERS_MAX     (32 * KIB)
#define CONNECTIONS_MAX 1000
#define IDLE_TIMEOUT_S  30
#define RECEIVE_MAX_NS  (120 * NS_PER_S) /* a body that trickles in for longer is given up */
#define DRAIN_ROUNDS    50 /* of MHD_run() while closing, to get the last answers out */

/* Life of a request. */

static bool is_printable_id(const char *id)
{
    size_t size = strlen(id);
    if (size == 0 || size > 32) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        if (id[i] <= ' ' || id[i] > '~' || id[i] == '"' || id[i] == '\\') {
            return false;
        }
    }
    return true;
}

static struct http_request *request_new(
    struct http_server *server,
    struct MHD_Connection *connection,
    const char *method,
    const char *path)
{
    struct http_request *request = MEM_NEW(struct http_request);
    request->server = server;
    request->connection = connection;
    request->began = clock_mono();
    request->body_max = BODY_MAX;
    request->path = mem_strdup(path);
    list_init(&request->query_values);
    (void)snprintf(request->method, sizeof(request->method), "%s", method);
    const char *id = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "X-Request-Id");
    if (id != NULL && is_printable_id(id)) {
        (void)snprintf(request->id, sizeof(request->id), "%s", id);
    } else {
        (void)snprintf(
            request->id, sizeof(request->id), "%s-%" PRIu64, server->id_prefix,
            ++server->request_count);
    }
    list_push_back(&server->requests, &request->link);
    return request;
}

void http_request_free_if_done(struct http_request *request)
{
    if (request->connection != NULL || request->owed) {
        return;
    }
    list_remove(&request->link);
    if (request->server != NULL) {
        request->server->bodies_size -= request->body.size;
    }
    http_request_forget_query(request);
    doc_unref(request->json);
    buf_deinit(&request->body);
    buf_deinit(&request->answer);
    mem_free(request->path);
    mem_free(request->segments);
    mem_free(request);
}

static void run_mhd(struct http_server *server);

static void on_resume(struct loop_task *task)
{
    struct http_server *server = CONTAINER_OF(task, struct http_server, resume);
    server->resume_posted = false;
    run_mhd(server);
}

void http_request_answered(struct http_request *request)
{
    request->owed = false;
    metric_observe_ns(&request_seconds, clock_mono() - request->began);
    if (request->route != NULL && request->server->guard != NULL) {
        struct http_guard *guard = request->server->guard;
        guard->answered(guard, request, request->route, request->status);
    }
    if (request->status >= 400) {
        metric_add(&errors_total, 1);
    }
    if (request->connection == NULL) {
        http_request_free_if_done(request); /* the client is gone, or the server is closed */
        return;
    }
    if (request->suspended) {
        struct http_server *server = request->server;
        request->suspended = false;
        MHD_resume_connection(request->connection);
        if (!server->resume_posted) {
            server->resume_posted = true;
            loop_post(server->loop, &server->resume);
        }
    }
}

/* The story of a request: headers (route, token, size), body, handler, answer. */

static void answer_index(struct http_request *request)
{
    struct doc *routes = doc_array();
    const struct http_server *server = request->server;
    for (size_t t = 0; t < server->table_count; t++) {
        for (size_t i = 0; i < server->tables[t].count; i++) {
            const struct http_route *route = &server->tables[t].routes[i];
            struct doc *row = doc_object();
            (void)doc_set_str(row, "method", route->method);
            (void)doc_set_str(row, "path", route->path);
            (void)doc_set_str(row, "help", route->help);
            (void)doc_push(routes, row);
        }
    }
    http_respond_json(request, 200, doc_set(doc_object(), "routes", routes));
}

static bool has_token(const struct http_request *request)
{
    struct bytes token = http_request_bearer(request);
    return auth_check(request->server->token, token, AUTH_MANAGE, (struct tenant_id){0}, NULL) ==
           ERR_OK;
}

/* False: it was refused, and that is answered. */
static bool admit(struct http_request *request)
{
    struct http_guard *guard = request->server->guard;
    if (request->route->open) {
        return true;
    }
    if (request->server->token[0] == '\0' && http_request_is_of_strange_page(request)) {
        http_respond_problem(
            request, 403, "ERR_DENIED",
            "this comes from the page of another site in a browser, and no token is asked for "
            "here: "
            "set http_token");
        return false;
    }
    if (guard != NULL) {
        return guard->admit(guard, request, request->route);
    }
    if (has_token(request)) {
        return true;
    }
    http_response_header(request, "WWW-Authenticate", "Bearer");
    http_respond_problem(
        request, 401, "ERR_DENIED", "a valid token is needed: Authorization: Bearer TOKEN");
    return false;
}

/* Refuse what can be refused before the body is read. */
static void refuse_early(struct http_request *request)
{
    struct buf allow = {0};
    char message[400];
    if (!http_request_is_framed_well(request)) {
        http_response_header(request, "Connection", "close"); /* what follows may be anything */
        http_respond_problem(
            request, 400, "ERR_INVALID",
            "the headers are malformed: one Content-Length or Transfer-Encoding: chunked, one "
            "Host");
        return;
    }
    if (!http_request_split_path(request)) {
        http_respond_problem(
            request, 400, "ERR_INVALID", "the path has a broken %-escape or too many segments");
        return;
    }
    bool is_index = request->segment_count == 0 &&
                    (strcmp(request->method, "GET") == 0 || strcmp(request->method, "HEAD") == 0);
    http_request_find_route(request, &allow);
    if (request->route == NULL && !is_index) {
        if (allow.size > 0) {
            (void)snprintf(
                message, sizeof(message), "%.200s has no method %s, only %.100s", request->path,
                request->method, buf_cstr(&allow));
            http_response_header(request, "Allow", buf_cstr(&allow));
            http_respond_problem(request, 405, "ERR_UNSUPPORTED", message);
        } else {
            (void)snprintf(
                message, sizeof(message), "there is no %s %.300s; GET / lists what there is",
                request->method, request->path);
            http_respond_problem(request, 404, "ERR_NOT_FOUND", message);
        }
    } else if (request->route != NULL) {
        (void)admit(request); /* answered when it did not */
    }
    buf_deinit(&allow);
}

static void refuse_large(struct http_request *request)
{
    char message[80];
    (void)snprintf(
        message, sizeof(message), "the body is larger than %zu bytes", request->body_max);
    http_respond_problem(request, 413, "ERR_INVALID", message);
}

/*
 * Whether the peer has closed its side. MHD's epoll is edge-triggered and a read that got the
 * request and the end in one piece saw no end: it would wait for the next request until the
 * idle limit.
 */
static bool peer_is_done(const struct http_request *request)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    char byte;
    return info != NULL && recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static enum MHD_Result queue_answer(struct http_request *request)
{
    ASSERT(request->status != 0);
    http_peer_waits(request->server, http_peer_of(request->connection), true);
    struct MHD_Response *response = MHD_create_response_from_buffer(
        request->answer.size, request->answer.data, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        return MHD_NO;
    }
    request->answer = (struct buf){0}; /* MHD frees it: mem_alloc is malloc */
    (void)MHD_add_response_header(response, "Content-Type", request->content_type);
    (void)MHD_add_response_header(response, "X-Request-Id", request->id);
    (void)MHD_add_response_header(response, "Cache-Control", "no-store");
    if (peer_is_done(request) && !http_request_has_header(request, "Connection")) {
        (void)MHD_add_response_header(response, "Connection", "close");
    }
    for (size_t i = 0; i < request->header_count; i++) {
        (void)MHD_add_response_header(
            response, request->headers[i].name, request->headers[i].value);
    }
    enum MHD_Result result = MHD_queue_response(request->connection, request->status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result begin_request(
    struct http_server *server,
    struct MHD_Connection *connection,
    const char *method,
    const char *path,
    struct http_request **ret_request)
{
    struct http_request *request = request_new(server, connection, method, path);
    http_peer_of(connection)->in_request = true;
    *ret_request = request;
    request->owed = true;
    const char *length = http_request_header(request, "Content-Length");
    refuse_early(request);
    uint64_t size = 0;
    if (request->status == 0 && length != NULL &&
        parse_u64(length, 0, UINT64_MAX, &size, NULL) == ERR_OK && size > BODY_READ_MAX) {
        refuse_large(request);
    }
    if (request->status != 0) {
        return queue_answer(request); /* MHD closes the connection if a body was announced */
    }
    request->owed = false;
    return MHD_YES;
}

static enum MHD_Result take_body(struct http_request *request, const char *data, size_t *size)
{
    if (clock_mono() - request->began > RECEIVE_MAX_NS) {
        return MHD_NO;
    }
    struct http_server *server = request->server;
    request->too_large |=
        request->body.size + *size > request->body_max; /* chunked: not known before */
    request->too_many |= server->bodies_size + *size > BODIES_MAX;
    if (request->too_large || request->too_many) {
        server->bodies_size -= request->body.size;
        buf_deinit(&request->body);
    } else {
        buf_append(&request->body, data, *size);
        server->bodies_size += *size;
    }
    *size = 0;
    return MHD_YES;
}

static err_t check_query(struct http_request *request, struct errmsg *msg)
{
    const char *shape = request->route->query;
    struct shape_field field;
    while (shape != NULL && shape_next(&shape, &field)) {
        if (field.is_required && http_request_query(request, field.name) == NULL) {
            return err_set(msg, ERR_INVALID, "query parameter %s is missing", field.name);
        }
    }
    return ERR_OK;
}

/* What the route says of query and body. False: it was refused, and that is answered. */
static bool has_its_shape(struct http_request *request)
{
    const struct http_route *route = request->route;
    struct doc *body = NULL;
    struct errmsg msg;
    err_t err = check_query(request, &msg);
    if (err == ERR_OK && route->body != NULL && route->body[0] != '\0') {
        err = http_request_json(request, &body, &msg);
        if (err == ERR_OK) {
            err = shape_check(route->body, body, &msg);
        }
    }
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
    }
    return err == ERR_OK;
}

static void call_handler(struct http_request *request)
{
    metric_add(&requests_total, 1);
    request->owed = true;
    if (request->too_large) {
        refuse_large(request);
    } else if (request->too_many) {
        http_respond_problem(
            request, 503, "ERR_BUSY", "too many large requests at once, try again");
    } else if (request->server->closing) {
        http_respond_problem(request, 503, "ERR_CANCELED", "the process is stopping");
    } else if (request->route == NULL) {
        answer_index(request);
    } else if (has_its_shape(request)) {
        request->route->handler(request->table->context, request);
    }
}

static enum MHD_Result on_access(
    void *context,
    struct MHD_Connection *connection,
    const char *path,
    const char *method,
    const char *version,
    const char *data,
    size_t *size,
    void **slot)
{
    (void)version;
    struct http_request *request = *slot;
    if (request == NULL) {
        enum MHD_Result result = begin_request(context, connection, method, path, &request);
        *slot = request;
        return result;
    }
    if (*size > 0) {
        return take_body(request, data, size);
    }
    if (request->status == 0 && !request->owed) {
        http_peer_is_served(http_peer_of(connection));
        call_handler(request);
        if (request->status == 0) {
            request->suspended = true;
            MHD_suspend_connection(connection);
            return MHD_YES;
        }
    }
    return request->status == 0 ? MHD_YES : queue_answer(request);
}

static void on_completed(
    void *context,
    struct MHD_Connection *connection,
    void **slot,
    enum MHD_RequestTerminationCode code)
{
    (void)code;
    struct http_request *request = *slot;
    http_peer_waits(context, http_peer_of(connection), false);
    if (request != NULL) {
        *slot = NULL;
        request->connection = NULL;
        http_request_free_if_done(request);
    }
}

/* MHD would decode the path before we cut it at slashes: do nothing here, decode segments later. */
static size_t keep_escapes(void *context, struct MHD_Connection *connection, char *text)
{
    (void)context;
    (void)connection;
    return strlen(text);
}

static void on_mhd_log(void *context, const char *format, va_list args) PRINTF_LIKE(2, 0);

static void on_mhd_log(void *context, const char *format, va_list args)
{
    struct http_server *server = context;
    char text[sizeof(server->said)];
    (void)vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    (void)snprintf(server->said, sizeof(server->said), "%s", text);
    log_debug(NULL, "http: %s", text); /* what a broken client makes it say */
}

/* Running. */

static size_t connection_count(const struct http_server *server)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
    return info == NULL ? 0 : info->num_connections;
}

static void run_mhd(struct http_server *server)
{
    if (server->daemon == NULL || server->running) {
        return; /* closed, or a handler answered another request: the outer run goes on */
    }
    bool was_full = connection_count(server) >= server->connections_max;
    http_peers_evict(server, was_full);
    server->running = true;
    (void)MHD_run(server->daemon);
    server->running = false;
    MHD_UNSIGNED_LONG_LONG delay_ms = 0;
    if (was_full && connection_count(server) < server->connections_max) {
        /* MHD looks at its listening socket again only when it runs once more. */
        timer_start(server->loop, &server->timer, 0);
    } else if (MHD_get_timeout(server->daemon, &delay_ms) == MHD_YES) {
        timer_start(server->loop, &server->timer, delay_ms);
    } else {
        timer_stop(&server->timer);
    }
}

static void on_timer(struct timer *timer)
{
    run_mhd(CONTAINER_OF(timer, struct http_server, timer));
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run_mhd(CONTAINER_OF(poll, struct http_server, poll));
}

/* Opening and closing. */

static err_t listen_socket(
    const char *host, uint16_t port, int *ret_fd, uint16_t *ret_port, struct errmsg *msg)
{
    struct sockaddr_storage address;
    TRY(address_resolve(host, port, &address, msg));
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return err_set(msg, err_from_errno(errno), "create a socket: %m");
    }
    int on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    socklen_t size =
        address.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (bind(fd, (const struct sockaddr *)&address, size) != 0 || listen(fd, 1024) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        err_t err = err_set(msg, err_from_errno(errno), "listen for HTTP on %s:%u: %m", host, port);
        (void)close(fd);
        return err;
    }
    *ret_fd = fd;
    *ret_port = ntohs(
        address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                      : ((struct sockaddr_in *)&address)->sin_port);
    return ERR_OK;
}

static void on_shut(struct loop_object *object)
{
    http_server_close(CONTAINER_OF(object, struct http_server, object));
}

static struct http_server *server_new(
    struct loop *loop, uint16_t port, const struct http_options *options)
{
    struct http_server *server = MEM_NEW(struct http_server);
    uint8_t random[4];
    prng_secure(random, sizeof(random));
    format_hex(random, sizeof(random), server->id_prefix);
    server->loop = loop;
    server->port = port;
    server->object.shut = on_shut;
    server->timer.on_fire = on_timer;
    server->resume.run = on_resume;
    server->token = mem_strdup(options->token != NULL ? options->token : "");
    list_init(&server->requests);
    list_init(&server->waiting);
    server->connections_max =
        options->connections_max > 0 ? options->connections_max : CONNECTIONS_MAX;
    server->timeout_s = options->idle_timeout_s > 0 ? options->idle_timeout_s : IDLE_TIMEOUT_S;
    server->headers_max_ns = 2 * (mono_ns_t)server->timeout_s * NS_PER_S;
    return server;
}

static void server_free(struct http_server *server)
{
    http_tls_deinit(&server->tls);
    mem_free(server->token);
    mem_free(server);
}

/* Takes over the descriptor when it succeeds. */
static err_t start_daemon(struct http_server *server, int listen_fd, struct errmsg *msg)
{
    bool has_tls = server->tls.key.size > 0;
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    /* The logger comes first, so that it is in place for what the other options say. */
    server->daemon = MHD_start_daemon(
        flags | (has_tls ? MHD_USE_TLS : 0), 0, NULL, NULL, on_access, server,
        MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, server, MHD_OPTION_LISTEN_SOCKET, listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)server->connections_max,
        MHD_OPTION_CONNECTION_TIMEOUT, server->timeout_s, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)HEADERS_MAX, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
        MHD_OPTION_NOTIFY_CONNECTION, http_peer_on_change, server, MHD_OPTION_UNESCAPE_CALLBACK,
        keep_escapes, NULL, MHD_OPTION_ARRAY, server->tls.options, MHD_OPTION_END);
    if (server->daemon == NULL && has_tls) {
        return err_set(
            msg, ERR_INVALID, "certificate and key cannot be used together: %s", server->said);
    }
    if (server->daemon == NULL) {
        return err_set(msg, ERR_BUSY, "the HTTP server did not start: %s", server->said);
    }
    return ERR_OK;
}

static void watch_daemon(struct http_server *server)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    ASSERT(info != NULL);
    int rc = uv_poll_init(&server->loop->uv, &server->poll, info->epoll_fd);
    rc = rc < 0 ? rc : uv_poll_start(&server->poll, UV_READABLE, on_readable);
    ASSERT(rc == 0);
    loop_add(server->loop, &server->object);
    run_mhd(server);
}

err_t http_server_open(
    struct loop *loop,
    const char *host,
    uint16_t port,
    const struct http_options *options,
    struct http_server **ret_server,
    struct errmsg *msg)
{
    static const struct http_options defaults = {0};
    options = options != NULL ? options : &defaults;
    int listen_fd = -1;
    uint16_t got_port = 0;
    TRY(listen_socket(host, port, &listen_fd, &got_port, msg));
    struct http_server *server = server_new(loop, got_port, options);
    err_t err = http_tls_load(options, &server->tls, msg);
    if (err == ERR_OK) {
        err = start_daemon(server, listen_fd, msg);
    }
    if (err != ERR_OK) {
        (void)close(listen_fd);
        server_free(server);
        return err_wrap(msg, err, "HTTP on %s:%u", host, got_port);
    }
    watch_daemon(server);
    *ret_server = server;
    return ERR_OK;
}

void http_request_limit_body(struct http_request *request, size_t size_max)
{
    request->body_max = MIN_OF(size_max, BODY_MAX);
}

void http_server_set_guard(struct http_server *server, struct http_guard *guard)
{
    server->guard = guard;
}

const char *http_server_token(const struct http_server *server)
{
    return server->token;
}

uint16_t http_server_port(const struct http_server *server)
{
    return server->port;
}

void http_server_add_routes(
    struct http_server *server,
    const struct http_route *routes,
    size_t count,
    struct http_context *context)
{
    ASSERT(server->table_count < HTTP_TABLES_MAX);
    server->tables[server->table_count++] =
        (struct route_table){.routes = routes, .count = count, .context = context};
}

/* 503 for a request whose handler still works; the handler's own answer is dropped later. */
static void give_up(struct http_request *request)
{
    struct doc *body = http_problem_doc(request, 503, "ERR_CANCELED", "the process is stopping");
    request->status = 503;
    request->given_up = true;
    (void)snprintf(
        request->content_type, sizeof(request->content_type), "application/problem+json");
    doc_print(body, false, &request->answer);
    doc_unref(body);
    if (request->suspended) {
        request->suspended = false;
        MHD_resume_connection(request->connection);
    }
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct http_server *server = CONTAINER_OF((uv_poll_t *)handle, struct http_server, poll);
    MHD_stop_daemon(server->daemon); /* only now: it closes the descriptor that uv polled */
    server->daemon = NULL;
    while (!list_is_empty(&server->requests)) {
        struct http_request *request =
            CONTAINER_OF(list_pop_front(&server->requests), struct http_request, link);
        request->connection = NULL;
        request->server = NULL;             /* it goes before them */
        http_request_free_if_done(request); /* else its handler frees it by answering */
    }
    server_free(server);
}

void http_server_close(struct http_server *server)
{
    if (server == NULL || server->closing) {
        return;
    }
    server->closing = true;
    LIST_FOR_EACH(&server->requests, link)
    {
        struct http_request *request = CONTAINER_OF(link, struct http_request, link);
        if (request->owed && request->status == 0) {
            give_up(request);
        }
    }
    for (int i = 0; i < DRAIN_ROUNDS && !server->running && !list_is_empty(&server->requests);
         i++) {
        (void)MHD_run(server->daemon);
    }
    timer_stop(&server->timer);
    loop_unpost(server->loop, &server->resume);
    loop_remove(&server->object);
    uv_close((uv_handle_t *)&server->poll, on_poll_closed);
}
