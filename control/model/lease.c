#include "control/model/lease.h"

void lease_keep(struct lease *lease, mono_ns_t now, uint64_t lease_ms)
{
    lease->until = now + lease_ms * NS_PER_MS;
}

bool lease_is_over(const struct lease *lease, mono_ns_t now)
{
    return lease->until != 0 && lease->until < now;
}

bool lease_clock_look(struct lease_clock *clock, mono_ns_t now)
{
    bool was_away = now - clock->looked_at > LEASE_AWAY_MS * NS_PER_MS;
    clock->looked_at = now;
    return was_away;
}
