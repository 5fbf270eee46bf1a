/*
 * timer.c - a binary heap of embedded timers over one uv timer.
 *
 * uv timers are handles that may be freed only after their close callback; ours can be freed as
 * soon as they are stopped, which is why they exist.
 */
#include "common/io/timer.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/io/loop_private.h"

static void place(struct loop *loop, struct timer *timer, size_t index)
{
    loop->heap[index] = timer;
    timer->heap_index = index;
}

static void sift_up(struct loop *loop, struct timer *timer, size_t index)
{
    while (index > 1 && loop->heap[index / 2]->at > timer->at) {
        place(loop, loop->heap[index / 2], index);
        index /= 2;
    }
    place(loop, timer, index);
}

static void sift_down(struct loop *loop, struct timer *timer, size_t index)
{
    for (;;) {
        size_t child = index * 2;
        if (child > loop->heap_count) {
            break;
        }
        if (child < loop->heap_count && loop->heap[child + 1]->at < loop->heap[child]->at) {
            child++;
        }
        if (loop->heap[child]->at >= timer->at) {
            break;
        }
        place(loop, loop->heap[child], index);
        index = child;
    }
    place(loop, timer, index);
}

static void on_alarm(uv_timer_t *handle);

static void set_alarm(struct loop *loop)
{
    if (loop->heap_count == 0) {
        (void)uv_timer_stop(&loop->alarm);
        return;
    }
    mono_ns_t now = clock_mono();
    mono_ns_t at = loop->heap[1]->at;
    uint64_t delay_ms = at > now ? (at - now + NS_PER_MS - 1) / NS_PER_MS : 0;
    uv_update_time(&loop->uv); /* its time is cached; without this the alarm rings early */
    (void)uv_timer_start(&loop->alarm, on_alarm, delay_ms, 0);
}

static void take_out(struct loop *loop, struct timer *timer)
{
    size_t index = timer->heap_index;
    ASSERT(index >= 1 && index <= loop->heap_count && loop->heap[index] == timer);
    timer->heap_index = 0;
    struct timer *last = loop->heap[loop->heap_count--];
    if (last == timer) {
        return;
    }
    if (index > 1 && loop->heap[index / 2]->at > last->at) {
        sift_up(loop, last, index);
    } else {
        sift_down(loop, last, index);
    }
}

static void on_ring(struct loop_task *task);

/*
 * What is due already waits for the next turn. libuv would run an alarm without delay again and
 * again before it looks at anything else, so this one is a task.
 */
static void set_next_alarm(struct loop *loop)
{
    if (loop->heap_count == 0 || loop->heap[1]->at > clock_mono()) {
        set_alarm(loop);
        return;
    }
    (void)uv_timer_stop(&loop->alarm);
    loop->ring.run = on_ring;
    loop_unpost(loop, &loop->ring);
    loop_post(loop, &loop->ring);
}

/* Fires what is due now. A timer that starts itself again with no delay waits for the next turn. */
static void fire(struct loop *loop)
{
    mono_ns_t now = clock_mono();
    while (loop->heap_count > 0 && loop->heap[1]->at <= now) {
        struct timer *timer = loop->heap[1];
        take_out(loop, timer);
        timer->on_fire(timer); /* may free it, start it, or stop others */
    }
    set_next_alarm(loop);
}

static void on_ring(struct loop_task *task)
{
    fire(CONTAINER_OF(task, struct loop, ring));
}

static void on_alarm(uv_timer_t *handle)
{
    fire(CONTAINER_OF(handle, struct loop, alarm));
}

void timer_start(struct loop *loop, struct timer *timer, uint64_t delay_ms)
{
    ASSERT(timer->on_fire != NULL);
    timer_stop(timer);
    if (loop->heap_count + 2 > loop->heap_capacity) {
        loop->heap_capacity = MAX_OF(loop->heap_capacity * 2, 64);
        loop->heap = mem_realloc(loop->heap, loop->heap_capacity * sizeof(struct timer *));
    }
    uint64_t delay_max_ms = UINT64_MAX / 4 / NS_PER_MS;
    timer->loop = loop;
    timer->at = clock_mono() + MIN_OF(delay_ms, delay_max_ms) * NS_PER_MS;
    sift_up(loop, timer, ++loop->heap_count);
    if (timer->heap_index == 1) {
        set_alarm(loop);
    }
}

void timer_stop(struct timer *timer)
{
    if (timer->heap_index != 0) {
        /* The alarm stays as it is: at worst it rings for nothing. */
        take_out(timer->loop, timer);
    }
}

bool timer_is_started(const struct timer *timer)
{
    return timer->heap_index != 0;
}
