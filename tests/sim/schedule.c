#include "tests/sim/schedule.h"

#include <stdarg.h>

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_us < b->at_us || (a->at_us == b->at_us && a->order < b->order);
}

static void push(struct world *world, struct sim_event event)
{
    if (world->pending == EVENTS_MAX) {
        oracle_fail(&world->oracle, "busy: %d events are waiting", EVENTS_MAX);
        return;
    }
    uint32_t hole = world->pending++;
    while (hole > 0 && earlier(&event, &world->heap[(hole - 1) / 2])) {
        world->heap[hole] = world->heap[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    world->heap[hole] = event;
}

void schedule_add(struct world *world, uint64_t delay_us, struct sim_event event)
{
    event.at_us = world->now_us + delay_us;
    event.order = world->order++;
    push(world, event);
}

void schedule_again(struct world *world, uint64_t at_us, const struct sim_event *event)
{
    struct sim_event later = *event;
    later.at_us = at_us;
    push(world, later);
}

struct sim_event schedule_next(struct world *world)
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

void schedule_chart(struct world *world, const char *format, ...)
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
