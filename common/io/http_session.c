#include "common/io/http_session.h"

#include <curl/curl.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define STALL_BYTES_PER_S 1024L

struct http_session {
    CURL *easy;
    struct http_exchange *exchange; /* that is under way */
    struct curl_slist *headers;
    bool too_large;
    char curl_text[CURL_ERROR_SIZE];
};

/* Counted by libcurl: http_client.c may have done the same. */
__attribute__((constructor)) static void init_curl(void)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        fatal("libcurl does not start");
    }
}

struct http_session *http_session_create(void)
{
    struct http_session *session = MEM_NEW(struct http_session);
    session->easy = curl_easy_init();
    if (session->easy == NULL) {
        fatal("out of memory: HTTP session");
    }
    return session;
}

void http_session_destroy(struct http_session *session)
{
    if (session != NULL) {
        curl_easy_cleanup(session->easy);
        mem_free(session);
    }
}

static size_t on_body(char *data, size_t item_size, size_t count, void *context)
{
    struct http_session *session = context;
    struct http_exchange *exchange = session->exchange;
    size_t size = item_size * count;
    if (size > exchange->response_max - MIN_OF(exchange->response_max, exchange->response.size)) {
        session->too_large = true;
        return 0;
    }
    buf_append(&exchange->response, data, size);
    return size;
}

static int on_progress(
    void *context, curl_off_t down_total, curl_off_t down, curl_off_t up_total, curl_off_t up)
{
    (void)down_total;
    (void)down;
    (void)up_total;
    (void)up;
    const struct http_session *session = context;
    const atomic_bool *canceled = session->exchange->canceled;
    return canceled != NULL && atomic_load(canceled) ? 1 : 0;
}

static void set_option_long(CURL *easy, CURLoption option, long value)
{
    CURLcode code = curl_easy_setopt(easy, option, value);
    ASSERT(code == CURLE_OK);
}

static void set_option_str(CURL *easy, CURLoption option, const char *value)
{
    CURLcode code = curl_easy_setopt(easy, option, value);
    ASSERT(code == CURLE_OK); /* copied: it fails only without memory */
}

static long to_long(uint64_t value)
{
    return (long)MIN_OF(value, (uint64_t)INT32_MAX);
}

static void set_limits(CURL *easy, const struct http_exchange *exchange)
{
    const struct http_limits *limits = exchange->limits;
    set_option_long(easy, CURLOPT_CONNECTTIMEOUT_MS, to_long(limits->connect_timeout_ms));
    set_option_long(easy, CURLOPT_TIMEOUT_MS, to_long(MAX_OF(exchange->timeout_ms, 1)));
    set_option_long(easy, CURLOPT_LOW_SPEED_LIMIT, STALL_BYTES_PER_S);
    set_option_long(
        easy, CURLOPT_LOW_SPEED_TIME, to_long(MAX_OF(limits->stall_timeout_ms / 1000, 1)));
    if (limits->ca_path != NULL) {
        set_option_str(easy, CURLOPT_CAINFO, limits->ca_path);
    }
}

static void set_headers(struct http_session *session, const struct http_exchange *exchange)
{
    for (size_t i = 0; i < exchange->header_count; i++) {
        struct curl_slist *longer = curl_slist_append(session->headers, exchange->headers[i]);
        if (longer == NULL) {
            fatal("out of memory: HTTP headers");
        }
        session->headers = longer;
    }
    CURLcode code = curl_easy_setopt(session->easy, CURLOPT_HTTPHEADER, session->headers);
    ASSERT(code == CURLE_OK);
}

static void set_body(CURL *easy, const struct http_exchange *exchange)
{
    if (strcmp(exchange->method, "PUT") == 0 || strcmp(exchange->method, "POST") == 0) {
        const void *data = exchange->body.size == 0 ? "" : (const void *)exchange->body.data;
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)exchange->body.size);
        (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, data); /* not copied */
    }
    set_option_long(easy, CURLOPT_NOBODY, strcmp(exchange->method, "HEAD") == 0 ? 1L : 0L);
    set_option_str(easy, CURLOPT_CUSTOMREQUEST, exchange->method);
}

static void set_signer(CURL *easy, const struct http_signer *signer)
{
    if (signer != NULL) {
        set_option_str(easy, CURLOPT_AWS_SIGV4, signer->scope);
        set_option_str(easy, CURLOPT_USERNAME, signer->access_key);
        set_option_str(easy, CURLOPT_PASSWORD, signer->secret_key);
    }
}

static void set_up(struct http_session *session)
{
    CURL *easy = session->easy;
    const struct http_exchange *exchange = session->exchange;
    curl_easy_reset(easy); /* options only: connections stay */
    set_option_str(easy, CURLOPT_URL, exchange->url);
    set_option_str(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    set_option_str(easy, CURLOPT_NOPROXY, "*");
    set_option_long(easy, CURLOPT_NOSIGNAL, 1L);
    set_option_long(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    set_option_long(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    set_option_long(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    set_option_long(easy, CURLOPT_NOPROGRESS, 0L);
    (void)curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    (void)curl_easy_setopt(easy, CURLOPT_XFERINFODATA, session);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, session);
    (void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, session->curl_text);
    set_limits(easy, exchange);
    set_body(easy, exchange);
    set_headers(session, exchange);
    set_signer(easy, exchange->signer);
}

static err_t result_of(const struct http_session *session, CURLcode code, struct errmsg *msg)
{
    const struct http_exchange *exchange = session->exchange;
    const char *text =
        session->curl_text[0] != '\0' ? session->curl_text : curl_easy_strerror(code);
    if (session->too_large) {
        return err_set(
            msg, ERR_FULL, "the answer is larger than %zu bytes", exchange->response_max);
    }
    switch ((int)code) {
    case CURLE_OK: return ERR_OK;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_SSL_CACERT_BADFILE: return err_set(msg, ERR_INVALID, "%s", text);
    case CURLE_OPERATION_TIMEDOUT: return err_set(msg, ERR_TIMEOUT, "%s", text);
    case CURLE_ABORTED_BY_CALLBACK: return err_set(msg, ERR_CANCELED, "canceled");
    default: return err_set(msg, ERR_IO, "%s", text);
    }
}

err_t http_exchange(
    struct http_session *session, struct http_exchange *exchange, struct errmsg *msg)
{
    session->exchange = exchange;
    session->too_large = false;
    session->curl_text[0] = '\0';
    exchange->status = 0;
    buf_clear(&exchange->response);
    set_up(session);
    CURLcode code = curl_easy_perform(session->easy);
    long status = 0;
    (void)curl_easy_getinfo(session->easy, CURLINFO_RESPONSE_CODE, &status);
    exchange->status = (unsigned)status;
    err_t err = result_of(session, code, msg);
    curl_slist_free_all(session->headers);
    session->headers = NULL;
    session->exchange = NULL;
    return err;
}

const char *http_session_header(struct http_session *session, const char *name)
{
    struct curl_header *header = NULL;
    if (curl_easy_header(session->easy, name, 0, CURLH_HEADER, -1, &header) == CURLHE_OK) {
        size_t last = header->amount - 1;
        if (last == 0 ||
            curl_easy_header(session->easy, name, last, CURLH_HEADER, -1, &header) == CURLHE_OK) {
            return header->value;
        }
    }
    return NULL;
}
