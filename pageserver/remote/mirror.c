#include "pageserver/remote/mirror.h"

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/json/doc.h"
#include "common/rpc/rpc.h"
#include "pageserver/timeline/safekeeper_address.h"

METRIC_COUNTER(failures, "pageserver_remote_failures_total", "rounds and deletions that failed");
METRIC_GAUGE(
    doomed_objects, "pageserver_remote_doomed_objects", "objects that may be deleted soon");

#define RETRY_FIRST_MS     1000
#define RETRY_LAST_MS      60000
#define CONFIRM_TIMEOUT_MS 10000
#define URL_SIZE           512

enum mirror_state {
    MIRROR_IDLE,
    MIRROR_CLAIM,   /* control: may this disk upload at all? Once a process */
    MIRROR_ROUND,   /* worker: checkpoint, uploads, index */
    MIRROR_CONFIRM, /* control: is the generation the newest? */
    MIRROR_DELETE,  /* worker: doomed objects */
    MIRROR_STOPPED,
};

struct mirror {
    struct mirrors *mirrors;
    struct tenant *tenant;
    struct tenant_user tenant_user;
    struct log log;
    struct uploader *uploader;
    enum mirror_state state;
    bool dirty;             /* flushed since the last round began */
    unsigned rounds_wanted; /* besides, so that what was rewritten leaves the object store */
    bool stopping;
    bool replaced;           /* by the owner of a later generation */
    generation_t generation; /* of the round under way, or of the last one */
    uint64_t sequence;
    struct upload_round round;
    struct remote_position *positions;
    /* Deleted since the last confirmed index: `deleted_in_round` of them before its round began. */
    struct timeline_id *deleted;
    size_t deleted_count, deleted_capacity, deleted_in_round;
    bool is_admitted;           /* control has said so since this process began */
    bool is_confirmed;          /* an index of this process is */
    struct mirror_scrub *scrub; /* what the job under way is; NULL: a round of our own */
    struct job job;
    struct timer timer;
    unsigned failures;
    char error[sizeof(((struct errmsg *)NULL)->text)]; /* empty: none */
    struct http_call call;
    struct buf question;
    char url[URL_SIZE];
    size_t counted_doomed; /* in the metric */
    struct list_link link;
};

struct mirrors {
    struct mirrors_options options;
    struct list list;
};

static void advance(struct mirror *mirror, err_t result, const struct errmsg *msg);

/* -- steps -- */

static void count_doomed(struct mirror *mirror)
{
    size_t doomed = uploader_doomed(mirror->uploader);
    metric_add(&doomed_objects, (int64_t)doomed - (int64_t)mirror->counted_doomed);
    mirror->counted_doomed = doomed;
}

static size_t timelines_of(struct tenant *tenant)
{
    size_t count = 0;
    for (struct timeline *tl = tenant_first_member(tenant); tl != NULL;
         tl = tenant_next_member(tenant, tl)) {
        count++;
    }
    return count;
}

static void note_members(const char *safekeepers, struct remote_lineage *lineage)
{
    struct safekeeper_address address;
    struct errmsg msg;
    while (lineage->member_count < REMOTE_MEMBERS_MAX &&
           safekeeper_address_take(&safekeepers, &address, &msg) == ERR_OK) {
        lineage->members[lineage->member_count++] = address.id;
    }
}

static struct remote_lineage lineage_of(const struct timeline *tl)
{
    const struct timeline_info *info = timeline_info(tl);
    struct remote_lineage lineage = {
        .parent = info->parent,
        .start_lsn = info->start_lsn,
        .membership_generation = info->membership_generation,
        .is_deleted = info->state == TIMELINE_TOMBSTONE,
    };
    note_members(info->safekeepers, &lineage);
    return lineage;
}

/* What is durable now is in any checkpoint that is taken from now on. Also of tombstones, which
 * take WAL until it is up there. */
