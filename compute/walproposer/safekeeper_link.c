/*
 * safekeeper_link.c - connect, say hello, turn frames into events; when it ends, again.
 */
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "compute/walproposer/walproposer_private.h"

#define RETRY_FIRST_MS 20
#define RETRY_MAX_MS   1000
#define HELLO_MAX_MS   5000

static struct safekeeper_link *safekeeper_of(struct link_user *user)
{
    return CONTAINER_OF(user, struct safekeeper_link, link_user);
}

static void drop_reader(struct safekeeper_link *safekeeper)
{
    wal_reader_destroy(safekeeper->repair_reader);
    safekeeper->repair_reader = NULL;
}

static void on_open(struct link_user *user)
{
    struct safekeeper_link *safekeeper = safekeeper_of(user);
    const struct walproposer_options *options = &safekeeper->walproposer->options;
    const struct proposer *core = &safekeeper->walproposer->core;
    struct hello hello = {
        .protocol_min = PROTOCOL_VERSION_MIN,
        .protocol_max = PROTOCOL_VERSION_MAX,
        .role = HELLO_ROLE_PROPOSER,
        .tenant = options->tenant,
        .timeline = options->timeline,
        .shard_count = 1,
        .pg_version = options->pg_version,
        .system_id = options->system_id,
        .generation = core->options.membership.generation,
        .node_id = safekeeper->walproposer->proposer_id,
        .connection_epoch = safekeeper->connection,
        .token = bytes_of_str(options->token),
    };
    LINK_SEND(user->link, hello, &hello, .type = FRAME_HELLO);
}

/* It missed the news. It takes it, closes, and the next hello fits. */
static void bring_membership(struct safekeeper_link *safekeeper, const struct hello_reply *reply)
{
    const struct walproposer *walproposer = safekeeper->walproposer;
    const struct membership *membership = &walproposer->core.options.membership;
    struct membership_notice notice = {
        .generation = membership->generation, .members = {.count = membership->count}};
    for (uint32_t i = 0; i < membership->count; i++) {
        const struct safekeeper_link *member = walproposer->safekeepers[i];
        struct member_entry *entry = &notice.members.items[i];
        entry->id = member->id;
        entry->is_old = (membership->old_set & 1u << i) != 0;
        entry->is_new = (membership->new_set & 1u << i) != 0;
        entry->port = member->port;
        memcpy(entry->host, member->host, sizeof(entry->host));
    }
    err_t err = err_set(
        &safekeeper->last_error, ERR_STALE, "it had generation %" PRIu32 ", was told %" PRIu32,
        reply->generation, membership->generation);
    err_ignore(err, "on_closed logs the text");
    LINK_SEND(
        safekeeper->link_user.link, membership_notice, &notice, .type = FRAME_MEMBERSHIP,
        .channel = reply->channel);
}

static void on_hello_reply(struct safekeeper_link *safekeeper, const struct hello_reply *reply)
{
    struct walproposer *walproposer = safekeeper->walproposer;
    struct errmsg *error = &safekeeper->last_error;
    generation_t generation = walproposer->core.options.membership.generation;
    if (reply->node_id == safekeeper->id && reply->channel != 0 && reply->generation < generation) {
        bring_membership(safekeeper, reply);
        return;
    }
    if (reply->node_id != safekeeper->id || reply->channel == 0 ||
        reply->generation != generation) {
        err_t err = err_set(
            error, ERR_INVALID,
            "it is safekeeper %" PRIu64 " in generation %" PRIu32 ", expected %" PRIu64
            " in generation %" PRIu32,
            reply->node_id, reply->generation, safekeeper->id, generation);
        err_ignore(err, "on_closed logs the text");
        link_abort(safekeeper->link_user.link);
        return;
    }
    timer_stop(&safekeeper->timer);
    safekeeper->channel = reply->channel;
    safekeeper->hellos++;
    error->text[0] = '\0';
    struct proposer_event event = {
        .kind = PROPOSER_PEER_UP,
        .peer = safekeeper->index,
        .connection = safekeeper->connection,
        .hello_term = reply->term,
    };
    walproposer_feed(walproposer, &event);
}

