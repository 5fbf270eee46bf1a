#include "common/objstore/s3_client.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "common/io/http_session.h"
#include "common/objstore/s3_xml.h"

#define SESSIONS_KEPT   8
#define XML_ANSWER_MAX  (4 * MIB) /* a page of 1,000 long names is less than one */
#define HEADERS_MAX     12
#define HEADER_SIZE_MAX 8192
#define HASH_HEADER     "x-amz-meta-xxh3-128"

METRIC_COUNTER(requests, "objstore_s3_requests_total", "requests to the S3 server");
METRIC_COUNTER(retries, "objstore_s3_retries_total", "requests that had to be sent again");
METRIC_COUNTER(failures, "objstore_s3_failures_total", "requests given up");
METRIC_COUNTER(sent, "objstore_s3_sent_bytes_total", "bodies sent, with those sent again");
METRIC_COUNTER(received, "objstore_s3_received_bytes_total", "bodies received");
METRIC_HISTOGRAM(seconds, "objstore_s3_request_seconds", "of one request, without its retries");

struct s3_client {
    struct s3_place place;
    struct s3_keys keys;
    struct log log;
    char scope[96];
    char *token_header; /* NULL: none */
    struct http_signer signer;
    struct http_limits limits;
    atomic_bool canceled;
    int wake_fd; /* readable once canceled: ends pauses */
    /* Idle sessions; taken and put back without a lock, one too many is destroyed. */
    _Atomic(struct http_session *) idle[SESSIONS_KEPT];
};

err_t s3_client_open(
    const struct s3_place *place, struct s3_client **ret_client, struct errmsg *msg)
{
    struct s3_keys keys;
    TRY(s3_keys_load(place->settings.credentials, &keys, msg));
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        s3_keys_deinit(&keys);
        return err_set(msg, ERR_BUSY, "eventfd: %m");
    }
    struct s3_client *client = MEM_NEW(struct s3_client);
    client->place = *place;
    client->keys = keys;
    client->wake_fd = fd;
    log_name(&client->log, "object store s3://%s/%.60s", place->bucket, place->prefix);
    const struct s3_settings *conf = &client->place.settings;
    (void)snprintf(client->scope, sizeof(client->scope), "aws:amz:%.64s:s3", conf->region);
    client->signer = (struct http_signer){
        .access_key = keys.access, .secret_key = keys.secret, .scope = client->scope};
    client->limits = (struct http_limits){
        .connect_timeout_ms = conf->connect_timeout_ms,
        .stall_timeout_ms = conf->stall_timeout_ms,
        .ca_path = conf->ca[0] == '\0' ? NULL : conf->ca,
    };
    if (keys.session_token != NULL) {
        struct buf line = {0};
        buf_printf(&line, "x-amz-security-token: %s", keys.session_token);
        client->token_header = mem_strdup(buf_cstr(&line));
        explicit_bzero(line.data, line.size);
        buf_deinit(&line);
    }
    *ret_client = client;
    return ERR_OK;
}

void s3_client_close(struct s3_client *client)
{
    for (size_t i = 0; i < SESSIONS_KEPT; i++) {
        http_session_destroy(atomic_load(&client->idle[i]));
    }
    if (client->token_header != NULL) {
        explicit_bzero(client->token_header, strlen(client->token_header));
        mem_free(client->token_header);
    }
    s3_keys_deinit(&client->keys);
    file_close(&client->wake_fd);
    mem_free(client);
}

void s3_client_cancel(struct s3_client *client)
{
    const uint64_t one = 1;
    atomic_store(&client->canceled, true);
    ssize_t written = write(client->wake_fd, &one, sizeof(one));
    ASSERT(written == sizeof(one)); /* fails only after 2^64 - 1 calls */
}

const struct s3_place *s3_client_place(const struct s3_client *client)
{
    return &client->place;
}

mono_ns_t s3_client_deadline(const struct s3_client *client)
{
    return clock_mono() + client->place.settings.deadline_ms * NS_PER_MS;
}

static struct http_session *session_take(struct s3_client *client)
{
    for (size_t i = 0; i < SESSIONS_KEPT; i++) {
        struct http_session *session = atomic_exchange(&client->idle[i], NULL);
        if (session != NULL) {
            return session;
        }
    }
    return http_session_create();
}

