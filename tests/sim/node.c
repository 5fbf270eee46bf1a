#include "tests/sim/node.h"

#include "common/base/mark.h"
#include "safekeeper/consensus/term_history.h"
#include "tests/sim/changer.h"
#include "tests/sim/network.h"
#include "tests/sim/schedule.h"

#define SLOW_CUT_US 30000

/* Now and then as long as it takes two rivals to be elected, one after the other. */
static uint64_t truncation_us(struct world *world, uint64_t base_us)
{
    if (!world->healing && tape_one_in(&world->tape, TAPE_CUT, 4)) {
        MARK("sim.disk.slow_cut");
        return 1 + tape_below(&world->tape, TAPE_CUT, SLOW_CUT_US);
    }
    return base_us / 2 + tape_below(&world->tape, TAPE_DISK, base_us + 1);
}

static void begin_disk_work(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    uint64_t base_us = world->healing ? 50 : world->climate.disk_us[n];
    struct sim_event event = {.node = n, .incarnation = node->incarnation};
    if (disk_begin_truncate(&node->disk)) {
        event.kind = EV_WAL_TRUNCATED;
        schedule_add(world, truncation_us(world, base_us), event);
    }
    if (disk_begin_sync(&node->disk, node->acceptor.received_record_lsn)) {
        event.kind = EV_WAL_SYNCED;
        event.sync_number = node->disk.sync_number;
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
    if (world->steps % 8 == 0 && durable != NULL && disk_end_lsn_now(&node->disk) < record_lsn) {
        oracle_fail(
            &world->oracle,
            "disk honesty: s%u acknowledges +%" PRIu64 ", a start now would find +%" PRIu64, n,
            record_lsn - WAL_START, disk_end_lsn_now(&node->disk) - WAL_START);
    }
    if (disk_durable_lsn(&node->disk) < record_lsn) {
        oracle_fail(
            &world->oracle, "disk honesty: s%u acknowledges +%" PRIu64 ", durable is +%" PRIu64, n,
            record_lsn - WAL_START, node->disk.durable_lsn - WAL_START);
    }
}

/* What counts under a generation is said to who has it, and after it is on disk. */
static void check_generation(struct world *world, uint32_t n, uint32_t conn)
{
    const struct acceptor_state *durable = disk_durable_state(&world->nodes[n].disk);
    if (durable != NULL && durable->generation != world->conns[conn].generation) {
        oracle_fail(
            &world->oracle, "s%u of generation %u promises something to generation %u", n,
            durable->generation, world->conns[conn].generation);
    }
}

static void send_appended(
    struct world *world, uint32_t n, uint32_t conn, const struct append_reply *appended)
{
    struct node *node = &world->nodes[n];
    if (node->acceptor.phase == ACCEPTOR_FOLLOWING) {
        check_generation(world, n, conn);
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
    struct append_reply said = *appended;
    if (trouble_is_nonsense(world)) {
        said.record_lsn = said.flush_lsn + RECORD_SIZE_MIN;
    }
    FRAME_APPEND_MESSAGE(
        &world->scratch, append_reply, &said, .type = FRAME_APPEND_REPLY, .channel = 1);
    network_send(world, conn, /* to_node */ false);
}

/* About generations: the walproposer learns of ours with it. */
static void refuse(struct world *world, uint32_t index, const generation_t *theirs, const char *why)
{
    struct conn *conn = &world->conns[index];
    schedule_chart(world, "s%u refuses connection %u: %s", conn->node, index, why);
    conn->server_closed = true;
    uint64_t delay_us = network_latency_us(world, conn->compute, conn->node);
    network_close(world, index, delay_us);
    if (*theirs != 0 &&
        (world->healing || tape_one_in(&world->tape, TAPE_CHANGE, world->climate.deaf_one_in))) {
        schedule_add(
            world, delay_us,
            (struct sim_event){
                .kind = EV_LEARN,
                .compute = conn->compute,
                .incarnation = conn->compute_incarnation,
                .generation = world->nodes[conn->node].acceptor.state.generation});
    }
}

/* The longest of a term: what is damaged later was there. */
static void keep_log_of_vote(struct node *node, term_t term, lsn_t lsn)
{
    uint32_t slot = 0;
    while (slot < VOTES_MAX && node->votes[slot].term != term) {
        slot++;
    }
    if (slot == VOTES_MAX) {
        slot = node->votes_count++ % VOTES_MAX;
    } else if (node->votes[slot].lsn > lsn) {
        return;
    }
    node->votes[slot].lsn = lsn;
    node->votes[slot].begin_lsn = MAX_OF(node->disk.begin_lsn, node->acceptor.state.begin_lsn);
    node->votes[slot].term = term;
    memcpy(node->votes[slot].wal, node->disk.platter, WAL_SIZE);
}

static void send_vote(struct world *world, uint32_t conn, const struct vote_reply *vote)
{
    struct vote_reply said = *vote;
    if (trouble_is_nonsense(world)) {
        said.commit_lsn = said.record_lsn + RECORD_SIZE_MIN;
    }
    FRAME_APPEND_MESSAGE(
        &world->scratch, vote_reply, &said, .type = FRAME_VOTE_REPLY, .channel = 1);
    network_send(world, conn, /* to_node */ false);
}

/* What happens seldom meets trouble seldom, too. */
static void plan_power_cut(struct world *world, uint32_t n)
{
    if (!world->healing && tape_one_in(&world->tape, TAPE_KEEP, 3)) {
        uint64_t span_us = 3 * world->climate.disk_us[n];
        schedule_add(
            world, 1 + tape_below(&world->tape, TAPE_KEEP, span_us),
            (struct sim_event){
                .kind = EV_POWER_CUT, .node = n, .incarnation = world->nodes[n].incarnation});
    }
}

/* A leader of an older protocol is not told which term a log follows: it sends that WAL again. */
static void check_truncation(struct world *world, uint32_t n, const struct acceptor_action *action)
{
    const struct node *node = &world->nodes[n];
    bool is_told = action->to.connection == 0 || action->to.protocol >= PROTOCOL_FOLLOWED_TERM;
    if (action->truncate.lsn < node->acked_record_lsn &&
        node->acceptor.state.term == node->acked_term && is_told) {
        oracle_fail(
            &world->oracle, "s%u truncates WAL that it has acknowledged to the same term", n);
    }
}

static void do_node_action(struct world *world, uint32_t n, const struct acceptor_action *action)
{
    struct node *node = &world->nodes[n];
    uint32_t conn = (uint32_t)action->to.connection - 1;
    world->scratch.size = 0;
    switch (action->kind) {
    case ACCEPTOR_PERSIST_STATE: disk_persist(&node->disk, action->state); break;
    case ACCEPTOR_TRUNCATE_WAL:
        check_truncation(world, n, action);
        node->acked_record_lsn = MIN_OF(node->acked_record_lsn, action->truncate.lsn);
        disk_truncate(
            &node->disk, action->truncate.lsn, action->truncate.epoch, trouble_is_full(world, n));
        break;
    case ACCEPTOR_EMPTY_WAL:
        plan_power_cut(world, n);
        schedule_chart(world, "s%u begins anew at +%" PRIu64, n, action->truncate.lsn - WAL_START);
        disk_empty(
            &node->disk, action->truncate.lsn, action->truncate.epoch, trouble_is_full(world, n));
        break;
    case ACCEPTOR_REMOVE_WAL:
        consumer_on_removed(world, n, action->remove_lsn);
        disk_remove(&node->disk, action->remove_lsn);
        break;
    case ACCEPTOR_WRITE_WAL:
        if (action->write.begin_lsn >= WAL_START &&
            action->write.begin_lsn + action->write.wal.size <= WAL_LIMIT) {
            disk_write(
                &node->disk, action->write.begin_lsn, action->write.wal, action->write.epoch);
        }
        break;
    case ACCEPTOR_SEND_VOTE:
        keep_log_of_vote(node, action->vote->term, action->vote->record_lsn);
        if (action->vote->granted) {
            check_generation(world, n, conn);
            check_promise(world, n, action->vote->term, action->vote->record_lsn);
            if (action->vote->term <= node->promised) {
                oracle_fail(&world->oracle, "s%u votes twice", n);
            }
            node->promised = MAX_OF(node->promised, action->vote->term);
        }
        send_vote(world, conn, action->vote);
        break;
    case ACCEPTOR_SEND_APPENDED: send_appended(world, n, conn, &action->appended); break;
    case ACCEPTOR_REFUSE:
        refuse(world, conn, &action->refuse.generation, action->refuse.why);
        break;
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
    struct note note = {.kind = NOTE_REPORT, .folder = world->nodes[n].folder};
    if (world->nodes[n].owes_report && acceptor_report(&world->nodes[n].acceptor, &note.report)) {
        world->nodes[n].owes_report = false;
        changer_send(world, n, &note);
    }
}

/* ---- control ---- */

void node_format(struct node *node, generation_t generation)
{
    disk_init(&node->disk);
    node->disk.slots[1].valid = true;
    acceptor_state_init(&node->disk.slots[1].state, generation, WAL_START);
    node->owes_report = false;
    node->consumer = (struct retention_consumer){0};
    node->promised = node->acked_term = 0;
    node->acked_record_lsn = node->released_lsn = node->matched_lsn = WAL_START;
}

const uint8_t *node_log_of_vote(const struct node *node, term_t term, lsn_t *ret_begin_lsn)
{
    *ret_begin_lsn = node->disk.begin_lsn;
    for (uint32_t i = 0; i < VOTES_MAX; i++) {
        if (node->votes[i].term == term) {
            *ret_begin_lsn = node->votes[i].begin_lsn;
            return node->votes[i].wal;
        }
    }
    return node->disk.platter;
}

static void drop_timeline(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    node->exists = false;
    node_crash(world, n);
    disk_bury(&node->disk);
    node_format(node, GENERATION);
}

void node_wipe(struct world *world, uint32_t n)
{
    schedule_chart(world, "s%u loses its disk", n);
    drop_timeline(world, n);
    world->nodes[n].folder++;
    world->nodes[n].deleted = 0; /* nothing is remembered */
}

static void on_create(struct world *world, uint32_t n, const struct note *note)
{
    struct node *node = &world->nodes[n];
    if (node->folder != note->folder) {
        MARK("sim.create.other_folder");
        return; /* it is for a disk that is gone: what it had promised is forgotten */
    }
    if (node->deleted >= note->generation) {
        MARK("sim.create.tombstone");
        return;
    }
    schedule_chart(world, "s%u creates the timeline, generation %u", n, note->generation);
    node_format(node, note->generation);
    node->exists = true;
    node->incarnation++;
    node_restart(world, n);
}

void node_refuse_hello(struct world *world, uint32_t conn)
{
    generation_t theirs = world->conns[conn].hello_generation;
    MARK("sim.hello.generation");
    refuse(world, conn, &theirs, "hello of another membership");
}

/* Who is connected hears at once, also who waits for something else. Some messages were faster. */
static void drop_proposers(struct world *world, uint32_t n)
{
    if (!world->healing && tape_one_in(&world->tape, TAPE_CHANGE, 2)) {
        return;
    }
    for (uint32_t i = 0; i < world->conns_count; i++) {
        const struct conn *conn = &world->conns[i];
        if (conn->node == n && conn->node_incarnation == world->nodes[n].incarnation &&
            !conn->server_closed && conn->hello_generation != 0 &&
            conn->hello_generation < world->nodes[n].acceptor.state.generation) {
            node_refuse_hello(world, i);
        }
    }
}

bool node_take_membership(struct world *world, uint32_t n, generation_t generation)
{
    struct acceptor_event input = {
        .kind = ACCEPTOR_MEMBERSHIP_CHANGED, .membership = {.generation = generation}};
    if (!world->healing && tape_one_in(&world->tape, TAPE_CHANGE, 2)) {
        return false;
    }
    schedule_chart(world, "s%u is brought generation %u", n, generation);
    node_feed(world, n, &input);
    drop_proposers(world, n);
    return true;
}

void node_on_note(struct world *world, const struct sim_event *event)
{
    uint32_t n = event->node;
    struct node *node = &world->nodes[n];
    struct note note = changer_take(world, event);
    if (node->exists && !node->up) {
        return;
    }
    if (note.kind == NOTE_DELETE) {
        if (node->exists && note.generation >= node->acceptor.state.generation) {
            schedule_chart(world, "s%u deletes the timeline", n);
            drop_timeline(world, n);
        }
        node->deleted = node->exists ? node->deleted : MAX_OF(node->deleted, note.generation);
        return;
    }
    if (note.kind == NOTE_CREATE && !node->exists) {
        on_create(world, n, &note);
    }
    if (!node->exists) {
        struct note missing = {.kind = NOTE_REPORT, .folder = node->folder};
        changer_send(world, n, &missing);
        return;
    }
    struct acceptor_event input = {
        .kind = ACCEPTOR_MEMBERSHIP_CHANGED,
        .membership = {.generation = note.generation, .term = note.term}};
    generation_t before = node->acceptor.state.generation;
    node->owes_report = true;
    node_feed(world, n, &input);
    if (node->acceptor.state.generation != before) {
        drop_proposers(world, n);
    }
}

/* ---- messages ---- */

static void answer_read(
    struct world *world, uint32_t n, uint32_t conn, const struct read_wal *request, uint64_t id)
{
    struct node *node = &world->nodes[n];
    lsn_t end_lsn = LSN_NONE;
    struct read_wal_reply reply = {
        .begin_lsn = request->begin_lsn, .flush_lsn = node->acceptor.flush_lsn};
    err_t err = acceptor_readable_lsn(&node->acceptor, request->term, &end_lsn);
    if (err == ERR_OK && request->begin_lsn < node->acceptor.state.begin_lsn) {
        MARK("sim.read.forgotten");
        err = ERR_RANGE;
    }
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

/* A frame that is whole. */
static void take_frame(struct world *world, const struct sim_event *event, struct frame frame)
{
    schedule_chart(
        world, "p%u -> s%u  connection %u%s", world->conns[event->conn].compute, event->node,
        event->conn, world->conns[event->conn].client_closed ? " (old)" : "");
    struct acceptor_event input = {
        .from = {
            .proposer_id = 1 + world->conns[event->conn].compute_incarnation,
            .connection = event->conn + 1,
            .protocol = world->conns[event->conn].protocol}};
    if (frame.type == FRAME_VOTE_REQUEST) {
        struct vote_request vote;
        DECODE(vote_request, frame, &vote);
        world->conns[event->conn].generation = vote.generation;
        input.kind = ACCEPTOR_VOTE_REQUESTED;
        input.vote = &vote;
        node_feed(world, event->node, &input);
    } else if (frame.type == FRAME_ELECTED || frame.type == FRAME_ELECTED_ANEW) {
        struct elected elected;
        DECODE(elected, frame, &elected);
        world->conns[event->conn].generation = elected.generation;
        input.kind = ACCEPTOR_ELECTED;
        input.elected = &elected;
        input.begins_anew = frame.type == FRAME_ELECTED_ANEW;
        node_feed(world, event->node, &input);
    } else if (frame.type == FRAME_APPEND) {
        struct append append;
        DECODE(append, frame, &append);
        world->conns[event->conn].generation = append.generation;
        input.kind = ACCEPTOR_APPEND_REQUESTED;
        input.append = &append;
        node_feed(world, event->node, &input);
    } else if (frame.type == FRAME_READ_WAL) {
        struct read_wal request;
        DECODE(read_wal, frame, &request);
        answer_read(world, event->node, event->conn, &request, frame.request_id);
    } else {
        refuse(world, event->conn, &(generation_t){0}, "a frame that is not known here");
    }
}

void node_deliver(struct world *world, const struct sim_event *event)
{
    const struct node *node = &world->nodes[event->node];
    const struct conn *conn = &world->conns[event->conn];
    struct frame frame;
    if (!node->up || event->incarnation != node->incarnation || conn->server_closed) {
        return;
    }
    network_receive(world, event);
    while (!conn->server_closed && network_take_frame(world, event, &frame)) {
        take_frame(world, event, frame);
    }
}

static bool can_be_missed(const struct world *world, uint32_t n)
{
    const struct membership *newest = changer_newest(world);
    uint32_t index = membership_index(newest, n + 1);
    uint32_t everyone = (1u << newest->count) - 1;
    uint32_t sets[] = {
        membership_is_joint(newest) ? newest->old_set : everyone,
        membership_is_joint(newest) ? newest->new_set : everyone};
    bool can = !world->oracle.newcomer_lost && world->nodes[n].exists;
    for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
        can = can && ((sets[i] & 1u << index) == 0 || __builtin_popcount(sets[i]) >= 3);
    }
    return can;
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
        is_whole && can_be_missed(world, n) && disk_rot(&world->nodes[n].disk, &world->tape)) {
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
    node->up = node->owes_report = false;
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

/* The power may go during a start: a second one finds what the first one found. */
static void check_recovery_again(
    struct world *world, uint32_t n, const struct acceptor_state *state, lsn_t end_lsn)
{
    struct acceptor_state again;
    lsn_t again_lsn = LSN_NONE;
    disk_recover(&world->nodes[n].disk, &again, &again_lsn);
    if (again_lsn != end_lsn || again.sequence != state->sequence || again.term != state->term ||
        again.commit_lsn != state->commit_lsn || again.suspect_lsn != state->suspect_lsn ||
        !term_history_equal(&again.history, &state->history)) {
        oracle_fail(&world->oracle, "s%u recovers differently the second time", n);
    }
}

void node_restart(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    if (node->up || !node->exists) {
        return;
    }
    struct acceptor_state state;
    struct errmsg msg;
    lsn_t end_lsn = LSN_NONE;
    disk_recover(&node->disk, &state, &end_lsn);
    check_recovery_again(world, n, &state, end_lsn);
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
    oracle_on_started(&world->oracle, &node->disk, state.commit_lsn);
    node->consumer = (struct retention_consumer){0};
    err_t err = acceptor_init(&node->acceptor, &state, end_lsn, end_lsn, &msg);
    if (err != ERR_OK) {
        oracle_fail(&world->oracle, "s%u cannot start: %s", n, msg.text);
        return;
    }
    node->released_lsn = state.commit_lsn;
    node->piece_size = 0;
    node->up = true;
}

/* ---- catching up ---- */

static void ask_again_later(struct world *world, enum event_kind kind, uint32_t n)
{
    schedule_add(
        world, 50 + tape_below(&world->tape, TAPE_PEER, 1000),
        (struct sim_event){.kind = kind, .node = n, .incarnation = world->nodes[n].incarnation});
}

/* What it says may be old when it is heard; it stays true. */
void node_on_peer_ask(struct world *world)
{
    uint32_t n = (uint32_t)tape_below(&world->tape, TAPE_PEER, NODES_MAX);
    uint32_t asked = (uint32_t)tape_below(&world->tape, TAPE_PEER, NODES_MAX);
    struct node *node = &world->nodes[n];
    const struct node *other = &world->nodes[asked];
    if (!world->healing) {
        schedule_add(
            world, 1 + tape_below(&world->tape, TAPE_PEER, 2 * world->climate.peer_us),
            (struct sim_event){.kind = EV_PEER_ASK});
    }
    if (n == asked || !node->up || !other->up || other->acceptor.phase == ACCEPTOR_FAILED) {
        return;
    }
    node->asked = asked;
    node->offered_commit_lsn = other->acceptor.state.commit_lsn;
    node->offered_begin_lsn = other->acceptor.state.begin_lsn;
    node->offered = other->acceptor.state.history;
    term_history_clip(&node->offered, node->offered_commit_lsn);
    ask_again_later(world, EV_PEER_ANSWER, n);
}

static bool is_catching_up(const struct acceptor *acceptor)
{
    bool begins = acceptor->phase == ACCEPTOR_TRUNCATING || acceptor->phase == ACCEPTOR_ADOPTING;
    return acceptor->phase == ACCEPTOR_CATCHING_UP || (begins && acceptor->is_catching_up);
}

#define FOREIGN_TERMS 1000000 /* behind all that a schedule wins */

/*
 * Another timeline's history, it seems: it parts from ours before what we know to be committed. Its
 * term is none of ours, neither now nor when the answer comes: a proposer that won it meanwhile
 * would make the answer true.
 */
static void contradict_commit(struct node *node)
{
    const struct term_history *ours = &node->acceptor.state.history;
    node->offered = (struct term_history){
        .count = 2,
        .items = {
            ours->items[0],
            {.term = term_history_last_term(ours) + FOREIGN_TERMS, .lsn = ours->items[0].lsn}}};
    node->offered_commit_lsn = node->acceptor.write_lsn + RECORD_SIZE_MIN;
}

void node_on_peer_answer(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    if (node->acceptor.state.commit_lsn > node->acceptor.state.history.items[0].lsn &&
        trouble_is_nonsense(world)) {
        contradict_commit(node);
    }
    struct acceptor_event event = {
        .kind = ACCEPTOR_PEER_ANSWERED,
        .peer =
            {.history = &node->offered,
             .commit_lsn = node->offered_commit_lsn,
             .begin_lsn = node->offered_begin_lsn},
    };
    node_feed(world, n, &event);
    if (is_catching_up(&node->acceptor)) {
        schedule_chart(
            world, "s%u catches up with s%u to +%" PRIu64, n, node->asked,
            node->acceptor.catch_up_lsn - WAL_START);
        ask_again_later(world, EV_PEER_WAL, n);
    }
}

/* It has come, whatever has happened since it was asked for. */
static void take_piece(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    struct acceptor_event event = {
        .kind = ACCEPTOR_PEER_WAL,
        .peer_wal = {.begin_lsn = node->piece_lsn, .wal = bytes_of(node->piece, node->piece_size)},
    };
    if (node->piece_size > 0) {
        node_feed(world, n, &event);
        node->piece_size = 0;
    }
}

void node_on_peer_wal(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    const struct node *other = &world->nodes[node->asked];
    take_piece(world, n);
    if (!is_catching_up(&node->acceptor) || !other->up ||
        other->acceptor.state.commit_lsn < node->acceptor.catch_up_lsn ||
        other->acceptor.state.begin_lsn > node->acceptor.write_lsn) {
        return; /* ended, or its source is gone: another answer may begin it anew */
    }
    lsn_t begin_lsn = node->acceptor.write_lsn;
    lsn_t left = node->acceptor.catch_up_lsn - begin_lsn;
    if (node->acceptor.phase == ACCEPTOR_CATCHING_UP && left > 0) {
        node->piece_lsn = begin_lsn;
        node->piece_size =
            (uint32_t)(1 + tape_below(&world->tape, TAPE_PEER, MIN_OF(left, world->climate.read_max)));
        memcpy(node->piece, other->disk.cache + (begin_lsn - WAL_START), node->piece_size);
    }
    ask_again_later(world, EV_PEER_WAL, n);
}
