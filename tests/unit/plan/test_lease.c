#include "control/model/lease.h"

#include "common/base/prng.h"
#include "tests/unit/unit.h"

#define TICK (200 * NS_PER_MS)

START_TEST(test_lease_that_is_not_kept_ends_after_its_time)
{
    struct lease lease = {0};
    ck_assert(!lease_is_over(&lease, 100 * NS_PER_S)); /* nobody began it */
    lease_keep(&lease, 100 * NS_PER_S, 2000);
    ck_assert(!lease_is_over(&lease, 102 * NS_PER_S));
    ck_assert(lease_is_over(&lease, 102 * NS_PER_S + 1));
    lease_keep(&lease, 102 * NS_PER_S, 2000);
    ck_assert(!lease_is_over(&lease, 104 * NS_PER_S));
}
END_TEST

/* The model: of each host, how long somebody who was there has not heard of it. */
struct model_host {
    struct lease lease;
    uint64_t lease_ms;
    uint64_t unheard_ticks;
    bool is_over;
};

static void run_model(uint64_t seed)
{
    struct prng prng;
    struct lease_clock clock = {0};
    struct model_host hosts[5] = {0};
    mono_ns_t now = 50 * NS_PER_S;
    prng_init(&prng, seed);
    (void)lease_clock_look(&clock, now);
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        hosts[i].lease_ms = 1000 * (1 + prng_below(&prng, 4));
        lease_keep(&hosts[i].lease, now, hosts[i].lease_ms);
    }
    for (int step = 0; step < 400; step++) {
        bool is_away = prng_below(&prng, 20) == 0; /* the machine sleeps */
        now += is_away ? LEASE_AWAY_MS * NS_PER_MS * (2 + prng_below(&prng, 100)) : TICK;
        ck_assert(lease_clock_look(&clock, now) == is_away);
        for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
            struct model_host *host = &hosts[i];
            host->unheard_ticks = is_away ? 0 : host->unheard_ticks + 1;
            if (is_away) {
                lease_keep(&host->lease, now, host->lease_ms);
            }
            ck_assert(
                lease_is_over(&host->lease, now) ==
                (host->unheard_ticks * TICK > host->lease_ms * NS_PER_MS));
            if (prng_below(&prng, 6) == 0) {
                host->unheard_ticks = 0;
                lease_keep(&host->lease, now, host->lease_ms);
            }
        }
    }
}

START_TEST(test_lease_ends_when_unheard_of_for_its_time_by_somebody_who_was_there)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        run_model(seed);
    }
}
END_TEST

UNIT_MAIN(
    "lease",
    test_lease_that_is_not_kept_ends_after_its_time,
    test_lease_ends_when_unheard_of_for_its_time_by_somebody_who_was_there);
