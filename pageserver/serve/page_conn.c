/*
 * page_conn.c - one framed connection: channels for timelines, many requests in flight, replies in
 * whatever order they get ready.
 *
 * A request that the caches can answer is answered at once on the loop; the others each have a
 * struct that lives until its reply was queued, taken from a list of used ones. Back-pressure:
 * above a number of requests in flight, or when the peer does not take its replies, reading stops.
 */
#include "common/auth/auth.h"
#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/link.h"
#include "common/wire/hello_proto.h"
#include "common/wire/page_proto.h"
#include "pageserver/read/working_set.h"
#include "pageserver/serve/server.h"

METRIC_GAUGE(connections_open, "pageserver_page_connections", "framed connections of computes");
METRIC_GAUGE(requests_open, "pageserver_page_requests", "requests of computes in flight");
METRIC_COUNTER(refusals, "pageserver_page_refusals_total", "connections closed for what they sent");

#define CHANNELS_MAX  256
#define IN_FLIGHT_MAX 1024 /* of one connection */
#define SPARE_MAX     64   /* used requests kept with their buffers */

struct channel {
    struct timeline *timeline; /* referenced; NULL: not in use */
    struct turn_share *share;  /* joined */
};

struct page_conn {
    struct server *server;
    struct link_user user;
    struct timer hello_timer;
    struct channel channels[CHANNELS_MAX + 1]; /* by number; 0 is none */
    uint32_t channel_count;
    struct list requests; /* in flight */
    size_t in_flight;
    struct turn_wait turn; /* while it has had its part of a turn */
    bool paused, closing, closed;
    struct buf room; /* for pages from the cache */
    struct list_link link;
};

struct page_request {
    struct page_conn *conn;
    uint32_t channel;
    uint64_t request_id;
    struct page_read read;
    struct page_request *next_spare;
    struct list_link link; /* of the connection, while in flight */
};

struct set_request {
    struct page_conn *conn;
    uint32_t channel;
    uint64_t request_id;
    struct working_set set;
};

static struct page_request *spares; /* loop only */
static size_t spare_count;

static struct page_request *request_take(void)
{
    struct page_request *request = spares;
    if (request == NULL) {
        return MEM_NEW(struct page_request);
    }
    spares = request->next_spare;
    spare_count--;
    return request;
}

static void request_give(struct page_request *request)
{
    if (spare_count >= SPARE_MAX) {
        page_read_deinit(&request->read);
        mem_free(request);
        return;
    }
    request->next_spare = spares;
    spares = request;
    spare_count++;
}

/* -- life of a connection -- */

static void free_when_over(struct page_conn *conn)
{
    if (!conn->closed || conn->in_flight > 0) {
        return;
    }
    for (uint32_t i = 1; i <= conn->channel_count; i++) {
        timeline_unref(conn->channels[i].timeline);
        turns_leave(conn->channels[i].share);
    }
    list_remove(&conn->link);
    buf_deinit(&conn->room);
    metric_add(&connections_open, -1);
    mem_free(conn);
}

static void on_closed(struct link_user *user, err_t reason, const struct errmsg *msg)
{
    struct page_conn *conn = CONTAINER_OF(user, struct page_conn, user);
    if (reason != ERR_OK && reason != ERR_IO) {
        log_info(NULL, "connection closed: %s", msg->text);
    }
    timer_stop(&conn->hello_timer);
    turn_wait_stop(&conn->turn);
    conn->closed = true;
    conn->in_flight++; /* keeps it here while waits are given up */
    LIST_FOR_EACH(&conn->requests, link)
    {
        page_read_cancel(&CONTAINER_OF(link, struct page_request, link)->read);
    }
    conn->in_flight--;
    free_when_over(conn);
}

static void close_conn(struct page_conn *conn)
{
    if (!conn->closing && !conn->closed) {
        conn->closing = true;
        link_close(conn->user.link);
    }
}

/* The peer does not speak our protocol: say so, and close. */
static void refuse(
    struct page_conn *conn, const struct frame *frame, err_t err, const struct errmsg *msg)
{
    static mono_ns_t logged_at; /* peers choose how often they come: one line a second */
    metric_add(&refusals, 1);
    if (clock_mono() - logged_at >= NS_PER_S) {
        logged_at = clock_mono();
        log_info(NULL, "refused %s: %s", link_peer(conn->user.link), msg->text);
    }
    link_send_error(conn->user.link, frame->channel, frame->request_id, err, msg);
    close_conn(conn);
}

