#include "tests/sim/world.h"

#include "common/base/checksum.h"
#include "common/base/mark.h"
#include "common/base/mem.h"
#include "safekeeper/consensus/term_history.h"
#include "tests/sim/changer.h"
#include "tests/sim/compute.h"
#include "tests/sim/network.h"
#include "tests/sim/node.h"
#include "tests/sim/schedule.h"
#include "tests/sim/trouble.h"

#define HEAL_US 4000000u

static uint32_t node_count(const struct world *world)
{
    return world->climate.nodes + world->climate.spares;
}

static void restart_all(struct world *world)
{
    for (uint32_t n = 0; n < node_count(world); n++) {
        if (world->nodes[n].up && world->nodes[n].acceptor.phase == ACCEPTOR_FAILED) {
            node_crash(world, n);
        }
        if ((world->frozen >> n & 1) == 0) {
            node_restart(world, n);
        }
    }
}

static void heal(struct world *world)
{
    schedule_chart(world, "---- healing");
    world->healing = true;
    world->heal_sync = world->climate.heal_sync;
    for (uint32_t c = 0; c < COMPUTES; c++) {
        compute_kill(world, c);
    }
    trouble_freeze(world);
    restart_all(world);
    if (trouble_thaws(world)) {
        restart_all(world);
    }
    world->climate.window_max = 4096;
    world->climate.read_max = WAL_SIZE;
    world->climate.inflight_max = 4096;
    changer_heal(world);
    compute_start(world, 0);
}

static bool is_healed(const struct world *world)
{
    const struct compute *compute = &world->computes[0];
    lsn_t lsn = compute->proposer.commit_lsn;
    if (!compute->ready || compute->wal_lsn == compute->proposer.term_start_lsn ||
        compute->wal_lsn != compute->generated_lsn || lsn != compute->wal_lsn) {
        return false;
    }
    /* Who lost its disk is lost, as a member too, until somebody replaces it. */
    const struct membership *newest = changer_newest(world);
    for (uint32_t i = 0; i < newest->count; i++) {
        const struct node *node = &world->nodes[newest->members[i] - 1];
        if (node->exists && (world->frozen >> (newest->members[i] - 1) & 1) == 0 &&
            (node->acceptor.state.commit_lsn != lsn ||
             node->acceptor.state.generation != newest->generation)) {
            return false;
        }
    }
    return !membership_is_joint(newest);
}

/*
 * One member lost its disk, and another one may have lost what it had acknowledged: together they
 * may have been a quorum, so nobody can be elected, and that is right.
 */
static bool is_beyond_repair(const struct world *world)
{
    const struct membership *newest = changer_newest(world);
    bool is_suspect = false;
    for (uint32_t i = 0; i < newest->count; i++) {
        const struct node *node = &world->nodes[newest->members[i] - 1];
        is_suspect = is_suspect || (node->exists && acceptor_is_suspect(&node->acceptor));
    }
    return world->oracle.newcomer_lost && is_suspect &&
           world->now_us > world->climate.chaos_us + HEAL_US / 2;
}

/*
 * Only who can be missed: somebody who is no member, or, once, a newcomer to a set that stands the
 * loss of one. Nobody who voted in the set that decides.
 */
static void wipe_somebody(struct world *world)
{
    const struct membership *newest = changer_newest(world);
    uint32_t n = (uint32_t)tape_below(&world->tape, TAPE_CHANGE, node_count(world));
    uint32_t i = membership_index(newest, n + 1);
    bool is_member = i < newest->count;
    bool is_newcomer = is_member && membership_is_joint(newest) &&
                       (newest->old_set & 1u << i) == 0 &&
                       __builtin_popcount(newest->new_set) >= 3 && !world->oracle.newcomer_lost &&
                       world->rotten == 0;
    if (!world->healing && world->nodes[n].exists && (!is_member || is_newcomer)) {
        MARK("sim.node.wiped");
        world->oracle.newcomer_lost = world->oracle.newcomer_lost || is_newcomer;
        node_wipe(world, n);
    }
}

/* Trouble within `span_us`; a tape that is used up plans none. */
static void plan(
    struct world *world, enum tape_stream stream, uint64_t span_us, struct sim_event event)
{
    uint64_t delay_us = tape_below(&world->tape, stream, span_us);
    if (delay_us > 0) {
        schedule_add(world, delay_us, event);
    }
}

