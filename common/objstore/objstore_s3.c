/*
 * objstore_s3.c - objects in an S3 bucket.
 *
 * The xxh3-128 of the content travels as user metadata. What we send is protected twice: by the
 * SHA-256 in the signature and by Content-MD5; the server refuses what arrives otherwise, and its
 * ETag is compared. What we get is checked by objstore.c.
 *
 * A name is never overwritten. With a server that knows If-None-Match with PUT, it decides. With
 * another the name is looked up first, which two writers at the same moment can outrun: names carry
 * the writer's generation, so that there is only one.
 */
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "common/objstore/s3_store.h"

#define PROBE_NAME ".probe-conditional-put" /* no object of ours begins with a dot */

static struct s3_store *s3_of(struct objstore *store)
{
    return CONTAINER_OF(store, struct s3_store, store);
}

void s3_hash_header(struct hash128 hash, char to[S3_HASH_HEADER_SIZE])
{
    char hex[33];
    format_hex(hash.bytes, sizeof(hash.bytes), hex);
    (void)snprintf(to, S3_HASH_HEADER_SIZE, "x-amz-meta-xxh3-128: %s", hex);
}

static err_t parse_hash(
    const struct s3_request *request, struct hash128 *ret_hash, struct errmsg *msg)
{
    if (parse_hex(request->hash, ret_hash->bytes, sizeof(ret_hash->bytes), NULL) != ERR_OK) {
        return err_set(msg, ERR_CORRUPT, "it has no checksum of ours");
    }
    return ERR_OK;
}

/*
 * HEAD says 404 both for a missing object and for a missing bucket. Only the first may be taken for
 * an answer, so the bucket is looked for once.
 */
static err_t check_bucket(struct s3_store *s3, mono_ns_t deadline, struct errmsg *msg)
{
    if (atomic_load(&s3->bucket_seen)) {
        return ERR_OK;
    }
    struct s3_request request = {.method = "HEAD", .deadline = deadline};
    err_t err = s3_call(s3->client, &request, msg);
    s3_request_deinit(&request);
    if (err == ERR_NOT_FOUND) {
        MARK("s3.no_bucket");
        return err_set(
            msg, ERR_INVALID, "bucket %s does not exist", s3_client_place(s3->client)->bucket);
    }
    atomic_store(&s3->bucket_seen, err == ERR_OK);
    return err;
}

err_t s3_head(
    struct s3_store *s3,
    const char *name,
    mono_ns_t deadline,
    struct objstore_info *ret_info,
    struct errmsg *msg)
{
    struct s3_request request = {.method = "HEAD", .name = name, .deadline = deadline};
    struct objstore_info info = {0};
    err_t err = s3_call(s3->client, &request, msg);
    if (err == ERR_NOT_FOUND) {
        err_t bucket = check_bucket(s3, deadline, msg);
        err = bucket != ERR_OK ? bucket : err_set(msg, ERR_NOT_FOUND, "it is not there");
    } else if (err == ERR_OK) {
        info.size = request.content_length;
        err = parse_hash(&request, &info.hash, msg);
    }
    s3_request_deinit(&request);
    if (err == ERR_OK) {
        *ret_info = info;
    }
    return err;
}

static err_t s3_head_object(
    struct objstore *store, const char *name, struct objstore_info *ret_info, struct errmsg *msg)
{
    struct s3_store *s3 = s3_of(store);
    return s3_head(s3, name, s3_client_deadline(s3->client), ret_info, msg);
}

err_t s3_compare(
    struct s3_store *s3,
    const char *name,
    const struct objstore_info *info,
    mono_ns_t deadline,
    struct errmsg *msg)
{
    struct objstore_info theirs;
    err_t err = s3_head(s3, name, deadline, &theirs, msg);
    if (err == ERR_CORRUPT) {
        return err_set(msg, ERR_EXISTS, "it exists, put by somebody else: no checksum of ours");
    }
    if (err == ERR_OK && (theirs.size != info->size || !hash128_equal(theirs.hash, info->hash))) {
        return err_set(msg, ERR_EXISTS, "it exists with another content");
    }
    return err;
}

