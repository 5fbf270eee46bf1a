#include "tests/sim/climate.h"

#include <string.h>

static bool one_in(struct tape *tape, uint64_t n)
{
    return tape_one_in(tape, TAPE_SWARM, n);
}

static uint64_t pick(struct tape *tape, const uint64_t *choices, size_t count)
{
    return choices[tape_below(tape, TAPE_SWARM, count)];
}
/* The first choice is the calm one. */
#define PICK(tape, ...)                                                                            \
    pick(                                                                                          \
        (tape), (const uint64_t[]){__VA_ARGS__},                                                   \
        sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* The fourth came later: tapes from before it was there mean what they meant. */
#define FIRST_COMPUTES 3

static void draw_fourth(struct climate *climate, struct tape *swarm)
{
    for (uint32_t n = 0; n < climate->nodes + climate->spares; n++) {
        climate->latency_us[FIRST_COMPUTES][n] = PICK(swarm, 100, 100, 300, 1000, 8000);
    }
}

void climate_draw(struct climate *climate, struct tape *swarm)
{
    climate->nodes = one_in(swarm, 8) ? 5 : 3;
    climate->computes = 1 + (uint32_t)tape_below(swarm, TAPE_SWARM, COMPUTES);
    for (int c = 0; c < FIRST_COMPUTES; c++) {
        for (uint32_t n = 0; n < climate->nodes; n++) {
            climate->latency_us[c][n] = PICK(swarm, 100, 100, 300, 1000, 8000);
        }
    }
    for (uint32_t n = 0; n < climate->nodes; n++) {
        climate->disk_us[n] = PICK(swarm, 30, 100, 100, 1000, 5000);
    }
    climate->reset_one_in = PICK(swarm, 0, 10, 30, 100, 300);
    climate->crash_one_in = PICK(swarm, 0, 3000, 10000, 30000);
    climate->local_us = PICK(swarm, 300, 1000, 3000);
    climate->chunk_max = PICK(swarm, 1, 24, 64, 400);
    climate->read_max = PICK(swarm, 16, 64, 4096);
    climate->window_max = PICK(swarm, 128, 512, 4096);
    climate->inflight_max = PICK(swarm, 64, 512, 4096);
    climate->old_bytes = one_in(swarm, 2);
    climate->sync_one_in = PICK(swarm, 0, 3, 2);
    climate->failure_one_in = 8;
    climate->sleeper = one_in(swarm, 32);
    climate->foreigner = one_in(swarm, 16);
    climate->chaos_us = PICK(swarm, 15000, 30000, 60000);
    climate->life_us = climate->chaos_us;
    /* One rival after the other, each with a long repair before it. */
    if (one_in(swarm, 4)) {
        climate->computes = FIRST_COMPUTES;
        climate->chunk_max = 400;
        climate->read_max = 16;
        climate->life_us = 15000;
        climate->crash_one_in = PICK(swarm, 0, 30000);
        climate->reset_one_in = PICK(swarm, 0, 300);
    }
    climate->heal_sync = one_in(swarm, 2);
    climate->persist_node = (uint32_t)tape_below(swarm, TAPE_SWARM, climate->nodes);
    climate->rot_one_in = PICK(swarm, 0, 1, 3); /* drawn last: older tapes stay what they were */
    climate->many_terms = one_in(swarm, 16);
    climate->change_one_in = PICK(swarm, 0, 0, 2, 4);
    climate->deletes = climate->wipes = climate->stale_starts = false;
    climate->changer_crash_one_in = climate->note_loss_one_in = 0;
    climate->deaf_one_in = climate->change_us = 1;
    climate->one_comes_and_goes = false;
    climate->spares = 0;
    if (climate->change_one_in > 0) {
        climate->foreigner = false; /* there are other generations enough */
        climate->spares = 1 + (uint32_t)tape_below(swarm, TAPE_SWARM, NODES_MAX - climate->nodes);
        climate->changer_crash_one_in = PICK(swarm, 0, 3, 8);
        climate->note_loss_one_in = PICK(swarm, 0, 3, 16);
        climate->deletes = one_in(swarm, 2);
        climate->wipes = one_in(swarm, 2);
        climate->stale_starts = one_in(swarm, 2);
        climate->deaf_one_in = PICK(swarm, 1, 1, 3, 10);
        climate->change_us = PICK(swarm, 300, 2000, 2000);
        climate->one_comes_and_goes = one_in(swarm, 4);
    }
    for (uint32_t n = climate->nodes; n < climate->nodes + climate->spares; n++) {
        for (int c = 0; c < FIRST_COMPUTES; c++) {
            climate->latency_us[c][n] = PICK(swarm, 100, 100, 300, 1000, 8000);
        }
        climate->disk_us[n] = PICK(swarm, 30, 100, 100, 1000, 5000);
    }
    climate->peer_us = PICK(swarm, 0, 500, 3000);
    draw_fourth(climate, swarm);
    climate->many_writers = one_in(swarm, 4);
}

static const char *const names[] = {
#define X(name) #name,
    CLIMATE_CALMS(X)
#undef X
};

const char *climate_calm_name(enum climate_calm calm)
{
    return names[calm];
}

bool climate_calm_parse(const char *name, enum climate_calm *ret_calm)
{
    for (int i = 0; i < CALMS; i++) {
        if (strcmp(names[i], name) == 0) {
            *ret_calm = (enum climate_calm)i;
            return true;
        }
    }
    return false;
}

static void leave_out(struct climate *climate, enum climate_calm calm)
{
    switch (calm) {
    case CALM_crashes: climate->crash_one_in = 0; break;
    case CALM_resets: climate->reset_one_in = 0; break;
    case CALM_old_bytes: climate->old_bytes = false; break;
    case CALM_failures: climate->failure_one_in = 0; break;
    case CALM_peers: climate->peer_us = 0; break;
    case CALM_rot: climate->rot_one_in = 0; break;
    case CALM_sleeper: climate->sleeper = false; break;
    case CALM_foreigner: climate->foreigner = false; break;
    case CALM_syncs: climate->sync_one_in = 0; break;
    case CALM_third_rival: climate->computes = climate->computes > 2 ? 2 : climate->computes; break;
    case CALM_fourth_rival: climate->computes = MIN_OF(climate->computes, 3); break;
    case CALM_rivals: climate->computes = 1; break;
    case CALM_slow_links:
        for (int c = 0; c < COMPUTES; c++) {
            for (int n = 0; n < NODES_MAX; n++) {
                climate->latency_us[c][n] = 100;
            }
        }
        break;
    case CALM_slow_disks:
        for (int n = 0; n < NODES_MAX; n++) {
            climate->disk_us[n] = 100;
        }
        break;
    case CALM_changes: climate->change_one_in = 0; break;
    case CALM_wipes: climate->wipes = false; break;
    case CALM_small_reads: climate->read_max = 4096; break;
    case CALM_small_windows: climate->window_max = climate->inflight_max = 4096; break;
    case CALM_half_the_time: climate->chaos_us /= 2; break;
    case CALM_pauses: /* trouble.c */
    case CALM_clocks:
    case CALM_damage:
    case CALM_frozen:
    case CALM_together:
    case CALM_versions:
    case CALM_nonsense:
    case CALM_full_disks:
    case CALM_retention: break; /* consumer.c */
    case CALMS: break;
    }
}

void climate_calm(struct climate *climate, uint32_t calms)
{
    for (int i = 0; i < CALMS; i++) {
        if ((calms >> i & 1) != 0) {
            leave_out(climate, (enum climate_calm)i);
        }
    }
}
