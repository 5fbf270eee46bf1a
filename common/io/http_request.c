/* http_request.c - what a handler reads of a request. */
#include "common/io/http_private.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "common/io/http_client.h"

/* A decoded query argument, kept because http_request_query() hands out its text. */
struct query_value {
    struct list_link link;
    char text[];
};

/* Where a request ends, and for whom it is: who stands in front of us must not read it otherwise.
 */
struct framing {
    size_t lengths, encodings, hosts;
    bool is_chunked, is_malformed;
};

static enum MHD_Result look_at_header(
    void *data, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct framing *framing = data;
    (void)kind;
    for (const char *c = name; *c != '\0'; c++) {
        framing->is_malformed |= *c <= ' ' || *c > '~'; /* "Content-Length :" is another header */
    }
    if (strcasecmp(name, "Content-Length") == 0) {
        framing->lengths++;
    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        framing->encodings++;
        framing->is_chunked = value != NULL && strcasecmp(value, "chunked") == 0;
    } else if (strcasecmp(name, "Host") == 0) {
        framing->hosts++;
    }
    framing->is_malformed |= value != NULL && strpbrk(value, "\r\n") != NULL;
    return MHD_YES;
}

bool http_request_is_framed_well(const struct http_request *request)
{
    struct framing framing = {0};
    (void)MHD_get_connection_values(request->connection, MHD_HEADER_KIND, look_at_header, &framing);
    return !framing.is_malformed && framing.hosts <= 1 &&
           framing.lengths + framing.encodings <= 1 &&
           framing.is_chunked == (framing.encodings == 1);
}

/* "localhost", "x.localhost", "node1", an address: nobody outside can make it mean something else.
 */
static bool is_host_of_ours(const char *host)
{
    size_t size = host[0] == '[' ? strcspn(host, "]") : strcspn(host, ":");
    char name[256];
    uint8_t address[16];
    (void)snprintf(name, sizeof(name), "%.*s", (int)MIN_OF(size, sizeof(name) - 1), host);
    return host[0] == '[' || strchr(name, '.') == NULL || str_ends_with(name, ".localhost") ||
           inet_pton(AF_INET, name, address) == 1;
}

bool http_request_is_of_strange_page(const struct http_request *request)
{
    const char *host = http_request_header(request, "Host");
    const char *origin = http_request_header(request, "Origin");
    const char *scheme_end = origin == NULL ? NULL : strstr(origin, "://");
    host = host == NULL ? "" : host;
    if (origin != NULL && (scheme_end == NULL || strcasecmp(scheme_end + 3, host) != 0)) {
        return true;
    }
    bool is_browser =
        http_request_header(request, "Accept-Language") != NULL; /* pages cannot drop it */
    return is_browser && !is_host_of_ours(host);
}

/* The path and its route. */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes in place. False: a broken escape, or an escaped NUL. */
static bool percent_decode(char *text, bool plus_is_space)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; from++, to++) {
        *to = *from;
        if (*from == '+' && plus_is_space) {
            *to = ' ';
        } else if (*from == '%') {
            int high = hex_value(from[1]);
            int low = high < 0 ? -1 : hex_value(from[2]);
            if (low < 0 || (high == 0 && low == 0)) {
                return false;
            }
            *to = (char)(high << 4 | low);
            from += 2;
        }
    }
    *to = '\0';
    return true;
}

bool http_request_split_path(struct http_request *request)
{
    request->segments = mem_strdup(request->path);
    char *rest = request->segments;
    for (char *segment = strsep(&rest, "/"); segment != NULL; segment = strsep(&rest, "/")) {
        if (segment[0] == '\0') {
            continue; /* the first one, a doubled slash, or one at the end */
        }
        if (request->segment_count == HTTP_SEGMENTS_MAX || !percent_decode(segment, false)) {
            return false;
        }
        request->segment[request->segment_count++] = segment;
    }
    return true;
}

