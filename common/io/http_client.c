/*
 * http_client.c - libcurl's multi interface: it tells us which sockets and which time it waits for,
 * we tell it what happened. The blocking call uses the same handle set-up without a loop.
 */
#include "common/io/http_client.h"

#include <curl/curl.h>
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/io/loop_private.h"

#define RESPONSE_MAX       (64 * MIB)
#define CONNECT_TIMEOUT_MS 5000L
#define TIMEOUT_MS         60000 /* when the caller gave none */

struct http_client {
    struct loop_object object;
    struct loop *loop;
    CURLM *multi;
    struct timer timer;
    struct list calls;
    char authorities[PATH_SIZE]; /* "": the system's */
    bool closing;
    size_t sockets; /* uv handles that are open */
};

/* One descriptor that curl wants watched; freed in the close callback. */
struct client_socket {
    uv_poll_t poll;
    struct http_client *client;
    curl_socket_t fd;
};

/* Everything of a running call that is not its caller's. */
struct call_state {
    struct list_link link; /* in client->calls */
    struct http_call *call;
    struct http_client *client; /* NULL: blocking */
    CURL *easy;
    struct curl_slist *headers;
    char *body;
    struct loop_task finish; /* for ends that are not reported by curl */
    err_t early_result;
    bool in_multi;
    int save_fd;
    uint64_t saved;
    char *save_path;
    bool too_large;
    err_t save_result; /* of writing to `save_path` */
    struct errmsg save_msg;
    char curl_text[CURL_ERROR_SIZE];
};

__attribute__((constructor)) static void init_curl(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        fatal("libcurl does not start");
    }
}

static void state_free(struct call_state *state)
{
    curl_easy_cleanup(state->easy);
    curl_slist_free_all(state->headers);
    file_close(&state->save_fd);
    mem_free(state->save_path);
    mem_free(state->body);
    mem_free(state);
}

/* The body: into memory, or into the file when the answer is a success. */

static err_t save_piece(struct call_state *state, struct bytes piece)
{
    if (state->save_fd < 0) {
        TRY(file_open(&state->save_fd, state->save_path, FILE_CREATE, &state->save_msg));
        TRY(file_resize(state->save_fd, state->save_path, 0, false, &state->save_msg));
    }
    TRY(file_write_at(state->save_fd, state->save_path, piece, state->saved, &state->save_msg));
    state->saved += piece.size;
    return ERR_OK;
}

static size_t on_body(char *data, size_t item_size, size_t count, void *context)
{
    struct call_state *state = context;
    struct http_call *call = state->call;
    size_t size = item_size * count;
    long status = 0;
    (void)curl_easy_getinfo(state->easy, CURLINFO_RESPONSE_CODE, &status);
    size_t limit = call->response_max > 0 ? call->response_max : RESPONSE_MAX;
    if (state->save_path != NULL && status >= 200 && status < 300) {
        state->save_result = save_piece(state, bytes_of(data, size));
        return state->save_result == ERR_OK ? size : 0;
    }
    if (call->response.size + size > limit) {
        state->too_large = true;
        return 0;
    }
    buf_append(&call->response, data, size);
    return size;
}

static void add_header(struct call_state *state, const char *line)
{
    struct curl_slist *longer = curl_slist_append(state->headers, line);
    if (longer == NULL) {
        fatal("out of memory: HTTP headers");
    }
    state->headers = longer;
}

static struct call_state *state_new(struct http_client *client, struct http_call *call)
{
    struct call_state *state = MEM_NEW(struct call_state);
    state->call = call;
    state->client = client;
    state->save_fd = -1;
    state->easy = curl_easy_init();
    if (state->easy == NULL) {
        fatal("out of memory: HTTP call");
    }
    call->result = ERR_OK;
    call->msg.text[0] = '\0';
    call->status = 0;
    buf_clear(&call->response);
    return state;
}