static void on_hello_timer(struct timer *timer)
{
    struct page_conn *conn = CONTAINER_OF(timer, struct page_conn, hello_timer);
    struct errmsg msg;
    err_t err = err_set(&msg, ERR_TIMEOUT, "no hello in time");
    link_send_error(conn->user.link, 0, 0, err, &msg);
    close_conn(conn);
}

static void resume_when_possible(struct page_conn *conn)
{
    if (conn->paused && !conn->closed && conn->turn.share == NULL &&
        conn->in_flight < IN_FLIGHT_MAX / 2 && !link_is_congested(conn->user.link)) {
        conn->paused = false;
        link_resume(conn->user.link);
    }
}

static void on_turn(struct turn_wait *wait)
{
    resume_when_possible(CONTAINER_OF(wait, struct page_conn, turn));
}

static void pause_when_needed(struct page_conn *conn, struct turn_share *share)
{
    if (!turn_take(share)) {
        conn->turn.on_turn = on_turn;
        turn_wait_start(&conn->turn, share);
    }
    if (!conn->paused && (conn->turn.share != NULL || conn->in_flight >= IN_FLIGHT_MAX ||
                          link_is_congested(conn->user.link))) {
        conn->paused = true;
        link_pause(conn->user.link);
    }
}

static void on_drained(struct link_user *user)
{
    resume_when_possible(CONTAINER_OF(user, struct page_conn, user));
}

/* -- hello -- */

static err_t find_timeline(
    struct server *server, const struct hello *hello, struct timeline **ret_tl, struct errmsg *msg)
{
    struct tenant *tenant = tenants_find(server->tenants, hello->tenant);
    if (tenant == NULL) {
        return tenants_why_missing(server->tenants, hello->tenant, msg);
    }
    /* Whoever knows of a newer attachment must not read here: ingest may have moved on elsewhere.
     * An older number is harmless, a compute may have started before this attachment. */
    if (hello->generation > tenant_generation(tenant)) {
        return err_set(
            msg, ERR_STALE, "attachment generation %" PRIu32 ", here it is %" PRIu32,
            hello->generation, tenant_generation(tenant));
    }
    struct timeline *tl = tenant_find_timeline(tenant, hello->timeline);
    if (tl == NULL) {
        return err_set(
            msg, ERR_NOT_FOUND, "no timeline %s here", timeline_id_text(hello->timeline).text);
    }
    if (hello->system_id != 0 && hello->system_id != timeline_info(tl)->system_id) {
        return err_set(
            msg, ERR_INVALID, "system id %" PRIu64 ", here it is %" PRIu64, hello->system_id,
            timeline_info(tl)->system_id);
    }
    *ret_tl = tl;
    return ERR_OK;
}

static err_t check_hello(
    const struct page_conn *conn, const struct hello *hello, struct errmsg *msg)
{
    TRY(hello_check_protocol(hello, msg));
    if (hello->role != HELLO_ROLE_PAGES) {
        return err_set(msg, ERR_INVALID, "a pageserver has no role %u", hello->role);
    }
    if (hello->shard_number != 0 || hello->shard_count > 1) {
        return err_set(
            msg, ERR_UNSUPPORTED, "shard %u of %u: a timeline has one shard", hello->shard_number,
            hello->shard_count);
    }
    if (conn->channel_count == CHANNELS_MAX) {
        return err_set(msg, ERR_BUSY, "limit of %d channels of a connection", CHANNELS_MAX);
    }
    return auth_check(conn->server->options.secret, hello->token, AUTH_PAGES, hello->tenant, msg);
}

