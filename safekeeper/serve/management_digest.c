/* management_digest.c - committed WAL of the files: its checksum, or the bytes. */
#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/parse.h"
#include "safekeeper/serve/management_private.h"

#define DIGEST_PIECE (1 * MIB)
#define DIGEST_MAX   ((lsn_t)16 * GIB)
#define WAL_MAX      (16 * MIB) /* of one answer */

static void digest_advance(struct operation *op);

static void digest_add(struct operation *op)
{
    op->digest_crc = crc32c(op->digest_crc, op->read.wal.data, op->read.wal.size);
    if (op->wants_wal) {
        buf_append(&op->digest_wal, op->read.wal.data, op->read.wal.size);
    }
    op->read.begin_lsn = op->read.end_lsn;
}

static void on_digest_read(struct timeline_read *read, err_t result)
{
    struct operation *op = CONTAINER_OF(read, struct operation, read);
    if (result != ERR_OK) {
        operation_finish_with_error(op, result, &read->msg);
        return;
    }
    digest_add(op);
    digest_advance(op);
}

static void digest_advance(struct operation *op)
{
    if (op->read.begin_lsn < op->digest_end_lsn) {
        op->read.end_lsn = MIN_OF(op->digest_end_lsn, op->read.begin_lsn + DIGEST_PIECE);
        op->read.done = on_digest_read;
        timeline_read_start(op->tl, &op->read); /* the files, never the memory: it is an audit */
        return;
    }
    if (op->wants_wal) {
        http_respond_buf(op->request, 200, "application/octet-stream", &op->digest_wal);
        operation_finish(op);
        return;
    }
    char crc[12];
    (void)snprintf(crc, sizeof(crc), "%08x", op->digest_crc);
    http_respond_json(op->request, 200, doc_set_str(doc_object(), "crc", crc));
    operation_finish(op);
}

static err_t prepare_digest(struct operation *op, struct errmsg *msg)
{
    const char *from = http_request_query(op->request, "from");
    const char *to = http_request_query(op->request, "to");
    lsn_t commit_lsn = LSN_NONE;
    if (op->tl == NULL) {
        return err_set(msg, ERR_NOT_FOUND, "no timeline %s here", timeline_id_text(op->id).text);
    }
    if (from == NULL || to == NULL) {
        return err_set(msg, ERR_INVALID, "from=LSN and to=LSN are needed");
    }
    TRY(parse_lsn(from, &op->read.begin_lsn, msg));
    TRY(parse_lsn(to, &op->digest_end_lsn, msg));
    TRY(timeline_readable_lsn(op->tl, 0, &commit_lsn, msg));
    lsn_t start_lsn = timeline_control(op->tl)->acceptor.begin_lsn;
    if (op->wants_wal && op->digest_end_lsn > commit_lsn) {
        return err_set(msg, ERR_BUSY, "committed is " LSN_FMT " here", LSN_ARGS(commit_lsn));
    }
    if (op->read.begin_lsn < start_lsn || op->read.begin_lsn > op->digest_end_lsn ||
        op->digest_end_lsn > commit_lsn) {
        return err_set(
            msg, ERR_RANGE, "committed WAL is " LSN_FMT ".." LSN_FMT, LSN_ARGS(start_lsn),
            LSN_ARGS(commit_lsn));
    }
    if (op->digest_end_lsn - op->read.begin_lsn > DIGEST_MAX) {
        return err_set(msg, ERR_INVALID, "limit: a digest of 16 GiB");
    }
    if (op->wants_wal && op->digest_end_lsn - op->read.begin_lsn > WAL_MAX) {
        return err_set(msg, ERR_INVALID, "limit: 16 MiB of WAL");
    }
    return ERR_OK;
}

static void start_digest(struct http_context *context, struct http_request *request, bool wants_wal)
{
    struct operation *op =
        operation_create(CONTAINER_OF(context, struct server, http), request, false);
    struct errmsg msg;
    if (op == NULL) {
        return;
    }
    op->wants_wal = wants_wal;
    err_t err = prepare_digest(op, &msg);
    if (err != ERR_OK) {
        operation_finish_with_error(op, err, &msg);
        return;
    }
    digest_advance(op);
}

void handle_get_digest(struct http_context *context, struct http_request *request)
{
    start_digest(context, request, false);
}

void handle_get_wal(struct http_context *context, struct http_request *request)
{
    start_digest(context, request, true);
}
