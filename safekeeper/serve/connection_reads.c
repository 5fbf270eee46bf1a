/*
 * connection_reads.c - READ_WAL: the requests of a channel, answered one after the other.
 */
#include "safekeeper/serve/connection_private.h"

#include "common/base/mem.h"

static void reads_advance(struct wal_reads *reads);

void wal_reads_release(struct wal_reads *reads)
{
    timeline_read_deinit(&reads->read);
    mem_free(reads);
}

static void reads_answer(struct wal_reads *reads, err_t result, const struct errmsg *msg)
{
    struct channel *channel = reads->channel;
    struct wal_read_request *request = &reads->requests[reads->first];
    struct link *link = channel->conn->as_link_user.link;
    if (result == ERR_OK) {
        struct read_wal_reply reply = {
            .begin_lsn = request->message.begin_lsn,
            .flush_lsn = timeline_acceptor(channel->tl)->flush_lsn,
            .wal = buf_view(&reads->read.wal),
        };
        LINK_SEND(
            link, read_wal_reply, &reply, .type = FRAME_READ_WAL_REPLY, .channel = channel->number,
            .request_id = request->request_id);
    } else {
        link_send_error(link, channel->number, request->request_id, result, msg);
    }
    reads->first = (reads->first + 1) % READS_MAX;
    reads->count--;
}

static void on_wal_read(struct timeline_read *read, err_t result)
{
    struct wal_reads *reads = CONTAINER_OF(read, struct wal_reads, read);
    reads->is_running = false;
    if (reads->channel == NULL) {
        wal_reads_release(reads);
        return;
    }
    reads_answer(reads, result, &read->msg);
    reads_advance(reads);
}

static err_t prepare_read(struct wal_reads *reads, struct errmsg *msg)
{
    const struct read_wal *request = &reads->requests[reads->first].message;
    lsn_t readable_lsn = LSN_NONE;
    TRY(timeline_readable_lsn(reads->channel->tl, request->term, &readable_lsn, msg));
    lsn_t start_lsn = timeline_first_lsn(reads->channel->tl);
    if (request->begin_lsn < start_lsn || request->begin_lsn > readable_lsn) {
        return err_set(
            msg, ERR_RANGE, LSN_FMT " is not in " LSN_FMT ".." LSN_FMT,
            LSN_ARGS(request->begin_lsn), LSN_ARGS(start_lsn), LSN_ARGS(readable_lsn));
    }
    lsn_t size = MIN_OF((lsn_t)request->size, (lsn_t)WAL_APPEND_MAX);
    reads->read.term = request->term;
    reads->read.begin_lsn = request->begin_lsn;
    reads->read.end_lsn = request->begin_lsn + MIN_OF(size, readable_lsn - request->begin_lsn);
    return ERR_OK;
}

/* A reader that has come to the end of the log will hardly ask again soon. */
static void give_back(struct wal_reads *reads)
{
    lsn_t commit_lsn = timeline_acceptor(reads->channel->tl)->state.commit_lsn;
    if (reads->count == 0 && !reads->is_running && reads->read.end_lsn >= commit_lsn) {
        timeline_read_deinit(&reads->read);
    }
}

static void reads_advance(struct wal_reads *reads)
{
    while (reads->count > 0 && !reads->is_running) {
        struct errmsg msg;
        err_t err = prepare_read(reads, &msg);
        if (err == ERR_OK && !timeline_read_cached(reads->channel->tl, &reads->read)) {
            reads->is_running = true;
            reads->read.done = on_wal_read;
            timeline_read_start(reads->channel->tl, &reads->read);
            return;
        }
        reads_answer(reads, err, &msg);
    }
    give_back(reads);
}

void channel_on_read_wal(
    struct channel *channel, const struct frame *frame, const struct read_wal *message)
{
    if (channel->reads == NULL) {
        channel->reads = MEM_NEW(struct wal_reads);
        channel->reads->channel = channel;
    }
    struct wal_reads *reads = channel->reads;
    if (reads->count == READS_MAX) {
        struct errmsg msg;
        err_t err = err_set(&msg, ERR_BUSY, "limit: %d reads wait on a channel", READS_MAX);
        link_send_error(
            channel->conn->as_link_user.link, channel->number, frame->request_id, err, &msg);
        return;
    }
    size_t last = (reads->first + reads->count++) % READS_MAX;
    reads->requests[last] =
        (struct wal_read_request){.request_id = frame->request_id, .message = *message};
    reads_advance(reads);
}
