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

/* Hosts that speak three times within their lease, and a network that is cut between all and us. */
struct talk {
    struct lease_clock clock;
    struct lease leases[4];
    bool ended[4];
    mono_ns_t now, spoke_at[4];
    bool is_cut, is_lost[4];
};

#define TALK_LEASE_MS 3000

static void talk(struct talk *talk, uint64_t ms)
{
    bool any_is_fresh;
    for (mono_ns_t end = talk->now + ms * NS_PER_MS; talk->now < end; talk->now += TICK) {
        any_is_fresh = false;
        for (size_t i = 0; i < ARRAY_LEN(talk->leases); i++) {
            if (talk->now - talk->spoke_at[i] >= TALK_LEASE_MS / 3 * NS_PER_MS) {
                talk->spoke_at[i] = talk->now;
                if (!talk->is_cut && !talk->is_lost[i]) {
                    lease_hear(&talk->leases[i], talk->now, TALK_LEASE_MS);
                }
            }
            any_is_fresh = any_is_fresh || lease_is_fresh(&talk->leases[i], talk->now);
        }
        if (!any_is_fresh) {
            lease_clock_silence(&talk->clock, talk->now);
        }
        for (size_t i = 0; i < ARRAY_LEN(talk->leases); i++) {
            talk->ended[i] =
                talk->ended[i] ||
                lease_may_end(&talk->clock, &talk->leases[i], TALK_LEASE_MS, talk->now);
        }
    }
}

static void begin_talk(struct talk *talk_, struct prng *prng)
{
    *talk_ = (struct talk){.now = 50 * NS_PER_S};
    for (size_t i = 0; i < ARRAY_LEN(talk_->leases); i++) {
        lease_keep(&talk_->leases[i], talk_->now, TALK_LEASE_MS);
        talk_->spoke_at[i] = talk_->now - prng_below(prng, TALK_LEASE_MS / 3) * NS_PER_MS;
    }
    talk(talk_, TALK_LEASE_MS + prng_below(prng, TALK_LEASE_MS));
}

START_TEST(test_no_lease_ends_for_a_cut_from_all_nor_when_it_heals)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct prng prng;
        struct talk all;
        prng_init(&prng, seed);
        begin_talk(&all, &prng);
        all.is_cut = true;
        talk(&all, prng_below(&prng, 10 * TALK_LEASE_MS));
        all.is_cut = false;
        talk(&all, 3 * TALK_LEASE_MS);
        for (size_t i = 0; i < ARRAY_LEN(all.ended); i++) {
            ck_assert(!all.ended[i]);
        }
    }
}
END_TEST

START_TEST(test_lease_of_one_that_is_lost_ends_while_another_is_heard)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct prng prng;
        struct talk all;
        prng_init(&prng, seed);
        begin_talk(&all, &prng);
        all.is_lost[0] = all.is_lost[1] = all.is_lost[2] = true;
        talk(&all, TALK_LEASE_MS + 400);
        ck_assert(all.ended[0] && all.ended[1] && all.ended[2] && !all.ended[3]);
    }
}
END_TEST

/* Of two that were lost with everybody, one comes back: the other one's time begins then. */
START_TEST(test_lease_of_one_that_stays_lost_after_a_cut_ends_a_lease_later)
{
    struct prng prng;
    struct talk all;
    prng_init(&prng, 1);
    begin_talk(&all, &prng);
    all.is_cut = true;
    talk(&all, 5 * TALK_LEASE_MS);
    all.is_cut = false;
    all.is_lost[0] = true;
    talk(&all, TALK_LEASE_MS);
    ck_assert(!all.ended[0]);
    talk(&all, TALK_LEASE_MS / 3 + 400);
    ck_assert(all.ended[0] && !all.ended[1]);
}
END_TEST

UNIT_MAIN(
    "lease",
    test_lease_that_is_not_kept_ends_after_its_time,
    test_lease_ends_when_unheard_of_for_its_time_by_somebody_who_was_there,
    test_no_lease_ends_for_a_cut_from_all_nor_when_it_heals,
    test_lease_of_one_that_is_lost_ends_while_another_is_heard,
    test_lease_of_one_that_stays_lost_after_a_cut_ends_a_lease_later);
