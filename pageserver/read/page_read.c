#include "pageserver/read/page_read.h"

#include "common/base/assert.h"
#include "common/base/fault.h"
#include "common/base/metric.h"
#include "pageserver/read/memory_guess.h"
#include "pageserver/read/reconstruct.h"

METRIC_HISTOGRAM(
    read_seconds, "pageserver_page_read_seconds", "time of a read that missed a cache");
METRIC_COUNTER(reads, "pageserver_page_reads_total", "read requests, cached or not");
METRIC_COUNTER(
    reads_in_memory,
    "pageserver_page_reads_in_memory_total",
    "reads that missed the page cache and were answered on the loop, from layers and cached "
    "blocks");
METRIC_COUNTER(
    reads_not_tried,
    "pageserver_page_reads_not_tried_total",
    "reads that went to a worker at once: others of the relation were not in memory lately");
METRIC_COUNTER(pages_read, "pageserver_pages_read_total", "pages sent, cached or not");
METRIC_COUNTER(
    read_failures, "pageserver_page_read_failures_total", "reads that ended in an error");

static void on_worked(struct turn_job *turn);
static void on_worked_at_once(struct job *job);

static void enter(struct page_read *read, enum page_read_state next)
{
    ASSERT(next == PAGE_READ_IDLE || next > read->state); /* a read only moves forward */
    read->state = next;
}

static void finish(struct page_read *read, err_t result)
{
    enter(read, PAGE_READ_IDLE);
    metric_observe_ns(&read_seconds, clock_mono() - read->begin);
    metric_add(result == ERR_OK ? &pages_read : &read_failures, result == ERR_OK ? read->count : 1);
    struct timeline *tl = read->timeline;
    read->timeline = NULL;
    if (tl != NULL) {
        timeline_read_end(tl);
    }
    read->done(read, result); /* `read` belongs to the caller from here on */
}

/* -- the work -- */

/* An SLRU has all the pages that a number can name: the one who asks knows which ones count. */
static err_t read_size(struct page_read *read, struct reconstruct *work, struct errmsg *msg)
{
    if (page_key_is_slru(read->key)) {
        read->size = (struct fork_size){.exists = true, .blocks = KEY_BLOCK_SIZE};
    } else if (read->size.lsn == 0) { /* not known from the cache */
        TRY(page_reader_rel_size(work->reader, read->key, read->read_lsn, &read->size, msg));
    }
    return ERR_OK;
}

static uint32_t existing_blocks(const struct page_read *read)
{
    uint32_t blocks = read->size.blocks;
    return blocks <= read->key.block ? 0 : MIN_OF(blocks - read->key.block, read->count);
}

static err_t not_found(const struct page_read *read, struct errmsg *msg)
{
    return err_set(
        msg, ERR_NOT_FOUND, "%s does not exist at " LSN_FMT, page_key_text(read->key).text,
        LSN_ARGS(read->read_lsn));
}

static err_t read_pages(struct page_read *read, struct reconstruct *work, struct errmsg *msg)
{
    TRY(read_size(read, work, msg));
    if (!read->size.exists) {
        return not_found(read, msg);
    }
    read->existing = existing_blocks(read);
    buf_clear(&read->pages);
    uint8_t *page = buf_extend(&read->pages, (size_t)read->count * PAGE_SIZE);
    struct page_key key = read->key;
    page_reader_expect(work->reader, key, read->existing);
    for (uint32_t i = 0; i < read->existing; i++, key.block++, page += PAGE_SIZE) {
        TRY(reconstruct_page(work, key, page, &read->versions[i], msg));
    }
    memset(page, 0, (size_t)(read->count - read->existing) * PAGE_SIZE);
    return ERR_OK;
}

static err_t add_blocks(struct page_key rel, uint32_t blocks, void *context, struct errmsg *msg)
{
    (void)rel;
    (void)msg;
    uint64_t *bytes = context;
    *bytes += (uint64_t)blocks * PAGE_SIZE;
    return ERR_OK;
}

static err_t work(struct job *job)
{
    struct page_read *read = CONTAINER_OF(job, struct page_read, turn.job);
    err_t fault = FAULT("page_read.work");
    if (fault != ERR_OK) {
        return err_set(&job->msg, fault, "page read: injected failure");
    }
    struct reconstruct work;
    reconstruct_init(
        &work, timeline_store(read->timeline), timeline_path(read->timeline), read->read_lsn);
    err_t err = ERR_OK;
    switch (read->kind) {
    case PAGE_READ_PAGES: err = read_pages(read, &work, &job->msg); break;
    case PAGE_READ_REL_SIZE: err = read_size(read, &work, &job->msg); break;
    case PAGE_READ_DB_SIZE:
        read->bytes = 0;
        err = page_reader_relations(
            work.reader, read->key.spc, read->key.db, read->read_lsn, add_blocks, &read->bytes,
            &job->msg);
        break;
    }
    reconstruct_deinit(&work);
    return err;
}