/* Only an ETag that looks like an MD5 can be one; of parts it ends in "-COUNT". */
err_t s3_check_etag(const struct s3_request *request, const char *md5_hex, struct errmsg *msg)
{
    uint8_t unused[16];
    char head[33];
    bool is_md5 = strlen(request->etag) >= 32 && !request->opaque_etag;
    if (is_md5) {
        memcpy(head, request->etag, 32);
        head[32] = '\0';
        is_md5 = parse_hex(head, unused, sizeof(unused), NULL) == ERR_OK;
    }
    if (is_md5 && strcasecmp(request->etag, md5_hex) != 0) {
        MARK("s3.etag_differs");
        return err_set(
            msg, ERR_CORRUPT, "the server stored ETag %.40s, not %s", request->etag, md5_hex);
    }
    return ERR_OK;
}

/* Putting. */

static err_t send_object(
    struct s3_store *s3,
    const char *name,
    struct bytes data,
    bool conditional,
    mono_ns_t deadline,
    struct errmsg *msg)
{
    char hash_header[S3_HASH_HEADER_SIZE], md5_header[64];
    struct s3_digest digest = s3_digest(data);
    s3_hash_header(hash128(data), hash_header);
    (void)snprintf(md5_header, sizeof(md5_header), "content-md5: %s", digest.md5_base64);
    struct s3_request request = {
        .method = "PUT",
        .name = name,
        .body = data,
        .digest = &digest,
        .headers =
            {"content-type: application/octet-stream", md5_header, hash_header,
             conditional ? "if-none-match: *" : NULL},
        .deadline = deadline,
    };
    err_t err = s3_call(s3->client, &request, msg);
    if (err == ERR_OK) {
        atomic_store(&s3->bucket_seen, true);
        err = s3_check_etag(&request, digest.md5_hex, msg);
    }
    s3_request_deinit(&request);
    if (err == ERR_CORRUPT && request.status == 200) {
        err_ignore(
            s3_delete_many(&s3->store, &name, 1, NULL),
            "reading it is ERR_CORRUPT; without it the next put can succeed");
    }
    return err;
}

/*
 * Ask the server with an object of ours that stays: the second put of it must be refused. A server
 * that does not know the header answers 501, or, worse, takes both.
 */
static err_t probe(struct s3_store *s3, mono_ns_t deadline, struct errmsg *msg)
{
    err_t err = ERR_OK;
    for (unsigned i = 0; i < 2 && err == ERR_OK; i++) {
        err = send_object(s3, PROBE_NAME, bytes_of_str("probe"), true, deadline, msg);
    }
    if (err == ERR_EXISTS) {
        atomic_store(&s3->conditional, S3_CONDITIONAL_YES);
    } else if (err == ERR_OK || err == ERR_UNSUPPORTED) {
        MARK("s3.no_conditional_put");
        atomic_store(&s3->conditional, S3_CONDITIONAL_NO);
    } else {
        return err_wrap(msg, err, "probe of conditional put");
    }
    return ERR_OK;
}

static err_t put_whole(
    struct s3_store *s3,
    const char *name,
    struct source *source,
    bool conditional,
    mono_ns_t deadline,
    struct errmsg *msg)
{
    struct bytes data = {0};
    TRY(source_read(source, 0, (size_t)source->size, &data, msg));
    struct objstore_info info = {.size = data.size, .hash = hash128(data)};
    if (!conditional) {
        err_t err = s3_compare(s3, name, &info, deadline, msg);
        if (err != ERR_NOT_FOUND) {
            return err;
        }
    }
    err_t err = send_object(s3, name, data, conditional, deadline, msg);
    if (conditional &&
        err == ERR_EXISTS) { /* perhaps by an attempt of ours whose answer was lost */
        MARK("s3.put_refused");
        err = s3_compare(s3, name, &info, deadline, msg);
    }
    return err;
}

static err_t s3_put(
    struct objstore *store, const char *name, struct source *source, struct errmsg *msg)
{
    struct s3_store *s3 = s3_of(store);
    mono_ns_t deadline = s3_client_deadline(s3->client);
    if (atomic_load(&s3->conditional) == S3_CONDITIONAL_UNKNOWN) {
        TRY(probe(s3, deadline, msg));
    }
    bool conditional = atomic_load(&s3->conditional) == S3_CONDITIONAL_YES;
    if (source->size <= s3_client_place(s3->client)->settings.part_size) {
        return put_whole(s3, name, source, conditional, deadline, msg);
    }
    return s3_upload(s3, name, source, conditional, deadline, msg);
}

/* Getting. */

