#include "tests/sim/compute.h"

#include "common/base/mark.h"
#include "tests/sim/network.h"
#include "tests/sim/node.h"
#include "tests/sim/schedule.h"

/* The proposer takes this modulo a few milliseconds. */
#define ENTROPY_SIDES 64000
/* The core knows safekeepers by their index in its membership; `count`: it is no member. */
static uint32_t index_of(const struct compute *compute, uint32_t node)
{
    return membership_index(&compute->proposer.options.membership, node + 1);
}

static uint32_t node_of(const struct compute *compute, uint32_t index)
{
    return (uint32_t)compute->proposer.options.membership.members[index] - 1;
}

static void arm_tick(struct world *world, uint32_t c)
{
    struct compute *compute = &world->computes[c];
    uint64_t deadline_ms = proposer_deadline_ms(&compute->proposer);
    if (deadline_ms == UINT64_MAX) {
        return;
    }
    uint64_t at_us = MAX_OF(trouble_true_us(world, c, deadline_ms), world->now_us + 100);
    if (compute->tick_us > world->now_us && compute->tick_us <= at_us) {
        return; /* an earlier one will look again */
    }
    compute->tick_us = at_us;
    schedule_add(
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
    uint64_t delay_us = tape_below(&world->tape, TAPE_WORK, 2 * mean_us);
    schedule_add(
        world, MAX_OF(delay_us, 1), /* time passes on a tape that is used up, too */
        (struct sim_event){
            .kind = EV_LOCAL_WAL, .compute = c, .incarnation = compute->incarnation});
}

static void on_committed(struct world *world, uint32_t c, lsn_t lsn)
{
    struct compute *compute = &world->computes[c];
    schedule_chart(
        world, "p%u commits +%" PRIu64 " in term %" PRIu64, c, lsn - WAL_START,
        compute->proposer.term);
    lsn_t begin_lsn = compute->committed_lsn;
    oracle_on_committed(
        &world->oracle, compute->proposer.term, begin_lsn, lsn,
        &compute->proposer.options.membership, world->disks);
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
        schedule_chart(world, "p%u has synced", c);
        world->heal_sync = false;
        world->synced_lsn = lsn;
        schedule_add(
            world, 1,
            (struct sim_event){.kind = EV_KILL, .compute = c, .incarnation = compute->incarnation});
    }
}

/* Postgres starts: its first record follows the last one in the log. */
static void on_ready(struct world *world, uint32_t c, lsn_t lsn)
{
    struct compute *compute = &world->computes[c];
    schedule_chart(world, "p%u is ready at +%" PRIu64, c, lsn - WAL_START);
    if (world->synced_lsn != LSN_NONE && world->synced_lsn != lsn) {
        oracle_fail(
            &world->oracle, "the log ended at +%" PRIu64 " in a sync, now at +%" PRIu64,
            world->synced_lsn - WAL_START, lsn - WAL_START);
    }
    if (!compute->proposer.options.sync) {
        world->synced_lsn = LSN_NONE; /* from here on it writes */
    }
    compute->ready = true;
    compute->generated_lsn = compute->wal_lsn = compute->wal_record_lsn = lsn;
    compute->link = 0;
    uint32_t donor = node_of(compute, compute->proposer.donor);
    lsn_t begin_lsn = LSN_NONE, at_lsn = WAL_START;
    const uint8_t *wal = node_log_of_vote(&world->nodes[donor], compute->proposer.term, &begin_lsn);
    while (at_lsn < lsn) { /* what the donor has forgotten is committed */
        const uint8_t *from = at_lsn < begin_lsn ? world->oracle.wal : wal;
        size_t size = record_size_at(from, at_lsn, lsn);
        if (size == 0) {
            break;
        }
        compute->link = (uint16_t)record_crc(from + (at_lsn - WAL_START));
        at_lsn += size;
    }
}

