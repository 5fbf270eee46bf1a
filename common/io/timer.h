/*
 * timer.h - one-shot timers: embed, start, stop; stopping is immediate, so the owner may be freed.
 *
 * Resolution 1 ms. A zeroed timer is stopped.
 */
#pragma once

#include "common/io/loop.h"

struct timer {
    void (*on_fire)(struct timer *timer); /* may start it again */
    struct loop *loop;                    /* private from here on */
    mono_ns_t at;
    size_t heap_index; /* 0: not started */
};

void timer_start(struct loop *loop, struct timer *timer, uint64_t delay_ms);
void timer_stop(struct timer *timer);
bool timer_is_started(const struct timer *timer);
