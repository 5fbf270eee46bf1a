/*
 * s3_upload.c - large objects: multipart uploads, and what killed ones left.
 *
 * Nothing has the object's name until the last request lists all parts; an upload that ends before
 * is aborted, and one whose process died is swept. The source is read twice: for the checksum,
 * which the first request carries, and for the parts.
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "common/objstore/s3_store.h"
#include "common/objstore/s3_xml.h"

#define PARTS_MAX      10000 /* S3's limit */
#define UPLOAD_ID_SIZE 1025
#define ETAG_SIZE      128
#define ABORT_TIME_NS  (10 * NS_PER_S)

struct part {
    char etag[ETAG_SIZE];
    uint8_t md5[16];
};

struct upload {
    struct s3_store *s3;
    const char *name;
    struct source *source;
    struct objstore_info info;
    mono_ns_t deadline;
    bool conditional;
    char id[UPLOAD_ID_SIZE];
    size_t part_size;
    struct part *parts;
    size_t part_count;
    bool joined_wrong; /* the object is there, but made of something else */
};

/* Begin. */

struct begin_answer {
    struct s3_request request;
    char id[UPLOAD_ID_SIZE];
};

static err_t take_upload_id(const char *path, const char *text, void *context, struct errmsg *msg)
{
    struct begin_answer *answer = context;
    if (strcmp(path, "InitiateMultipartUploadResult/UploadId") == 0) {
        return str_copy(answer->id, sizeof(answer->id), text, msg);
    }
    return ERR_OK;
}

static err_t parse_begin(struct s3_request *request, struct errmsg *msg)
{
    struct begin_answer *answer = CONTAINER_OF(request, struct begin_answer, request);
    TRY(s3_xml_read(buf_view(&request->response), take_upload_id, answer, msg));
    return answer->id[0] != '\0' ? ERR_OK : err_set(msg, ERR_CORRUPT, "no UploadId");
}

static err_t begin(struct upload *upload, struct errmsg *msg)
{
    char hash_header[S3_HASH_HEADER_SIZE];
    s3_hash_header(upload->info.hash, hash_header);
    struct begin_answer answer = {
        .request = {
            .method = "POST",
            .name = upload->name,
            .query = "uploads=",
            .headers = {"content-type: application/octet-stream", hash_header},
            .deadline = upload->deadline,
            .parse = parse_begin,
        }};
    err_t err = s3_call(upload->s3->client, &answer.request, msg);
    s3_request_deinit(&answer.request);
    if (err == ERR_OK) {
        memcpy(upload->id, answer.id, sizeof(upload->id));
    }
    return err;
}

/* Parts. */

static err_t send_part(struct upload *upload, size_t index, struct bytes data, struct errmsg *msg)
{
    char md5_header[64], number[24];
    struct buf query = {0};
    struct part *part = &upload->parts[index];
    struct s3_digest digest = s3_digest(data);
    (void)snprintf(md5_header, sizeof(md5_header), "content-md5: %s", digest.md5_base64);
    (void)snprintf(number, sizeof(number), "%zu", index + 1);
    s3_query_add(&query, "partNumber", number);
    s3_query_add(&query, "uploadId", upload->id);
    struct s3_request request = {
        .method = "PUT",
        .name = upload->name,
        .query = buf_cstr(&query),
        .body = data,
        .digest = &digest,
        .headers = {"content-type: application/octet-stream", md5_header},
        .deadline = upload->deadline,
    };
    err_t err = s3_call(upload->s3->client, &request, msg);
    if (err == ERR_OK) {
        err = s3_check_etag(&request, digest.md5_hex, msg);
    }
    if (err == ERR_OK) {
        memcpy(part->md5, digest.md5, sizeof(part->md5));
        err = str_copy(part->etag, sizeof(part->etag), request.etag, msg);
    }
    if (err == ERR_OK && part->etag[0] == '\0') {
        err = err_set(msg, ERR_CORRUPT, "no ETag");
    }
    s3_request_deinit(&request);
    buf_deinit(&query);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "part %zu", index + 1);
}

static err_t send_parts(struct upload *upload, struct errmsg *msg)
{
    struct hash128_stream *stream = hash128_start();
    err_t err = ERR_OK;
    for (size_t i = 0; i < upload->part_count && err == ERR_OK; i++) {
        uint64_t at = (uint64_t)i * upload->part_size;
        size_t size = (size_t)MIN_OF(upload->info.size - at, upload->part_size);
        struct bytes data = {0};
        err = source_read(upload->source, at, size, &data, msg);
        if (err == ERR_OK) {
            hash128_feed(stream, data);
            err = send_part(upload, i, data, msg);
        }
    }
    struct hash128 hash = hash128_finish(stream);
    if (err == ERR_OK && !hash128_equal(hash, upload->info.hash)) {
        MARK("s3_upload.source_changed");
        return err_set(msg, ERR_CORRUPT, "the file changed while it went up");
    }
    return err;
}

