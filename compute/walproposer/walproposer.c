#include "compute/walproposer/walproposer.h"

#include <signal.h>

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "compute/walproposer/walproposer_private.h"

#define BACKOFF_MAX_MS 1000

METRIC_COUNTER(wal_bytes, "walproposer_wal_bytes_total", "WAL received from Postgres.");
METRIC_COUNTER(appends_sent, "walproposer_appends_total", "Appends sent to safekeepers.");
METRIC_COUNTER(commits, "walproposer_commits_total", "Times that commit_lsn moved.");
METRIC_COUNTER(repair_bytes, "walproposer_repair_bytes_total", "WAL forwarded from a safekeeper.");

METRIC_HISTOGRAM(
    commit_seconds,
    "walproposer_commit_seconds",
    "From the arrival of WAL until a quorum has it; one sample at a time.");

/* ---- the end ---- */

static err_t read_postmaster_pid(const char *path, uint64_t *ret_pid, struct errmsg *msg)
{
    char line[32];
    struct buf text = {0};
    err_t err = file_read_all(path, 64 * KIB, &text, msg);
    if (err == ERR_OK) {
        size_t size = strcspn(buf_cstr(&text), "\n");
        err = str_format(line, sizeof(line), msg, "%.*s", (int)size, buf_cstr(&text));
    }
    buf_deinit(&text);
    return err != ERR_OK ? err : parse_u64(line, 2, INT32_MAX, ret_pid, msg);
}

/* No commit may be answered by a Postgres whose WAL goes nowhere: it quits without a checkpoint. */
static void quit_postgres(struct walproposer *walproposer)
{
    const char *path = walproposer->options.postmaster_pid_file;
    struct errmsg msg;
    uint64_t pid = 0;
    if (path[0] == '\0') {
        return;
    }
    if (read_postmaster_pid(path, &pid, &msg) != ERR_OK) {
        log_info(&walproposer->log, "no Postgres to stop: %s", msg.text);
    } else if (kill((pid_t)pid, SIGQUIT) != 0) {
        log_warn(&walproposer->log, "SIGQUIT to postmaster %" PRIu64 ": %m", pid);
    } else {
        log_warn(&walproposer->log, "sent SIGQUIT to postmaster %" PRIu64, pid);
    }
}

static void end(struct walproposer *walproposer, enum walproposer_end how, lsn_t lsn)
{
    if (walproposer->ended) {
        return;
    }
    walproposer_stop(walproposer);
    walproposer->options.on_end(how, lsn);
}

/* ---- actions of the core ---- */

static void send_elected(struct safekeeper_link *safekeeper, const struct proposer_action *action)
{
    struct elected elected = {
        .generation = action->elected.generation,
        .term = action->elected.term,
        .stream_lsn = action->elected.stream_lsn,
        .history = *action->elected.history,
    };
    uint16_t type = action->elected.begins_anew ? FRAME_ELECTED_ANEW : FRAME_ELECTED;
    LINK_SEND(
        safekeeper->link_user.link, elected, &elected, .type = type,
        .channel = safekeeper->channel);
}

static void send_append(
    struct walproposer *walproposer,
    struct safekeeper_link *safekeeper,
    const struct proposer_action *action)
{
    struct append append = action->append;
    if (append.wal.size > 0 && append.wal.data == NULL) {
        append.wal = wal_window_view(&walproposer->window, append.begin_lsn, append.wal.size);
    } else {
        metric_add(&repair_bytes, (int64_t)append.wal.size);
    }
    metric_add(&appends_sent, 1);
    /* Replies name the newest append that was there when they left: see walproposer.h. */
    LINK_SEND(
        safekeeper->link_user.link, append, &append, .type = FRAME_APPEND,
        .channel = safekeeper->channel, .request_id = clock_mono() / NS_PER_MS);
}

static void on_ready(struct walproposer *walproposer, lsn_t lsn)
{
    const struct walproposer_options *options = &walproposer->options;
    log_info(
        &walproposer->log, "elected in term %" PRIu64 ", the log ends at " LSN_FMT,
        walproposer->core.term, LSN_ARGS(lsn));
    if (options->sync) {
        return;
    }
    if (options->start_lsn != LSN_NONE && options->start_lsn != lsn) {
        log_warn(
            &walproposer->log, "the log ends at " LSN_FMT ", Postgres was prepared for " LSN_FMT,
            LSN_ARGS(lsn), LSN_ARGS(options->start_lsn));
        end(walproposer, WALPROPOSER_WRONG_END, lsn);
        return;
    }
    struct wal_reader_options reader = {
        .start_lsn = lsn,
        .segment_size = SEGMENT_SIZE,
        .system_id = options->system_id,
        .ends_only = true,
    };
    walproposer->reader = wal_reader_create(&reader);
    walproposer->offered_lsn = lsn;
    wal_window_reset(&walproposer->window, lsn);
    /* The first reply already names a position: only then is this a synchronous standby. */
    wal_source_report(&walproposer->source, lsn);
    wal_source_start(&walproposer->source);
}