static void session_put_back(struct s3_client *client, struct http_session *session)
{
    for (size_t i = 0; i < SESSIONS_KEPT; i++) {
        struct http_session *none = NULL;
        if (atomic_compare_exchange_strong(&client->idle[i], &none, session)) {
            return;
        }
    }
    http_session_destroy(session);
}

/* Queries. */

void s3_query_add(struct buf *query, const char *name, const char *value)
{
    buf_printf(query, "%s%s=", query->size == 0 ? "" : "&", name);
    for (; *value != '\0'; value++) {
        unsigned char c = (unsigned char)*value;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '_' || c == '.' || c == '~';
        if (plain) {
            buf_append(query, value, 1);
        } else {
            buf_printf(query, "%%%02X", c);
        }
    }
}

static void make_url(
    const struct s3_client *client, const struct s3_request *request, struct buf *to)
{
    const struct s3_place *place = &client->place;
    buf_printf(to, "%s/%s", place->settings.endpoint, place->bucket);
    if (request->name != NULL) {
        buf_printf(to, "/%s%s", place->prefix, request->name); /* nothing to encode in either */
    }
    if (request->query != NULL && request->query[0] != '\0') {
        buf_printf(to, "?%s", request->query);
    }
}

/* Answers. */

static void take_header(struct http_session *session, const char *name, char *to, size_t to_size)
{
    const char *value = http_session_header(session, name);
    size_t skip = value != NULL && value[0] == '"' ? 1 : 0;
    to[0] = '\0';
    if (value != NULL && str_copy(to, to_size, value + skip, NULL) == ERR_OK) {
        size_t size = strlen(to);
        if (skip > 0 && size > 0 && to[size - 1] == '"') {
            to[size - 1] = '\0';
        }
    }
}

static void take_headers(struct http_session *session, struct s3_request *request)
{
    char length[32], encryption[32];
    take_header(session, "ETag", request->etag, sizeof(request->etag));
    take_header(session, "Content-Range", request->content_range, sizeof(request->content_range));
    take_header(session, HASH_HEADER, request->hash, sizeof(request->hash));
    take_header(session, "Content-Length", length, sizeof(length));
    take_header(session, "x-amz-server-side-encryption", encryption, sizeof(encryption));
    request->opaque_etag = encryption[0] != '\0' && strcmp(encryption, "AES256") != 0;
    request->content_length = 0;
    if (length[0] >= '0' && length[0] <= '9') {
        request->content_length = strtoull(length, NULL, 10);
    }
}

/* An error's XML: <Error><Code>NoSuchKey</Code><Message>..</Message></Error>. */
struct problem {
    char code[S3_CODE_MAX];
    char text[160];
};

static void copy_printable(char *to, size_t to_size, const char *text)
{
    size_t size = 0;
    for (; text[size] != '\0' && size + 1 < to_size; size++) {
        to[size] = text[size] < ' ' || text[size] > '~' ? '?' : text[size];
    }
    to[size] = '\0';
}

static err_t take_problem(const char *path, const char *text, void *context, struct errmsg *msg)
{
    (void)msg;
    struct problem *problem = context;
    if (strcmp(path, "Error/Code") == 0) {
        copy_printable(problem->code, sizeof(problem->code), text);
    } else if (strcmp(path, "Error/Message") == 0) {
        copy_printable(problem->text, sizeof(problem->text), text);
    }
    return ERR_OK;
}

/* What a code means, whatever the status; statuses decide for the rest. */
static const struct {
    const char *code;
    err_t err;
    bool retry;
} codes[] = {
    {"NoSuchKey", ERR_NOT_FOUND, false},
    {"NoSuchUpload", ERR_NOT_FOUND, false},
    {"NoSuchBucket", ERR_INVALID, false},
    {"PreconditionFailed", ERR_EXISTS, false},
    {"NotImplemented", ERR_UNSUPPORTED, false},
    {"InvalidRange", ERR_RANGE, false},
    {"ConditionalRequestConflict", ERR_BUSY, true},
    {"OperationAborted", ERR_BUSY, true},
    {"SlowDown", ERR_BUSY, true},
    {"ServiceUnavailable", ERR_BUSY, true},
    {"RequestTimeout", ERR_TIMEOUT, true},
    {"InternalError", ERR_IO, true},
    {"BadDigest", ERR_CORRUPT, true},
    {"XAmzContentSHA256Mismatch", ERR_CORRUPT, true},
    {"IncompleteBody", ERR_CORRUPT, true},
    {"RequestTimeTooSkewed", ERR_DENIED, false},
};