static void on_hello(struct page_conn *conn, const struct frame *frame)
{
    struct hello hello;
    struct errmsg msg;
    struct timeline *tl = NULL;
    struct reader in = reader_of(frame->payload);
    err_t err = hello_decode(&hello, &in);
    if (err != ERR_OK) {
        err = err_set(&msg, err, "malformed hello");
    } else {
        err = check_hello(conn, &hello, &msg);
    }
    if (err == ERR_OK) {
        err = find_timeline(conn->server, &hello, &tl, &msg);
    }
    if (err != ERR_OK) {
        refuse(conn, frame, err, &msg);
        return;
    }
    timer_stop(&conn->hello_timer);
    uint32_t channel = ++conn->channel_count;
    conn->channels[channel].timeline = timeline_ref(tl);
    conn->channels[channel].share = turns_join(conn->server->turns, hello.tenant);
    struct hello_reply reply = {
        .protocol = hello_protocol(hello.protocol_max),
        .channel = channel,
        .node_id = conn->server->options.node_id,
        .generation = tenant_generation(timeline_tenant(tl)),
        .lsn = timeline_last_lsn(tl),
    };
    LINK_SEND(
        conn->user.link, hello_reply, &reply, .type = FRAME_HELLO_REPLY,
        .request_id = frame->request_id);
}

/* -- replies -- */

static void reply_pages(
    struct page_conn *conn,
    uint32_t channel,
    uint64_t request_id,
    const struct page_read *read,
    struct bytes pages)
{
    struct get_page_reply reply = {
        .lsn = read->read_lsn, .existing = read->existing, .pages = pages};
    LINK_SEND(
        conn->user.link, get_page_reply, &reply, .type = FRAME_GET_PAGE_REPLY, .channel = channel,
        .request_id = request_id);
}

static void reply_rel_size(
    struct page_conn *conn, uint32_t channel, uint64_t request_id, const struct page_read *read)
{
    struct rel_size_reply reply = {
        .lsn = read->read_lsn,
        .exists = read->size.exists ? 1 : 0,
        .blocks = read->size.blocks,
    };
    LINK_SEND(
        conn->user.link, rel_size_reply, &reply, .type = FRAME_REL_SIZE_REPLY, .channel = channel,
        .request_id = request_id);
}

static void send_reply(struct page_request *request)
{
    struct page_conn *conn = request->conn;
    const struct page_read *read = &request->read;
    switch (read->kind) {
    case PAGE_READ_PAGES:
        reply_pages(conn, request->channel, request->request_id, read, buf_view(&read->pages));
        break;
    case PAGE_READ_REL_SIZE:
        reply_rel_size(conn, request->channel, request->request_id, read);
        break;
    case PAGE_READ_DB_SIZE: {
        struct db_size_reply reply = {.lsn = read->read_lsn, .bytes = read->bytes};
        LINK_SEND(
            conn->user.link, db_size_reply, &reply, .type = FRAME_DB_SIZE_REPLY,
            .channel = request->channel, .request_id = request->request_id);
        break;
    }
    }
}

static void on_read_done(struct page_read *read, err_t result)
{
    struct page_request *request = CONTAINER_OF(read, struct page_request, read);
    struct page_conn *conn = request->conn;
    list_remove(&request->link);
    conn->in_flight--;
    metric_add(&requests_open, -1);
    if (!conn->closed && !conn->closing) {
        if (result == ERR_OK) {
            send_reply(request);
        } else {
            link_send_error(
                conn->user.link, request->channel, request->request_id, result, &read->msg);
        }
        resume_when_possible(conn);
    }
    request_give(request);
    free_when_over(conn);
}

/* -- requests -- */