static void set_up_tls(const struct call_state *state)
{
    const char *authorities =
        state->client != NULL ? state->client->authorities : state->call->authorities;
    (void)curl_easy_setopt(state->easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (authorities != NULL && authorities[0] != '\0') {
        (void)curl_easy_setopt(state->easy, CURLOPT_CAINFO, authorities);
        (void)curl_easy_setopt(state->easy, CURLOPT_CAPATH, NULL); /* and nobody else */
    }
}

static void set_up(struct call_state *state)
{
    const struct http_call *call = state->call;
    CURL *easy = state->easy;
    set_up_tls(state);
    bool is_head = strcmp(call->method, "HEAD") == 0;
    (void)curl_easy_setopt(easy, CURLOPT_URL, call->url);
    (void)curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl_easy_setopt(easy, CURLOPT_NOPROXY, "*"); /* a cluster talks to itself directly */
    (void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, state->curl_text);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, state);
    (void)curl_easy_setopt(easy, CURLOPT_PRIVATE, state);
    (void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    uint64_t timeout_ms = call->timeout_ms > 0 ? call->timeout_ms : TIMEOUT_MS;
    (void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    (void)curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
    (void)curl_easy_setopt(easy, CURLOPT_NOBODY, is_head ? 1L : 0L);
    bool sends = call->body.size > 0 || strcmp(call->method, "PUT") == 0 ||
                 strcmp(call->method, "POST") == 0 || strcmp(call->method, "PATCH") == 0;
    if (sends) {
        state->body = mem_dup(call->body.data, call->body.size);
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, state->body);
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body.size);
        add_header(state, "Content-Type: application/json");
        add_header(state, "Expect:"); /* no round trip to ask whether a body is welcome */
    }
    add_header(state, "Accept: application/json");
    if (call->token != NULL && call->token[0] != '\0') {
        struct buf line = {0};
        buf_printf(&line, "Authorization: Bearer %s", call->token);
        add_header(state, buf_cstr(&line));
        buf_deinit(&line);
    }
    if (call->timeout_ms > 0) {
        struct buf line = {0};
        buf_printf(&line, HTTP_TIMEOUT_HEADER ": %" PRIu64, call->timeout_ms);
        add_header(state, buf_cstr(&line));
        buf_deinit(&line);
    }
    (void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, state->headers);
    if (call->save_path != NULL) {
        state->save_path = mem_strdup(call->save_path);
    }
}

static err_t result_of(struct call_state *state, CURLcode code, struct errmsg *msg)
{
    const struct http_call *call = state->call;
    if (state->save_result != ERR_OK) {
        *msg = state->save_msg;
        return state->save_result;
    }
    if (state->too_large) {
        return err_set(
            msg, ERR_FULL, "the answer is larger than %zu bytes",
            call->response_max > 0 ? call->response_max : RESPONSE_MAX);
    }
    const char *text = state->curl_text[0] != '\0' ? state->curl_text : curl_easy_strerror(code);
    switch ((int)code) {
    case CURLE_OK: return ERR_OK;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL: return err_set(msg, ERR_INVALID, "%s", text);
    case CURLE_OPERATION_TIMEDOUT: return err_set(msg, ERR_TIMEOUT, "%s", text);
    default: return err_set(msg, ERR_IO, "%s", text);
    }
}

/* Fills in the answer; the state is gone afterwards. */
static void conclude(struct call_state *state, err_t result)
{
    struct http_call *call = state->call;
    char *url = NULL;
    if (result == ERR_OK) {
        long status = 0;
        (void)curl_easy_getinfo(state->easy, CURLINFO_RESPONSE_CODE, &status);
        call->status = (unsigned)status;
        if (state->save_path != NULL && state->save_fd < 0 && status >= 200 && status < 300) {
            struct bytes nothing = {0}; /* an empty body is an empty file */
            result = save_piece(state, nothing);
            call->msg = state->save_msg;
        }
    }
    if (result != ERR_OK) {
        (void)curl_easy_getinfo(state->easy, CURLINFO_EFFECTIVE_URL, &url);
        err_ignore(
            err_wrap(&call->msg, result, "%s %s", call->method, url != NULL ? url : "?"),
            "the code is known, only the text is wanted");
    }
    call->result = result;
    call->client_private = NULL;
    state_free(state);
}

/* Calls on the loop. */

static void finish(struct call_state *state, err_t result)
{
    struct http_call *call = state->call;
    if (state->in_multi) {
        (void)curl_multi_remove_handle(state->client->multi, state->easy);
    }
    list_remove(&state->link);
    loop_unpost(state->client->loop, &state->finish);
    conclude(state, result);
    call->done(call); /* the call is its owner's again */
}

static void on_finish_task(struct loop_task *task)
{
    struct call_state *state = CONTAINER_OF(task, struct call_state, finish);
    finish(state, state->early_result);
}