/* End. */

static void write_part_list(const struct upload *upload, struct buf *to)
{
    buf_printf(to, "<CompleteMultipartUpload>");
    for (size_t i = 0; i < upload->part_count; i++) {
        buf_printf(to, "<Part><PartNumber>%zu</PartNumber><ETag>&quot;", i + 1);
        s3_xml_append_text(to, upload->parts[i].etag);
        buf_printf(to, "&quot;</ETag></Part>");
    }
    buf_printf(to, "</CompleteMultipartUpload>");
}

struct end_answer {
    struct s3_request request;
    char etag[ETAG_SIZE];
    bool done;
};

/* HTTP 200 is sent before the server knows how it ends: the body decides. */
static err_t take_end(const char *path, const char *text, void *context, struct errmsg *msg)
{
    struct end_answer *answer = context;
    if (strcmp(path, "Error/Code") == 0) {
        err_t err = strcmp(text, "PreconditionFailed") == 0 ? ERR_EXISTS : ERR_IO;
        return err_set(msg, err, "the server could not join the parts: %.64s", text);
    }
    if (strcmp(path, "CompleteMultipartUploadResult/ETag") == 0) {
        size_t size = strlen(text);
        bool quoted = size >= 2 && text[0] == '"' && text[size - 1] == '"';
        return str_format(
            answer->etag, sizeof(answer->etag), msg, "%.*s", (int)(quoted ? size - 2 : size),
            quoted ? text + 1 : text);
    }
    answer->done = answer->done || strcmp(path, "CompleteMultipartUploadResult") == 0;
    return ERR_OK;
}

/* The ETag of joined parts is the MD5 of their MD5s, and how many. */
static void expected_etag(const struct upload *upload, char to[ETAG_SIZE])
{
    struct buf digests = {0};
    for (size_t i = 0; i < upload->part_count; i++) {
        buf_append(&digests, upload->parts[i].md5, sizeof(upload->parts[i].md5));
    }
    struct s3_digest digest = s3_digest(buf_view(&digests));
    (void)snprintf(to, ETAG_SIZE, "%s-%zu", digest.md5_hex, upload->part_count);
    buf_deinit(&digests);
}

static err_t parse_end(struct s3_request *request, struct errmsg *msg)
{
    struct end_answer *answer = CONTAINER_OF(request, struct end_answer, request);
    answer->etag[0] = '\0';
    answer->done = false;
    TRY(s3_xml_read(buf_view(&request->response), take_end, answer, msg));
    if (!answer->done) {
        return err_set(msg, ERR_CORRUPT, "the answer is no end of an upload");
    }
    return str_copy(request->etag, sizeof(request->etag), answer->etag, msg);
}

static err_t join(struct upload *upload, struct errmsg *msg)
{
    struct buf query = {0}, body = {0};
    s3_query_add(&query, "uploadId", upload->id);
    write_part_list(upload, &body);
    struct end_answer answer = {
        .request = {
            .method = "POST",
            .name = upload->name,
            .query = buf_cstr(&query),
            .body = buf_view(&body),
            .headers =
                {"content-type: application/xml", upload->conditional ? "if-none-match: *" : NULL},
            .deadline = upload->deadline,
            .parse = parse_end,
        }};
    err_t err = s3_call(upload->s3->client, &answer.request, msg);
    if (err == ERR_OK) {
        char expected[ETAG_SIZE];
        expected_etag(upload, expected);
        err = s3_check_etag(&answer.request, expected, msg);
        upload->joined_wrong = err != ERR_OK;
    }
    s3_request_deinit(&answer.request);
    buf_deinit(&query);
    buf_deinit(&body);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "end of upload");
}

static err_t abort_upload(
    struct s3_client *client,
    const char *name,
    const char *id,
    mono_ns_t deadline,
    struct errmsg *msg)
{
    struct buf query = {0};
    s3_query_add(&query, "uploadId", id);
    struct s3_request request = {
        .method = "DELETE", .name = name, .query = buf_cstr(&query), .deadline = deadline};
    err_t err = s3_call(client, &request, msg);
    s3_request_deinit(&request);
    buf_deinit(&query);
    return err == ERR_NOT_FOUND ? ERR_OK : err; /* ended or aborted already */
}