static void on_committed(struct walproposer *walproposer, lsn_t lsn)
{
    wal_source_report(&walproposer->source, lsn); /* Postgres first: somebody waits for it */
    metric_add(&commits, 1);
    if (walproposer->sample_lsn != LSN_NONE && lsn >= walproposer->sample_lsn) {
        metric_observe_ns(&commit_seconds, clock_mono() - walproposer->sample_begun);
        walproposer->sample_lsn = LSN_NONE;
    }
}

static void send_vote_request(
    struct safekeeper_link *safekeeper, const struct proposer_action *action)
{
    LINK_SEND(
        safekeeper->link_user.link, vote_request, &action->vote, .type = FRAME_VOTE_REQUEST,
        .channel = safekeeper->channel);
}

static void send_read_wal(struct safekeeper_link *safekeeper, const struct proposer_action *action)
{
    LINK_SEND(
        safekeeper->link_user.link, read_wal, &action->read.request, .type = FRAME_READ_WAL,
        .channel = safekeeper->channel, .request_id = action->read.id);
}

/* A frame for the safekeeper that the action names. */
static void send_message(struct walproposer *walproposer, const struct proposer_action *action)
{
    struct safekeeper_link *safekeeper = walproposer->safekeepers[action->peer];
    if (action->kind == PROPOSER_SEND_VOTE_REQUEST) {
        send_vote_request(safekeeper, action);
    } else if (action->kind == PROPOSER_SEND_ELECTED) {
        send_elected(safekeeper, action);
    } else if (action->kind == PROPOSER_SEND_APPEND) {
        send_append(walproposer, safekeeper, action);
    } else {
        send_read_wal(safekeeper, action);
    }
}

static void step_down(struct walproposer *walproposer, term_t term)
{
    log_warn(
        &walproposer->log, "term %" PRIu64 " is over, somebody has term %" PRIu64,
        walproposer->core.term, term);
    quit_postgres(walproposer);
    end(walproposer, WALPROPOSER_FENCED, LSN_NONE);
}

static void do_action(struct walproposer *walproposer, const struct proposer_action *action)
{
    switch (action->kind) {
    case PROPOSER_SEND_VOTE_REQUEST:
    case PROPOSER_SEND_ELECTED:
    case PROPOSER_SEND_APPEND:
    case PROPOSER_SEND_READ_WAL: send_message(walproposer, action); break;
    case PROPOSER_CLOSE:
        safekeeper_link_restart(walproposer->safekeepers[action->peer], action->why);
        break;
    case PROPOSER_READY: on_ready(walproposer, action->lsn); break;
    case PROPOSER_SYNCED:
        if (walproposer->options.sync) {
            end(walproposer, WALPROPOSER_SYNCED, action->lsn);
        }
        break;
    case PROPOSER_COMMITTED: on_committed(walproposer, action->lsn); break;
    case PROPOSER_STEP_DOWN: step_down(walproposer, action->term); break;
    }
}

static void set_tick(struct walproposer *walproposer)
{
    uint64_t deadline_ms = proposer_deadline_ms(&walproposer->core);
    uint64_t now_ms = clock_mono() / NS_PER_MS;
    if (deadline_ms == UINT64_MAX) {
        timer_stop(&walproposer->tick);
        return;
    }
    timer_start(
        walproposer->loop, &walproposer->tick, deadline_ms > now_ms ? deadline_ms - now_ms : 0);
}

void walproposer_feed(struct walproposer *walproposer, struct proposer_event *event)
{
    struct proposer_actions actions;
    if (walproposer->ended) {
        return;
    }
    /* A step inside the actions of another would send its appends before theirs. */
    ASSERT(!walproposer->feeding);
    walproposer->feeding = true;
    event->now_ms = clock_mono() / NS_PER_MS;
    event->entropy = prng_next(&walproposer->prng);
    do {
        proposer_step(&walproposer->core, event, &actions);
        for (size_t i = 0; i < actions.count && !walproposer->ended; i++) {
            do_action(walproposer, &actions.items[i]);
        }
        event->kind = PROPOSER_CONTINUE;
    } while (actions.more && !walproposer->ended);
    walproposer->feeding = false;
    if (walproposer->ended) {
        return;
    }
    if (walproposer->core.window_begin_lsn > walproposer->window.begin_lsn &&
        walproposer->window.begin_lsn != LSN_NONE) {
        wal_window_trim(&walproposer->window, walproposer->core.window_begin_lsn);
    }
    set_tick(walproposer);
    if (proposer_wants_wal(&walproposer->core)) {
        wal_source_resume(&walproposer->source);
    }
}