/* Calls for each segment of a route's pattern; returns NULL at the end. */
static const char *next_segment(const char **rest, size_t *ret_size)
{
    const char *begin = *rest;
    while (*begin == '/') {
        begin++;
    }
    if (*begin == '\0') {
        return NULL;
    }
    *ret_size = strcspn(begin, "/");
    *rest = begin + *ret_size;
    return begin;
}

static bool is_param(const char *segment, size_t size)
{
    return size > 2 && segment[0] == '{' && segment[size - 1] == '}';
}

static bool path_matches(const struct http_route *route, const struct http_request *request)
{
    const char *rest = route->path;
    size_t index = 0;
    size_t size = 0;
    for (const char *segment = next_segment(&rest, &size); segment != NULL;
         segment = next_segment(&rest, &size), index++) {
        if (index == request->segment_count) {
            return false;
        }
        const char *given = request->segment[index];
        if (!is_param(segment, size) &&
            (strlen(given) != size || memcmp(given, segment, size) != 0)) {
            return false;
        }
    }
    return index == request->segment_count;
}

void http_request_find_route(struct http_request *request, struct buf *allow)
{
    const struct http_server *server = request->server;
    const char *method = strcmp(request->method, "HEAD") == 0 ? "GET" : request->method;
    for (size_t t = 0; t < server->table_count; t++) {
        const struct route_table *table = &server->tables[t];
        for (size_t i = 0; i < table->count; i++) {
            const struct http_route *route = &table->routes[i];
            if (!path_matches(route, request)) {
                continue;
            }
            if (strcmp(route->method, method) == 0) {
                request->table = table;
                request->route = route;
                return;
            }
            buf_printf(allow, "%s%s", allow->size > 0 ? ", " : "", route->method);
        }
    }
}

const struct http_route *http_request_route(const struct http_request *request)
{
    return request->route;
}

const char *http_request_method(const struct http_request *request)
{
    return request->method;
}

const char *http_request_path(const struct http_request *request)
{
    return request->path;
}

/* Who has answered asks for nothing more: the request may be gone. */
static void check_is_open(const struct http_request *request)
{
    ASSERT(request->owed || request->status == 0);
}

const char *http_request_param(const struct http_request *request, const char *name)
{
    check_is_open(request);
    const char *rest = request->route->path;
    size_t size = 0;
    size_t index = 0;
    for (const char *segment = next_segment(&rest, &size); segment != NULL;
         segment = next_segment(&rest, &size), index++) {
        if (is_param(segment, size) && strlen(name) == size - 2 &&
            memcmp(segment + 1, name, size - 2) == 0) {
            return request->segment[index];
        }
    }
    fatal("route %s has no parameter {%s}", request->route->path, name);
}

/* Query, headers, body. */

static const char *keep_decoded(const struct http_request *request, const char *raw)
{
    struct query_value *value = mem_zalloc(sizeof(*value) + strlen(raw) + 1);
    memcpy(value->text, raw, strlen(raw) + 1);
    if (!percent_decode(value->text, true)) {
        memcpy(value->text, raw, strlen(raw) + 1); /* not an escape: meant as it stands */
    }
    struct http_request *writable = (struct http_request *)request;
    list_push_back(&writable->query_values, &value->link);
    return value->text;
}

const char *http_request_query(const struct http_request *request, const char *name)
{
    check_is_open(request);
    if (request->connection == NULL) {
        return NULL;
    }
    const char *raw = MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
    return raw == NULL ? NULL : keep_decoded(request, raw);
}

struct gathering {
    const char *name;
    struct buf text; /* not decoded */
};

static enum MHD_Result gather(
    void *data, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct gathering *gathering = data;
    (void)kind;
    if (strcmp(name, gathering->name) == 0 && value != NULL && value[0] != '\0') {
        buf_printf(&gathering->text, "%s%s", gathering->text.size == 0 ? "" : ",", value);
    }
    return MHD_YES;
}