/* What the worker found is as of read_lsn; the caches take it only if that is still the head. */
static void fill_caches(struct page_read *read)
{
    if (read->kind == PAGE_READ_DB_SIZE || page_key_is_slru(read->key) ||
        read->read_lsn != timeline_last_lsn(read->timeline)) {
        return; /* a compute asks once for a segment of an SLRU, and has a file of it then */
    }
    timeline_cache_size(read->timeline, read->key, read->size, read->read_lsn);
    if (read->kind != PAGE_READ_PAGES) {
        return;
    }
    /* The pages of a scan would drive out what others come back for, and go before its next one. */
    if (read->count > 1 && read->size.blocks > page_cache_size(read->service->cache) / 4) {
        return;
    }
    struct page_key key = read->key;
    for (uint32_t i = 0; i < read->existing; i++, key.block++) {
        page_cache_put(
            read->service->cache, timeline_uid(read->timeline), key, read->versions[i],
            read->pages.data + (size_t)i * PAGE_SIZE);
    }
}

/* -- the order of things -- */

/* The LSN is decided here, once: everything after reads at it. */
static err_t choose_lsn(struct page_read *read)
{
    read->read_lsn = MIN_OF(read->lsn, timeline_last_lsn(read->timeline));
    return timeline_check_lsn(read->timeline, read->read_lsn, &read->msg);
}

/* LSN 0: it is not cached, or too new for this read. */
static void take_cached_size(struct page_read *read)
{
    read->size = (struct fork_size){0};
    struct fork_size size;
    if (read->kind != PAGE_READ_DB_SIZE && timeline_cached_size(read->timeline, read->key, &size) &&
        size.lsn <= read->read_lsn) {
        read->size = size;
    }
}

static void start_work(struct page_read *read)
{
    err_t err = choose_lsn(read);
    if (err != ERR_OK) {
        finish(read, err);
        return;
    }
    take_cached_size(read);
    enter(read, PAGE_READ_WORK);
    read->turn = (struct turn_job){.job = {.run = work}, .done = on_worked};
    if (read->share != NULL) {
        turn_submit(read->share, &read->turn);
    } else {
        read->turn.job.done = on_worked_at_once;
        executor_submit(read->service->executor, &read->turn.job);
    }
}

/* The whole life of a read, in order. Callbacks only report here; nothing else decides. */
static void advance(struct page_read *read, err_t result)
{
    if (result != ERR_OK) {
        finish(read, result);
        return;
    }
    switch (read->state) {
    case PAGE_READ_WAIT_LSN: start_work(read); break;
    case PAGE_READ_WORK:
        /* If the LSN is still kept, then nothing of it went while it was read. */
        result = timeline_check_lsn(read->timeline, read->read_lsn, &read->msg);
        if (result == ERR_OK) {
            fill_caches(read);
        }
        finish(read, result);
        break;
    case PAGE_READ_IDLE: ASSERT(false);
    }
}

static void on_worked(struct turn_job *turn)
{
    struct page_read *read = CONTAINER_OF(turn, struct page_read, turn);
    read->msg = turn->job.msg;
    advance(read, turn->job.result);
}

static void on_worked_at_once(struct job *job)
{
    on_worked(CONTAINER_OF(job, struct turn_job, job));
}

/* Why a wait ended badly, in words; a timeout of a request for one LSN is about that LSN. */
static err_t explain_wait(struct page_read *read, err_t result)
{
    const struct timeline *tl = read->timeline; /* NULL: it was deleted before the read began */
    lsn_t last = tl == NULL ? 0 : timeline_last_lsn(tl);
    switch ((int)result) {
    case ERR_OK: return ERR_OK;
    case ERR_TIMEOUT:
        return err_set(
            &read->msg, read->lsn == LSN_HEAD ? ERR_TIMEOUT : ERR_RANGE,
            "LSN " LSN_FMT " was not reached in time: the timeline is at " LSN_FMT,
            LSN_ARGS(read->not_modified_since), LSN_ARGS(last));
    case ERR_FAILED:
        return err_set(
            &read->msg, ERR_FAILED, "ingest stopped at " LSN_FMT ": %s", LSN_ARGS(last),
            tl == NULL ? "" : timeline_failure(tl));
    case ERR_NOT_FOUND: return err_set(&read->msg, ERR_NOT_FOUND, "the timeline was deleted");
    default: return err_set(&read->msg, result, "the wait for an LSN was given up");
    }
}

static void on_lsn_reached(struct lsn_wait *wait, err_t result)
{
    struct page_read *read = CONTAINER_OF(wait, struct page_read, wait);
    advance(read, explain_wait(read, result));
}

