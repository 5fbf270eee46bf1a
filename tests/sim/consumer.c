#include "tests/sim/consumer.h"

#include "common/base/mark.h"
#include "tests/sim/changer.h"
#include "tests/sim/node.h"
#include "tests/sim/schedule.h"

static uint64_t below(struct world *world, uint64_t sides)
{
    return tape_below(&world->tape, TAPE_KEEP, sides);
}

static void plan(struct world *world)
{
    uint64_t every_us = world->consumer.every_us;
    uint64_t delay_ns = every_us == 0 ? 0 : below(world, every_us * 2000);
    if (delay_ns > 0 && !world->healing) { /* a tape that is used up plans nothing */
        schedule_add(world, 1 + delay_ns / 1000, (struct sim_event){.kind = EV_CONSUME});
    }
}

/* What whoever is appointed now begins with: the index of the newest generation that has one. */
static lsn_t newest_index_lsn(const struct consumer *consumer)
{
    for (uint32_t i = consumer->owner_count; i > 0; i--) {
        if (consumer->owners[i - 1].index_lsn != LSN_NONE) {
            return consumer->owners[i - 1].index_lsn;
        }
    }
    return WAL_START;
}

void consumer_begin(struct world *world)
{
    static const uint64_t every_us[] = {0, 0, 100, 400};
    struct consumer *consumer = &world->consumer;
    *consumer = (struct consumer){.owner_count = 1};
    consumer->every_us = every_us[below(world, ARRAY_LEN(every_us))];
    consumer->keep_max = below(world, 2) == 0 ? WAL_SIZE : 64;
    if ((world->tape.calm >> CALM_retention & 1) != 0) {
        consumer->every_us = 0;
    }
    consumer->owners[0] = (struct owner){.restored_lsn = WAL_START, .disk_lsn = WAL_START};
    plan(world);
}

void consumer_on_removed(struct world *world, uint32_t n, lsn_t lsn)
{
    const struct consumer *consumer = &world->consumer;
    const struct owner *newest = &consumer->owners[consumer->owner_count - 1];
    const struct acceptor_state *durable = disk_durable_state(&world->nodes[n].disk);
    schedule_chart(world, "s%u removes WAL before +%" PRIu64, n, lsn - WAL_START);
    MARK("sim.wal.removed");
    if (lsn > newest_index_lsn(consumer) || lsn > newest->disk_lsn) {
        oracle_fail(
            &world->oracle,
            "retention: s%u removes WAL before +%" PRIu64 ", a pageserver needs it from +%" PRIu64
            " on",
            n, lsn - WAL_START, MIN_OF(newest_index_lsn(consumer), newest->disk_lsn) - WAL_START);
    }
    if (durable == NULL || durable->begin_lsn < lsn) {
        oracle_fail(
            &world->oracle,
            "disk honesty: s%u removes WAL before +%" PRIu64
            " and would not know of it after a start",
            n, lsn - WAL_START);
    }
}

/* ---- what an owner does ---- */

static void ingest(struct world *world, struct owner *owner)
{
    const struct node *node = &world->nodes[below(world, NODES_MAX)];
    if (node->exists && node->up && node->acceptor.state.begin_lsn <= owner->disk_lsn) {
        owner->disk_lsn = MAX_OF(owner->disk_lsn, node->acceptor.state.commit_lsn);
    }
}

static void tell(struct world *world, uint32_t owner, const struct owner *said)
{
    struct retention_consumer words = {
        .generation = owner + 1,
        .durable_lsn = said->disk_lsn,
        .remote_lsn = said->confirmed_lsn,
    };
    for (uint32_t n = 0; n < NODES_MAX; n++) {
        struct node *node = &world->nodes[n];
        if (node->exists && node->up && below(world, 3) != 1) {
            retention_take(&node->consumer, &words);
        }
    }
}

static void replace(struct world *world)
{
    struct consumer *consumer = &world->consumer;
    lsn_t lsn = newest_index_lsn(consumer);
    if (consumer->owner_count < OWNERS_MAX) {
        MARK("sim.owner.replaced");
        schedule_chart(world, "another pageserver begins at +%" PRIu64, lsn - WAL_START);
        consumer->owners[consumer->owner_count++] =
            (struct owner){.restored_lsn = lsn, .disk_lsn = lsn};
    }
}

static void act(struct world *world, uint32_t number)
{
    struct consumer *consumer = &world->consumer;
    struct owner *owner = &consumer->owners[number];
    switch (below(world, 8)) {
    case 0:
    case 1: ingest(world, owner); break;
    case 2: owner->index_lsn = owner->disk_lsn; break;
    case 3:
        if (number + 1 == consumer->owner_count) {
            owner->confirmed_lsn = owner->index_lsn;
        }
        break;
    case 4:
        if (below(world, 32) == 1) {
            replace(world);
        }
        break;
    default: tell(world, number, owner); break;
    }
}

/* ---- what a safekeeper forgets ---- */

static void ask_members(struct world *world, uint32_t n, struct retention_view *view)
{
    const struct membership *membership =
        changer_membership(world, world->nodes[n].acceptor.state.generation);
    for (uint32_t i = 0; i < membership->count; i++) {
        const struct node *member = &world->nodes[membership->members[i] - 1];
        if (membership->members[i] == n + 1) {
            continue;
        }
        view->members[view->member_count++] = (struct retention_member){
            .id = membership->members[i],
            .answered = member->exists && member->up && below(world, 4) != 1,
            .record_lsn = member->acceptor.record_lsn,
        };
    }
}

/* As timeline/forget.c: a record end that is known, and not in the way of anybody. */
static void forget(struct world *world, uint32_t n)
{
    struct node *node = &world->nodes[n];
    if (!node->exists || !node->up) {
        return;
    }
    struct retention_view view = {
        .begin_lsn = node->acceptor.state.begin_lsn,
        .commit_lsn = node->acceptor.state.commit_lsn,
        .consumer = node->consumer,
        .keep_max = world->consumer.keep_max,
    };
    ask_members(world, n, &view);
    struct retention_verdict verdict = retention_judge(&view);
    bool is_record_end = verdict.holder == RETENTION_PAGESERVER;
    lsn_t lsn = is_record_end ? verdict.horizon_lsn : node->consumer.remote_lsn;
    if (lsn <= verdict.horizon_lsn) {
        struct acceptor_event event = {.kind = ACCEPTOR_WAL_UNNEEDED, .unneeded_lsn = lsn};
        node_feed(world, n, &event);
    }
}

void consumer_on_event(struct world *world)
{
    struct consumer *consumer = &world->consumer;
    uint32_t newest = consumer->owner_count - 1;
    bool is_old = newest > 0 && below(world, 3) == 1;
    act(world, is_old ? (uint32_t)below(world, newest) : newest);
    forget(world, (uint32_t)below(world, NODES_MAX));
    plan(world);
}
