#include "control/model/lease.h"

void lease_keep(struct lease *lease, mono_ns_t now, uint64_t lease_ms)
{
    lease->until = now + lease_ms * NS_PER_MS;
}

void lease_hear(struct lease *lease, mono_ns_t now, uint64_t lease_ms)
{
    lease_keep(lease, now, lease_ms);
    lease->fresh_until = now + lease_ms * NS_PER_MS / 2;
}

bool lease_is_fresh(const struct lease *lease, mono_ns_t now)
{
    return lease->fresh_until >= now;
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

void lease_clock_silence(struct lease_clock *clock, mono_ns_t now)
{
    clock->silent_at = now;
}

bool lease_may_end(
    const struct lease_clock *clock, const struct lease *lease, uint64_t lease_ms, mono_ns_t now)
{
    return lease_is_over(lease, now) && now - clock->silent_at > lease_ms * NS_PER_MS;
}
