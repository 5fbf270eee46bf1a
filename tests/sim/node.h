/*
 * node.h - a simulated safekeeper: the acceptor core on a virtual disk. What it promises is
 * compared with its platter at the moment when it promises it.
 */
#pragma once

#include "tests/sim/world.h"

void node_restart(struct world *world, uint32_t node);
void node_crash(struct world *world, uint32_t node);
void node_feed(struct world *world, uint32_t node, const struct acceptor_event *event);
/* An empty timeline under this generation; it is not there yet. */
void node_format(struct node *node, generation_t generation);
/* The log that this safekeeper had when it answered a vote request in `term`. */
const uint8_t *node_log_of_vote(const struct node *node, term_t term, lsn_t *ret_begin_lsn);
void node_wipe(struct world *world, uint32_t node); /* its disk is lost */
void node_on_note(struct world *world, const struct sim_event *event);
/* A proposer brings a newer membership; false: it does not get round to it. */
bool node_take_membership(struct world *world, uint32_t node, generation_t generation);
/* The hello on this connection has another generation than we. */
void node_refuse_hello(struct world *world, uint32_t conn);
void node_deliver(struct world *world, const struct sim_event *event);

/* What safekeepers ask each other while nobody leads: what is committed, and the bytes of it. */
void node_on_peer_ask(struct world *world);
void node_on_peer_answer(struct world *world, uint32_t n);
void node_on_peer_wal(struct world *world, uint32_t n);