static void take_finished(struct http_client *client)
{
    int left = 0;
    for (CURLMsg *message = curl_multi_info_read(client->multi, &left); message != NULL;
         message = curl_multi_info_read(client->multi, &left)) {
        if (message->msg != CURLMSG_DONE) {
            continue;
        }
        CURLcode code = message->data.result; /* removing the handle frees the message */
        struct call_state *state = NULL;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&state);
        if (list_link_is_in(&state->finish.link)) {
            continue; /* canceled: that report is on its way */
        }
        finish(state, result_of(state, code, &state->call->msg));
    }
}

static void on_socket_ready(uv_poll_t *poll, int status, int events)
{
    struct client_socket *socket = CONTAINER_OF(poll, struct client_socket, poll);
    struct http_client *client = socket->client;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0;
    flags |= (events & UV_READABLE) != 0 ? CURL_CSELECT_IN : 0;
    flags |= (events & UV_WRITABLE) != 0 ? CURL_CSELECT_OUT : 0;
    int running = 0;
    (void)curl_multi_socket_action(client->multi, socket->fd, flags, &running);
    take_finished(client);
}

static void client_free_if_done(struct http_client *client)
{
    if (client->closing && client->sockets == 0) {
        mem_free(client);
    }
}

static void on_socket_closed(uv_handle_t *handle)
{
    struct client_socket *socket = CONTAINER_OF((uv_poll_t *)handle, struct client_socket, poll);
    struct http_client *client = socket->client;
    client->sockets--;
    mem_free(socket);
    client_free_if_done(client);
}

static int on_socket_wanted(CURL *easy, curl_socket_t fd, int what, void *context, void *known)
{
    (void)easy;
    struct http_client *client = context;
    struct client_socket *socket = known;
    if (what == CURL_POLL_REMOVE) {
        if (socket != NULL) {
            (void)curl_multi_assign(client->multi, fd, NULL);
            (void)uv_poll_stop(&socket->poll); /* at once: curl closes the descriptor next */
            uv_close((uv_handle_t *)&socket->poll, on_socket_closed);
        }
        return 0;
    }
    if (socket == NULL) {
        socket = MEM_NEW(struct client_socket);
        socket->client = client;
        socket->fd = fd;
        int rc = uv_poll_init_socket(&client->loop->uv, &socket->poll, fd);
        ASSERT(rc == 0);
        client->sockets++;
        (void)curl_multi_assign(client->multi, fd, socket);
    }
    int events = (what == CURL_POLL_IN || what == CURL_POLL_INOUT ? UV_READABLE : 0) |
                 (what == CURL_POLL_OUT || what == CURL_POLL_INOUT ? UV_WRITABLE : 0);
    (void)uv_poll_start(&socket->poll, events, on_socket_ready);
    return 0;
}

static void on_timer(struct timer *timer)
{
    struct http_client *client = CONTAINER_OF(timer, struct http_client, timer);
    int running = 0;
    (void)curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    take_finished(client);
}

static int on_time_wanted(CURLM *multi, long delay_ms, void *context)
{
    (void)multi;
    struct http_client *client = context;
    if (delay_ms < 0) {
        timer_stop(&client->timer);
    } else {
        timer_start(client->loop, &client->timer, (uint64_t)delay_ms);
    }
    return 0;
}

static void on_shut(struct loop_object *object)
{
    http_client_destroy(CONTAINER_OF(object, struct http_client, object));
}

err_t http_client_create(struct loop *loop, struct http_client **ret_client, struct errmsg *msg)
{
    CURLM *multi = curl_multi_init();
    if (multi == NULL) {
        return err_set(msg, ERR_BUSY, "the HTTP client did not start");
    }
    struct http_client *client = MEM_NEW(struct http_client);
    client->loop = loop;
    client->multi = multi;
    client->object.shut = on_shut;
    client->timer.on_fire = on_timer;
    list_init(&client->calls);
    (void)curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket_wanted);
    (void)curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, client);
    (void)curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_time_wanted);
    (void)curl_multi_setopt(multi, CURLMOPT_TIMERDATA, client);
    loop_add(loop, &client->object);
    *ret_client = client;
    return ERR_OK;
}

void http_client_trust(struct http_client *client, const char *authorities)
{
    err_ignore(
        str_copy(client->authorities, sizeof(client->authorities), authorities, NULL),
        "settings are shorter than paths");
}