/* False: the frame is malformed and was refused. */
static bool decode_request(
    struct page_conn *conn, const struct frame *frame, struct page_read *read)
{
    struct reader in = reader_of(frame->payload);
    struct get_page get_page;
    struct rel_size size;
    struct db_size db_size;
    struct errmsg msg;
    err_t err = ERR_OK;
    if (frame->type == FRAME_GET_PAGE) {
        err = get_page_decode(&get_page, &in);
        read->kind = PAGE_READ_PAGES;
        read->key = (struct page_key){
            .spc = get_page.spc,
            .db = get_page.db,
            .rel = get_page.rel,
            .fork = get_page.fork,
            .block = get_page.block,
        };
        read->count = get_page.count;
        read->lsn = get_page.lsn;
        read->not_modified_since = get_page.not_modified_since;
        if (err == ERR_OK && (get_page.count < 1 || get_page.count > GET_PAGE_COUNT_MAX ||
                              get_page.block > KEY_BLOCK_SIZE - get_page.count)) {
            err = ERR_INVALID;
        }
    } else if (frame->type == FRAME_REL_SIZE) {
        err = rel_size_decode(&size, &in);
        read->kind = PAGE_READ_REL_SIZE;
        read->key =
            (struct page_key){.spc = size.spc, .db = size.db, .rel = size.rel, .fork = size.fork};
        read->count = 1;
        read->lsn = size.lsn;
        read->not_modified_since = size.not_modified_since;
    } else {
        err = db_size_decode(&db_size, &in);
        read->kind = PAGE_READ_DB_SIZE;
        read->key = (struct page_key){.spc = db_size.spc, .db = db_size.db};
        read->count = 1;
        read->lsn = db_size.lsn;
        read->not_modified_since = db_size.not_modified_since;
    }
    bool is_slru = frame->type == FRAME_GET_PAGE && page_key_is_slru(read->key);
    bool is_state = read->key.spc == KEY_SPC_STATE && !is_slru;
    if (err == ERR_OK && (is_state || read->key.fork >= FORK_COUNT)) {
        err = ERR_INVALID;
    }
    if (err != ERR_OK) {
        err = err_set(&msg, err, "malformed %s", frame_type_name(frame->type));
        refuse(conn, frame, err, &msg);
    }
    return err == ERR_OK;
}

static bool answer_from_cache(
    struct page_conn *conn, const struct frame *frame, struct page_read *read, struct timeline *tl)
{
    struct bytes pages = {0};
    const struct page_read_service *reads = &conn->server->reads;
    if (read->kind == PAGE_READ_DB_SIZE ||
        (!page_read_cached(read, reads, tl, &conn->room, &pages) &&
         !page_read_in_memory(read, reads, tl, &pages))) {
        return false;
    }
    if (read->kind == PAGE_READ_PAGES) {
        reply_pages(conn, frame->channel, frame->request_id, read, pages);
    } else {
        reply_rel_size(conn, frame->channel, frame->request_id, read);
    }
    return true;
}

static void on_request(struct page_conn *conn, const struct frame *frame)
{
    struct errmsg msg;
    if (frame->channel == 0 || frame->channel > conn->channel_count) {
        err_t err = err_set(&msg, ERR_INVALID, "no channel %" PRIu32, frame->channel);
        refuse(conn, frame, err, &msg);
        return;
    }
    struct channel *channel = &conn->channels[frame->channel];
    struct timeline *tl = channel->timeline;
    struct page_request *request = request_take();
    struct page_read *read = &request->read;
    read->share = channel->share;
    if (!decode_request(conn, frame, read)) {
        request_give(request);
        return;
    }
    if (timeline_info(tl)->state == TIMELINE_DELETING) {
        err_t err = err_set(&msg, ERR_NOT_FOUND, "the timeline was deleted");
        link_send_error(conn->user.link, frame->channel, frame->request_id, err, &msg);
        request_give(request);
        return;
    }
    if (answer_from_cache(conn, frame, read, tl)) {
        request_give(request);
    } else {
        request->conn = conn;
        request->channel = frame->channel;
        request->request_id = frame->request_id;
        list_push_back(&conn->requests, &request->link);
        conn->in_flight++;
        metric_add(&requests_open, 1);
        page_read_start(read, &conn->server->reads, tl, on_read_done);
    }
    pause_when_needed(conn, channel->share);
}

/* -- working sets: seldom, so that each has a struct of its own -- */

static void on_set_done(struct working_set *set, err_t result)
{
    struct set_request *request = CONTAINER_OF(set, struct set_request, set);
    struct page_conn *conn = request->conn;
    uint32_t channel = request->channel;
    uint64_t id = request->request_id;
    conn->in_flight--;
    metric_add(&requests_open, -1);
    if (!conn->closed && !conn->closing) {
        if (result != ERR_OK) {
            link_send_error(conn->user.link, channel, id, result, &set->msg);
        } else if (set->is_put) {
            struct put_working_set_reply reply = {.size = (uint32_t)set->list.size};
            LINK_SEND(
                conn->user.link, put_working_set_reply, &reply, .type = FRAME_PUT_WORKING_SET_REPLY,
                .channel = channel, .request_id = id);
        } else {
            struct get_working_set_reply reply = {.list = buf_view(&set->list)};
            LINK_SEND(
                conn->user.link, get_working_set_reply, &reply, .type = FRAME_GET_WORKING_SET_REPLY,
                .channel = channel, .request_id = id);
        }
        resume_when_possible(conn);
    }
    working_set_deinit(set);
    mem_free(request);
    free_when_over(conn);
}

