#include "tests/sim/world.h"

#include <stdarg.h>

#include "common/base/checksum.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/wire/hello_proto.h"
#include "safekeeper/consensus/term_history.h"

#define HEAL_US    4000000u
#define GENERATION 1
/* Room that faults must leave in the WAL, so that something can be committed after healing. */
#define WAL_RESERVE 1024

/* ---- time ---- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->order < b->order);
}

static void schedule(struct world *world, uint64_t delay_us, struct sim_event event)
{
    if (world->pending == EVENTS_MAX) {
        oracle_fail(&world->oracle, "busy: %d events are waiting", EVENTS_MAX);
        return;
    }
    event.at_us = world->now_us + delay_us;
    event.order = world->order++;
    uint32_t hole = world->pending++;
    while (hole > 0 && earlier(&event, &world->heap[(hole - 1) / 2])) {
        world->heap[hole] = world->heap[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    world->heap[hole] = event;
}

static struct sim_event next_event(struct world *world)
{
    struct sim_event first = world->heap[0];
    struct sim_event last = world->heap[--world->pending];
    uint32_t hole = 0;
    for (uint32_t child; (child = 2 * hole + 1) < world->pending; hole = child) {
        if (child + 1 < world->pending && earlier(&world->heap[child + 1], &world->heap[child])) {
            child++;
        }
        if (!earlier(&world->heap[child], &last)) {
            break;
        }
        world->heap[hole] = world->heap[child];
    }
    world->heap[hole] = last;
    world->now_us = first.at_us;
    return first;
}

static bool one_in(struct prng *prng, uint64_t n)
{
    return n > 0 && prng_below(prng, n) == 0;
}

/* ---- the chart ---- */

static void chart(struct world *world, const char *format, ...) PRINTF_LIKE(2, 3);
static void chart(struct world *world, const char *format, ...)
{
    if (world->chart == NULL) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)fprintf(world->chart, "%9.3f ms  ", (double)world->now_us / 1000);
    (void)vfprintf(world->chart, format, args);
    (void)fputc('\n', world->chart);
    va_end(args);
}

/* ---- network ---- */

static uint64_t latency_us(struct world *world, uint32_t compute, uint32_t node)
{
    uint64_t base_us = world->healing ? 100 : world->climate.latency_us[compute][node];
    uint64_t span_us = one_in(&world->net, 16) ? 8 * base_us : base_us;
    return base_us / 2 + prng_below(&world->net, span_us + 1);
}

/* The walproposer's end goes away. What it sent before may still arrive, later than news. */
static void close_client(struct world *world, uint32_t index, uint64_t delay_us)
{
    struct conn *conn = &world->conns[index];
    if (conn->client_closed) {
        return;
    }
    conn->client_closed = true;
    if (!world->climate.old_bytes) {
        conn->server_closed = true;
    }
    schedule(
        world, delay_us,
        (struct sim_event){
            .kind = EV_DOWN,
            .conn = index,
            .compute = conn->compute,
            .incarnation = conn->compute_incarnation});
}

static void connect_node(struct world *world, uint32_t c, uint32_t n)
{
    struct compute *compute = &world->computes[c];
    if (!compute->alive || compute->conn[n] != 0 || world->conns_count == CONNS_MAX) {
        return;
    }
    uint32_t index = world->conns_count++;
    world->conns[index] = (struct conn){
        .node = n,
        .compute = c,
        .node_incarnation = world->nodes[n].incarnation,
        .compute_incarnation = compute->incarnation};
    compute->conn[n] = index + 1;
    uint64_t delay_us = latency_us(world, c, n);
    world->conns[index].last_to_node_us = world->now_us + delay_us;
    schedule(
        world, delay_us,
        (struct sim_event){
            .kind = EV_CONNECT, .conn = index, .node = n, .incarnation = compute->incarnation});
}

/* Queue what is in `scratch` on a connection; the network may break it instead. */
static void send_scratch(struct world *world, uint32_t index, bool to_node)
{
    struct conn *conn = &world->conns[index];
    struct sim_event event = {
        .kind = to_node ? EV_TO_NODE : EV_TO_COMPUTE,
        .node = conn->node,
        .compute = conn->compute,
        .conn = index,
        .incarnation = to_node ? conn->node_incarnation : conn->compute_incarnation,
    };
    size_t size = world->scratch.size;
    ASSERT(world->arena_used + size <= ARENA_SIZE);
    memcpy(world->arena + world->arena_used, world->scratch.data, size);
    event.frame.offset = world->arena_used;
    event.frame.size = (uint32_t)size;
    world->arena_used += (uint32_t)size;
    if (!world->healing && one_in(&world->net, world->climate.reset_one_in)) {
        chart(
            world, "network  resets connection %u of p%u and s%u", index, conn->compute,
            conn->node);
        close_client(world, index, prng_below(&world->net, 500));
        if (one_in(&world->net, 2)) {
            return; /* this one is lost with it */
        }
    }
    uint64_t *last_us = to_node ? &conn->last_to_node_us : &conn->last_to_compute_us;
    uint64_t at_us = world->now_us + latency_us(world, conn->compute, conn->node);
    at_us = MAX_OF(at_us, *last_us);
    *last_us = at_us;
    schedule(world, at_us - world->now_us, event);
}

/* ---- safekeepers ---- */

static void begin_disk_work(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    uint64_t base_us = world->healing ? 50 : world->climate.disk_us[n];
    struct sim_event event = {.node = n, .incarnation = node->incarnation};
    if (disk_begin_truncate(&node->disk)) {
        event.kind = EV_WAL_TRUNCATED;
        schedule(world, base_us / 2 + prng_below(&world->disk_prng, base_us + 1), event);
    }
    if (disk_begin_sync(&node->disk)) {
        event.kind = EV_WAL_SYNCED;
        schedule(world, base_us / 2 + prng_below(&world->disk_prng, base_us + 1), event);
    }
    if (disk_begin_state(&node->disk)) {
        event.kind = EV_STATE_SYNCED;
        schedule(world, base_us / 2 + prng_below(&world->disk_prng, base_us + 1), event);
    }
}

