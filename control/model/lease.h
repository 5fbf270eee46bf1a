/*
 * lease.h - until when something counts as alive, by a clock that stands still while we are away.
 *
 * A lease ends when it was not kept for its time, as long as somebody was there to hear it. Who was
 * away (not started yet, a suspended machine) begins all of them anew: lease_clock_look tells.
 * Who hears nobody at all does not know who is lost, and may be cut off himself: then no lease
 * ends, and none before somebody was heard again for as long as it lasts. Pure: the time is an
 * argument.
 */
#pragma once

#include "common/base/types.h"

#define LEASE_AWAY_MS 1000 /* between two looks: then nobody was there */

struct lease {
    mono_ns_t until;       /* 0: not begun, and so not over */
    mono_ns_t fresh_until; /* heard within half of it: the next word is hardly due yet */
};

struct lease_clock {
    mono_ns_t looked_at;
    mono_ns_t silent_at; /* the last look at which nobody was fresh */
};

/* As if it was heard, by who knows that he could not hear. */
void lease_keep(struct lease *lease, mono_ns_t now, uint64_t lease_ms);
void lease_hear(struct lease *lease, mono_ns_t now, uint64_t lease_ms);
bool lease_is_fresh(const struct lease *lease, mono_ns_t now);
/* Nobody spoke for it in its time. Whether it is to be ended: lease_may_end. */
bool lease_is_over(const struct lease *lease, mono_ns_t now);
/* Again and again, in much less than LEASE_AWAY_MS. True: keep every lease before looking at it. */
bool lease_clock_look(struct lease_clock *clock, mono_ns_t now);
/* At each look: nobody is fresh. */
void lease_clock_silence(struct lease_clock *clock, mono_ns_t now);
bool lease_may_end(
    const struct lease_clock *clock, const struct lease *lease, uint64_t lease_ms, mono_ns_t now);