static void note_positions(struct mirror *mirror)
{
    struct upload_round *round = &mirror->round;
    size_t count = timelines_of(mirror->tenant);
    mem_free(mirror->positions);
    mirror->positions = MEM_ARRAY(struct remote_position, count);
    round->position_count = 0;
    for (struct timeline *tl = tenant_first_member(mirror->tenant); tl != NULL;
         tl = tenant_next_member(mirror->tenant, tl)) {
        enum timeline_state state = timeline_info(tl)->state;
        if (state == TIMELINE_ACTIVE || state == TIMELINE_TOMBSTONE) {
            mirror->positions[round->position_count++] = (struct remote_position){
                .timeline = timeline_info(tl)->id,
                .number = timeline_number(tl),
                .lsn = timeline_durable_lsn(tl),
                .lineage = lineage_of(tl),
            };
        }
    }
    round->positions = mirror->positions;
}

static err_t run_round(struct job *job)
{
    struct mirror *mirror = CONTAINER_OF(job, struct mirror, job);
    if (mirror->scrub == NULL) {
        return uploader_run(mirror->uploader, &mirror->round, &job->msg);
    }
    return uploader_scrub(
        mirror->uploader, &mirror->round, mirror->mirrors->options.leaked_after_ms,
        &mirror->scrub->result, &job->msg);
}

static void on_job_done(struct job *job)
{
    struct mirror *mirror = CONTAINER_OF(job, struct mirror, job);
    advance(mirror, job->result, &job->msg);
}

static void submit(struct mirror *mirror, enum mirror_state state, err_t (*run)(struct job *job))
{
    mirror->state = state;
    mirror->job = (struct job){.run = run, .done = on_job_done};
    executor_submit(mirror->mirrors->options.executor, &mirror->job);
}

static void upload(struct mirror *mirror)
{
    mirror->dirty = false;
    mirror->rounds_wanted -= mirror->rounds_wanted > 0 ? 1 : 0;
    mirror->generation = tenant_generation(mirror->tenant);
    mirror->round = (struct upload_round){
        .store = tenant_store(mirror->tenant),
        .generation = mirror->generation,
    };
    note_positions(mirror);
    mirror->deleted_in_round = mirror->deleted_count;
    submit(mirror, MIRROR_ROUND, run_round);
}

/* Those that were deleted when the round began: its index does without them. */
static void forget_deletions(struct mirror *mirror)
{
    size_t left = mirror->deleted_count - mirror->deleted_in_round;
    if (mirror->deleted_in_round > 0) {
        memmove(
            mirror->deleted, mirror->deleted + mirror->deleted_in_round,
            left * sizeof(mirror->deleted[0]));
    }
    mirror->deleted_count = left;
    mirror->deleted_in_round = 0;
}

/*
 * Safekeepers may forget WAL below these positions, and a deleted parent may go. Not before control
 * has confirmed the generation: the successor of an owner that was replaced may have restored from
 * the index before, and needs the WAL from there on (tests/model/spin/remote.pml).
 */
static void publish(struct mirror *mirror)
{
    struct mirrors_user *user = mirror->mirrors->options.user;
    for (size_t i = 0; i < mirror->round.position_count; i++) {
        struct timeline *tl = tenant_find_member(mirror->tenant, mirror->positions[i].timeline);
        if (tl != NULL && timeline_remote_lsn(tl) < mirror->positions[i].lsn) {
            timeline_set_remote_lsn(tl, mirror->positions[i].lsn);
            if (user->on_timeline_uploaded != NULL) {
                user->on_timeline_uploaded(user, tl);
            }
        }
    }
    forget_deletions(mirror);
    mirror->is_confirmed = true;
    mem_free(mirror->positions); /* one for each timeline: not kept between rounds */
    mirror->positions = NULL;
    mirror->round.position_count = 0;
    tenant_uploaded(mirror->tenant);
}

