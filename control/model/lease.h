/*
 * lease.h - until when something counts as alive, by a clock that stands still while we are away.
 *
 * A lease ends when it was not kept for its time, as long as somebody was there to hear it. Who was
 * away (not started yet, a suspended machine) begins all of them anew: lease_clock_look tells.
 * Pure: the time is an argument.
 */
#pragma once

#include "common/base/types.h"

#define LEASE_AWAY_MS 1000 /* between two looks: then nobody was there */

struct lease {
    mono_ns_t until; /* 0: not begun, and so not over */
};

struct lease_clock {
    mono_ns_t looked_at;
};

void lease_keep(struct lease *lease, mono_ns_t now, uint64_t lease_ms);
bool lease_is_over(const struct lease *lease, mono_ns_t now);
/* Again and again, in much less than LEASE_AWAY_MS. True: keep every lease before looking at it. */
bool lease_clock_look(struct lease_clock *clock, mono_ns_t now);
