/*
 * node.h - a simulated safekeeper: the acceptor core on a virtual disk. What it promises is
 * compared with its platter at the moment when it promises it.
 */
#pragma once

#include "tests/sim/world.h"

void node_restart(struct world *world, uint32_t node);
void node_crash(struct world *world, uint32_t node);
void node_feed(struct world *world, uint32_t node, const struct acceptor_event *event);
void node_deliver(struct world *world, const struct sim_event *event);
