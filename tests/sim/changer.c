#include "tests/sim/changer.h"

#include "common/base/mark.h"
#include "tests/sim/schedule.h"

static uint64_t below(struct world *world, uint64_t n)
{
    return tape_below(&world->tape, TAPE_CHANGE, n);
}

static bool chance(struct world *world, uint64_t one_in)
{
    return !world->healing && tape_one_in(&world->tape, TAPE_CHANGE, one_in);
}

const struct membership *changer_membership(const struct world *world, generation_t generation)
{
    ASSERT(generation >= GENERATION);
    ASSERT(generation - GENERATION < world->changer.history_count);
    return &world->changer.history[generation - GENERATION];
}

const struct membership *changer_newest(const struct world *world)
{
    return &world->changer.history[world->changer.history_count - 1];
}

static bool has(uint32_t set, uint32_t index)
{
    return (set & 1u << index) != 0;
}

/* Only the new set has it. */
static bool is_newcomer(const struct membership *joint, uint32_t index)
{
    return has(joint->new_set, index) && !has(joint->old_set, index);
}

/* ---- notes ---- */

void changer_send(struct world *world, uint32_t node, const struct note *note)
{
    if (chance(world, world->climate.note_loss_one_in)) {
        return;
    }
    ASSERT(world->arena_used + sizeof(*note) <= ARENA_SIZE);
    struct sim_event event = {
        .kind = note->kind == NOTE_REPORT ? EV_REPORT : EV_NOTE,
        .node = node,
        .frame = {.offset = world->arena_used, .size = sizeof(*note)}};
    memcpy(world->arena + world->arena_used, note, sizeof(*note));
    world->arena_used += (uint32_t)sizeof(*note);
    uint64_t late_us = chance(world, 16) ? below(world, world->climate.chaos_us) : 0;
    schedule_add(world, 50 + below(world, MIN_OF(world->climate.change_us, 500)) + late_us, event);
    if (chance(world, 32)) { /* twice */
        schedule_add(world, 50 + below(world, world->climate.chaos_us), event);
    }
}

struct note changer_take(const struct world *world, const struct sim_event *event)
{
    struct note note;
    memcpy(&note, world->arena + event->frame.offset, sizeof(note));
    return note;
}

/* ---- steps ---- */

static void tick_later(struct world *world, uint64_t delay_us)
{
    schedule_add(
        world, delay_us,
        (struct sim_event){.kind = EV_CHANGER, .incarnation = world->changer.incarnation});
}

/* Everything that it was told is forgotten. */
static void die(struct world *world)
{
    struct changer *changer = &world->changer;
    MARK("sim.changer.crashed");
    schedule_chart(world, "control crashes");
    changer->incarnation++;
    changer->gives_up = changer->is_stuck = false;
    memset(changer->reports, 0, sizeof(changer->reports));
    tick_later(world, 500 + below(world, 8000));
}

/* Write it down; false: it died right after. */
static bool write_down(struct world *world, const struct membership *next, const char *what)
{
    struct changer *changer = &world->changer;
    ASSERT(changer->history_count < GENERATIONS_MAX);
    ASSERT(next->generation == changer_newest(world)->generation + 1);
    changer->history[changer->history_count++] = *next;
    world->oracle.newest = next->generation;
    changer->gives_up = changer->is_stuck = false;
    memset(changer->reports, 0, sizeof(changer->reports));
    if (world->chart != NULL) {
        char text[128] = "";
        size_t used = 0;
        for (uint32_t i = 0; i < next->count; i++) {
            const char *side = !membership_is_joint(next) ? ""
                               : !has(next->new_set, i)   ? "-"
                               : !has(next->old_set, i)   ? "+"
                                                          : "";
            used += (size_t)snprintf(
                text + used, sizeof(text) - used, " s%" PRIu64 "%s", next->members[i] - 1, side);
        }
        schedule_chart(world, "control %s generation %u:%s", what, next->generation, text);
    }
    if (chance(world, world->climate.changer_crash_one_in)) {
        die(world);
        return false;
    }
    return true;
}

static uint32_t pick_set(struct world *world, node_id_t members[MEMBERS_MAX])
{
    const struct membership *now = changer_newest(world);
    uint32_t bits = 0, everybody = world->climate.nodes + world->climate.spares;
    for (uint32_t i = 0; i < now->count; i++) {
        bits |= 1u << (now->members[i] - 1);
    }
    uint32_t kind = world->climate.one_comes_and_goes ? 1 : (uint32_t)below(world, 4);
    uint32_t other = (uint32_t)below(world, everybody);
    if (kind == 0) { /* anything */
        bits = 1 + (uint32_t)below(world, (1u << everybody) - 1);
    } else if (kind == 1) { /* one more, or one less */
        other = world->climate.one_comes_and_goes ? 0 : other;
        bits ^= 1u << other;
    } else { /* one for another */
        uint32_t one = (uint32_t)(now->members[below(world, now->count)] - 1);
        bits = (bits & ~(1u << one)) | 1u << other;
    }
    uint32_t count = 0;
    for (uint32_t n = 0; n < everybody; n++) {
        if (has(bits, n)) {
            members[count++] = n + 1;
        }
    }
    return count;
}