/*
 * Whatever join() answered, the name decides: a lost answer may have been a success, and a retry
 * then says that the upload is unknown. A success is believed only when size and checksum are
 * there.
 */
static err_t settle(struct upload *upload, err_t joined, struct errmsg *msg)
{
    struct errmsg seen;
    if (upload->joined_wrong) {
        MARK("s3_upload.joined_wrong");
        err_ignore(
            s3_delete_many(&upload->s3->store, &upload->name, 1, NULL),
            "reading it is ERR_CORRUPT; without it the next put can succeed");
        return joined;
    }
    err_t err = s3_compare(upload->s3, upload->name, &upload->info, upload->deadline, &seen);
    if (err == ERR_OK) {
        return ERR_OK;
    }
    if (joined == ERR_OK && (err == ERR_NOT_FOUND || err == ERR_EXISTS)) {
        return err_set(msg, ERR_CORRUPT, "the parts were joined, but: %.250s", seen.text);
    }
    if (joined == ERR_OK || err == ERR_EXISTS) {
        return err_set(msg, err, "%s", seen.text);
    }
    return joined;
}

static err_t send_all(struct upload *upload, struct errmsg *msg)
{
    struct objstore_info theirs;
    TRY(send_parts(upload, msg));
    if (!upload->conditional) { /* who came first while the parts went up? */
        err_t err = s3_head(upload->s3, upload->name, upload->deadline, &theirs, msg);
        if (err == ERR_OK || err == ERR_CORRUPT) {
            return s3_compare(upload->s3, upload->name, &upload->info, upload->deadline, msg);
        }
        if (err != ERR_NOT_FOUND) {
            return err;
        }
    }
    err_t joined = join(upload, msg);
    return settle(upload, joined, msg);
}

err_t s3_upload(
    struct s3_store *s3,
    const char *name,
    struct source *source,
    bool conditional,
    mono_ns_t deadline,
    struct errmsg *msg)
{
    size_t part_size = s3_client_place(s3->client)->settings.part_size;
    struct upload upload = {
        .s3 = s3,
        .name = name,
        .source = source,
        .info.size = source->size,
        .deadline = deadline,
        .conditional = conditional,
        .part_size = MAX_OF(part_size, (size_t)(source->size / PARTS_MAX) + 1),
    };
    TRY(source_hash(source, &upload.info.hash, msg));
    err_t err = s3_compare(s3, name, &upload.info, deadline, msg);
    if (err != ERR_NOT_FOUND) {
        return err; /* there, or unknown */
    }
    TRY(begin(&upload, msg));
    upload.part_count = (size_t)((source->size + upload.part_size - 1) / upload.part_size);
    upload.parts = MEM_ARRAY(struct part, upload.part_count);
    err = send_all(&upload, msg);
    if (err != ERR_OK) {
        MARK("s3_upload.abort");
        err_ignore(
            abort_upload(s3->client, name, upload.id, clock_mono() + ABORT_TIME_NS, NULL),
            "a sweep removes what is left");
    }
    mem_free(upload.parts);
    /* The upload, not an object, was not found: aborted by somebody. A put has no such error. */
    return err == ERR_NOT_FOUND ? err_wrap(msg, ERR_IO, "the upload is gone") : err;
}

/* Sweeping: a page of unfinished uploads is read, the old ones are aborted, then the next page. */

struct stale {
    char *name, *id;
};

struct sweep_page {
    struct s3_request request;
    const char *prefix; /* of the store */
    wall_us_t before;
    char name[OBJSTORE_NAME_SIZE_MAX + 1], id[UPLOAD_ID_SIZE]; /* being read */
    wall_us_t begun;
    struct stale *items;
    size_t count, capacity;
    bool truncated;
    char next_key[S3_XML_TEXT_MAX], next_id[UPLOAD_ID_SIZE];
};

static void page_clear(struct sweep_page *page)
{
    for (size_t i = 0; i < page->count; i++) {
        mem_free(page->items[i].name);
        mem_free(page->items[i].id);
    }
    page->count = 0;
    page->truncated = false;
    page->next_key[0] = page->next_id[0] = page->name[0] = page->id[0] = '\0';
    page->begun = 0;
}