/* ERR_INVALID, ERR_CORRUPT: the frame is malformed. */
static err_t decode_set(const struct frame *frame, struct working_set *set)
{
    struct reader in = reader_of(frame->payload);
    struct put_working_set put;
    struct get_working_set get;
    if (frame->type == FRAME_GET_WORKING_SET) {
        err_t err = get_working_set_decode(&get, &in);
        set->size_max = err == ERR_OK ? get.size_max : 0;
        return err;
    }
    err_t err = put_working_set_decode(&put, &in);
    if (err == ERR_OK && put.list.size > WORKING_SET_BYTES_MAX) {
        err = ERR_INVALID;
    }
    if (err == ERR_OK) {
        buf_append(&set->list, put.list.data, put.list.size);
    }
    return err;
}

static void on_set_request(struct page_conn *conn, const struct frame *frame)
{
    struct errmsg msg;
    err_t err = ERR_OK;
    struct set_request *request = MEM_NEW(struct set_request);
    request->set.is_put = frame->type == FRAME_PUT_WORKING_SET;
    if (frame->channel == 0 || frame->channel > conn->channel_count) {
        err = err_set(&msg, ERR_INVALID, "no channel %" PRIu32, frame->channel);
    } else if (decode_set(frame, &request->set) != ERR_OK) {
        err = err_set(&msg, ERR_INVALID, "malformed %s", frame_type_name(frame->type));
    }
    if (err != ERR_OK) {
        refuse(conn, frame, err, &msg);
        working_set_deinit(&request->set);
        mem_free(request);
        return;
    }
    request->conn = conn;
    request->channel = frame->channel;
    request->request_id = frame->request_id;
    conn->in_flight++;
    metric_add(&requests_open, 1);
    working_set_start(
        &request->set, conn->server->background, conn->channels[frame->channel].timeline,
        on_set_done);
    pause_when_needed(conn, conn->channels[frame->channel].share);
}

static void on_frame(struct link_user *user, const struct frame *frame)
{
    struct page_conn *conn = CONTAINER_OF(user, struct page_conn, user);
    struct errmsg msg;
    if (conn->closing) {
        return;
    }
    switch (frame->type) {
    case FRAME_HELLO: on_hello(conn, frame); break;
    case FRAME_GET_PAGE:
    case FRAME_REL_SIZE:
    case FRAME_DB_SIZE: on_request(conn, frame); break;
    case FRAME_PUT_WORKING_SET:
    case FRAME_GET_WORKING_SET: on_set_request(conn, frame); break;
    default: {
        err_t err = err_set(
            &msg, ERR_INVALID, "unexpected frame %u (%s)", frame->type,
            frame_type_name(frame->type));
        refuse(conn, frame, err, &msg);
    }
    }
}

static const struct link_callbacks callbacks = {
    .on_frame = on_frame,
    .on_drained = on_drained,
    .on_closed = on_closed,
};

struct link_user *page_conn_accept(struct server *server, struct link *link)
{
    (void)link;
    if (server->stopping) {
        return NULL;
    }
    struct page_conn *conn = MEM_NEW(struct page_conn);
    conn->server = server;
    conn->user.callbacks = &callbacks;
    conn->hello_timer.on_fire = on_hello_timer;
    list_init(&conn->requests);
    list_push_back(&server->connections, &conn->link);
    metric_add(&connections_open, 1);
    timer_start(server->options.loop, &conn->hello_timer, server->options.hello_timeout_ms);
    return &conn->user;
}

void page_conn_close_all(struct server *server)
{
    LIST_FOR_EACH(&server->connections, link)
    {
        struct page_conn *conn = CONTAINER_OF(link, struct page_conn, link);
        close_conn(conn);
    }
}