/* It was meant for a life that is not over: of the node, of the compute. */
static bool node_lives(const struct world *world, const struct sim_event *event)
{
    const struct node *node = &world->nodes[event->node];
    return node->up && node->incarnation == event->incarnation;
}

static bool compute_lives(const struct world *world, const struct sim_event *event)
{
    const struct compute *compute = &world->computes[event->compute];
    return compute->alive && compute->incarnation == event->incarnation;
}

static void on_state_synced(struct world *world, const struct sim_event *event)
{
    if (node_lives(world, event)) {
        struct acceptor_event input = {.kind = ACCEPTOR_STATE_PERSISTED};
        input.sequence = disk_end_state(&world->nodes[event->node].disk);
        node_feed(world, event->node, &input);
    }
}

static void on_wal_synced(struct world *world, const struct sim_event *event)
{
    struct disk *disk = &world->nodes[event->node].disk;
    if (node_lives(world, event) && disk->syncing && disk->sync_number == event->sync_number) {
        struct acceptor_event input = {.kind = ACCEPTOR_WAL_FLUSHED};
        disk_end_sync(disk);
        input.wal.lsn = disk->sync_lsn;
        input.wal.epoch = disk->sync_epoch;
        node_feed(world, event->node, &input);
    }
}

static void on_wal_truncated(struct world *world, const struct sim_event *event)
{
    struct disk *disk = &world->nodes[event->node].disk;
    if (node_lives(world, event)) {
        struct acceptor_event input = {.kind = ACCEPTOR_WAL_TRUNCATED};
        disk_end_truncate(disk);
        input.wal.epoch = disk->truncate_epoch;
        node_feed(world, event->node, &input);
    }
}

static void crash_for_a_while(struct world *world, uint32_t node, enum tape_stream stream)
{
    node_crash(world, node);
    schedule_add(
        world, tape_below(&world->tape, stream, 10000),
        (struct sim_event){.kind = EV_RESTART, .node = node});
}

static void on_crash(struct world *world)
{
    if (!world->healing) {
        uint32_t node = (uint32_t)tape_below(&world->tape, TAPE_CRASH, node_count(world));
        crash_for_a_while(world, node, TAPE_CRASH);
        plan(
            world, TAPE_CRASH, 2 * world->climate.crash_one_in,
            (struct sim_event){.kind = EV_CRASH});
    }
}

static void on_power_cut(struct world *world, const struct sim_event *event)
{
    if (!world->healing && node_lives(world, event)) {
        crash_for_a_while(world, event->node, TAPE_KEEP);
    }
}

static void on_restart(struct world *world, uint32_t index)
{
    const struct node *node = &world->nodes[index];
    if (node->exists && !node->up && (world->frozen >> index & 1) == 0) {
        node_restart(world, index);
    }
}

static void on_fail_storage(struct world *world, uint32_t index)
{
    if (!world->healing && world->nodes[index].up) {
        struct acceptor_event input = {.kind = ACCEPTOR_STORAGE_FAILED};
        schedule_chart(world, "s%u: its storage fails", index);
        node_feed(world, index, &input);
    }
}

static void on_persist_wanted(struct world *world, uint32_t index)
{
    if (world->nodes[index].up) {
        struct acceptor_event input = {.kind = ACCEPTOR_PERSIST_WANTED};
        node_feed(world, index, &input);
    }
}

static void on_kill(struct world *world, const struct sim_event *event)
{
    if (compute_lives(world, event)) {
        compute_kill(world, event->compute);
        schedule_add(
            world, 1 + tape_below(&world->tape, TAPE_WORK, 10000),
            (struct sim_event){.kind = EV_START, .compute = event->compute});
    }
}

static void on_start(struct world *world, uint32_t index)
{
    if (world->healing && index != 0) {
        return;
    }
    compute_start(world, index);
    if (!world->healing) {
        plan(
            world, TAPE_WORK, world->climate.life_us,
            (struct sim_event){
                .kind = EV_KILL,
                .compute = index,
                .incarnation = world->computes[index].incarnation});
    }
}