/* The driver reads records out of the bytes that repair a safekeeper, to know where they end. */
static lsn_t repair_record_lsn(
    struct compute *compute, uint64_t id, const struct read_wal_reply *reply)
{
    for (uint32_t i = 0; i < compute->proposer.options.membership.count; i++) {
        const struct proposer_peer *peer = &compute->proposer.peers[i];
        uint32_t n = node_of(compute, i);
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
    if (trouble_is_nonsense(world)) {
        append.record_lsn = append.begin_lsn + append.wal.size + RECORD_SIZE_MIN;
    }
    if (append.wal.size > 0 && append.wal.data == NULL) {
        append.wal.data = world->computes[c].wal + (append.begin_lsn - WAL_START);
    }
    FRAME_APPEND_MESSAGE(&world->scratch, append, &append, .type = FRAME_APPEND, .channel = 1);
    network_send(world, conn, /* to_node */ true);
}

static void send_elected(struct world *world, uint32_t conn, const struct proposer_action *action)
{
    struct elected elected = {
        .generation = action->elected.generation,
        .term = action->elected.term,
        .stream_lsn = action->elected.stream_lsn,
        .history = *action->elected.history,
    };
    if (trouble_is_nonsense(world)) {
        elected.history.items[elected.history.count - 1].term++;
    }
    uint16_t type = action->elected.begins_anew ? FRAME_ELECTED_ANEW : FRAME_ELECTED;
    FRAME_APPEND_MESSAGE(&world->scratch, elected, &elected, .type = type, .channel = 1);
    network_send(world, conn, /* to_node */ true);
}

static void do_compute_action(struct world *world, uint32_t c, const struct proposer_action *action)
{
    struct compute *compute = &world->computes[c];
    uint32_t conn = compute->conn[node_of(compute, action->peer)] - 1;
    world->scratch.size = 0;
    switch (action->kind) {
    case PROPOSER_SEND_VOTE_REQUEST:
        FRAME_APPEND_MESSAGE(
            &world->scratch, vote_request, &action->vote, .type = FRAME_VOTE_REQUEST, .channel = 1);
        network_send(world, conn, /* to_node */ true);
        break;
    case PROPOSER_SEND_ELECTED: send_elected(world, conn, action); break;
    case PROPOSER_SEND_APPEND: send_append(world, c, conn, action); break;
    case PROPOSER_SEND_READ_WAL:
        FRAME_APPEND_MESSAGE(
            &world->scratch, read_wal, &action->read.request, .type = FRAME_READ_WAL, .channel = 1,
            .request_id = action->read.id);
        network_send(world, conn, /* to_node */ true);
        break;
    case PROPOSER_CLOSE:
        schedule_chart(world, "p%u closes connection %u: %s", c, conn, action->why);
        network_close(world, conn, 1);
        break;
    case PROPOSER_READY: on_ready(world, c, action->lsn); break;
    case PROPOSER_SYNCED: on_synced(world, c, action->lsn); break;
    case PROPOSER_COMMITTED: on_committed(world, c, action->lsn); break;
    case PROPOSER_STEP_DOWN:
        schedule_chart(world, "p%u is deposed by term %" PRIu64, c, action->term);
        schedule_add(
            world, 1 + tape_below(&world->tape, TAPE_WORK, 20000),
            (struct sim_event){.kind = EV_KILL, .compute = c, .incarnation = compute->incarnation});
        break;
    }
}

/* Memory is bounded whatever the others do: the window, and what one flush of Postgres adds. */
static void check_window(struct world *world, uint32_t c)
{
    const struct proposer *proposer = &world->computes[c].proposer;
    size_t window = proposer->window_end_lsn - proposer->window_begin_lsn;
    if (window > proposer->options.window_max + world->climate.chunk_max + RECORD_SIZE_MAX) {
        oracle_fail(
            &world->oracle, "memory: p%u keeps %zu bytes of WAL, the limit is %zu", c, window,
            proposer->options.window_max);
    }
}

static void feed(struct world *world, uint32_t c, struct proposer_event *event)
{
    struct compute *compute = &world->computes[c];
    struct proposer_actions actions;
    enum proposer_phase before = compute->proposer.phase;
    term_t before_term = compute->proposer.term;
    event->now_ms = trouble_clock_ms(world, c);
    event->entropy = tape_below(&world->tape, TAPE_NET, ENTROPY_SIDES);
    do {
        proposer_step(&compute->proposer, event, &actions);
        if (compute->proposer.phase == PROPOSER_ELECTED &&
            (before != PROPOSER_ELECTED || before_term != compute->proposer.term)) {
            schedule_chart(
                world, "p%u wins term %" PRIu64 " from +%" PRIu64 ", donor s%u", c,
                compute->proposer.term, compute->proposer.term_start_lsn - WAL_START,
                node_of(compute, compute->proposer.donor));
            lsn_t begin_lsn = LSN_NONE;
            const uint8_t *wal = node_log_of_vote(
                &world->nodes[node_of(compute, compute->proposer.donor)], compute->proposer.term,
                &begin_lsn);
            oracle_on_won(&world->oracle, &compute->proposer, wal, begin_lsn);
            compute->committed_lsn = WAL_START;
        }
        before = compute->proposer.phase;
        before_term = compute->proposer.term;
        for (size_t i = 0; i < actions.count; i++) {
            do_compute_action(world, c, &actions.items[i]);
        }
        event->kind = PROPOSER_CONTINUE;
    } while (actions.more);
    check_window(world, c);
    arm_tick(world, c);
    want_local_wal(world, c);
}

void compute_on_tick(struct world *world, uint32_t c)
{
    struct proposer_event tick = {.kind = PROPOSER_TICK};
    world->computes[c].tick_us = 0;
    feed(world, c, &tick);
}

static void check_stepped_down(struct world *world, uint32_t c, term_t seen, term_t before)
{
    if (seen > before && world->computes[c].proposer.phase == PROPOSER_ELECTED) {
        oracle_fail(
            &world->oracle, "p%u goes on in term %" PRIu64 " after it saw term %" PRIu64, c, before,
            seen);
    }
}

/* A frame that is whole. */
static void take_frame(struct world *world, const struct sim_event *event, struct frame frame)
{
    struct compute *compute = &world->computes[event->compute];
    struct conn *conn = &world->conns[event->conn];
    bool current = compute->conn[event->node] == event->conn + 1;
    term_t before = compute->proposer.term;
    schedule_chart(
        world, "p%u <- s%u  connection %u%s", event->compute, event->node, event->conn,
        current ? "" : " (old)");
    struct proposer_event input = {
        .peer = index_of(compute, event->node), .connection = event->conn + 1};
    if (frame.type == FRAME_VOTE_REPLY) {
        struct vote_reply vote;
        DECODE(vote_reply, frame, &vote);
        input.kind = PROPOSER_VOTE_REPLY;
        input.vote = &vote;
        feed(world, event->compute, &input);
        if (current && conn->client_closed == false) {
            check_stepped_down(world, event->compute, vote.term, before);
        }
    } else if (frame.type == FRAME_APPEND_REPLY) {
        struct append_reply appended;
        DECODE(append_reply, frame, &appended);
        input.kind = PROPOSER_APPEND_REPLY;
        input.appended = &appended;
        feed(world, event->compute, &input);
        if (current && conn->client_closed == false) {
            check_stepped_down(world, event->compute, appended.term, before);
        }
    } else if (frame.type == FRAME_READ_WAL_REPLY || frame.type == FRAME_ERROR) {
        struct read_wal_reply reply = {0};
        input.kind = PROPOSER_READ_WAL_FAILED;
        if (frame.type == FRAME_ERROR) {
            struct error_reply error;
            DECODE(error_reply, frame, &error);
            input.read.err = (err_t)error.code;
        }
        if (frame.type == FRAME_READ_WAL_REPLY) {
            DECODE(read_wal_reply, frame, &reply);
            input.kind = PROPOSER_READ_WAL_REPLY;
        }
        input.read.id = frame.request_id;
        input.read.reply = &reply;
        input.read.record_lsn =
            reply.wal.size == 0 ? LSN_NONE : repair_record_lsn(compute, frame.request_id, &reply);
        feed(world, event->compute, &input);
    } else {
        schedule_chart(world, "p%u closes connection %u: unknown", event->compute, event->conn);
        network_close(world, event->conn, 0);
    }
}

void compute_deliver(struct world *world, const struct sim_event *event)
{
    struct compute *compute = &world->computes[event->compute];
    const struct conn *conn = &world->conns[event->conn];
    struct frame frame;
    if (!compute->alive || event->incarnation != compute->incarnation ||
        (conn->client_closed && !world->climate.old_bytes)) {
        return;
    }
    network_receive(world, event);
    while (index_of(compute, event->node) < compute->proposer.options.membership.count &&
           network_take_frame(world, event, &frame)) {
        take_frame(world, event, frame);
    }
}

/* A new record behind the last one; what it says depends on who writes it. */
static void generate_record(struct world *world, struct compute *compute)
{
    size_t size =
        RECORD_SIZE_MIN +
        8 * tape_below(&world->tape, TAPE_WORK, (RECORD_SIZE_MAX - RECORD_SIZE_MIN) / 8 + 1);
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

void compute_grow_wal(struct world *world, uint32_t c)
{
    struct compute *compute = &world->computes[c];
    compute->local_due = false;
    if (!proposer_wants_wal(&compute->proposer)) {
        return;
    }
    uint64_t size = 1 + tape_below(&world->tape, TAPE_WORK, world->climate.chunk_max);
    while (compute->generated_lsn < compute->wal_lsn + size) {
        lsn_t before_lsn = compute->generated_lsn;
        generate_record(world, compute);
        if (compute->generated_lsn == before_lsn) {
            break;
        }
    }
    lsn_t end_lsn = MIN_OF(compute->wal_lsn + size, compute->generated_lsn);
    if (tape_one_in(&world->tape, TAPE_WORK, 2) || world->healing) {
        end_lsn = compute->generated_lsn; /* most flushes end with a record */
    }
    if (end_lsn <= compute->wal_lsn) {
        return;
    }
    compute->wal_lsn = end_lsn;
    compute->wal_record_lsn = record_end_before(compute->wal, compute->wal_record_lsn, end_lsn);
    schedule_chart(
        world, "p%u writes WAL up to +%" PRIu64 ", record end +%" PRIu64, c, end_lsn - WAL_START,
        compute->wal_record_lsn - WAL_START);
    oracle_on_written(&world->oracle, compute->proposer.term, compute->wal, compute->generated_lsn);
    struct proposer_event event = {
        .kind = PROPOSER_LOCAL_WAL,
        .local = {.end_lsn = end_lsn, .record_lsn = compute->wal_record_lsn}};
    feed(world, c, &event);
}

/* What its agent was told; it may have been a while ago. */
static struct membership membership_at_start(struct world *world, uint32_t c)
{
    struct membership membership = *changer_newest(world);
    if (world->climate.foreigner && c == COMPUTES - 1) {
        membership.generation++;
    }
    if (!world->healing && world->climate.stale_starts &&
        tape_one_in(&world->tape, TAPE_CHANGE, 2)) {
        uint64_t age =
            tape_below(&world->tape, TAPE_CHANGE, MIN_OF(world->changer.history_count, 4));
        MARK("sim.compute.stale_membership");
        membership = *changer_membership(world, membership.generation - (generation_t)age);
    }
    return membership;
}

/* Another release: it speaks more than we, or nothing that we do. */
static void choose_versions(struct world *world, struct compute *compute)
{
    compute->protocol_min = PROTOCOL_VERSION_MIN;
    compute->protocol_max = PROTOCOL_VERSION_MAX;
    if (world->healing || !tape_one_in(&world->tape, TAPE_WIRE, world->trouble.version_one_in)) {
        return;
    }
    uint16_t which = (uint16_t)tape_below(&world->tape, TAPE_WIRE, 3);
    MARK("sim.compute.version");
    compute->protocol_min = which == 2 ? PROTOCOL_VERSION_MAX + 1 : PROTOCOL_VERSION_MIN;
    compute->protocol_max = which == 0 ? PROTOCOL_VERSION_MIN : PROTOCOL_VERSION_MAX + 1;
}

static void connect_all(struct world *world, uint32_t c)
{
    const struct compute *compute = &world->computes[c];
    for (uint32_t i = 0; i < compute->proposer.options.membership.count; i++) {
        network_connect(world, c, node_of(compute, i));
    }
}

void compute_on_learn(struct world *world, const struct sim_event *event)
{
    uint32_t c = event->compute;
    struct compute *compute = &world->computes[c];
    struct proposer_event changed = {
        .kind = PROPOSER_MEMBERSHIP_CHANGED,
        .membership = changer_membership(world, event->generation)};
    if (!compute->alive || event->incarnation != compute->incarnation ||
        compute->proposer.phase == PROPOSER_DEPOSED) {
        return;
    }
    if (event->generation <= compute->proposer.options.membership.generation) {
        feed(world, c, &changed); /* no news */
        return;
    }
    MARK("sim.compute.learned");
    schedule_chart(world, "p%u learns of generation %u", c, event->generation);
    for (uint32_t n = 0; n < NODES_MAX; n++) {
        if (compute->conn[n] != 0) {
            uint32_t conn = compute->conn[n] - 1;
            compute->conn[n] = 0;
            network_close(world, conn, 0);
        }
    }
    memset(compute->repair_end_lsn, 0, sizeof(compute->repair_end_lsn));
    feed(world, c, &changed);
    compute->committed_lsn = WAL_START; /* all of it must be on the new quorum */
    connect_all(world, c);
}

void compute_start(struct world *world, uint32_t c)
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
    struct proposer_options options = {
        .membership = membership_at_start(world, c),
        .proposer_id = 1 + compute->incarnation,
        .sync = world->healing ? world->heal_sync
                               : tape_one_in(&world->tape, TAPE_WORK, world->climate.sync_one_in),
        .election_timeout_ms = 20,
        .backoff_max_ms = 20,
        .heartbeat_ms = 10,
        .window_max = world->climate.window_max,
        .inflight_max = world->climate.inflight_max,
    };
    proposer_init(&compute->proposer, &options);
    choose_versions(world, compute);
    schedule_chart(world, "p%u starts%s", c, options.sync ? " to sync" : "");
    connect_all(world, c);
}

void compute_kill(struct world *world, uint32_t c)
{
    struct compute *compute = &world->computes[c];
    if (!compute->alive) {
        return;
    }
    schedule_chart(world, "p%u is killed", c);
    compute->alive = false;
    for (uint32_t n = 0; n < NODES_MAX; n++) {
        if (compute->conn[n] != 0) {
            network_close(world, compute->conn[n] - 1, 0);
        }
    }
    compute->incarnation += COMPUTES; /* never the same as another's */
}

void compute_on_down(struct world *world, const struct sim_event *event)
{
    struct compute *compute = &world->computes[event->compute];
    uint32_t n = world->conns[event->conn].node;
    if (!compute->alive || event->incarnation != compute->incarnation ||
        compute->conn[n] != event->conn + 1) {
        return;
    }
    struct proposer_event down = {
        .kind = PROPOSER_PEER_DOWN, .peer = index_of(compute, n), .connection = event->conn + 1};
    compute->conn[n] = 0;
    feed(world, event->compute, &down);
    schedule_add(
        world, tape_below(&world->tape, TAPE_NET, 3000),
        (struct sim_event){
            .kind = EV_RECONNECT,
            .node = n,
            .compute = event->compute,
            .incarnation = compute->incarnation});
}

void compute_on_up(struct world *world, const struct sim_event *event)
{
    struct compute *compute = &world->computes[event->compute];
    if (!compute->alive || event->incarnation != compute->incarnation ||
        world->conns[event->conn].client_closed || compute->conn[event->node] != event->conn + 1) {
        return;
    }
    struct proposer_event up = {
        .kind = PROPOSER_PEER_UP,
        .peer = index_of(compute, event->node),
        .connection = event->conn + 1,
        .hello_term = event->hello_term};
    feed(world, event->compute, &up);
}