void page_read_start(
    struct page_read *read,
    const struct page_read_service *service,
    struct timeline *tl,
    page_read_done_fn done)
{
    ASSERT(read->state == PAGE_READ_IDLE);
    ASSERT(IMPLIES(read->kind == PAGE_READ_PAGES, read->count >= 1));
    ASSERT(read->count <= GET_PAGE_COUNT_MAX);
    read->service = service;
    read->done = done;
    read->begin = clock_mono();
    read->msg.text[0] = '\0';
    metric_add(&reads, 1);
    enter(read, PAGE_READ_WAIT_LSN);
    if (timeline_read_begin(tl, &read->msg) == ERR_OK) {
        read->timeline = tl; /* else the wait below ends with ERR_NOT_FOUND */
    }
    if (read->timeline != NULL && timeline_has_lsn(tl, read->not_modified_since) &&
        choose_lsn(read) == ERR_OK) {
        start_work(read);
        return;
    }
    lsn_wait_start(
        &read->wait, tl, read->not_modified_since, service->wait_timeout_ms, on_lsn_reached);
}

void page_read_cancel(struct page_read *read)
{
    if (read->state == PAGE_READ_WAIT_LSN) {
        lsn_wait_cancel(&read->wait);
    }
}

void page_read_deinit(struct page_read *read)
{
    ASSERT(read->state == PAGE_READ_IDLE);
    buf_deinit(&read->pages);
}

/* -- the short way -- */

static bool gather_cached(
    struct page_read *read,
    struct page_cache *cache,
    uint64_t timeline,
    struct buf *room,
    struct bytes *ret_pages)
{
    struct page_key key = read->key;
    if (read->count == 1 && read->existing == 1) {
        const uint8_t *page = page_cache_get(cache, timeline, key, read->read_lsn);
        *ret_pages = bytes_of(page, PAGE_SIZE);
        return page != NULL;
    }
    buf_clear(room);
    for (uint32_t i = 0; i < read->existing; i++, key.block++) {
        const uint8_t *page = page_cache_get(cache, timeline, key, read->read_lsn);
        if (page == NULL) {
            return false;
        }
        buf_append(room, page, PAGE_SIZE);
    }
    size_t zeros = (size_t)(read->count - read->existing) * PAGE_SIZE;
    memset(buf_extend(room, zeros), 0, zeros);
    *ret_pages = buf_view(room);
    return true;
}

bool page_read_cached(
    struct page_read *read,
    const struct page_read_service *service,
    struct timeline *tl,
    struct buf *room,
    struct bytes *ret_pages)
{
    read->read_lsn = MIN_OF(read->lsn, timeline_last_lsn(tl));
    if (!timeline_has_lsn(tl, read->not_modified_since) ||
        timeline_check_lsn(tl, read->read_lsn, NULL) != ERR_OK ||
        !timeline_cached_size(tl, read->key, &read->size) || read->size.lsn > read->read_lsn ||
        !read->size.exists) {
        return false;
    }
    if (read->kind == PAGE_READ_PAGES) {
        read->existing = existing_blocks(read);
        if (!gather_cached(read, service->cache, timeline_uid(tl), room, ret_pages)) {
            return false;
        }
    }
    metric_add(&reads, 1);
    metric_add(&pages_read, read->count);
    return true;
}

/* What the worker would do, as long as nothing has to be waited for. */
static err_t read_in_memory(struct page_read *read)
{
    TRY(choose_lsn(read));
    take_cached_size(read);
    struct reconstruct work;
    reconstruct_init_in_memory(
        &work, timeline_store(read->timeline), timeline_path(read->timeline), read->read_lsn);
    err_t err = read_pages(read, &work, &read->msg);
    reconstruct_deinit(&work);
    if (err == ERR_OK) {
        err = timeline_check_lsn(read->timeline, read->read_lsn, &read->msg);
    }
    if (err == ERR_OK) {
        fill_caches(read);
    }
    return err;
}

static bool is_worth_a_try(
    const struct page_read *read,
    const struct page_read_service *service,
    const struct timeline *tl)
{
    if (service->guess == NULL ||
        memory_guess_is_worth_a_try(service->guess, timeline_uid(tl), read->key)) {
        return true;
    }
    metric_add(&reads_not_tried, 1);
    return false;
}

bool page_read_in_memory(
    struct page_read *read,
    const struct page_read_service *service,
    struct timeline *tl,
    struct bytes *ret_pages)
{
    ASSERT(read->state == PAGE_READ_IDLE);
    if (read->kind != PAGE_READ_PAGES || read->count != 1 ||
        !timeline_has_lsn(tl, read->not_modified_since) || !is_worth_a_try(read, service, tl) ||
        timeline_read_begin(tl, &read->msg) != ERR_OK) {
        return false;
    }
    read->service = service;
    read->timeline = tl;
    err_t err = read_in_memory(read);
    if (service->guess != NULL) {
        memory_guess_note(service->guess, timeline_uid(tl), read->key, err == ERR_OK);
    }
    read->timeline = NULL;
    timeline_read_end(tl);
    if (err != ERR_OK) {
        return false; /* the worker finds the same, or what is missing here */
    }
    metric_add(&reads, 1);
    metric_add(&pages_read, 1);
    metric_add(&reads_in_memory, 1);
    *ret_pages = buf_view(&read->pages);
    return true;
}