void http_client_destroy(struct http_client *client)
{
    if (client == NULL || client->closing) {
        return;
    }
    for (struct list_link *link = list_first(&client->calls); link != NULL;
         link = list_first(&client->calls)) {
        struct call_state *state = CONTAINER_OF(link, struct call_state, link);
        err_t err = err_set(&state->call->msg, ERR_CANCELED, "the process is stopping");
        finish(state, err);
    }
    loop_remove(&client->object);
    client->sockets++; /* so that closing the connections below does not free the client */
    client->closing = true;
    (void)curl_multi_cleanup(client->multi);
    timer_stop(&client->timer);
    client->sockets--;
    client_free_if_done(client);
}

void http_call_start(struct http_client *client, struct http_call *call)
{
    ASSERT(call->method != NULL && call->url != NULL && call->done != NULL);
    ASSERT(call->client_private == NULL);
    struct call_state *state = state_new(client, call);
    state->finish.run = on_finish_task;
    call->client_private = state;
    list_push_back(&client->calls, &state->link);
    set_up(state);
    CURLMcode code =
        client->closing ? CURLM_BAD_HANDLE : curl_multi_add_handle(client->multi, state->easy);
    if (code == CURLM_OK) {
        state->in_multi = true; /* curl asks for a timer and begins when it fires */
        return;
    }
    state->early_result = err_set(&call->msg, ERR_CANCELED, "%s", curl_multi_strerror(code));
    loop_post(client->loop, &state->finish);
}

void http_call_cancel(struct http_call *call)
{
    struct call_state *state = call->client_private;
    if (state != NULL && !list_link_is_in(&state->finish.link)) {
        if (state->in_multi) {
            (void)curl_multi_remove_handle(state->client->multi, state->easy);
            state->in_multi = false;
        }
        state->early_result = err_set(&call->msg, ERR_CANCELED, "canceled");
        loop_post(state->client->loop, &state->finish);
    }
}

void http_call_deinit(struct http_call *call)
{
    ASSERT(call->client_private == NULL);
    buf_deinit(&call->response);
}

err_t http_call_blocking(struct http_call *call, struct errmsg *msg)
{
    struct call_state *state = state_new(NULL, call);
    set_up(state);
    CURLcode code = curl_easy_perform(state->easy);
    conclude(state, result_of(state, code, &call->msg));
    if (call->result != ERR_OK && msg != NULL) {
        *msg = call->msg;
    }
    return call->result;
}

/* Answers. */

static err_t err_of_status(unsigned status)
{
    switch (status) {
    case 400: return ERR_INVALID;
    case 401:
    case 403: return ERR_DENIED;
    case 404: return ERR_NOT_FOUND;
    case 409: return ERR_EXISTS;
    case 410: return ERR_STALE;
    case 501: return ERR_UNSUPPORTED;
    case 503: return ERR_BUSY;
    case 504: return ERR_TIMEOUT;
    default: return status >= 400 && status < 500 ? ERR_INVALID : ERR_IO;
    }
}

static err_t err_of_code(const char *code, err_t otherwise)
{
    for (int err = ERR_OK + 1; err < ERR_COUNT; err++) {
        if (strcmp(err_code((err_t)err), code) == 0) {
            return (err_t)err;
        }
    }
    return otherwise;
}

static err_t problem(const struct http_call *call, struct errmsg *msg)
{
    struct doc *body = NULL;
    const char *code = "";
    const char *message = "";
    err_t err = err_of_status(call->status);
    if (doc_parse(buf_view(&call->response), &body, NULL) == ERR_OK) {
        err_ignore(doc_opt_str(body, "code", &code, NULL), "the status says enough");
        err_ignore(doc_opt_str(body, "message", &message, NULL), "the status says enough");
        err = err_of_code(code, err);
    }
    if (message[0] != '\0') {
        err = err_set(msg, err, "%s", message);
    } else {
        err = err_set(
            msg, err, "%s %s answered HTTP status %u", call->method, call->url, call->status);
    }
    doc_unref(body);
    return err;
}

err_t http_call_json(const struct http_call *call, struct doc **ret_body, struct errmsg *msg)
{
    if (call->result != ERR_OK) {
        return err_set(msg, call->result, "%s", call->msg.text);
    }
    if (call->status < 200 || call->status >= 300) {
        return problem(call, msg);
    }
    if (call->response.size == 0) {
        *ret_body = doc_object();
        return ERR_OK;
    }
    err_t err = doc_parse(buf_view(&call->response), ret_body, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "answer of HTTP status %u", call->status);
}