static void on_error_reply(
    struct safekeeper_link *safekeeper, const struct frame *frame, const struct error_reply *error)
{
    err_t code = error->code < ERR_COUNT ? (err_t)error->code : ERR_INVALID;
    err_t err = err_set(
        &safekeeper->last_error, code, "%s: %.*s", err_name(code),
        (int)MIN_OF(error->message.size, 300), (const char *)error->message.data);
    err_ignore(err, "logged here or when it closes");
    if (safekeeper->channel == 0 || frame->request_id == 0) {
        return; /* the reason before a close */
    }
    log_info(
        &safekeeper->walproposer->log, "safekeeper %" PRIu64 " cannot read WAL for us: %s",
        safekeeper->id, safekeeper->last_error.text);
    struct proposer_event event = {
        .kind = PROPOSER_READ_WAL_FAILED,
        .peer = safekeeper->index,
        .connection = safekeeper->connection,
        .read.id = frame->request_id,
        .read.err = code,
    };
    walproposer_feed(safekeeper->walproposer, &event);
}

/* For whom was this read? Record ends in it are found by a reader that began where the repair did.
 */
static lsn_t find_record_end(
    struct walproposer *walproposer, uint64_t id, const struct read_wal_reply *reply)
{
    for (uint32_t i = 0; i < walproposer->safekeepers_count; i++) {
        const struct proposer_peer *peer = &walproposer->core.peers[i];
        struct safekeeper_link *target = walproposer->safekeepers[i];
        if (peer->read_id != id || reply->begin_lsn != peer->sent_lsn) {
            continue;
        }
        if (target->repair_reader != NULL &&
            wal_reader_next_lsn(target->repair_reader) != reply->begin_lsn) {
            drop_reader(target);
        }
        if (target->repair_reader == NULL && reply->begin_lsn == peer->stream_lsn) {
            struct wal_reader_options options = {
                .start_lsn = peer->stream_lsn,
                .segment_size = SEGMENT_SIZE,
                .system_id = walproposer->options.system_id,
                .ends_only = true,
            };
            target->repair_reader = wal_reader_create(&options);
        }
        struct errmsg msg;
        if (target->repair_reader == NULL) {
            return LSN_NONE;
        }
        if (wal_reader_feed(target->repair_reader, reply->wal, &msg) != ERR_OK) {
            log_error(
                &walproposer->log, "WAL for safekeeper %" PRIu64 ": %s", target->id, msg.text);
            drop_reader(target);
            return LSN_NONE;
        }
        return wal_reader_record_lsn(target->repair_reader);
    }
    return LSN_NONE;
}

static void on_read_reply(
    struct safekeeper_link *safekeeper, uint64_t id, const struct read_wal_reply *reply)
{
    struct proposer_event event = {
        .kind = PROPOSER_READ_WAL_REPLY,
        .peer = safekeeper->index,
        .connection = safekeeper->connection,
        .read.id = id,
        .read.reply = reply,
    };
    if (reply->wal.size > 0) {
        event.read.record_lsn = find_record_end(safekeeper->walproposer, id, reply);
    }
    walproposer_feed(safekeeper->walproposer, &event);
}

