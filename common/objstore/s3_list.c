/*
 * s3_list.c - names in a bucket, page by page, and deleting many at once.
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "common/objstore/s3_store.h"
#include "common/objstore/s3_xml.h"

#define TOKEN_SIZE 1025 /* of a continuation */

struct found {
    char *name;
    uint64_t size;
    wall_us_t modified;
};

/* One answer: parsed whole before anything of it is visited, so that a retry repeats no name. */
struct list_page {
    struct s3_request request;
    const char *prefix; /* of the store */
    struct found next;  /* being read; its name is NULL when it is not ours */
    struct found *items;
    size_t count, capacity;
    bool truncated;
    char token[TOKEN_SIZE];
};

static void page_clear(struct list_page *page)
{
    for (size_t i = 0; i < page->count; i++) {
        mem_free(page->items[i].name);
    }
    mem_free(page->next.name);
    page->next = (struct found){0};
    page->count = 0;
    page->truncated = false;
    page->token[0] = '\0';
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* encoding-type=url: only "/" of what our names are made of may come as %2F; "+" is a blank. */
static void decode_key(const char *text, char *to)
{
    while (*text != '\0') {
        int high = text[0] == '%' ? hex_digit(text[1]) : -1;
        int low = high >= 0 ? hex_digit(text[2]) : -1;
        if (low >= 0 && (high > 0 || low > 0)) {
            *to++ = (char)(high * 16 + low);
            text += 3;
        } else {
            *to++ = *text == '+' ? ' ' : *text;
            text++;
        }
    }
    *to = '\0';
}

static void take_key(struct list_page *page, const char *text)
{
    char key[S3_XML_TEXT_MAX + 1];
    decode_key(text, key);
    const char *name = key + strlen(page->prefix);
    mem_free(page->next.name);
    page->next.name = NULL;
    if (str_starts_with(key, page->prefix) && objstore_name_is_valid(name)) {
        page->next.name = mem_strdup(name);
    }
}

static err_t end_of_entry(struct list_page *page, struct errmsg *msg)
{
    if (page->next.name == NULL) {
        page->next = (struct found){0};
        return ERR_OK;
    }
    if (page->count > 0 && strcmp(page->items[page->count - 1].name, page->next.name) >= 0) {
        MARK("s3_list.unsorted");
        return err_set(msg, ERR_CORRUPT, "the listing is not sorted");
    }
    if (page->count == page->capacity) {
        page->capacity = page->capacity == 0 ? 64 : 2 * page->capacity;
        page->items = mem_realloc(page->items, page->capacity * sizeof(page->items[0]));
    }
    page->items[page->count++] = page->next;
    page->next = (struct found){0};
    return ERR_OK;
}

#define LISTING "ListBucketResult/"

static err_t take_element(const char *path, const char *text, void *context, struct errmsg *msg)
{
    struct list_page *page = context;
    if (strcmp(path, LISTING "Contents") == 0) {
        return end_of_entry(page, msg);
    }
    if (strcmp(path, LISTING "Contents/Key") == 0) {
        take_key(page, text);
    } else if (strcmp(path, LISTING "Contents/Size") == 0) {
        return parse_u64(text, 0, UINT64_MAX, &page->next.size, msg);
    } else if (strcmp(path, LISTING "Contents/LastModified") == 0) {
        return parse_time(text, &page->next.modified, msg);
    } else if (strcmp(path, LISTING "IsTruncated") == 0) {
        page->truncated = strcmp(text, "true") == 0;
    } else if (strcmp(path, LISTING "NextContinuationToken") == 0) {
        return str_copy(page->token, sizeof(page->token), text, msg);
    }
    return ERR_OK;
}

static err_t parse_page(struct s3_request *request, struct errmsg *msg)
{
    struct list_page *page = CONTAINER_OF(request, struct list_page, request);
    page_clear(page);
    err_t err = s3_xml_read(buf_view(&request->response), take_element, page, msg);
    if (err != ERR_OK) {
        return err_wrap(msg, ERR_CORRUPT, "answer to a listing");
    }
    if (page->truncated && page->token[0] == '\0') {
        return err_set(msg, ERR_CORRUPT, "the listing is cut and says not how to go on");
    }
    return ERR_OK;
}

static err_t read_page(
    struct s3_store *s3,
    struct list_page *page,
    const struct objstore_query *query,
    const char *token,
    size_t count_max,
    struct errmsg *msg)
{
    const struct s3_place *place = s3_client_place(s3->client);
    char prefix[S3_PREFIX_SIZE + OBJSTORE_NAME_SIZE_MAX], after[sizeof(prefix)], count[32];
    struct buf text = {0};
    TRY(str_format(prefix, sizeof(prefix), msg, "%s%s", place->prefix, query->prefix));
    TRY(str_format(after, sizeof(after), msg, "%s%s", place->prefix, query->after));
    (void)snprintf(
        count, sizeof(count), "%zu", MIN_OF(count_max, (size_t)place->settings.list_page_count));
    if (token[0] != '\0') {
        s3_query_add(&text, "continuation-token", token);
    }
    s3_query_add(&text, "encoding-type", "url");
    s3_query_add(&text, "list-type", "2");
    s3_query_add(&text, "max-keys", count);
    s3_query_add(&text, "prefix", prefix);
    if (query->after[0] != '\0') {
        s3_query_add(&text, "start-after", after);
    }
    page->request.query = buf_cstr(&text);
    page->request.deadline = s3_client_deadline(s3->client);
    err_t err = s3_call(s3->client, &page->request, msg);
    buf_deinit(&text);
    return err;
}

static err_t visit_page(
    const struct list_page *page,
    const struct objstore_query *query,
    size_t *visited,
    objstore_visit_fn visit,
    void *context,
    struct errmsg *msg)
{
    for (size_t i = 0; i < page->count && *visited < query->count_max; i++) {
        const struct found *item = &page->items[i];
        struct objstore_entry entry = {
            .name = item->name, .size = item->size, .modified = item->modified};
        ++*visited;
        TRY(visit(&entry, context, msg));
    }
    return ERR_OK;
}

err_t s3_list(
    struct objstore *store,
    const struct objstore_query *query,
    objstore_visit_fn visit,
    void *context,
    struct errmsg *msg)
{
    struct s3_store *s3 = CONTAINER_OF(store, struct s3_store, store);
    struct list_page page = {
        .request = {.method = "GET", .parse = parse_page},
        .prefix = s3_client_place(s3->client)->prefix,
    };
    char token[TOKEN_SIZE] = "";
    size_t visited = 0;
    err_t err = ERR_OK;
    bool more = true;
    while (err == ERR_OK && more && visited < query->count_max) {
        err = read_page(s3, &page, query, token, query->count_max - visited, msg);
        if (err != ERR_OK) {
            err = err_wrap(msg, err, "list objects \"%s\"", query->prefix);
            break;
        }
        more = page.truncated;
        if (more && strcmp(token, page.token) == 0) {
            err =
                err_set(msg, ERR_CORRUPT, "the listing of \"%s\" goes in a circle", query->prefix);
            break;
        }
        memcpy(token, page.token, sizeof(token));
        err = visit_page(&page, query, &visited, visit, context, msg);
    }
    page_clear(&page);
    mem_free(page.items);
    s3_request_deinit(&page.request);
    return err;
}

/* Deleting. */

static err_t delete_one(
    struct s3_store *s3, const char *name, mono_ns_t deadline, struct errmsg *msg)
{
    struct s3_request request = {.method = "DELETE", .name = name, .deadline = deadline};
    err_t err = s3_call(s3->client, &request, msg);
    s3_request_deinit(&request);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

/* <DeleteResult><Error><Key>..</Key><Code>..</Code></Error></DeleteResult>: those that stay. */
struct delete_answer {
    struct s3_request request;
    char key[128], code[64];
};

static err_t take_deleted(const char *path, const char *text, void *context, struct errmsg *msg)
{
    struct delete_answer *answer = context;
    if (strcmp(path, "DeleteResult/Error/Key") == 0) {
        (void)snprintf(answer->key, sizeof(answer->key), "%s", text);
    } else if (strcmp(path, "DeleteResult/Error/Code") == 0) {
        (void)snprintf(answer->code, sizeof(answer->code), "%s", text);
    } else if (strcmp(path, "DeleteResult/Error") == 0 && strcmp(answer->code, "NoSuchKey") != 0) {
        err_t err = strcmp(answer->code, "AccessDenied") == 0 ? ERR_DENIED : ERR_IO;
        return err_set(msg, err, "%s stays: %s", answer->key, answer->code);
    }
    return ERR_OK;
}

static err_t parse_deleted(struct s3_request *request, struct errmsg *msg)
{
    struct delete_answer *answer = CONTAINER_OF(request, struct delete_answer, request);
    return s3_xml_read(buf_view(&request->response), take_deleted, answer, msg);
}

static err_t delete_batch(
    struct s3_store *s3,
    const char *const *names,
    size_t count,
    mono_ns_t deadline,
    struct errmsg *msg)
{
    char md5_header[64];
    struct buf body = {0};
    buf_printf(&body, "<Delete><Quiet>true</Quiet>");
    for (size_t i = 0; i < count; i++) {
        buf_printf(&body, "<Object><Key>");
        s3_xml_append_text(&body, s3_client_place(s3->client)->prefix);
        s3_xml_append_text(&body, names[i]);
        buf_printf(&body, "</Key></Object>");
    }
    buf_printf(&body, "</Delete>");
    struct s3_digest digest = s3_digest(buf_view(&body));
    (void)snprintf(md5_header, sizeof(md5_header), "content-md5: %s", digest.md5_base64);
    struct delete_answer answer = {
        .request = {
            .method = "POST",
            .query = "delete=",
            .body = buf_view(&body),
            .digest = &digest,
            .headers = {"content-type: application/xml", md5_header},
            .deadline = deadline,
            .parse = parse_deleted,
        }};
    err_t err = s3_call(s3->client, &answer.request, msg);
    s3_request_deinit(&answer.request);
    buf_deinit(&body);
    return err;
}

err_t s3_delete_many(
    struct objstore *store, const char *const *names, size_t count, struct errmsg *msg)
{
    struct s3_store *s3 = CONTAINER_OF(store, struct s3_store, store);
    size_t batch = s3_client_place(s3->client)->settings.delete_batch_count;
    for (size_t i = 0; i < count; i += batch) {
        size_t now = MIN_OF(batch, count - i);
        mono_ns_t deadline = s3_client_deadline(s3->client);
        TRY(now == 1 ? delete_one(s3, names[i], deadline, msg)
                     : delete_batch(s3, names + i, now, deadline, msg));
    }
    return ERR_OK;
}
