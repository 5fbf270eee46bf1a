/*
 * compute.h - a simulated compute: the proposer core and a Postgres that writes records.
 */
#pragma once

#include "tests/sim/world.h"

void compute_start(struct world *world, uint32_t compute);
void compute_kill(struct world *world, uint32_t compute);
void compute_on_up(struct world *world, const struct sim_event *event);
void compute_on_down(struct world *world, const struct sim_event *event);
void compute_on_learn(struct world *world, const struct sim_event *event);
void compute_deliver(struct world *world, const struct sim_event *event);
void compute_on_tick(struct world *world, uint32_t compute);
void compute_grow_wal(struct world *world, uint32_t compute);