/* ---- Postgres ---- */

static struct walproposer *walproposer_of(struct wal_source_user *user)
{
    return CONTAINER_OF(user, struct walproposer, source_user);
}

static lsn_t source_next_lsn(struct wal_source_user *user)
{
    return walproposer_of(user)->window.end_lsn;
}

static bool source_wants_wal(struct wal_source_user *user)
{
    const struct walproposer *walproposer = walproposer_of(user);
    return !walproposer->ended && proposer_wants_wal(&walproposer->core);
}

/* Everything that came in this turn of the loop is one event, so that it becomes one append. */
static void offer(struct walproposer *walproposer)
{
    lsn_t end_lsn = walproposer->window.end_lsn;
    if (walproposer->ended || end_lsn == walproposer->offered_lsn) {
        return;
    }
    walproposer->offered_lsn = end_lsn;
    lsn_t record_lsn = wal_reader_record_lsn(walproposer->reader);
    if (walproposer->sample_lsn == LSN_NONE && record_lsn > walproposer->core.commit_lsn) {
        walproposer->sample_lsn = record_lsn;
        walproposer->sample_begun = clock_mono();
    }
    struct proposer_event event = {
        .kind = PROPOSER_LOCAL_WAL,
        .local =
            {
                .end_lsn = end_lsn,
                .record_lsn = record_lsn,
            },
    };
    walproposer_feed(walproposer, &event);
}

static void source_on_wal(struct wal_source_user *user, struct bytes wal)
{
    struct walproposer *walproposer = walproposer_of(user);
    struct errmsg msg;
    err_t err = wal_reader_feed(walproposer->reader, wal, &msg);
    if (err == ERR_OK) {
        err = wal_window_make_room(&walproposer->window, wal.size, &msg);
    }
    if (err != ERR_OK) {
        log_error(&walproposer->log, "WAL of Postgres: %s", msg.text);
        end(walproposer, WALPROPOSER_BROKEN, LSN_NONE);
        return;
    }
    metric_add(&wal_bytes, (int64_t)wal.size);
    wal_window_append(&walproposer->window, wal);
    if (walproposer->window.end_lsn - walproposer->offered_lsn >= WAL_APPEND_MAX) {
        offer(walproposer);
    }
}

static void source_on_drained(struct wal_source_user *user)
{
    offer(walproposer_of(user));
}

static void source_on_lost(struct wal_source_user *user, const struct errmsg *msg)
{
    struct walproposer *walproposer = walproposer_of(user);
    log_error(&walproposer->log, "%s", msg->text);
    end(walproposer, WALPROPOSER_BROKEN, LSN_NONE);
}

static const struct wal_source_callbacks source_callbacks = {
    .next_lsn = source_next_lsn,
    .wants_wal = source_wants_wal,
    .on_wal = source_on_wal,
    .on_drained = source_on_drained,
    .on_lost = source_on_lost,
};

/* ---- silence of the quorum ---- */

uint64_t walproposer_followed_ms(const struct walproposer *walproposer)
{
    uint64_t times[MEMBERS_MAX];
    for (uint32_t i = 0; i < walproposer->safekeepers_count; i++) {
        times[i] = walproposer->safekeepers[i]->followed_ms;
    }
    uint64_t quorum_ms = membership_quorum_lsn(&walproposer->core.options.membership, times);
    return MAX_OF(quorum_ms, walproposer->started_ms);
}

static void watch_quorum(struct walproposer *walproposer)
{
    uint64_t limit_ms = walproposer->options.stale_reads_max_ms;
    uint64_t silence_ms = clock_mono() / NS_PER_MS - walproposer_followed_ms(walproposer);
    if (limit_ms == 0 || walproposer->options.sync) {
        return;
    }
    if (silence_ms < limit_ms) {
        timer_start(walproposer->loop, &walproposer->cut_off, limit_ms - silence_ms);
        return;
    }
    log_error(
        &walproposer->log,
        "no majority of the safekeepers for %" PRIu64 " ms (stale_reads_max): another compute may "
        "write meanwhile, so this one stops reading",
        silence_ms);
    quit_postgres(walproposer);
    end(walproposer, WALPROPOSER_CUT_OFF, LSN_NONE);
}

static void on_cut_off(struct timer *timer)
{
    watch_quorum(CONTAINER_OF(timer, struct walproposer, cut_off));
}

/* ---- start and stop ---- */

static void on_tick(struct timer *timer)
{
    struct walproposer *walproposer = CONTAINER_OF(timer, struct walproposer, tick);
    struct proposer_event event = {.kind = PROPOSER_TICK};
    walproposer_feed(walproposer, &event);
}

