#include "tests/sim/node.h"

#include "common/base/mark.h"
#include "safekeeper/consensus/term_history.h"
#include "tests/sim/network.h"
#include "tests/sim/schedule.h"

static void begin_disk_work(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    uint64_t base_us = world->healing ? 50 : world->climate.disk_us[n];
    struct sim_event event = {.node = n, .incarnation = node->incarnation};
    if (disk_begin_truncate(&node->disk)) {
        event.kind = EV_WAL_TRUNCATED;
        schedule_add(world, base_us / 2 + tape_below(&world->tape, TAPE_DISK, base_us + 1), event);
    }
    if (disk_begin_sync(&node->disk, node->acceptor.received_record_lsn)) {
        event.kind = EV_WAL_SYNCED;
        schedule_add(world, base_us / 2 + tape_below(&world->tape, TAPE_DISK, base_us + 1), event);
    }
    if (disk_begin_state(&node->disk)) {
        event.kind = EV_STATE_SYNCED;
        schedule_add(world, base_us / 2 + tape_below(&world->tape, TAPE_DISK, base_us + 1), event);
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
    network_send(world, conn, /* to_node */ false);
}

static void refuse(struct world *world, uint32_t index, const char *why)
{
    struct conn *conn = &world->conns[index];
    schedule_chart(world, "s%u refuses connection %u: %s", conn->node, index, why);
    conn->server_closed = true;
    network_close(world, index, network_latency_us(world, conn->compute, conn->node));
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
        network_send(world, conn, /* to_node */ false);
        break;
    case ACCEPTOR_SEND_APPENDED: send_appended(world, n, conn, &action->appended); break;
    case ACCEPTOR_REFUSE: refuse(world, conn, action->refuse.why); break;
    case ACCEPTOR_RELEASE_COMMITTED:
        oracle_on_released(&world->oracle, &node->disk, node->released_lsn, action->commit_lsn);
        node->released_lsn = MAX_OF(node->released_lsn, action->commit_lsn);
        break;
    }
}

void node_feed(struct world *world, uint32_t n, const struct acceptor_event *event)
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
        if (!world->healing) {
            size = 1 + tape_below(&world->tape, TAPE_WORK, MIN_OF(size, world->climate.read_max));
        }
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
    network_send(world, conn, /* to_node */ false);
}

void node_deliver(struct world *world, const struct sim_event *event)
{
    struct node *node = &world->nodes[event->node];
    struct frame frame;
    if (!node->up || event->incarnation != node->incarnation ||
        world->conns[event->conn].server_closed || !network_take_frame(world, event, &frame)) {
        return;
    }
    schedule_chart(
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
        node_feed(world, event->node, &input);
    } else if (frame.type == FRAME_ELECTED) {
        struct elected elected;
        DECODE(elected, frame, &elected);
        input.kind = ACCEPTOR_ELECTED;
        input.elected = &elected;
        node_feed(world, event->node, &input);
    } else if (frame.type == FRAME_APPEND) {
        struct append append;
        DECODE(append, frame, &append);
        input.kind = ACCEPTOR_APPEND_REQUESTED;
        input.append = &append;
        node_feed(world, event->node, &input);
    } else if (frame.type == FRAME_READ_WAL) {
        struct read_wal request;
        DECODE(read_wal, frame, &request);
        answer_read(world, event->node, event->conn, &request, frame.request_id);
    }
}

/*
 * The fault atlas: one safekeeper at a time has lost what it may have acknowledged, so that of
 * everything committed an intact copy is left.
 */
static void maybe_rot(struct world *world, uint32_t n)
{
    struct node *other = world->rotten == 0 ? NULL : &world->nodes[world->rotten - 1];
    bool is_whole = other == NULL || (other->up && !acceptor_is_suspect(&other->acceptor));
    if (!world->healing && tape_one_in(&world->tape, TAPE_ROT, world->climate.rot_one_in) &&
        is_whole && disk_rot(&world->nodes[n].disk, &world->tape)) {
        MARK("sim.node.rotten");
        schedule_chart(world, "s%u: its last group is damaged", n);
        world->rotten = n + 1;
    }
}

void node_crash(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    if (!node->up) {
        return;
    }
    MARK("sim.node.crashed");
    schedule_chart(world, "s%u crashes", n);
    node->up = false;
    disk_crash(&node->disk, &world->tape);
    maybe_rot(world, n);
    for (uint32_t i = 0; i < world->conns_count; i++) {
        struct conn *conn = &world->conns[i];
        if (conn->node == n && conn->node_incarnation == node->incarnation) {
            conn->server_closed = true;
            network_close(world, i, network_latency_us(world, conn->compute, n));
        }
    }
    node->incarnation++;
}

void node_restart(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    if (node->up) {
        return;
    }
    struct acceptor_state state;
    struct errmsg msg;
    lsn_t end_lsn = LSN_NONE;
    disk_recover(&node->disk, &state, &end_lsn);
    schedule_chart(
        world, "s%u restarts: term %" PRIu64 " log term %" PRIu64 " end +%" PRIu64, n, state.term,
        term_history_last_term(&state.history), end_lsn - WAL_START);
    if (state.term < node->promised) {
        oracle_fail(&world->oracle, "s%u forgot the term that it promised", n);
    }
    if (term_history_last_term(&state.history) == node->acked_term &&
        end_lsn < node->acked_record_lsn) {
        if (world->rotten != n + 1 || state.suspect_lsn < node->acked_record_lsn) {
            oracle_fail(&world->oracle, "s%u lost WAL that it had acknowledged", n);
        }
        node->acked_record_lsn = node->matched_lsn = end_lsn;
    }
    err_t err = acceptor_init(&node->acceptor, &state, end_lsn, end_lsn, &msg);
    if (err != ERR_OK) {
        oracle_fail(&world->oracle, "s%u cannot start: %s", n, msg.text);
        return;
    }
    node->released_lsn = state.commit_lsn;
    node->up = true;
}