static void end_of_upload(struct sweep_page *page)
{
    /* Not ours: another prefix, or a name or date that we did not make. */
    if (page->name[0] != '\0' && page->id[0] != '\0' && page->begun != 0 &&
        page->begun <= page->before) {
        if (page->count == page->capacity) {
            page->capacity = page->capacity == 0 ? 16 : 2 * page->capacity;
            page->items = mem_realloc(page->items, page->capacity * sizeof(page->items[0]));
        }
        page->items[page->count++] =
            (struct stale){.name = mem_strdup(page->name), .id = mem_strdup(page->id)};
    }
    page->name[0] = page->id[0] = '\0';
    page->begun = 0;
}

#define UPLOADS "ListMultipartUploadsResult/"

static err_t take_upload(const char *path, const char *text, void *context, struct errmsg *msg)
{
    struct sweep_page *page = context;
    if (strcmp(path, UPLOADS "Upload") == 0) {
        end_of_upload(page);
    } else if (strcmp(path, UPLOADS "Upload/Key") == 0) {
        const char *name = text + strlen(page->prefix);
        if (str_starts_with(text, page->prefix) && objstore_name_is_valid(name)) {
            return str_copy(page->name, sizeof(page->name), name, msg);
        }
    } else if (strcmp(path, UPLOADS "Upload/UploadId") == 0) {
        return str_copy(page->id, sizeof(page->id), text, msg);
    } else if (strcmp(path, UPLOADS "Upload/Initiated") == 0) {
        return parse_time(text, &page->begun, msg);
    } else if (strcmp(path, UPLOADS "IsTruncated") == 0) {
        page->truncated = strcmp(text, "true") == 0;
    } else if (strcmp(path, UPLOADS "NextKeyMarker") == 0) {
        return str_copy(page->next_key, sizeof(page->next_key), text, msg);
    } else if (strcmp(path, UPLOADS "NextUploadIdMarker") == 0) {
        return str_copy(page->next_id, sizeof(page->next_id), text, msg);
    }
    return ERR_OK;
}

static err_t parse_uploads(struct s3_request *request, struct errmsg *msg)
{
    struct sweep_page *page = CONTAINER_OF(request, struct sweep_page, request);
    page_clear(page);
    return s3_xml_read(buf_view(&request->response), take_upload, page, msg);
}

static err_t read_page(
    struct s3_store *s3,
    struct sweep_page *page,
    const char *key,
    const char *id,
    struct errmsg *msg)
{
    struct buf query = {0};
    if (key[0] != '\0') {
        s3_query_add(&query, "key-marker", key);
    }
    s3_query_add(&query, "prefix", page->prefix);
    if (id[0] != '\0') {
        s3_query_add(&query, "upload-id-marker", id);
    }
    s3_query_add(&query, "uploads", "");
    page->request.query = buf_cstr(&query);
    page->request.deadline = s3_client_deadline(s3->client);
    err_t err = s3_call(s3->client, &page->request, msg);
    buf_deinit(&query);
    return err;
}

static err_t abort_page(
    struct s3_store *s3, struct sweep_page *page, size_t *count, struct errmsg *msg)
{
    for (size_t i = 0; i < page->count; i++) {
        const struct stale *item = &page->items[i];
        err_t err =
            abort_upload(s3->client, item->name, item->id, s3_client_deadline(s3->client), msg);
        if (err != ERR_OK) {
            return err_wrap(msg, err, "abort the upload of %s", item->name);
        }
        ++*count;
    }
    return ERR_OK;
}

err_t s3_sweep(
    struct objstore *store, uint64_t older_than_ms, size_t *ret_count, struct errmsg *msg)
{
    struct s3_store *s3 = CONTAINER_OF(store, struct s3_store, store);
    struct sweep_page *page = MEM_NEW(struct sweep_page);
    uint64_t age_us = MIN_OF(older_than_ms, (uint64_t)INT64_MAX / 2000) * 1000;
    char key[S3_XML_TEXT_MAX] = "", id[UPLOAD_ID_SIZE] = "";
    page->request.method = "GET";
    page->request.parse = parse_uploads;
    page->prefix = s3_client_place(s3->client)->prefix;
    page->before = clock_wall() - (wall_us_t)age_us;
    err_t err = ERR_OK;
    bool more = true;
    while (more && err == ERR_OK) {
        err = read_page(s3, page, key, id, msg);
        if (err == ERR_OK) {
            err = abort_page(s3, page, ret_count, msg);
        }
        /* A page that does not lead on would be read for ever. */
        more =
            page->truncated && (strcmp(key, page->next_key) != 0 || strcmp(id, page->next_id) != 0);
        memcpy(key, page->next_key, sizeof(key));
        memcpy(id, page->next_id, sizeof(id));
    }
    page_clear(page);
    mem_free(page->items);
    s3_request_deinit(&page->request);
    mem_free(page);
    return err;
}