/* `sent_ms`: when the newest append was sent that it had before it replied. */
static void on_append_reply(
    struct safekeeper_link *safekeeper, const struct append_reply *appended, uint64_t sent_ms)
{
    struct walproposer *walproposer = safekeeper->walproposer;
    const struct proposer *core = &walproposer->core;
    if (core->phase == PROPOSER_ELECTED && appended->term == core->term) {
        sent_ms = MIN_OF(sent_ms, clock_mono() / NS_PER_MS); /* a peer's number */
        safekeeper->followed_ms = MAX_OF(safekeeper->followed_ms, sent_ms);
    }
    safekeeper->attempts = 0; /* it works: one that only answers hello is not hurried */
    walproposer->received_lsn = MAX_OF(walproposer->received_lsn, appended->received_lsn);
    walproposer->durable_lsn = MAX_OF(walproposer->durable_lsn, appended->durable_lsn);
    walproposer->remote_lsn = MAX_OF(walproposer->remote_lsn, appended->remote_lsn);
    struct proposer_event event = {
        .kind = PROPOSER_APPEND_REPLY,
        .peer = safekeeper->index,
        .connection = safekeeper->connection,
        .appended = appended,
    };
    walproposer_feed(walproposer, &event);
}

static err_t take_vote_reply(struct safekeeper_link *safekeeper, struct reader *in)
{
    struct vote_reply vote;
    TRY(vote_reply_decode(&vote, in));
    struct proposer_event event = {
        .kind = PROPOSER_VOTE_REPLY,
        .peer = safekeeper->index,
        .connection = safekeeper->connection,
        .vote = &vote,
    };
    walproposer_feed(safekeeper->walproposer, &event);
    return ERR_OK;
}

/* A frame of the channel that hello opened. */
static err_t take_channel_frame(struct safekeeper_link *safekeeper, const struct frame *frame)
{
    struct reader in = reader_of(frame->payload);
    if (frame->type == FRAME_APPEND_REPLY) {
        struct append_reply appended;
        TRY(append_reply_decode(&appended, &in));
        on_append_reply(safekeeper, &appended, frame->request_id);
        return ERR_OK;
    }
    if (frame->type == FRAME_VOTE_REPLY) {
        return take_vote_reply(safekeeper, &in);
    }
    if (frame->type == FRAME_READ_WAL_REPLY) {
        struct read_wal_reply reply;
        TRY(read_wal_reply_decode(&reply, &in));
        on_read_reply(safekeeper, frame->request_id, &reply);
        return ERR_OK;
    }
    return ERR_INVALID;
}

/* Said on any channel, also when hello is refused. This link may be retired afterwards. */
static err_t take_membership(struct safekeeper_link *safekeeper, struct reader *in)
{
    struct membership_notice notice;
    TRY(membership_notice_decode(&notice, in));
    walproposer_learn(safekeeper->walproposer, notice.generation, &notice.members);
    return ERR_OK;
}

static err_t take_frame(struct safekeeper_link *safekeeper, const struct frame *frame)
{
    struct reader in = reader_of(frame->payload);
    if (frame->type == FRAME_MEMBERSHIP) {
        return take_membership(safekeeper, &in);
    }
    if (frame->type == FRAME_ERROR) {
        struct error_reply error;
        TRY(error_reply_decode(&error, &in));
        on_error_reply(safekeeper, frame, &error);
        return ERR_OK;
    }
    if (safekeeper->channel != 0) {
        return frame->channel == safekeeper->channel ? take_channel_frame(safekeeper, frame)
                                                     : ERR_INVALID;
    }
    if (frame->type != FRAME_HELLO_REPLY) {
        return ERR_INVALID;
    }
    struct hello_reply reply;
    TRY(hello_reply_decode(&reply, &in));
    on_hello_reply(safekeeper, &reply);
    return ERR_OK;
}

static void on_frame(struct link_user *user, const struct frame *frame)
{
    struct safekeeper_link *safekeeper = safekeeper_of(user);
    if (safekeeper->walproposer->ended || safekeeper->is_retired) {
        return;
    }
    err_t err = take_frame(safekeeper, frame);
    if (err != ERR_OK) {
        err = err_set(
            &safekeeper->last_error, err, "sent a %s that cannot be understood",
            frame_type_name(frame->type));
        err_ignore(err, "on_closed logs the text");
        link_abort(user->link);
    }
}

