#include "control/plan/turns.h"

#include <stdio.h>

void turns_offer(struct turns *turns, const char *id, const struct attempt *attempt, mono_ns_t now)
{
    if (attempt->running || attempt->next > now) {
        return;
    }
    size_t at = turns->count;
    while (at > 0 && turns->turns[at - 1].since > attempt->next) {
        at--;
    }
    if (at == TURNS_MAX) {
        return;
    }
    turns->count = MIN_OF(turns->count + 1, TURNS_MAX);
    for (size_t i = turns->count - 1; i > at; i--) {
        turns->turns[i] = turns->turns[i - 1];
    }
    turns->turns[at].since = attempt->next;
    snprintf(turns->turns[at].id, sizeof turns->turns[at].id, "%s", id);
}

void attempt_put_off(struct attempt *attempt, mono_ns_t now, uint64_t first_ms, uint64_t max_ms)
{
    uint64_t delay_ms = MIN_OF(first_ms << MIN_OF(attempt->failures, 20), max_ms);
    attempt->failures = (uint8_t)MIN_OF(attempt->failures + 1, 200);
    attempt->next = now + delay_ms * NS_PER_MS;
}