static void begin_change(struct world *world)
{
    struct changer *changer = &world->changer;
    node_id_t members[MEMBERS_MAX] = {0};
    struct membership joint;
    uint32_t count = pick_set(world, members);
    if (change_begin(changer_newest(world), members, count, &joint, NULL) != ERR_OK) {
        return;
    }
    for (uint32_t i = 0; i < joint.count; i++) {
        uint32_t n = (uint32_t)joint.members[i] - 1;
        changer->folders[n] = world->nodes[n].folder; /* it asks before it begins */
    }
    MARK("sim.change.began");
    (void)write_down(world, &joint, "begins");
}

static void tell_all(struct world *world, const struct change_judgement *judged)
{
    const struct membership *now = changer_newest(world);
    struct changer *changer = &world->changer;
    for (uint32_t i = 0; i < now->count; i++) {
        uint32_t n = (uint32_t)now->members[i] - 1;
        bool behind =
            judged != NULL && judged->verdict == CHANGE_WAIT_NEW && has(judged->behind, i);
        const struct change_report *report = &changer->reports[i];
        if (report->answered && report->generation >= now->generation && !behind) {
            continue;
        }
        struct note note = {
            .kind = membership_is_joint(now) && is_newcomer(now, i) ? NOTE_CREATE : NOTE_TELL,
            .generation = now->generation,
            .term = behind ? judged->term : 0,
            .folder = changer->folders[n]};
        changer_send(world, n, &note);
    }
}

/* Who was a member once and is none now: its timeline goes, unless nobody gets round to it. */
static void delete_removed(struct world *world)
{
    const struct membership *now = changer_newest(world);
    for (uint32_t n = 0; n < world->climate.nodes + world->climate.spares; n++) {
        if (membership_index(now, n + 1) == now->count && world->nodes[n].exists &&
            world->climate.deletes && chance(world, 2)) {
            struct note note = {.kind = NOTE_DELETE, .generation = now->generation};
            changer_send(world, n, &note);
        }
    }
}

static void step_joint(struct world *world)
{
    struct changer *changer = &world->changer;
    const struct membership *joint = changer_newest(world);
    struct change_judgement judged = change_judge(joint, changer->reports);
    if (judged.verdict == CHANGE_SUPERSEDED) {
        oracle_fail(&world->oracle, "a safekeeper has a generation that nobody wrote down");
        return;
    }
    if (judged.verdict == CHANGE_MAY_FINISH && !changer->gives_up) {
        struct membership next = change_finish(joint, false);
        MARK("sim.change.finished");
        oracle_on_finished(&world->oracle, &next, world->disks);
        (void)write_down(world, &next, "ends with");
        return;
    }
    changer->gives_up = changer->gives_up || chance(world, 40) || changer->is_stuck ||
                        (world->healing && changer->patience-- == 0);
    if (changer->gives_up) {
        struct membership next = change_finish(joint, true);
        MARK("sim.change.given_up");
        (void)write_down(world, &next, "gives up, back to");
        return;
    }
    tell_all(world, &judged);
}

static void step(struct world *world)
{
    struct changer *changer = &world->changer;
    if (membership_is_joint(changer_newest(world))) {
        step_joint(world);
        return;
    }
    tell_all(world, NULL);
    delete_removed(world);
    if (chance(world, world->climate.change_one_in) &&
        changer->history_count + 3 < GENERATIONS_MAX) {
        begin_change(world);
    }
}

void changer_on_tick(struct world *world, const struct sim_event *event)
{
    struct changer *changer = &world->changer;
    if (event->incarnation != changer->incarnation) {
        return;
    }
    step(world);
    if (event->incarnation == changer->incarnation) {
        tick_later(world, 100 + below(world, world->climate.change_us));
    }
}

void changer_on_note(struct world *world, const struct sim_event *event)
{
    struct changer *changer = &world->changer;
    const struct membership *now = changer_newest(world);
    struct note note = changer_take(world, event);
    uint32_t index = membership_index(now, event->node + 1);
    if (index == now->count) {
        return;
    }
    if (!note.report.answered) {
        MARK("sim.change.newcomer_lost");
        changer->is_stuck = membership_is_joint(now) && is_newcomer(now, index) &&
                            note.folder != changer->folders[event->node];
        return;
    }
    const struct change_report *known = &changer->reports[index];
    if (!known->answered || note.report.generation >= known->generation) {
        changer->reports[index] = note.report;
    }
}

void changer_begin(struct world *world)
{
    struct changer *changer = &world->changer;
    *changer = (struct changer){.history_count = 1};
    changer->history[0] = (struct membership){
        .generation = GENERATION, .count = world->climate.nodes, .members = {1, 2, 3, 4, 5}};
    if (world->climate.change_one_in > 0) {
        tick_later(world, below(world, 3000));
    }
}

void changer_heal(struct world *world)
{
    if (world->climate.change_one_in > 0) {
        world->changer.incarnation++;
        world->changer.patience = 100;
        tick_later(world, 100);
    }
}