/* Whatever a safekeeper promises must survive if the power goes at this very moment. */
static void check_promise(struct world *world, uint32_t n, term_t term, lsn_t record_lsn)
{
    struct node *node = &world->nodes[n];
    const struct acceptor_state *durable = disk_durable_state(&node->disk);
    if (durable == NULL || durable->term < term) {
        oracle_fail(
            &world->oracle, "disk honesty: s%u promises term %" PRIu64 " before it is durable", n,
            term);
    }
    if (node->disk.durable_lsn < record_lsn) {
        oracle_fail(
            &world->oracle, "disk honesty: s%u acknowledges +%" PRIu64 ", durable is +%" PRIu64, n,
            record_lsn - WAL_START, node->disk.durable_lsn - WAL_START);
    }
}

static void send_appended(
    struct world *world, uint32_t n, uint32_t conn, const struct append_reply *appended)
{
    struct node *node = &world->nodes[n];
    if (node->acceptor.phase == ACCEPTOR_FOLLOWING) {
        check_promise(world, n, appended->term, appended->record_lsn);
        const struct acceptor_state *durable = disk_durable_state(&node->disk);
        if (durable != NULL && term_history_last_term(&durable->history) != appended->term) {
            oracle_fail(
                &world->oracle,
                "disk honesty: s%u acknowledges under a history that is not durable", n);
        }
        node->promised = MAX_OF(node->promised, appended->term);
        if (appended->term != node->acked_term) {
            node->matched_lsn = WAL_START;
        }
        oracle_on_acknowledged(
            &world->oracle, &node->disk, appended->term, node->matched_lsn, appended->record_lsn);
        node->matched_lsn = appended->record_lsn;
        if (appended->term > node->acked_term || appended->record_lsn > node->acked_record_lsn) {
            node->acked_record_lsn = appended->record_lsn;
            node->acked_term = appended->term;
        }
    }
    FRAME_APPEND_MESSAGE(
        &world->scratch, append_reply, appended, .type = FRAME_APPEND_REPLY, .channel = 1);
    send_scratch(world, conn, /* to_node */ false);
}

static void refuse(struct world *world, uint32_t index, const char *why)
{
    struct conn *conn = &world->conns[index];
    chart(world, "s%u refuses connection %u: %s", conn->node, index, why);
    conn->server_closed = true;
    close_client(world, index, latency_us(world, conn->compute, conn->node));
}

static void do_node_action(struct world *world, uint32_t n, const struct acceptor_action *action)
{
    struct node *node = &world->nodes[n];
    uint32_t conn = (uint32_t)action->to.connection - 1;
    world->scratch.size = 0;
    switch (action->kind) {
    case ACCEPTOR_PERSIST_STATE: disk_persist(&node->disk, action->state); break;
    case ACCEPTOR_TRUNCATE_WAL:
        if (action->truncate.lsn < node->acked_record_lsn &&
            node->acceptor.state.term == node->acked_term) {
            oracle_fail(
                &world->oracle, "s%u truncates WAL that it has acknowledged to the same term", n);
        }
        node->acked_record_lsn = MIN_OF(node->acked_record_lsn, action->truncate.lsn);
        disk_truncate(&node->disk, action->truncate.lsn, action->truncate.epoch);
        break;
    case ACCEPTOR_WRITE_WAL:
        if (action->write.begin_lsn >= WAL_START &&
            action->write.begin_lsn + action->write.wal.size <= WAL_LIMIT) {
            disk_write(
                &node->disk, action->write.begin_lsn, action->write.wal, action->write.epoch);
        }
        break;
    case ACCEPTOR_SEND_VOTE:
        if (action->vote->granted) {
            if (world->climate.foreigner && world->conns[conn].compute == COMPUTES - 1) {
                oracle_fail(&world->oracle, "s%u votes under another generation", n);
            }
            check_promise(world, n, action->vote->term, action->vote->record_lsn);
            if (action->vote->term <= node->promised) {
                oracle_fail(&world->oracle, "s%u votes twice", n);
            }
            node->promised = MAX_OF(node->promised, action->vote->term);
        }
        FRAME_APPEND_MESSAGE(
            &world->scratch, vote_reply, action->vote, .type = FRAME_VOTE_REPLY, .channel = 1);
        send_scratch(world, conn, /* to_node */ false);
        break;
    case ACCEPTOR_SEND_APPENDED: send_appended(world, n, conn, &action->appended); break;
    case ACCEPTOR_REFUSE: refuse(world, conn, action->refuse.why); break;
    case ACCEPTOR_RELEASE_COMMITTED:
        oracle_on_released(&world->oracle, &node->disk, node->released_lsn, action->commit_lsn);
        node->released_lsn = MAX_OF(node->released_lsn, action->commit_lsn);
        break;
    }
}

static void feed_node(struct world *world, uint32_t n, const struct acceptor_event *event)
{
    struct acceptor_actions actions;
    acceptor_step(&world->nodes[n].acceptor, event, &actions);
    for (size_t i = 0; i < actions.count; i++) {
        do_node_action(world, n, &actions.items[i]);
    }
    begin_disk_work(world, n);
}