static err_t err_of_status(unsigned status, bool *ret_retry)
{
    *ret_retry = status >= 500 || status == 429 || status == 408;
    switch (status) {
    case 401:
    case 403: return ERR_DENIED;
    case 408:
    case 504: return ERR_TIMEOUT;
    case 412: return ERR_EXISTS;
    case 416: return ERR_RANGE;
    case 429:
    case 503: return ERR_BUSY;
    case 501: *ret_retry = false; return ERR_UNSUPPORTED;
    case 507: return ERR_FULL;
    default: return status >= 500 ? ERR_IO : ERR_INVALID;
    }
}

static err_t judge(struct s3_request *request, bool *ret_retry, struct errmsg *msg)
{
    struct problem problem = {0};
    if (s3_xml_read(buf_view(&request->response), take_problem, &problem, NULL) != ERR_OK) {
        problem = (struct problem){0};
    }
    memcpy(request->code, problem.code, sizeof(request->code));
    err_t err = err_of_status(request->status, ret_retry);
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        if (strcmp(codes[i].code, problem.code) == 0) {
            err = codes[i].err;
            *ret_retry = codes[i].retry;
        }
    }
    /* Only S3 itself may say that an object is not there; HEAD answers have no body to say it. */
    if (request->status == 404 && problem.code[0] == '\0') {
        bool is_head = strcmp(request->method, "HEAD") == 0;
        err = is_head ? ERR_NOT_FOUND : ERR_IO;
        *ret_retry = !is_head;
    }
    if (request->status >= 300 && request->status < 400) {
        return err_set(
            msg, ERR_INVALID, "%s: HTTP %u, a redirection: check endpoint and region",
            request->method, request->status);
    }
    return err_set(
        msg, err, "%s: HTTP %u %s%s%s", request->method, request->status, problem.code,
        problem.text[0] == '\0' ? "" : ": ", problem.text);
}

/* One attempt. */

static size_t list_headers(
    const struct s3_client *client,
    const struct s3_request *request,
    const char *sha256_header,
    const char *lines[HEADERS_MAX])
{
    size_t count = 0;
    lines[count++] = sha256_header;
    if (client->token_header != NULL) {
        lines[count++] = client->token_header;
    }
    for (size_t i = 0; i < ARRAY_LEN(request->headers) && request->headers[i] != NULL; i++) {
        lines[count++] = request->headers[i];
    }
    ASSERT(count <= HEADERS_MAX);
    return count;
}

static err_t exchange_once(
    struct s3_client *client,
    struct s3_request *request,
    const char *url,
    const char *sha256_header,
    struct errmsg *msg)
{
    const char *lines[HEADERS_MAX];
    mono_ns_t begin = clock_mono();
    struct http_exchange exchange = {
        .method = request->method,
        .url = url,
        .headers = lines,
        .header_count = list_headers(client, request, sha256_header, lines),
        .body = request->body,
        .signer = &client->signer,
        .limits = &client->limits,
        .timeout_ms = request->deadline > begin ? (request->deadline - begin) / NS_PER_MS + 1 : 1,
        .response_max = MAX_OF(request->response_max, XML_ANSWER_MAX),
        .canceled = &client->canceled,
        .response = request->response,
    };
    struct http_session *session = session_take(client);
    err_t err = http_exchange(session, &exchange, msg);
    request->response = exchange.response;
    request->status = exchange.status;
    if (err == ERR_OK) {
        take_headers(session, request);
        session_put_back(client, session);
    } else {
        http_session_destroy(session); /* its connection is in no state to go on */
    }
    metric_add(&requests, 1);
    metric_add(&sent, (int64_t)request->body.size);
    metric_add(&received, (int64_t)request->response.size);
    metric_observe_ns(&seconds, clock_mono() - begin);
    return err;
}