static err_t read_verdict(struct mirror *mirror, struct errmsg *msg)
{
    struct doc *body = NULL, *verdicts = NULL;
    bool valid = false;
    TRY(http_call_json(&mirror->call, &body, msg));
    err_t err = doc_get_array(body, "tenants", &verdicts, msg);
    if (err == ERR_OK) {
        err = doc_get_bool(doc_at(verdicts, 0), "valid", &valid, msg);
    }
    doc_unref(body);
    if (err == ERR_OK && !valid) {
        return err_set(
            msg, ERR_STALE, "control says that generation %" PRIu32 " is not the newest",
            mirror->generation);
    }
    return err;
}

static void on_confirmed(struct http_call *call)
{
    struct mirror *mirror = CONTAINER_OF(call, struct mirror, call);
    struct errmsg msg = call->msg;
    err_t err = call->result;
    if (err == ERR_OK) {
        err = read_verdict(mirror, &msg);
    }
    http_call_deinit(call);
    advance(mirror, err, &msg);
}

static void ask_control(struct mirror *mirror, enum mirror_state state)
{
    const struct mirrors_options *options = &mirror->mirrors->options;
    struct doc *claim = doc_set_tenant(doc_object(), "tenant", tenant_id(mirror->tenant));
    doc_set_int(claim, "generation", mirror->generation);
    struct doc *body = doc_set_int(doc_object(), "node_id", (int64_t)options->node_id);
    doc_set(body, "tenants", doc_push(doc_array(), claim));
    buf_clear(&mirror->question);
    doc_print(body, false, &mirror->question);
    doc_unref(body);
    mirror->call = (struct http_call){
        .method = "POST",
        .url = mirror->url,
        .body = buf_view(&mirror->question),
        .token = options->control_token[0] == '\0' ? NULL : options->control_token,
        .timeout_ms = CONFIRM_TIMEOUT_MS,
        .done = on_confirmed,
    };
    mirror->state = state;
    http_call_start(options->http, &mirror->call);
}

/*
 * A disk may come back after its tenant was deleted, by another one in its place: what it put up
 * there before anybody said no would stay for ever.
 */
static void start_round(struct mirror *mirror)
{
    mirror->generation = tenant_generation(mirror->tenant);
    if (mirror->url[0] != '\0' && !mirror->is_admitted) {
        ask_control(mirror, MIRROR_CLAIM);
    } else {
        upload(mirror);
    }
}

static err_t run_delete(struct job *job)
{
    return uploader_delete(CONTAINER_OF(job, struct mirror, job)->uploader, &job->msg);
}

/* -- the order of things -- */

static void rest(struct mirror *mirror)
{
    mirror->state = MIRROR_IDLE;
    if (mirror->stopping) {
        mirror->state = MIRROR_STOPPED;
        tenant_set_user(mirror->tenant, NULL);
        tenant_release(mirror->tenant);
        timer_start(mirror->mirrors->options.loop, &mirror->timer, 0); /* to be freed */
        return;
    }
    bool retries = mirror->failures > 0;
    if (mirror->replaced || (!mirror->dirty && !retries && mirror->rounds_wanted == 0)) {
        return;
    }
    uint64_t pause = mirror->mirrors->options.interval_ms;
    if (retries) {
        unsigned doublings = MIN_OF(mirror->failures - 1, 6u);
        pause = MIN_OF((uint64_t)RETRY_FIRST_MS << doublings, (uint64_t)RETRY_LAST_MS);
    }
    timer_start(mirror->mirrors->options.loop, &mirror->timer, pause);
}

static void mirror_destroy(struct mirror *mirror)
{
    ASSERT(mirror->state == MIRROR_STOPPED);
    metric_add(&doomed_objects, -(int64_t)mirror->counted_doomed);
    timer_stop(&mirror->timer);
    list_remove(&mirror->link);
    uploader_destroy(mirror->uploader);
    mem_free(mirror->positions);
    mem_free(mirror->deleted);
    buf_deinit(&mirror->question);
    mem_free(mirror);
}

static void on_timer(struct timer *timer)
{
    struct mirror *mirror = CONTAINER_OF(timer, struct mirror, timer);
    if (mirror->state == MIRROR_STOPPED) {
        mirror_destroy(mirror);
    } else {
        start_round(mirror);
    }
}