static void answer_read(
    struct world *world, uint32_t n, uint32_t conn, const struct read_wal *request, uint64_t id)
{
    struct node *node = &world->nodes[n];
    lsn_t end_lsn = LSN_NONE;
    struct read_wal_reply reply = {
        .begin_lsn = request->begin_lsn, .flush_lsn = node->acceptor.flush_lsn};
    err_t err = acceptor_readable_lsn(&node->acceptor, request->term, &end_lsn);
    if (err == ERR_OK && request->begin_lsn >= WAL_START && request->begin_lsn < end_lsn) {
        size_t size = MIN_OF(request->size, end_lsn - request->begin_lsn);
        size = 1 + prng_below(&world->work, MIN_OF(size, world->climate.read_max));
        reply.wal = bytes_of(node->disk.cache + (request->begin_lsn - WAL_START), size);
    }
    world->scratch.size = 0;
    if (err != ERR_OK) {
        MARK("sim.read.refused");
        struct error_reply error = {.code = err};
        FRAME_APPEND_MESSAGE(
            &world->scratch, error_reply, &error, .type = FRAME_ERROR, .channel = 1,
            .request_id = id);
    } else {
        FRAME_APPEND_MESSAGE(
            &world->scratch, read_wal_reply, &reply, .type = FRAME_READ_WAL_REPLY, .channel = 1,
            .request_id = id);
    }
    send_scratch(world, conn, /* to_node */ false);
}