/* "bytes 0-99/1234" must be what was asked for. */
static err_t parse_range(
    const struct s3_request *request,
    const struct objstore_piece *piece,
    uint64_t *ret_size,
    struct errmsg *msg)
{
    uint64_t begin = 0, last = 0, size = 0;
    int end = 0;
    int count = sscanf(
        request->content_range, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64 "%n", &begin, &last, &size,
        &end);
    if (count != 3 || request->content_range[end] != '\0' || begin != piece->begin ||
        last >= size || last < begin || last - begin >= piece->size ||
        request->response.size != last - begin + 1) {
        return err_set(
            msg, ERR_CORRUPT, "%zu bytes of range \"%.60s\" instead of %zu at %" PRIu64,
            request->response.size, request->content_range, piece->size, piece->begin);
    }
    *ret_size = size;
    return ERR_OK;
}

/* An answer of one fetch; embedded, so that parse() finds the piece. */
struct fetch {
    struct s3_request request;
    struct objstore_piece *piece;
};

static err_t take_piece(struct s3_request *request, struct errmsg *msg)
{
    struct fetch *fetch = CONTAINER_OF(request, struct fetch, request);
    struct objstore_piece *piece = fetch->piece;
    struct objstore_info info = {0};
    TRY(parse_hash(request, &info.hash, msg));
    if (request->status == 206) {
        TRY(parse_range(request, piece, &info.size, msg));
    } else if (piece->begin == 0 && request->response.size <= piece->size) {
        info.size = request->response.size; /* all of it, from a server that ignores ranges */
    } else {
        return err_set(msg, ERR_CORRUPT, "HTTP %u instead of a range", request->status);
    }
    piece->info = info;
    struct buf swap = piece->data;
    piece->data = request->response;
    request->response = swap;
    return ERR_OK;
}

static err_t s3_fetch(
    struct objstore *store, const char *name, struct objstore_piece *piece, struct errmsg *msg)
{
    struct s3_store *s3 = s3_of(store);
    char range[64];
    ASSERT(piece->size > 0);
    if (piece->begin > UINT64_MAX - piece->size) {
        return err_set(msg, ERR_RANGE, "no object is so large");
    }
    (void)snprintf(
        range, sizeof(range), "range: bytes=%" PRIu64 "-%" PRIu64, piece->begin,
        piece->begin + piece->size - 1);
    struct fetch fetch = {
        .piece = piece,
        .request = {
            .method = "GET",
            .name = name,
            .headers = {range},
            .response_max = piece->size,
            .deadline = s3_client_deadline(s3->client),
            .parse = take_piece,
        }};
    err_t err = s3_call(s3->client, &fetch.request, msg);
    if (err == ERR_RANGE) { /* an empty object, or a beginning behind the end */
        err = s3_head(s3, name, fetch.request.deadline, &piece->info, msg);
        if (err == ERR_OK && piece->begin < piece->info.size) {
            err = err_set(msg, ERR_IO, "the server refused a range that is there");
        }
    }
    s3_request_deinit(&fetch.request);
    return err;
}

static void s3_cancel(struct objstore *store)
{
    s3_client_cancel(s3_of(store)->client);
}

static void s3_close(struct objstore *store)
{
    struct s3_store *s3 = s3_of(store);
    s3_client_close(s3->client);
    mem_free(s3);
}

static const struct objstore_ops s3_ops = {
    .close = s3_close,
    .cancel = s3_cancel,
    .put = s3_put,
    .fetch = s3_fetch,
    .head = s3_head_object,
    .delete_many = s3_delete_many,
    .list = s3_list,
    .sweep = s3_sweep,
};

err_t objstore_s3_open(const char *url, struct objstore **ret_store, struct errmsg *msg)
{
    struct s3_place place;
    struct s3_client *client = NULL;
    TRY(s3_place_parse(url, &place, msg));
    TRY(s3_client_open(&place, &client, msg));
    struct s3_store *s3 = MEM_NEW(struct s3_store);
    s3->store.ops = &s3_ops;
    s3->client = client;
    const char *known = place.settings.conditional_put;
    s3->conditional = strcmp(known, "yes") == 0  ? S3_CONDITIONAL_YES
                      : strcmp(known, "no") == 0 ? S3_CONDITIONAL_NO
                                                 : S3_CONDITIONAL_UNKNOWN;
    *ret_store = &s3->store;
    return ERR_OK;
}
