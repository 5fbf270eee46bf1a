#include "tests/sim/trouble.h"

#include "common/base/mark.h"
#include "tests/sim/node.h"
#include "tests/sim/schedule.h"
#include "tests/sim/world.h"

static uint64_t pick(
    struct world *world, enum tape_stream stream, const uint64_t *choices, size_t count)
{
    return choices[tape_below(&world->tape, stream, count)];
}
#define PICK(world, stream, ...)                                                                   \
    pick(                                                                                          \
        (world), (stream), (const uint64_t[]){__VA_ARGS__},                                        \
        sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void plan(
    struct world *world, enum tape_stream stream, uint64_t span_us, enum event_kind kind)
{
    uint64_t delay_us = span_us == 0 ? 0 : tape_below(&world->tape, stream, span_us);
    if (delay_us > 0) {
        schedule_add(world, delay_us, (struct sim_event){.kind = kind});
    }
}

static void leave_out(struct world *world, uint32_t calm)
{
    struct trouble *trouble = &world->trouble;
    if ((calm >> CALM_pauses & 1) != 0) {
        trouble->pause_us = 0;
    }
    if ((calm >> CALM_damage & 1) != 0) {
        trouble->split_one_in = trouble->damage_one_in = trouble->silence_one_in = 0;
    }
    if ((calm >> CALM_frozen & 1) != 0) {
        trouble->freezes = false;
    }
    if ((calm >> CALM_clocks & 1) != 0) {
        trouble->jump_us = 0;
        for (int c = 0; c < COMPUTES; c++) {
            world->clocks[c] = (struct clock_error){.rate = 1000};
        }
    }
    if ((calm >> CALM_together & 1) != 0) {
        trouble->together_one_in = 0;
    }
    if ((calm >> CALM_versions & 1) != 0) {
        trouble->unknown_one_in = trouble->version_one_in = 0;
    }
    if ((calm >> CALM_nonsense & 1) != 0) {
        trouble->nonsense_one_in = 0;
    }
    if ((calm >> CALM_full_disks & 1) != 0) {
        trouble->full_us = 0;
    }
}

void trouble_begin(struct world *world)
{
    struct trouble *trouble = &world->trouble;
    trouble->pause_us = PICK(world, TAPE_PAUSE, 0, 0, 0, 6000, 20000);
    trouble->pause_max_us = PICK(world, TAPE_PAUSE, 2000, 10000, 40000);
    trouble->split_one_in = PICK(world, TAPE_FRAMES, 0, 0, 0, 2, 10);
    trouble->damage_one_in = PICK(world, TAPE_FRAMES, 0, 0, 0, 0, 40, 200);
    trouble->silence_one_in = PICK(world, TAPE_FRAMES, 0, 0, 0, 0, 100);
    trouble->jump_us = PICK(world, TAPE_CLOCK, 0, 0, 0, 20000);
    for (int c = 0; c < COMPUTES - 1; c++) { /* the last one came later, and has a good one */
        world->clocks[c].offset_ms = PICK(world, TAPE_CLOCK, 0, 0, 1000000, UINT32_MAX - 20);
        world->clocks[c].rate = PICK(world, TAPE_CLOCK, 1000, 1000, 500, 970, 1030, 3000);
    }
    world->clocks[COMPUTES - 1] = (struct clock_error){.rate = 1000};
    for (int c = 0; c < COMPUTES; c++) {
        world->computes[c].paused_until_us = 0;
    }
    for (int n = 0; n < NODES_MAX; n++) {
        world->nodes[n].paused_until_us = world->nodes[n].full_until_us = 0;
    }
    trouble->freezes = tape_one_in(&world->tape, TAPE_PAUSE, 3);
    world->frozen = 0;
    trouble->together_one_in = PICK(world, TAPE_WIRE, 0, 0, 2, 8);
    trouble->unknown_one_in = PICK(world, TAPE_WIRE, 0, 0, 0, 0, 40, 200);
    trouble->nonsense_one_in = PICK(world, TAPE_WIRE, 0, 0, 0, 0, 0, 20, 100);
    trouble->version_one_in = PICK(world, TAPE_WIRE, 0, 0, 0, 2);
    trouble->full_us = PICK(world, TAPE_SPACE, 0, 0, 0, 0, 5000, 20000);
    trouble->full_max_us = PICK(world, TAPE_SPACE, 2000, 10000, 40000);
    leave_out(world, world->tape.calm);
    plan(world, TAPE_PAUSE, trouble->pause_us, EV_PAUSE);
    plan(world, TAPE_CLOCK, trouble->jump_us, EV_JUMP);
    plan(world, TAPE_SPACE, trouble->full_us, EV_FULL);
}

/*
 * Whoever is not needed stays away while the others must get on. Not with damage at rest or a
 * change of the membership: there somebody more may be needed.
 */
void trouble_freeze(struct world *world)
{
    uint32_t nodes = world->climate.nodes;
    if (!world->trouble.freezes || world->climate.rot_one_in > 0 ||
        world->climate.change_one_in > 0) {
        return;
    }
    uint32_t first = (uint32_t)tape_below(&world->tape, TAPE_PAUSE, nodes);
    for (uint32_t i = 0; i < (nodes - 1) / 2; i++) {
        uint32_t n = (first + i) % nodes;
        MARK("sim.healing.frozen");
        node_crash(world, n);
        world->frozen |= 1u << n;
    }
}

bool trouble_thaws(struct world *world)
{
    bool is_needed = false;
    for (uint32_t n = 0; n < world->climate.nodes && world->frozen != 0; n++) {
        const struct node *node = &world->nodes[n];
        is_needed = is_needed || (node->up && acceptor_is_suspect(&node->acceptor));
    }
    world->frozen = is_needed ? 0 : world->frozen;
    return is_needed;
}

/* ---- a process stands still ---- */

static uint64_t stalled_until_us(const struct node *node)
{
    return MAX_OF(node->paused_until_us, node->full_until_us);
}

/* Until when whoever handles this stands still; 0: what happens to a process, not in it. */
static uint64_t paused_until_us(const struct world *world, const struct sim_event *event)
{
    switch (event->kind) {
    case EV_CONNECT:
    case EV_TO_NODE:
    case EV_WAL_TRUNCATED:
    case EV_PERSIST_WANTED:
    case EV_PEER_ANSWER:
    case EV_PEER_WAL:
    case EV_NOTE: return world->nodes[event->node].paused_until_us;
    case EV_STATE_SYNCED:
        return world->nodes[event->node].is_all_full ? stalled_until_us(&world->nodes[event->node])
                                                     : world->nodes[event->node].paused_until_us;
    case EV_WAL_SYNCED: return stalled_until_us(&world->nodes[event->node]);
    case EV_UP:
    case EV_DOWN:
    case EV_TO_COMPUTE:
    case EV_RECONNECT:
    case EV_TICK:
    case EV_LOCAL_WAL:
    case EV_LEARN: return world->computes[event->compute].paused_until_us;
    case EV_CRASH:
    case EV_RESTART:
    case EV_FAIL_STORAGE:
    case EV_KILL:
    case EV_START:
    case EV_HEAL:
    case EV_CHANGER:
    case EV_REPORT:
    case EV_PEER_ASK:
    case EV_POWER_CUT:
    case EV_CONSUME:
    case EV_WIPE:
    case EV_PAUSE:
    case EV_JUMP:
    case EV_FULL:
    case EV_IDLE: return 0;
    }
    return 0;
}

bool trouble_puts_off(struct world *world, const struct sim_event *event)
{
    uint64_t until_us = world->healing ? 0 : paused_until_us(world, event);
    if (until_us <= world->now_us) {
        return false;
    }
    MARK("sim.paused");
    schedule_again(world, until_us, event);
    return true;
}

void trouble_on_pause(struct world *world)
{
    if (world->healing) {
        return;
    }
    uint32_t nodes = world->climate.nodes + world->climate.spares;
    uint32_t who = (uint32_t)tape_below(&world->tape, TAPE_PAUSE, nodes + COMPUTES);
    uint64_t until_us =
        world->now_us + tape_below(&world->tape, TAPE_PAUSE, world->trouble.pause_max_us);
    schedule_chart(
        world, "%c%u stands still until %.3f ms", who < nodes ? 's' : 'p',
        who < nodes ? who : who - nodes, (double)until_us / 1000);
    if (who < nodes) {
        world->nodes[who].paused_until_us = until_us;
    } else {
        world->computes[who - nodes].paused_until_us = until_us;
    }
    plan(world, TAPE_PAUSE, world->trouble.pause_us, EV_PAUSE);
}

/* ---- a disk is full ---- */

bool trouble_is_full(const struct world *world, uint32_t n)
{
    return !world->healing && world->now_us < world->nodes[n].full_until_us;
}

void trouble_on_full(struct world *world)
{
    if (world->healing) {
        return;
    }
    uint32_t nodes = world->climate.nodes + world->climate.spares;
    uint32_t n = (uint32_t)tape_below(&world->tape, TAPE_SPACE, nodes);
    struct node *node = &world->nodes[n];
    node->full_until_us =
        world->now_us + tape_below(&world->tape, TAPE_SPACE, world->trouble.full_max_us);
    node->is_all_full = tape_one_in(&world->tape, TAPE_SPACE, 4);
    MARK("sim.disk.full");
    schedule_chart(
        world, "the disk of s%u is full until %.3f ms%s", n, (double)node->full_until_us / 1000,
        node->is_all_full ? ", for its control file too" : "");
    plan(world, TAPE_SPACE, world->trouble.full_us, EV_FULL);
}

/* ---- what cannot be ---- */

bool trouble_is_nonsense(struct world *world)
{
    if (world->healing || !tape_one_in(&world->tape, TAPE_WIRE, world->trouble.nonsense_one_in)) {
        return false;
    }
    MARK("sim.message.nonsense");
    schedule_chart(world, "nonsense is sent");
    return true;
}

/* ---- clocks ---- */

uint64_t trouble_clock_ms(const struct world *world, uint32_t c)
{
    const struct clock_error *clock = &world->clocks[c];
    return clock->offset_ms + world->now_us * clock->rate / 1000000;
}

uint64_t trouble_true_us(const struct world *world, uint32_t c, uint64_t clock_ms)
{
    const struct clock_error *clock = &world->clocks[c];
    return clock_ms <= clock->offset_ms ? 0 : (clock_ms - clock->offset_ms) * 1000000 / clock->rate;
}

/* The machine slept: its clock is ahead, and timers are due. */
void trouble_on_jump(struct world *world)
{
    if (world->healing) {
        return;
    }
    uint32_t c = (uint32_t)tape_below(&world->tape, TAPE_CLOCK, COMPUTES);
    MARK("sim.clock.jumped");
    world->clocks[c].offset_ms += tape_below(&world->tape, TAPE_CLOCK, 5000);
    schedule_chart(world, "the clock of p%u jumps", c);
    if (world->computes[c].alive) {
        world->computes[c].tick_us = world->now_us;
        schedule_add(
            world, 0,
            (struct sim_event){
                .kind = EV_TICK, .compute = c, .incarnation = world->computes[c].incarnation});
    }
    plan(world, TAPE_CLOCK, world->trouble.jump_us, EV_JUMP);
}
