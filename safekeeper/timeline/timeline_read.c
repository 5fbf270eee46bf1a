/* timeline_read.c - reads of WAL for peers, digests and feeds, beside the writer. */
#include "safekeeper/timeline/timeline_private.h"

#include "common/base/mark.h"
#include "common/base/metric.h"

METRIC_COUNTER(cached_bytes, "safekeeper_read_cached_bytes_total", "WAL read from memory");
METRIC_COUNTER(file_bytes, "safekeeper_read_file_bytes_total", "WAL read from files");

err_t timeline_readable_lsn(
    const struct timeline *tl, term_t term, lsn_t *ret_lsn, struct errmsg *msg)
{
    if (tl->state != TIMELINE_OPEN) {
        return err_set(msg, ERR_FAILED, "storage of this timeline: %s", tl->storage_text);
    }
    err_t err = acceptor_readable_lsn(&tl->acceptor, term, ret_lsn);
    if (err == ERR_STALE) {
        return err_set(
            msg, err, "term %" PRIu64 " may not read here: the term is %" PRIu64, term,
            tl->acceptor.state.term);
    }
    return err;
}

bool timeline_read_cached(struct timeline *tl, struct timeline_read *read)
{
    buf_clear(&read->wal);
    if (!wal_tail_read(&tl->tail, read->begin_lsn, read->end_lsn, &read->wal)) {
        return false;
    }
    metric_add(&cached_bytes, (int64_t)read->wal.size);
    return true;
}

static err_t run_read(struct job *job)
{
    struct timeline_read *read = CONTAINER_OF(job, struct timeline_read, job);
    return wal_store_reader_read(
        read->reader, read->begin_lsn, read->end_lsn, &read->wal, &job->msg);
}

/*
 * A truncation while the worker read changes what is not committed, and for a moment the checksums
 * of what is: then nothing is concluded and the reader asks again.
 */
static err_t judge(struct timeline_read *read)
{
    struct timeline *tl = read->tl;
    lsn_t readable_lsn = LSN_NONE;
    TRY(timeline_readable_lsn(tl, read->term, &readable_lsn, &read->msg));
    lsn_t begin_lsn = tl->acceptor.state.begin_lsn;
    if (read->begin_lsn < begin_lsn && read->job.result != ERR_OK) {
        MARK(
            "timeline.read.forgotten"); /* its file was removed, or what is damaged is not needed */
        return err_set(
            &read->msg, ERR_RANGE, "WAL is kept here from " LSN_FMT " on", LSN_ARGS(begin_lsn));
    }
    bool is_cut = tl->acceptor.wal_epoch != read->wal_epoch;
    if (readable_lsn < read->end_lsn ||
        (is_cut && (read->term != 0 || read->job.result != ERR_OK))) {
        MARK("timeline.read.overtaken");
        return err_set(&read->msg, ERR_BUSY, "the log was cut while it was read");
    }
    if (read->job.result == ERR_CORRUPT || read->job.result == ERR_IO) {
        timeline_fail(tl, read->job.result, &read->job.msg);
    }
    read->msg = read->job.msg;
    return read->job.result;
}

static void on_read(struct job *job)
{
    struct timeline_read *read = CONTAINER_OF(job, struct timeline_read, job);
    struct timeline *tl = read->tl;
    err_t err = judge(read);
    if (err == ERR_OK) {
        metric_add(&file_bytes, (int64_t)read->wal.size);
    }
    read->tl = NULL;
    read->done(read, err);
    timeline_job_ended(tl);
}

void timeline_read_start(struct timeline *tl, struct timeline_read *read)
{
    ASSERT(read->tl == NULL && read->begin_lsn <= read->end_lsn);
    buf_clear(&read->wal);
    if (read->reader == NULL) {
        struct wal_store_options options = timeline_store_options(tl);
        read->reader = wal_store_reader_create(&options);
    }
    read->tl = tl;
    read->wal_epoch = tl->acceptor.wal_epoch;
    read->job.run = run_read;
    read->job.done = on_read;
    timeline_job_begun(tl);
    executor_submit(tl->env->executor, &read->job);
}

void timeline_read_deinit(struct timeline_read *read)
{
    ASSERT(read->tl == NULL);
    buf_deinit(&read->wal);
    wal_store_reader_destroy(read->reader);
    read->reader = NULL;
}