/* Postgres goes on: the core keeps its term and asks the new members where they are. */
void walproposer_learn(
    struct walproposer *walproposer, generation_t generation, const struct member_list *list)
{
    struct membership membership;
    struct errmsg msg;
    uint64_t followed_ms = walproposer_followed_ms(walproposer);
    if (generation <= walproposer->core.options.membership.generation) {
        return;
    }
    if (safekeeper_links_of(walproposer, generation, list, &membership, &msg) != ERR_OK) {
        log_error(&walproposer->log, "told of a membership that is none: %s", msg.text);
        return;
    }
    walproposer->memberships++;
    walproposer->started_ms = followed_ms; /* what the old quorum said stays said */
    log_info(
        &walproposer->log, "membership generation %" PRIu32 ": %" PRIu32 " safekeepers%s",
        generation, membership.count, membership_is_joint(&membership) ? ", joint" : "");
    struct proposer_event event = {.kind = PROPOSER_MEMBERSHIP_CHANGED, .membership = &membership};
    walproposer_feed(walproposer, &event);
    for (uint32_t i = 0; i < walproposer->safekeepers_count && !walproposer->ended; i++) {
        safekeeper_link_start(walproposer->safekeepers[i]);
    }
}

static err_t init_core(struct walproposer *walproposer, struct errmsg *msg)
{
    const struct walproposer_options *options = &walproposer->options;
    struct proposer_options core = {
        .proposer_id = walproposer->proposer_id,
        .sync = options->sync,
        .election_timeout_ms = options->election_timeout_ms,
        .backoff_max_ms = BACKOFF_MAX_MS,
        .heartbeat_ms = options->heartbeat_ms,
        .window_max = options->window_max,
        .inflight_max = options->inflight_max,
    };
    struct member_list list;
    TRY(safekeeper_list_parse(options->safekeepers, &list, msg));
    TRY(safekeeper_links_of(walproposer, options->generation, &list, &core.membership, msg));
    proposer_init(&walproposer->core, &core);
    return ERR_OK;
}

err_t walproposer_start(
    struct loop *loop,
    const struct walproposer_options *options,
    struct walproposer **ret_walproposer,
    struct errmsg *msg)
{
    struct walproposer *walproposer = MEM_NEW(struct walproposer);
    walproposer->options = *options;
    walproposer->loop = loop;
    walproposer->tick.on_fire = on_tick;
    walproposer->cut_off.on_fire = on_cut_off;
    walproposer->started_ms = clock_mono() / NS_PER_MS;
    walproposer->source_user.callbacks = &source_callbacks;
    list_init(&walproposer->retired);
    log_name(&walproposer->log, "timeline %s", timeline_id_text(options->timeline).text);
    prng_init(&walproposer->prng, options->random_seed);
    prng_secure(&walproposer->proposer_id, sizeof(walproposer->proposer_id));
    walproposer->proposer_id |= 1; /* 0 is nobody */
    wal_source_init(
        &walproposer->source, loop, &walproposer->log, walproposer->options.postgres_conninfo,
        options->system_id, &walproposer->source_user);
    err_t err = init_core(walproposer, msg);
    if (err == ERR_OK) {
        /* The core lets go at window_max; what one message brings comes on top. */
        err = wal_window_init(&walproposer->window, options->window_max + 4 * WAL_APPEND_MAX, msg);
    }
    if (err != ERR_OK) {
        walproposer_destroy(walproposer);
        return err;
    }
    *ret_walproposer = walproposer;
    for (uint32_t i = 0; i < walproposer->safekeepers_count; i++) {
        safekeeper_link_start(walproposer->safekeepers[i]);
    }
    watch_quorum(walproposer);
    return ERR_OK;
}

void walproposer_stop(struct walproposer *walproposer)
{
    walproposer->ended = true;
    timer_stop(&walproposer->tick);
    timer_stop(&walproposer->cut_off);
    wal_source_stop(&walproposer->source);
    for (uint32_t i = 0; i < walproposer->safekeepers_count; i++) {
        safekeeper_link_stop(walproposer->safekeepers[i]);
    }
}

void walproposer_destroy(struct walproposer *walproposer)
{
    if (walproposer == NULL) {
        return;
    }
    for (uint32_t i = 0; i < walproposer->safekeepers_count; i++) {
        safekeeper_link_destroy(walproposer->safekeepers[i]);
    }
    for (struct list_link *link = list_pop_front(&walproposer->retired); link != NULL;
         link = list_pop_front(&walproposer->retired)) {
        safekeeper_link_destroy(CONTAINER_OF(link, struct safekeeper_link, in_retired));
    }
    wal_reader_destroy(walproposer->reader);
    wal_window_deinit(&walproposer->window);
    mem_free(walproposer);
}