#define DECODE(type, frame, message)                                                               \
    do {                                                                                           \
        struct reader in_ = reader_of((frame).payload);                                            \
        if (type##_decode(message, &in_) != ERR_OK) {                                              \
            oracle_fail(&world->oracle, "codec: " #type " does not decode");                       \
            return;                                                                                \
        }                                                                                          \
        if (world->chart != NULL) {                                                                \
            struct buf text_ = {0};                                                                \
            type##_print(message, &text_);                                                         \
            chart(world, "%s", buf_cstr(&text_));                                                  \
            buf_deinit(&text_);                                                                    \
        }                                                                                          \
    } while (0)

static bool take_frame(struct world *world, const struct sim_event *event, struct frame *ret_frame)
{
    size_t size = 0;
    struct bytes bytes = bytes_of(world->arena + event->frame.offset, event->frame.size);
    world->digest = hash64(bytes.data, bytes.size, world->digest + event->conn);
    if (frame_parse(bytes, ret_frame, &size, NULL) != ERR_OK || size != bytes.size) {
        oracle_fail(&world->oracle, "codec: a frame does not parse");
        return false;
    }
    return true;
}

static void deliver_to_node(struct world *world, const struct sim_event *event)
{
    struct node *node = &world->nodes[event->node];
    struct frame frame;
    if (!node->up || event->incarnation != node->incarnation ||
        world->conns[event->conn].server_closed || !take_frame(world, event, &frame)) {
        return;
    }
    chart(
        world, "p%u -> s%u  connection %u%s", world->conns[event->conn].compute, event->node,
        event->conn, world->conns[event->conn].client_closed ? " (old)" : "");
    struct acceptor_event input = {
        .from = {
            .proposer_id = 1 + world->conns[event->conn].compute_incarnation,
            .connection = event->conn + 1}};
    if (frame.type == FRAME_VOTE_REQUEST) {
        struct vote_request vote;
        DECODE(vote_request, frame, &vote);
        input.kind = ACCEPTOR_VOTE_REQUESTED;
        input.vote = &vote;
        feed_node(world, event->node, &input);
    } else if (frame.type == FRAME_ELECTED) {
        struct elected elected;
        DECODE(elected, frame, &elected);
        input.kind = ACCEPTOR_ELECTED;
        input.elected = &elected;
        feed_node(world, event->node, &input);
    } else if (frame.type == FRAME_APPEND) {
        struct append append;
        DECODE(append, frame, &append);
        input.kind = ACCEPTOR_APPEND_REQUESTED;
        input.append = &append;
        feed_node(world, event->node, &input);
    } else if (frame.type == FRAME_READ_WAL) {
        struct read_wal request;
        DECODE(read_wal, frame, &request);
        answer_read(world, event->node, event->conn, &request, frame.request_id);
    }
}

static void crash_node(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    if (!node->up) {
        return;
    }
    MARK("sim.node.crashed");
    chart(world, "s%u crashes", n);
    node->up = false;
    disk_crash(&node->disk, &world->crash);
    for (uint32_t i = 0; i < world->conns_count; i++) {
        struct conn *conn = &world->conns[i];
        if (conn->node == n && conn->node_incarnation == node->incarnation) {
            conn->server_closed = true;
            close_client(world, i, latency_us(world, conn->compute, n));
        }
    }
    node->incarnation++;
}

static void restart_node(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    if (node->up) {
        return;
    }
    struct acceptor_state state;
    struct errmsg msg;
    lsn_t end_lsn = LSN_NONE;
    disk_recover(&node->disk, &state, &end_lsn);
    chart(
        world, "s%u restarts: term %" PRIu64 " log term %" PRIu64 " end +%" PRIu64, n, state.term,
        term_history_last_term(&state.history), end_lsn - WAL_START);
    if (state.term < node->promised) {
        oracle_fail(&world->oracle, "s%u forgot the term that it promised", n);
    }
    if (term_history_last_term(&state.history) == node->acked_term &&
        end_lsn < node->acked_record_lsn) {
        oracle_fail(&world->oracle, "s%u lost WAL that it had acknowledged", n);
    }
    err_t err = acceptor_init(&node->acceptor, &state, end_lsn, end_lsn, &msg);
    if (err != ERR_OK) {
        oracle_fail(&world->oracle, "s%u cannot start: %s", n, msg.text);
        return;
    }
    node->released_lsn = state.commit_lsn;
    node->up = true;
}

/* ---- walproposers ---- */

static void arm_tick(struct world *world, uint32_t c)
{
    struct compute *compute = &world->computes[c];
    uint64_t deadline_ms = proposer_deadline_ms(&compute->proposer);
    if (deadline_ms == UINT64_MAX) {
        return;
    }
    uint64_t at_us = MAX_OF(deadline_ms * 1000, world->now_us + 100);
    if (compute->tick_us > world->now_us && compute->tick_us <= at_us) {
        return; /* an earlier one will look again */
    }
    compute->tick_us = at_us;
    schedule(
        world, at_us - world->now_us,
        (struct sim_event){.kind = EV_TICK, .compute = c, .incarnation = compute->incarnation});
}

static void want_local_wal(struct world *world, uint32_t c)
{
    struct compute *compute = &world->computes[c];
    if (compute->local_due || !proposer_wants_wal(&compute->proposer)) {
        return;
    }
    compute->local_due = true;
    uint64_t mean_us = world->healing ? 200 : world->climate.local_us;
    schedule(
        world, prng_below(&world->work, 2 * mean_us),
        (struct sim_event){
            .kind = EV_LOCAL_WAL, .compute = c, .incarnation = compute->incarnation});
}

static void on_committed(struct world *world, uint32_t c, lsn_t lsn)
{
    struct compute *compute = &world->computes[c];
    const struct disk *disks[NODES];
    for (int i = 0; i < NODES; i++) {
        disks[i] = &world->nodes[i].disk;
    }
    chart(
        world, "p%u commits +%" PRIu64 " in term %" PRIu64, c, lsn - WAL_START,
        compute->proposer.term);
    lsn_t begin_lsn = compute->committed_lsn;
    oracle_on_committed(&world->oracle, compute->proposer.term, begin_lsn, lsn, disks);
    compute->committed_lsn = lsn;
}

static void on_synced(struct world *world, uint32_t c, lsn_t lsn)
{
    struct compute *compute = &world->computes[c];
    if (world->oracle.commit_lsn < lsn) {
        oracle_fail(&world->oracle, "p%u reports a sync that nobody committed", c);
    }
    if (world->healing && compute->proposer.options.sync) {
        MARK("sim.healing.synced");
        chart(world, "p%u has synced", c);
        world->heal_sync = false;
        world->synced_lsn = lsn;
        schedule(
            world, 1,
            (struct sim_event){.kind = EV_KILL, .compute = c, .incarnation = compute->incarnation});
    }
}

/* Postgres starts: its first record follows the last one in the log. */
static void on_ready(struct world *world, uint32_t c, lsn_t lsn)
{
    struct compute *compute = &world->computes[c];
    chart(world, "p%u is ready at +%" PRIu64, c, lsn - WAL_START);
    if (world->synced_lsn != LSN_NONE && world->synced_lsn != lsn) {
        oracle_fail(
            &world->oracle, "the log ended at +%" PRIu64 " in a sync, now at +%" PRIu64,
            world->synced_lsn - WAL_START, lsn - WAL_START);
    }
    compute->ready = true;
    compute->generated_lsn = compute->wal_lsn = compute->wal_record_lsn = lsn;
    compute->link = 0;
    const uint8_t *wal = world->nodes[compute->proposer.donor].disk.platter;
    lsn_t at_lsn = WAL_START;
    for (size_t size; (size = record_size_at(wal, at_lsn, lsn)) > 0; at_lsn += size) {
        compute->link = (uint16_t)record_crc(wal + (at_lsn - WAL_START));
    }
}

/* The driver reads records out of the bytes that repair a safekeeper, to know where they end. */
static lsn_t repair_record_lsn(
    struct compute *compute, uint64_t id, const struct read_wal_reply *reply)
{
    for (uint32_t n = 0; n < NODES; n++) {
        const struct proposer_peer *peer = &compute->proposer.peers[n];
        if (peer->read_id == id && reply->begin_lsn == peer->sent_lsn) {
            /* With a gap before it (sent from the window) the bytes cannot be read as records. */
            bool goes_on = compute->repair_end_lsn[n] == reply->begin_lsn;
            if (!goes_on && reply->begin_lsn != peer->stream_lsn) {
                compute->repair_end_lsn[n] = LSN_NONE;
                return LSN_NONE;
            }
            if (reply->begin_lsn == peer->stream_lsn) {
                compute->repair_begin_lsn[n] = peer->stream_lsn;
            }
            size_t offset = reply->begin_lsn - WAL_START;
            memcpy(compute->repair[n] + offset, reply->wal.data, reply->wal.size);
            compute->repair_end_lsn[n] = reply->begin_lsn + reply->wal.size;
            return record_end_before(
                compute->repair[n], compute->repair_begin_lsn[n], compute->repair_end_lsn[n]);
        }
    }
    return LSN_NONE;
}

static void send_append(
    struct world *world, uint32_t c, uint32_t conn, const struct proposer_action *action)
{
    struct append append = action->append;
    if (append.wal.size > 0 && append.wal.data == NULL) {
        append.wal.data = world->computes[c].wal + (append.begin_lsn - WAL_START);
    }
    FRAME_APPEND_MESSAGE(&world->scratch, append, &append, .type = FRAME_APPEND, .channel = 1);
    send_scratch(world, conn, /* to_node */ true);
}

static void send_elected(struct world *world, uint32_t conn, const struct proposer_action *action)
{
    struct elected elected = {
        .generation = action->elected.generation,
        .term = action->elected.term,
        .stream_lsn = action->elected.stream_lsn,
        .history = *action->elected.history,
    };
    FRAME_APPEND_MESSAGE(&world->scratch, elected, &elected, .type = FRAME_ELECTED, .channel = 1);
    send_scratch(world, conn, /* to_node */ true);
}

static void do_compute_action(struct world *world, uint32_t c, const struct proposer_action *action)
{
    struct compute *compute = &world->computes[c];
    uint32_t conn = compute->conn[action->peer] - 1;
    world->scratch.size = 0;
    switch (action->kind) {
    case PROPOSER_SEND_VOTE_REQUEST:
        FRAME_APPEND_MESSAGE(
            &world->scratch, vote_request, &action->vote, .type = FRAME_VOTE_REQUEST, .channel = 1);
        send_scratch(world, conn, /* to_node */ true);
        break;
    case PROPOSER_SEND_ELECTED: send_elected(world, conn, action); break;
    case PROPOSER_SEND_APPEND: send_append(world, c, conn, action); break;
    case PROPOSER_SEND_READ_WAL:
        FRAME_APPEND_MESSAGE(
            &world->scratch, read_wal, &action->read.request, .type = FRAME_READ_WAL, .channel = 1,
            .request_id = action->read.id);
        send_scratch(world, conn, /* to_node */ true);
        break;
    case PROPOSER_CLOSE:
        chart(world, "p%u closes connection %u: %s", c, conn, action->why);
        close_client(world, conn, 1);
        break;
    case PROPOSER_READY: on_ready(world, c, action->lsn); break;
    case PROPOSER_SYNCED: on_synced(world, c, action->lsn); break;
    case PROPOSER_COMMITTED: on_committed(world, c, action->lsn); break;
    case PROPOSER_STEP_DOWN:
        chart(world, "p%u is deposed by term %" PRIu64, c, action->term);
        schedule(
            world, 1 + prng_below(&world->work, 20000),
            (struct sim_event){.kind = EV_KILL, .compute = c, .incarnation = compute->incarnation});
        break;
    }
}

static void feed_compute(struct world *world, uint32_t c, struct proposer_event *event)
{
    struct compute *compute = &world->computes[c];
    struct proposer_actions actions;
    enum proposer_phase before = compute->proposer.phase;
    term_t before_term = compute->proposer.term;
    event->now_ms = world->now_us / 1000;
    event->entropy = prng_next(&world->net);
    do {
        proposer_step(&compute->proposer, event, &actions);
        if (compute->proposer.phase == PROPOSER_ELECTED &&
            (before != PROPOSER_ELECTED || before_term != compute->proposer.term)) {
            chart(
                world, "p%u wins term %" PRIu64 " from +%" PRIu64 ", donor s%u", c,
                compute->proposer.term, compute->proposer.term_start_lsn - WAL_START,
                compute->proposer.donor);
            oracle_on_won(
                &world->oracle, &compute->proposer, &world->nodes[compute->proposer.donor].disk);
            compute->committed_lsn = WAL_START;
        }
        before = compute->proposer.phase;
        before_term = compute->proposer.term;
        for (size_t i = 0; i < actions.count; i++) {
            do_compute_action(world, c, &actions.items[i]);
        }
        event->kind = PROPOSER_CONTINUE;
    } while (actions.more);
    arm_tick(world, c);
    want_local_wal(world, c);
}

static void check_stepped_down(struct world *world, uint32_t c, term_t seen, term_t before)
{
    if (seen > before && world->computes[c].proposer.phase == PROPOSER_ELECTED) {
        oracle_fail(
            &world->oracle, "p%u goes on in term %" PRIu64 " after it saw term %" PRIu64, c, before,
            seen);
    }
}

static void deliver_to_compute(struct world *world, const struct sim_event *event)
{
    struct compute *compute = &world->computes[event->compute];
    struct conn *conn = &world->conns[event->conn];
    struct frame frame;
    if (!compute->alive || event->incarnation != compute->incarnation ||
        (conn->client_closed && !world->climate.old_bytes) || !take_frame(world, event, &frame)) {
        return;
    }
    bool current = compute->conn[event->node] == event->conn + 1;
    term_t before = compute->proposer.term;
    chart(
        world, "p%u <- s%u  connection %u%s", event->compute, event->node, event->conn,
        current ? "" : " (old)");
    struct proposer_event input = {.peer = event->node, .connection = event->conn + 1};
    if (frame.type == FRAME_VOTE_REPLY) {
        struct vote_reply vote;
        DECODE(vote_reply, frame, &vote);
        input.kind = PROPOSER_VOTE_REPLY;
        input.vote = &vote;
        feed_compute(world, event->compute, &input);
        if (current && conn->client_closed == false) {
            check_stepped_down(world, event->compute, vote.term, before);
        }
    } else if (frame.type == FRAME_APPEND_REPLY) {
        struct append_reply appended;
        DECODE(append_reply, frame, &appended);
        input.kind = PROPOSER_APPEND_REPLY;
        input.appended = &appended;
        feed_compute(world, event->compute, &input);
        if (current && conn->client_closed == false) {
            check_stepped_down(world, event->compute, appended.term, before);
        }
    } else if (frame.type == FRAME_READ_WAL_REPLY || frame.type == FRAME_ERROR) {
        struct read_wal_reply reply = {0};
        input.kind = PROPOSER_READ_WAL_FAILED;
        if (frame.type == FRAME_READ_WAL_REPLY) {
            DECODE(read_wal_reply, frame, &reply);
            input.kind = PROPOSER_READ_WAL_REPLY;
        }
        input.read.id = frame.request_id;
        input.read.reply = &reply;
        input.read.record_lsn =
            reply.wal.size == 0 ? LSN_NONE : repair_record_lsn(compute, frame.request_id, &reply);
        feed_compute(world, event->compute, &input);
    }
}

/* A new record behind the last one; what it says depends on who writes it. */
static void generate_record(struct world *world, struct compute *compute)
{
    size_t size =
        RECORD_SIZE_MIN + 8 * prng_below(&world->work, (RECORD_SIZE_MAX - RECORD_SIZE_MIN) / 8 + 1);
    lsn_t limit_lsn = WAL_LIMIT - WAL_RESERVE;
    if (world->healing) {
        limit_lsn = MIN_OF(WAL_LIMIT, compute->proposer.term_start_lsn + WAL_RESERVE / 8);
    }
    if (compute->generated_lsn + size > limit_lsn) {
        return;
    }
    uint8_t *record = compute->wal + (compute->generated_lsn - WAL_START);
    record_write(
        record, size, compute->link, (uint64_t)compute->incarnation << 32 | ++compute->counter);
    compute->link = (uint16_t)record_crc(record);
    compute->generated_lsn += size;
}

static void grow_local_wal(struct world *world, uint32_t c)
{
    struct compute *compute = &world->computes[c];
    compute->local_due = false;
    if (!proposer_wants_wal(&compute->proposer)) {
        return;
    }
    uint64_t size = 1 + prng_below(&world->work, world->climate.chunk_max);
    while (compute->generated_lsn < compute->wal_lsn + size) {
        lsn_t before_lsn = compute->generated_lsn;
        generate_record(world, compute);
        if (compute->generated_lsn == before_lsn) {
            break;
        }
    }
    lsn_t end_lsn = MIN_OF(compute->wal_lsn + size, compute->generated_lsn);
    if (one_in(&world->work, 2) || world->healing) {
        end_lsn = compute->generated_lsn; /* most flushes end with a record */
    }
    if (end_lsn <= compute->wal_lsn) {
        return;
    }
    compute->wal_lsn = end_lsn;
    compute->wal_record_lsn = record_end_before(compute->wal, compute->wal_record_lsn, end_lsn);
    chart(
        world, "p%u writes WAL up to +%" PRIu64 ", record end +%" PRIu64, c, end_lsn - WAL_START,
        compute->wal_record_lsn - WAL_START);
    oracle_on_written(&world->oracle, compute->proposer.term, compute->wal, compute->generated_lsn);
    struct proposer_event event = {
        .kind = PROPOSER_LOCAL_WAL,
        .local = {.end_lsn = end_lsn, .record_lsn = compute->wal_record_lsn}};
    feed_compute(world, c, &event);
}

static void start_compute(struct world *world, uint32_t c)
{
    struct compute *compute = &world->computes[c];
    if (compute->alive) {
        return;
    }
    compute->alive = true;
    compute->ready = compute->local_due = false;
    compute->tick_us = 0;
    memset(compute->conn, 0, sizeof(compute->conn));
    memset(compute->repair_end_lsn, 0, sizeof(compute->repair_end_lsn));
    bool foreign = world->climate.foreigner && c == COMPUTES - 1;
    struct proposer_options options = {
        .membership =
            {.generation = foreign ? GENERATION + 1 : GENERATION,
             .count = NODES,
             .members = {1, 2, 3}},
        .proposer_id = 1 + compute->incarnation,
        .sync =
            world->healing ? world->heal_sync : one_in(&world->work, world->climate.sync_one_in),
        .election_timeout_ms = 20,
        .backoff_max_ms = 20,
        .heartbeat_ms = 10,
        .window_max = world->climate.window_max,
        .inflight_max = world->climate.inflight_max,
    };
    proposer_init(&compute->proposer, &options);
    chart(world, "p%u starts%s", c, options.sync ? " to sync" : "");
    for (uint32_t n = 0; n < NODES; n++) {
        connect_node(world, c, n);
    }
}

static void kill_compute(struct world *world, uint32_t c)
{
    struct compute *compute = &world->computes[c];
    if (!compute->alive) {
        return;
    }
    chart(world, "p%u is killed", c);
    compute->alive = false;
    for (uint32_t n = 0; n < NODES; n++) {
        if (compute->conn[n] != 0) {
            close_client(world, compute->conn[n] - 1, 0);
        }
    }
    compute->incarnation += COMPUTES; /* never the same as another's */
}

static void on_conn_down(struct world *world, const struct sim_event *event)
{
    struct compute *compute = &world->computes[event->compute];
    uint32_t n = world->conns[event->conn].node;
    if (!compute->alive || event->incarnation != compute->incarnation ||
        compute->conn[n] != event->conn + 1) {
        return;
    }
    struct proposer_event down = {
        .kind = PROPOSER_PEER_DOWN, .peer = n, .connection = event->conn + 1};
    compute->conn[n] = 0;
    feed_compute(world, event->compute, &down);
    schedule(
        world, prng_below(&world->net, 3000),
        (struct sim_event){
            .kind = EV_RECONNECT,
            .node = n,
            .compute = event->compute,
            .incarnation = compute->incarnation});
}

static void on_connect(struct world *world, const struct sim_event *event)
{
    struct conn *conn = &world->conns[event->conn];
    struct node *node = &world->nodes[event->node];
    if (conn->client_closed) {
        conn->server_closed = true;
        return;
    }
    uint64_t delay_us = latency_us(world, conn->compute, event->node);
    if (!node->up) {
        conn->server_closed = true;
        close_client(world, event->conn, delay_us);
        return;
    }
    conn->node_incarnation = node->incarnation;
    conn->last_to_compute_us = world->now_us + delay_us;
    schedule(
        world, delay_us,
        (struct sim_event){
            .kind = EV_UP,
            .conn = event->conn,
            .node = event->node,
            .compute = conn->compute,
            .incarnation = conn->compute_incarnation,
            .hello_term = node->acceptor.state.term});
}

static void on_conn_up(struct world *world, const struct sim_event *event)
{
    struct compute *compute = &world->computes[event->compute];
    if (!compute->alive || event->incarnation != compute->incarnation ||
        world->conns[event->conn].client_closed) {
        return;
    }
    struct proposer_event up = {
        .kind = PROPOSER_PEER_UP,
        .peer = event->node,
        .connection = event->conn + 1,
        .hello_term = event->hello_term};
    feed_compute(world, event->compute, &up);
}

/* ---- a schedule ---- */

static void heal(struct world *world)
{
    chart(world, "---- healing");
    world->healing = true;
    world->heal_sync = world->seed % 2 == 0;
    for (uint32_t c = 0; c < COMPUTES; c++) {
        kill_compute(world, c);
    }
    for (uint32_t n = 0; n < NODES; n++) {
        if (world->nodes[n].up && world->nodes[n].acceptor.phase == ACCEPTOR_FAILED) {
            crash_node(world, n);
        }
        restart_node(world, n);
    }
    world->climate.window_max = 4096;
    world->climate.read_max = WAL_SIZE;
    world->climate.inflight_max = 4096;
    start_compute(world, 0);
}

static bool is_healed(const struct world *world)
{
    const struct compute *compute = &world->computes[0];
    lsn_t lsn = compute->proposer.commit_lsn;
    if (!compute->ready || compute->wal_lsn == compute->proposer.term_start_lsn ||
        compute->wal_lsn != compute->generated_lsn || lsn != compute->wal_lsn) {
        return false;
    }
    for (int n = 0; n < NODES; n++) {
        if (world->nodes[n].acceptor.state.commit_lsn != lsn) {
            return false;
        }
    }
    return true;
}

static void dispatch(struct world *world, const struct sim_event *event)
{
    struct node *node = &world->nodes[event->node];
    struct compute *compute = &world->computes[event->compute];
    bool node_lives = node->up && node->incarnation == event->incarnation;
    bool compute_lives = compute->alive && compute->incarnation == event->incarnation;
    struct acceptor_event input = {.kind = ACCEPTOR_PERSIST_WANTED};
    switch (event->kind) {
    case EV_CONNECT: on_connect(world, event); break;
    case EV_UP: on_conn_up(world, event); break;
    case EV_DOWN: on_conn_down(world, event); break;
    case EV_TO_NODE: deliver_to_node(world, event); break;
    case EV_TO_COMPUTE: deliver_to_compute(world, event); break;
    case EV_STATE_SYNCED:
        if (node_lives) {
            input.kind = ACCEPTOR_STATE_PERSISTED;
            input.sequence = disk_end_state(&node->disk);
            feed_node(world, event->node, &input);
        }
        break;
    case EV_WAL_SYNCED:
        if (node_lives) {
            disk_end_sync(&node->disk);
            input.kind = ACCEPTOR_WAL_FLUSHED;
            input.wal.lsn = node->disk.sync_lsn;
            input.wal.epoch = node->disk.sync_epoch;
            feed_node(world, event->node, &input);
        }
        break;
    case EV_WAL_TRUNCATED:
        if (node_lives) {
            disk_end_truncate(&node->disk);
            input.kind = ACCEPTOR_WAL_TRUNCATED;
            input.wal.epoch = node->disk.truncate_epoch;
            feed_node(world, event->node, &input);
        }
        break;
    case EV_RECONNECT:
        if (compute_lives) {
            connect_node(world, event->compute, event->node);
        }
        break;
    case EV_TICK:
        if (compute_lives && world->now_us >= compute->tick_us) {
            struct proposer_event tick = {.kind = PROPOSER_TICK};
            compute->tick_us = 0;
            feed_compute(world, event->compute, &tick);
        }
        break;
    case EV_LOCAL_WAL:
        if (compute_lives) {
            grow_local_wal(world, event->compute);
        }
        break;
    case EV_CRASH:
        if (!world->healing) {
            uint32_t n = (uint32_t)prng_below(&world->crash, NODES);
            crash_node(world, n);
            schedule(
                world, prng_below(&world->crash, 10000),
                (struct sim_event){.kind = EV_RESTART, .node = n});
            schedule(
                world, prng_below(&world->crash, 2 * world->climate.crash_one_in),
                (struct sim_event){.kind = EV_CRASH});
        }
        break;
    case EV_RESTART:
        if (!node->up) {
            restart_node(world, event->node);
        }
        break;
    case EV_FAIL_STORAGE:
        if (!world->healing && node->up) {
            chart(world, "s%u: its storage fails", event->node);
            input.kind = ACCEPTOR_STORAGE_FAILED;
            feed_node(world, event->node, &input);
        }
        break;
    case EV_PERSIST_WANTED:
        if (node->up) {
            feed_node(world, event->node, &input);
        }
        break;
    case EV_KILL:
        if (compute_lives) {
            kill_compute(world, event->compute);
            schedule(
                world, 1 + prng_below(&world->work, 10000),
                (struct sim_event){.kind = EV_START, .compute = event->compute});
        }
        break;
    case EV_START:
        if (world->healing && event->compute != 0) {
            break;
        }
        start_compute(world, event->compute);
        if (!world->healing) {
            schedule(
                world, prng_below(&world->work, world->climate.life_us),
                (struct sim_event){
                    .kind = EV_KILL,
                    .compute = event->compute,
                    .incarnation = compute->incarnation});
        }
        break;
    case EV_HEAL: heal(world); break;
    }
}

static uint64_t pick(struct prng *prng, const uint64_t *choices, size_t count)
{
    return choices[prng_below(prng, count)];
}
#define PICK(prng, ...)                                                                            \
    pick(                                                                                          \
        (prng), (const uint64_t[]){__VA_ARGS__},                                                   \
        sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void draw_climate(struct world *world, struct prng *swarm)
{
    struct climate *climate = &world->climate;
    climate->computes = 1 + (uint32_t)prng_below(swarm, COMPUTES);
    for (int c = 0; c < COMPUTES; c++) {
        for (int n = 0; n < NODES; n++) {
            climate->latency_us[c][n] = PICK(swarm, 100, 100, 300, 1000, 8000);
        }
    }
    for (int n = 0; n < NODES; n++) {
        climate->disk_us[n] = PICK(swarm, 30, 100, 100, 1000, 5000);
    }
    climate->reset_one_in = PICK(swarm, 0, 10, 30, 100, 300);
    climate->crash_one_in = PICK(swarm, 0, 3000, 10000, 30000);
    climate->local_us = PICK(swarm, 300, 1000, 3000);
    climate->chunk_max = PICK(swarm, 1, 24, 64, 400);
    climate->read_max = PICK(swarm, 16, 64, 4096);
    climate->window_max = PICK(swarm, 128, 512, 4096);
    climate->inflight_max = PICK(swarm, 64, 512, 4096);
    climate->old_bytes = one_in(swarm, 2);
    climate->sync_one_in = PICK(swarm, 0, 3, 2);
    climate->sleeper = one_in(swarm, 32);
    climate->foreigner = one_in(swarm, 16);
    climate->chaos_us = PICK(swarm, 15000, 30000, 60000);
    climate->life_us = climate->chaos_us;
    if (one_in(swarm, 4)) { /* one rival after the other, each with a long repair before it */
        climate->computes = COMPUTES;
        climate->chunk_max = 400;
        climate->read_max = 16;
        climate->life_us = 15000;
        climate->crash_one_in = PICK(swarm, 0, 30000);
        climate->reset_one_in = PICK(swarm, 0, 300);
    }
}

/*
 * Two safekeepers saw so many terms that the oldest fell out of their histories, and nothing was
 * written in them; the third slept, with a record that was never committed.
 */
static void put_to_sleep(struct node *node, bool sleeps)
{
    struct acceptor_state *state = &node->disk.slots[1].state;
    if (sleeps) {
        record_write(node->disk.platter, 2 * RECORD_SIZE_MIN, 0, UINT64_MAX);
        return;
    }
    for (term_t term = 1; term <= TERM_HISTORY_MAX; term++) {
        term_history_push(&state->history, term, WAL_START);
        state->term = term;
    }
}

static void begin(struct world *world, uint64_t seed, FILE *chart_file)
{
    struct prng swarm;
    prng_init(&swarm, seed);
    prng_init(&world->net, seed ^ 0x6e6574);
    prng_init(&world->disk_prng, seed ^ 0x6469736b);
    prng_init(&world->crash, seed ^ 0x6372617368);
    prng_init(&world->work, seed ^ 0x776f726b);
    world->seed = seed;
    world->chart = chart_file;
    world->now_us = world->order = world->steps = world->digest = 0;
    world->healing = world->heal_sync = false;
    world->synced_lsn = LSN_NONE;
    world->pending = world->conns_count = world->arena_used = 0;
    oracle_init(&world->oracle);
    draw_climate(world, &swarm);
    for (uint32_t n = 0; n < NODES; n++) {
        struct node *node = &world->nodes[n];
        disk_init(&node->disk);
        node->disk.slots[1].valid = true;
        acceptor_state_init(&node->disk.slots[1].state, GENERATION, WAL_START);
        if (world->climate.sleeper) {
            put_to_sleep(node, n == NODES - 1);
        }
        node->up = false;
        node->incarnation = 0;
        node->promised = node->acked_term = 0;
        node->acked_record_lsn = node->released_lsn = node->matched_lsn = WAL_START;
        restart_node(world, n);
    }
    for (uint32_t c = 0; c < COMPUTES; c++) {
        world->computes[c].alive = false;
        world->computes[c].incarnation = c;
        world->computes[c].counter = 0;
        if (c < world->climate.computes) {
            schedule(
                world, prng_below(&world->work, 5000) * c,
                (struct sim_event){.kind = EV_START, .compute = c});
        }
    }
    if (world->climate.crash_one_in > 0) {
        schedule(
            world, prng_below(&world->crash, 2 * world->climate.crash_one_in),
            (struct sim_event){.kind = EV_CRASH});
    }
    if (one_in(&world->crash, 8)) {
        uint32_t n = (uint32_t)prng_below(&world->crash, NODES);
        uint64_t at_us = prng_below(&world->crash, world->climate.chaos_us);
        schedule(world, at_us, (struct sim_event){.kind = EV_FAIL_STORAGE, .node = n});
    }
    schedule(
        world, world->climate.chaos_us / 2,
        (struct sim_event){.kind = EV_PERSIST_WANTED, .node = (uint32_t)(seed % NODES)});
    schedule(world, world->climate.chaos_us, (struct sim_event){.kind = EV_HEAL});
}

const char *world_run(struct world *world, uint64_t seed, FILE *chart_file)
{
    begin(world, seed, chart_file);
    bool healed = false;
    while (world->pending > 0 && !healed && world->oracle.violation[0] == '\0') {
        struct sim_event event = next_event(world);
        dispatch(world, &event);
        world->digest = hash64(&event.order, sizeof(event.order), world->digest + event.at_us);
        world->steps++;
        healed = world->healing && is_healed(world);
        if (!healed &&
            (world->steps > STEPS_MAX || world->now_us > world->climate.chaos_us + HEAL_US)) {
            oracle_fail(
                &world->oracle,
                "liveness: nothing new is committed everywhere after healing"
                " (%" PRIu64 " steps)",
                world->steps);
        }
    }
    for (uint32_t a = 0; a < NODES; a++) {
        for (uint32_t b = a + 1; b < NODES; b++) {
            struct node *x = &world->nodes[a], *y = &world->nodes[b];
            oracle_check_logs_match(&world->oracle, &x->acceptor, &x->disk, &y->acceptor, &y->disk);
        }
    }
    if (!healed) {
        oracle_fail(&world->oracle, "liveness: nothing happens any more");
    }
    return world->oracle.violation[0] == '\0' ? NULL : world->oracle.violation;
}

struct world *world_create(void)
{
    return MEM_NEW(struct world);
}

void world_destroy(struct world *world)
{
    buf_deinit(&world->scratch);
    mem_free(world);
}