const char *http_request_query_list(const struct http_request *request, const char *name)
{
    struct gathering gathering = {.name = name};
    check_is_open(request);
    if (request->connection == NULL) {
        return NULL;
    }
    (void)MHD_get_connection_values(request->connection, MHD_GET_ARGUMENT_KIND, gather, &gathering);
    const char *list =
        gathering.text.size == 0 ? NULL : keep_decoded(request, buf_cstr(&gathering.text));
    buf_deinit(&gathering.text);
    return list;
}

void http_request_forget_query(struct http_request *request)
{
    for (struct list_link *link = list_pop_front(&request->query_values); link != NULL;
         link = list_pop_front(&request->query_values)) {
        mem_free(CONTAINER_OF(link, struct query_value, link));
    }
}

const char *http_request_header(const struct http_request *request, const char *name)
{
    check_is_open(request);
    return request->connection == NULL
               ? NULL
               : MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

struct bytes http_request_bearer(const struct http_request *request)
{
    static const char scheme[] = "Bearer ";
    const char *header = http_request_header(request, "Authorization");
    bool has = header != NULL && strncasecmp(header, scheme, strlen(scheme)) == 0;
    return has ? bytes_of_str(header + strlen(scheme)) : (struct bytes){0};
}

uint64_t http_request_timeout_ms(const struct http_request *request, uint64_t most_ms)
{
    const char *header = http_request_header(request, HTTP_TIMEOUT_HEADER);
    uint64_t timeout_ms = most_ms;
    if (header != NULL && parse_u64(header, 1, UINT64_MAX, &timeout_ms, NULL) != ERR_OK) {
        return most_ms;
    }
    return MIN_OF(timeout_ms, most_ms);
}

struct bytes http_request_body(const struct http_request *request)
{
    check_is_open(request);
    return buf_view(&request->body);
}

err_t http_request_json(struct http_request *request, struct doc **ret_body, struct errmsg *msg)
{
    check_is_open(request);
    if (request->json == NULL) {
        if (request->body.size == 0) {
            request->json = doc_object();
        } else {
            struct doc *parsed = NULL;
            err_t err = doc_parse(buf_view(&request->body), &parsed, msg);
            if (err != ERR_OK) {
                return err_wrap(msg, err, "request body");
            }
            if (!doc_is_object(parsed)) {
                doc_unref(parsed);
                return err_set(msg, ERR_INVALID, "request body: expected a JSON object");
            }
            request->json = parsed;
        }
    }
    *ret_body = request->json;
    return ERR_OK;
}

/* Who asks. */

const char *http_request_id(const struct http_request *request)
{
    return request->id;
}

void http_request_peer(const struct http_request *request, char ret_address[64])
{
    ret_address[0] = '\0';
    const union MHD_ConnectionInfo *info =
        request->connection == NULL
            ? NULL
            : MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    if (info == NULL || info->client_addr == NULL) {
        return;
    }
    const struct sockaddr *address = info->client_addr;
    if (address->sa_family == AF_INET) {
        (void)inet_ntop(
            AF_INET, &((const struct sockaddr_in *)(const void *)address)->sin_addr, ret_address,
            64);
    } else if (address->sa_family == AF_INET6) {
        (void)inet_ntop(
            AF_INET6, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, ret_address,
            64);
    }
}

void http_request_set_actor(struct http_request *request, const char *actor)
{
    (void)snprintf(request->actor, sizeof(request->actor), "%s", actor);
}

const char *http_request_actor(const struct http_request *request)
{
    return request->actor;
}

size_t http_request_count_of_actor(const struct http_request *request)
{
    size_t count = 0;
    LIST_FOR_EACH(&request->server->requests, link)
    {
        const struct http_request *other = CONTAINER_OF(link, struct http_request, link);
        count += other->connection != NULL && strcmp(other->actor, request->actor) == 0;
    }
    return count;
}