static void note_failure(struct mirror *mirror, err_t result, const struct errmsg *msg)
{
    metric_add(&failures, 1);
    if (strcmp(mirror->error, msg->text) != 0) { /* not once a second for hours */
        log_warn(&mirror->log, "object store: %s; will retry", msg->text);
    }
    err_ignore(str_copy(mirror->error, sizeof(mirror->error), msg->text, NULL), "same size");
    mirror->dirty = true;
    mirror->failures++;
    /* A newer one may have been attached while this one was asked about. */
    mirror->replaced =
        result == ERR_STALE && tenant_generation(mirror->tenant) == mirror->generation;
}

static void finish_scrub(struct mirror *mirror, err_t result, const struct errmsg *msg)
{
    struct mirror_scrub *scrub = mirror->scrub;
    mirror->scrub = NULL;
    scrub->msg = *msg;
    scrub->done(scrub, result);
}

static void advance(struct mirror *mirror, err_t result, const struct errmsg *msg)
{
    bool is_refused = mirror->state == MIRROR_CLAIM && result != ERR_OK;
    if ((mirror->state == MIRROR_ROUND || is_refused) && mirror->scrub != NULL) {
        finish_scrub(mirror, result, msg);
    }
    count_doomed(mirror);
    if (result != ERR_OK) {
        note_failure(mirror, result, msg);
        rest(mirror);
        return;
    }
    mirror->failures = 0;
    mirror->error[0] = '\0';
    switch (mirror->state) {
    case MIRROR_CLAIM:
        mirror->is_admitted = true;
        upload(mirror);
        break;
    case MIRROR_ROUND:
        mirror->sequence = mirror->round.sequence;
        if (mirror->url[0] == '\0') {
            publish(mirror); /* nobody replaces anybody here, and nothing is deleted */
            rest(mirror);
        } else if (mirror->stopping) {
            rest(mirror);
        } else {
            ask_control(mirror, MIRROR_CONFIRM);
        }
        break;
    case MIRROR_CONFIRM:
        publish(mirror);
        if (mirror->stopping || mirror->counted_doomed == 0) {
            rest(mirror);
        } else {
            submit(mirror, MIRROR_DELETE, run_delete);
        }
        break;
    case MIRROR_DELETE: rest(mirror); break;
    case MIRROR_IDLE:
    case MIRROR_STOPPED: ASSERT(false);
    }
}

/* -- for the server -- */

struct mirrors *mirrors_create(const struct mirrors_options *options)
{
    struct mirrors *mirrors = MEM_NEW(struct mirrors);
    mirrors->options = *options;
    list_init(&mirrors->list);
    return mirrors;
}

void mirrors_destroy(struct mirrors *mirrors)
{
    if (mirrors == NULL) {
        return;
    }
    ASSERT(mirrors_are_stopped(mirrors));
    LIST_FOR_EACH(&mirrors->list, link)
    {
        mirror_destroy(CONTAINER_OF(link, struct mirror, link));
    }
    mem_free(mirrors);
}

struct mirror *mirror_find(const struct tenant *tenant)
{
    struct tenant_user *user = tenant_user(tenant);
    return user == NULL ? NULL : CONTAINER_OF(user, struct mirror, tenant_user);
}

void mirror_start(struct mirrors *mirrors, struct tenant *tenant)
{
    struct mirror *mirror = mirror_find(tenant);
    if (mirror != NULL) { /* a newer generation: what replaced us has been replaced */
        if (mirror->replaced && tenant_generation(tenant) > mirror->generation) {
            mirror->replaced = false;
            mirror_flushed(mirror);
        }
        return;
    }
    char folder[PATH_SIZE];
    tenant_folder(tenant, folder);
    struct uploader_options options = {
        .objects = mirrors->options.objects,
        .tenant = tenant_id(tenant),
        .folder = folder,
    };
    mirror = MEM_NEW(struct mirror);
    mirror->mirrors = mirrors;
    mirror->tenant = tenant;
    mirror->uploader = uploader_create(&options);
    mirror->timer.on_fire = on_timer;
    log_name(&mirror->log, "tenant %s", tenant_id_text(tenant_id(tenant)).text);
    if (mirrors->options.control_url[0] != '\0') {
        err_t err = str_format(
            mirror->url, sizeof(mirror->url), NULL, "%s%s", mirrors->options.control_url,
            rpc_method(RPC_CONTROL_VALIDATE)->path);
        ASSERT(err == ERR_OK); /* settings longer than this are refused at start */
    }
    list_push_back(&mirrors->list, &mirror->link);
    tenant_set_user(tenant, &mirror->tenant_user);
    tenant_hold(tenant);
    mirror_flushed(mirror); /* what an earlier process has not uploaded */
}