static void connect_later(struct safekeeper_link *safekeeper)
{
    uint64_t shift = MIN_OF(safekeeper->attempts, 6);
    uint64_t delay_ms = MIN_OF((uint64_t)RETRY_FIRST_MS << shift, RETRY_MAX_MS);
    delay_ms += prng_below(&safekeeper->walproposer->prng, delay_ms / 4 + 1);
    safekeeper->attempts++;
    timer_start(safekeeper->walproposer->loop, &safekeeper->timer, delay_ms);
}

static void on_closed(struct link_user *user, err_t reason, const struct errmsg *msg)
{
    struct safekeeper_link *safekeeper = safekeeper_of(user);
    struct walproposer *walproposer = safekeeper->walproposer;
    bool was_up = safekeeper->channel != 0;
    safekeeper->channel = 0;
    drop_reader(safekeeper);
    if (safekeeper->is_retired) {
        safekeeper_link_destroy(safekeeper);
        return;
    }
    if (walproposer->ended) {
        return;
    }
    if (safekeeper->last_error.text[0] == '\0' && reason != ERR_OK) {
        safekeeper->last_error = *msg;
    } else if (safekeeper->last_error.text[0] == '\0') {
        err_ignore(
            err_set(&safekeeper->last_error, ERR_IO, "closed by the safekeeper"),
            "said in the status");
    }
    if (safekeeper->attempts < 2 || safekeeper->attempts % 64 == 2) {
        log_warn(
            &walproposer->log, "safekeeper %" PRIu64 " at %s:%u is gone, tries again: %s",
            safekeeper->id, safekeeper->host, safekeeper->port, safekeeper->last_error.text);
    }
    connect_later(safekeeper);
    if (was_up) {
        struct proposer_event event = {
            .kind = PROPOSER_PEER_DOWN,
            .peer = safekeeper->index,
            .connection = safekeeper->connection,
        };
        walproposer_feed(walproposer, &event);
    }
}

static const struct link_callbacks callbacks = {
    .on_open = on_open,
    .on_frame = on_frame,
    .on_closed = on_closed,
};

static void connect_now(struct safekeeper_link *safekeeper)
{
    struct walproposer *walproposer = safekeeper->walproposer;
    struct link_options options = {
        .connect_timeout_ms = HELLO_MAX_MS,
        .idle_timeout_ms = walproposer->options.link_timeout_ms,
    };
    safekeeper->link_user.callbacks = &callbacks;
    safekeeper->connection = ++walproposer->last_connection;
    err_t err = link_connect(
        walproposer->loop, safekeeper->host, safekeeper->port, &options, &safekeeper->link_user,
        &safekeeper->last_error);
    if (err != ERR_OK) {
        connect_later(safekeeper);
        return;
    }
    timer_start(walproposer->loop, &safekeeper->timer, HELLO_MAX_MS);
}

static void on_timer(struct timer *timer)
{
    struct safekeeper_link *safekeeper = CONTAINER_OF(timer, struct safekeeper_link, timer);
    if (safekeeper->link_user.link == NULL) {
        connect_now(safekeeper);
        return;
    }
    safekeeper_link_restart(safekeeper, "it does not answer the hello");
}

void safekeeper_link_restart(struct safekeeper_link *safekeeper, const char *why)
{
    if (safekeeper->link_user.link != NULL) {
        err_t err = err_set(&safekeeper->last_error, ERR_TIMEOUT, "%s", why);
        err_ignore(err, "on_closed logs the text");
        link_abort(safekeeper->link_user.link);
    }
}

void safekeeper_link_start(struct safekeeper_link *safekeeper)
{
    safekeeper->timer.on_fire = on_timer;
    connect_now(safekeeper);
}

void safekeeper_link_stop(struct safekeeper_link *safekeeper)
{
    timer_stop(&safekeeper->timer);
    if (safekeeper->link_user.link != NULL) {
        link_close(safekeeper->link_user.link);
    }
}