static void dispatch(struct world *world, const struct sim_event *event)
{
    switch (event->kind) {
    case EV_CONNECT: network_on_connect(world, event); break;
    case EV_UP: compute_on_up(world, event); break;
    case EV_DOWN: compute_on_down(world, event); break;
    case EV_TO_NODE: node_deliver(world, event); break;
    case EV_TO_COMPUTE: compute_deliver(world, event); break;
    case EV_STATE_SYNCED: on_state_synced(world, event); break;
    case EV_WAL_SYNCED: on_wal_synced(world, event); break;
    case EV_WAL_TRUNCATED: on_wal_truncated(world, event); break;
    case EV_RECONNECT:
        if (compute_lives(world, event)) {
            network_connect(world, event->compute, event->node);
        }
        break;
    case EV_TICK:
        if (compute_lives(world, event) &&
            world->now_us >= world->computes[event->compute].tick_us) {
            compute_on_tick(world, event->compute);
        }
        break;
    case EV_LOCAL_WAL:
        if (compute_lives(world, event)) {
            compute_grow_wal(world, event->compute);
        }
        break;
    case EV_CRASH: on_crash(world); break;
    case EV_POWER_CUT: on_power_cut(world, event); break;
    case EV_RESTART: on_restart(world, event->node); break;
    case EV_FAIL_STORAGE: on_fail_storage(world, event->node); break;
    case EV_PERSIST_WANTED: on_persist_wanted(world, event->node); break;
    case EV_KILL: on_kill(world, event); break;
    case EV_START: on_start(world, event->compute); break;
    case EV_HEAL:
        if (!world->healing) {
            heal(world);
        }
        break;
    case EV_CHANGER: changer_on_tick(world, event); break;
    case EV_NOTE: node_on_note(world, event); break;
    case EV_REPORT: changer_on_note(world, event); break;
    case EV_LEARN: compute_on_learn(world, event); break;
    case EV_PEER_ASK: node_on_peer_ask(world); break;
    case EV_PEER_ANSWER:
        if (node_lives(world, event)) {
            node_on_peer_answer(world, event->node);
        }
        break;
    case EV_PEER_WAL:
        if (node_lives(world, event)) {
            node_on_peer_wal(world, event->node);
        }
        break;
    case EV_CONSUME: consumer_on_event(world); break;
    case EV_WIPE: wipe_somebody(world); break;
    case EV_PAUSE: trouble_on_pause(world); break;
    case EV_JUMP: trouble_on_jump(world); break;
    case EV_FULL: trouble_on_full(world); break;
    case EV_IDLE: network_on_idle(world, event->conn); break;
    }
}

/*
 * The others saw so many terms that the oldest fell out of their histories, and nothing was written
 * in them, or a record in each; the last one slept, with a record that was never committed.
 */
static void put_to_sleep(struct node *node, bool sleeps, bool many_writers)
{
    struct acceptor_state *state = &node->disk.slots[1].state;
    if (sleeps) {
        record_write(node->disk.platter, (size_t)2 * RECORD_SIZE_MIN, 0, UINT64_MAX);
        return;
    }
    lsn_t lsn = WAL_START;
    uint16_t link = 0;
    for (term_t term = 1; term <= TERM_HISTORY_MAX; term++) {
        term_history_push(&state->history, term, lsn);
        state->term = MAX_OF(state->term, term);
        if (many_writers) {
            uint8_t *record = node->disk.platter + (lsn - WAL_START);
            record_write(record, RECORD_SIZE_MIN, link, term);
            link = (uint16_t)record_crc(record);
            lsn += RECORD_SIZE_MIN;
        }
    }
}
static_assert(
    TERM_HISTORY_MAX * RECORD_SIZE_MIN + 2 * WAL_RESERVE <= WAL_SIZE, "there is room for more");