static err_t attempt(
    struct s3_client *client,
    struct s3_request *request,
    const char *url,
    const char *sha256_header,
    bool *ret_retry,
    struct errmsg *msg)
{
    request->code[0] = '\0';
    err_t err = exchange_once(client, request, url, sha256_header, msg);
    if (err != ERR_OK) {
        *ret_retry = err == ERR_IO || err == ERR_TIMEOUT;
        return err_wrap(msg, err, "%s", request->method);
    }
    if (request->status < 200 || request->status >= 300) {
        return judge(request, ret_retry, msg);
    }
    *ret_retry = true; /* a 2xx whose body is not what it should be */
    return request->parse == NULL ? ERR_OK : request->parse(request, msg);
}

/* Retries. */

/* Half to all of a time that doubles: many workers must not come back at once. */
static uint64_t pause_ms(const struct s3_settings *conf, unsigned attempts)
{
    uint64_t limit = conf->backoff_ms;
    for (unsigned i = 1; i < attempts && limit < conf->backoff_max_ms; i++) {
        limit *= 2;
    }
    limit = MIN_OF(limit, conf->backoff_max_ms);
    uint64_t random;
    prng_secure(&random, sizeof(random));
    return limit / 2 + random % (limit - limit / 2 + 1);
}

static bool wait_ms(struct s3_client *client, uint64_t time_ms)
{
    struct pollfd wake = {.fd = client->wake_fd, .events = POLLIN};
    mono_ns_t end = clock_mono() + time_ms * NS_PER_MS;
    for (mono_ns_t now = clock_mono(); now < end && !atomic_load(&client->canceled);
         now = clock_mono()) {
        (void)poll(&wake, 1, (int)MIN_OF((end - now) / NS_PER_MS + 1, (mono_ns_t)INT32_MAX));
    }
    return !atomic_load(&client->canceled);
}

/*
 * True when there is time and patience for another attempt; it has waited then. An attempt may take
 * all the time that is left, rounded up to a millisecond: one that has run out of it leaves nothing
 * for another.
 */
static bool may_retry(
    struct s3_client *client,
    const struct s3_request *request,
    unsigned attempts,
    const struct errmsg *cause)
{
    const struct s3_settings *conf = &client->place.settings;
    uint64_t wait = pause_ms(conf, attempts);
    if (attempts >= conf->attempts_max ||
        clock_mono() + (wait + 1) * NS_PER_MS >= request->deadline) {
        return false;
    }
    metric_add(&retries, 1);
    MARK("s3_client.retry");
    log_warn(
        &client->log, "%s: %s; attempt %u follows in %" PRIu64 " ms",
        request->name == NULL ? "bucket" : request->name, cause->text, attempts + 1, wait);
    return wait_ms(client, wait);
}

err_t s3_call(struct s3_client *client, struct s3_request *request, struct errmsg *msg)
{
    struct buf url = {0};
    struct errmsg cause = {0};
    char sha256_header[96];
    struct s3_digest digest = request->digest != NULL ? *request->digest : s3_digest(request->body);
    (void)snprintf(
        sha256_header, sizeof(sha256_header), "x-amz-content-sha256: %s", digest.sha256_hex);
    make_url(client, request, &url);
    err_t err = ERR_OK;
    unsigned attempts = 0;
    bool retry = false;
    do {
        if (atomic_load(&client->canceled)) {
            err = err_set(&cause, ERR_CANCELED, "canceled");
            break;
        }
        retry = false;
        err = attempt(client, request, buf_cstr(&url), sha256_header, &retry, &cause);
        attempts++;
    } while (err != ERR_OK && retry && may_retry(client, request, attempts, &cause));
    if (err != ERR_OK && retry && !atomic_load(&client->canceled)) {
        metric_add(&failures, 1);
        err = err_wrap(&cause, err, "gave up after %u attempts", attempts);
    }
    if (err != ERR_OK && atomic_load(&client->canceled)) {
        err = err_set(&cause, ERR_CANCELED, "canceled");
    }
    if (err != ERR_OK && msg != NULL) {
        *msg = cause;
    }
    buf_deinit(&url);
    return err;
}

void s3_request_deinit(struct s3_request *request)
{
    buf_deinit(&request->response);
}