void safekeeper_link_destroy(struct safekeeper_link *safekeeper)
{
    if (safekeeper != NULL) {
        timer_stop(&safekeeper->timer);
        list_remove(&safekeeper->in_retired);
        drop_reader(safekeeper);
        mem_free(safekeeper);
    }
}

void safekeeper_link_retire(struct safekeeper_link *safekeeper)
{
    safekeeper->is_retired = true;
    timer_stop(&safekeeper->timer);
    if (safekeeper->link_user.link == NULL) {
        safekeeper_link_destroy(safekeeper);
        return;
    }
    list_push_back(&safekeeper->walproposer->retired, &safekeeper->in_retired);
    link_abort(safekeeper->link_user.link);
}

/* ---- who they are ---- */

/* "1@127.0.0.1:7411" */
static err_t parse_one(char *text, struct member_entry *entry, struct errmsg *msg)
{
    char *at = strchr(text, '@');
    char *colon = strrchr(text, ':');
    uint64_t port = 0;
    if (at == NULL || colon == NULL || colon < at) {
        return err_set(msg, ERR_INVALID, "\"%.80s\": expected ID@HOST:PORT", text);
    }
    *at = *colon = '\0';
    TRY(parse_u64(text, 1, UINT64_MAX, &entry->id, msg));
    TRY(parse_u64(colon + 1, 1, UINT16_MAX, &port, msg));
    entry->port = (uint16_t)port;
    return str_copy(entry->host, sizeof(entry->host), at + 1, msg);
}

err_t safekeeper_list_parse(
    const char *safekeepers, struct member_list *ret_list, struct errmsg *msg)
{
    char text[512];
    struct member_list list = {0};
    TRY(str_copy(text, sizeof(text), safekeepers, msg));
    char *rest = text;
    for (char *item = strsep(&rest, ","); item != NULL; item = strsep(&rest, ",")) {
        if (list.count == MEMBERS_MAX) {
            return err_set(msg, ERR_INVALID, "more than %d safekeepers", MEMBERS_MAX);
        }
        TRY(parse_one(item, &list.items[list.count++], msg));
    }
    *ret_list = list;
    return ERR_OK;
}

static err_t membership_of(
    generation_t generation,
    const struct member_list *list,
    struct membership *ret_membership,
    struct errmsg *msg)
{
    struct membership membership = {.generation = generation, .count = list->count};
    if (list->count > MEMBERS_MAX) {
        return err_set(msg, ERR_INVALID, "more than %d safekeepers", MEMBERS_MAX);
    }
    for (uint32_t i = 0; i < list->count; i++) {
        membership.members[i] = list->items[i].id;
        membership.old_set |= (uint32_t)list->items[i].is_old << i;
        membership.new_set |= (uint32_t)list->items[i].is_new << i;
    }
    TRY(membership_check(&membership, msg));
    *ret_membership = membership;
    return ERR_OK;
}

err_t safekeeper_links_of(
    struct walproposer *walproposer,
    generation_t generation,
    const struct member_list *list,
    struct membership *ret_membership,
    struct errmsg *msg)
{
    TRY(membership_of(generation, list, ret_membership, msg));
    for (uint32_t i = 0; i < walproposer->safekeepers_count; i++) {
        safekeeper_link_retire(walproposer->safekeepers[i]);
    }
    walproposer->safekeepers_count = list->count;
    for (uint32_t i = 0; i < list->count; i++) {
        struct safekeeper_link *safekeeper = MEM_NEW(struct safekeeper_link);
        walproposer->safekeepers[i] = safekeeper;
        safekeeper->walproposer = walproposer;
        safekeeper->index = i;
        safekeeper->id = list->items[i].id;
        safekeeper->port = list->items[i].port;
        memcpy(safekeeper->host, list->items[i].host, sizeof(list->items[i].host));
    }
    return ERR_OK;
}