static void begin(struct world *world, FILE *chart_file)
{
    world->rotten = 0;
    world->chart = chart_file;
    world->now_us = world->order = world->steps = world->digest = 0;
    world->healing = world->heal_sync = false;
    world->synced_lsn = LSN_NONE;
    world->pending = world->conns_count = world->arena_used = 0;
    climate_draw(&world->climate, &world->tape);
    climate_calm(&world->climate, world->tape.calm);
    trouble_begin(world);
    consumer_begin(world);
    oracle_init(&world->oracle);
    changer_begin(world);
    for (uint32_t n = 0; n < NODES_MAX; n++) {
        struct node *node = &world->nodes[n];
        world->disks[n] = &node->disk;
        node->exists = node->up = false;
        node->votes_count = 0;
        for (uint32_t i = 0; i < VOTES_MAX; i++) {
            node->votes[i].term = node->votes[i].lsn = 0;
        }
        node->incarnation = node->folder = node->deleted = 0;
        disk_bury(&node->disk);
        disk_bury(&node->disk); /* nothing is left of an earlier schedule */
        node_format(node, GENERATION);
        if (n >= world->climate.nodes) {
            continue;
        }
        if (world->climate.many_terms) {
            node->disk.slots[1].state.term = UINT32_MAX - 3;
        }
        if (world->climate.sleeper) {
            put_to_sleep(node, n == world->climate.nodes - 1, world->climate.many_writers);
        }
        node->exists = true;
        node_restart(world, n);
    }
    for (uint32_t c = 0; c < COMPUTES; c++) {
        world->computes[c].alive = false;
        world->computes[c].incarnation = c;
        world->computes[c].counter = 0;
        if (c < world->climate.computes) {
            schedule_add(
                world, tape_below(&world->tape, TAPE_WORK, 5000) * c,
                (struct sim_event){.kind = EV_START, .compute = c});
        }
    }
    if (world->climate.crash_one_in > 0) {
        plan(
            world, TAPE_CRASH, 2 * world->climate.crash_one_in,
            (struct sim_event){.kind = EV_CRASH});
    }
    if (tape_one_in(&world->tape, TAPE_CRASH, world->climate.failure_one_in)) {
        uint32_t n = (uint32_t)tape_below(&world->tape, TAPE_CRASH, world->climate.nodes);
        uint64_t at_us = tape_below(&world->tape, TAPE_CRASH, world->climate.chaos_us);
        schedule_add(world, at_us, (struct sim_event){.kind = EV_FAIL_STORAGE, .node = n});
    }
    schedule_add(
        world, world->climate.chaos_us / 2,
        (struct sim_event){.kind = EV_PERSIST_WANTED, .node = world->climate.persist_node});
    for (int i = 0; world->climate.wipes && i < 4; i++) { /* until it meets somebody */
        plan(world, TAPE_CHANGE, world->climate.chaos_us, (struct sim_event){.kind = EV_WIPE});
    }
    if (world->climate.peer_us > 0) {
        schedule_add(world, world->climate.peer_us, (struct sim_event){.kind = EV_PEER_ASK});
    }
    schedule_add(world, world->climate.chaos_us, (struct sim_event){.kind = EV_HEAL});
}

const char *world_run(struct world *world, FILE *chart_file)
{
    begin(world, chart_file);
    bool healed = false;
    uint64_t moment_us = 0, at_once = 0;
    while (world->pending > 0 && !healed && world->oracle.violation[0] == '\0') {
        struct sim_event event = schedule_next(world);
        if (trouble_puts_off(world, &event)) {
            continue;
        }
        at_once = event.at_us == moment_us ? at_once + 1 : 0;
        moment_us = event.at_us;
        if (at_once > INSTANT_MAX) {
            oracle_fail(&world->oracle, "busy: it does not come to rest in one moment");
        }
        dispatch(world, &event);
        world->digest = hash64(&event.order, sizeof(event.order), world->digest + event.at_us);
        world->steps++;
        if (!world->healing && world->steps == CHAOS_STEPS_MAX) {
            heal(world); /* enough of it */
        }
        healed = world->healing && (is_healed(world) || is_beyond_repair(world));
        if (!healed && world->now_us > world->climate.chaos_us + HEAL_US) {
            oracle_fail(
                &world->oracle,
                "liveness: nothing new is committed everywhere after healing"
                " (%" PRIu64 " steps)",
                world->steps);
        } else if (!healed && world->steps > world->steps_max) { /* not what a shorter one is */
            oracle_fail(
                &world->oracle, "liveness: still busy after %" PRIu64 " steps", world->steps);
        }
    }
    for (uint32_t a = 0; a < node_count(world); a++) {
        for (uint32_t b = a + 1; b < node_count(world); b++) {
            if (!world->nodes[a].exists || !world->nodes[b].exists) {
                continue;
            }
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
    struct world *world = MEM_NEW(struct world);
    world->steps_max = STEPS_MAX;
    return world;
}

void world_destroy(struct world *world)
{
    buf_deinit(&world->scratch);
    tape_deinit(&world->tape);
    mem_free(world);
}