/* There is something to do: soon, unless it is being done or waits already. */
static void wake(struct mirror *mirror)
{
    if (mirror->state == MIRROR_IDLE && !mirror->stopping && !mirror->replaced &&
        !timer_is_started(&mirror->timer)) {
        timer_start(
            mirror->mirrors->options.loop, &mirror->timer, mirror->mirrors->options.interval_ms);
    }
}

void mirror_flushed(struct mirror *mirror)
{
    mirror->dirty = true;
    wake(mirror);
}

void mirror_deleted(struct mirror *mirror, struct timeline_id id)
{
    if (mirror->deleted_count == mirror->deleted_capacity) {
        mirror->deleted_capacity =
            mirror->deleted_capacity == 0 ? 16 : 2 * mirror->deleted_capacity;
        mirror->deleted =
            mem_realloc(mirror->deleted, mirror->deleted_capacity * sizeof(mirror->deleted[0]));
    }
    mirror->deleted[mirror->deleted_count++] = id;
    mirror_flushed(mirror);
}

void mirror_rewritten(struct mirror *mirror)
{
    mirror->rounds_wanted = 2;
    wake(mirror);
}

void mirror_stop(struct mirror *mirror)
{
    if (mirror->stopping) {
        return;
    }
    mirror->stopping = true;
    timer_stop(&mirror->timer);
    if (mirror->state == MIRROR_IDLE) {
        rest(mirror);
    } else if (mirror->state == MIRROR_CLAIM || mirror->state == MIRROR_CONFIRM) {
        http_call_cancel(&mirror->call);
    }
}

void mirrors_stop_all(struct mirrors *mirrors)
{
    LIST_FOR_EACH(&mirrors->list, link)
    {
        mirror_stop(CONTAINER_OF(link, struct mirror, link));
    }
}

bool mirrors_are_stopped(const struct mirrors *mirrors)
{
    LIST_FOR_EACH(&mirrors->list, link)
    {
        if (CONTAINER_OF(link, struct mirror, link)->state != MIRROR_STOPPED) {
            return false;
        }
    }
    return true;
}

void mirror_status(const struct mirror *mirror, struct mirror_status *ret_status)
{
    *ret_status = (struct mirror_status){
        .generation = mirror->generation,
        .sequence = mirror->sequence,
        .uploading = mirror->state != MIRROR_IDLE,
        .waiting = timer_is_started(&mirror->timer),
        .doomed = mirror->counted_doomed,
        .error = mirror->error[0] == '\0' ? NULL : mirror->error,
    };
}

bool mirror_deletions(
    const struct mirror *mirror, const struct timeline_id **ret_ids, size_t *ret_count)
{
    *ret_ids = mirror->deleted;
    *ret_count = mirror->deleted_count;
    return mirror->is_confirmed;
}

err_t mirror_scrub(struct mirror *mirror, struct mirror_scrub *scrub, struct errmsg *msg)
{
    if (mirror->state != MIRROR_IDLE || mirror->stopping) {
        return err_set(msg, ERR_BUSY, "an upload round is under way, try again");
    }
    if (mirror->replaced) {
        return err_set(msg, ERR_STALE, "%s", mirror->error);
    }
    timer_stop(&mirror->timer);
    mirror->scrub = scrub;
    start_round(mirror);
    return ERR_OK;
}
