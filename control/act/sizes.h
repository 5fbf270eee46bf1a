/*
 * sizes.h - asks pageservers how much they store for each project.
 *
 * Polls say for each timeline where it ends and where its history begins; only a project in which
 * one of these has changed is asked for, at most once in SIZES_EVERY_US, and every few hours in any
 * case, because leases end without a trace. A pageserver is asked for one project at a time, those
 * first that have waited longest, and rests after an answer that took it long: however many
 * projects are written to, it spends one part in SIZES_SHARE of its time on this. What was answered
 * stands in `measured` of the project and its branches and is recorded by the meter. Threads: loop
 * only.
 */
#pragma once

#include "control/act/nodes.h"
#include "control/model/model.h"

#define SIZES_EVERY_US  ((wall_us_t)300 * 1000000)
#define SIZES_ALWAYS_US ((wall_us_t)6 * 3600 * 1000000)
#define SIZES_SHARE     50

struct sizes;

struct sizes *sizes_create(struct model *model, struct nodes *nodes);
/* Ask for what is due. Answers ask for the rest. */
void sizes_look(struct sizes *sizes, wall_us_t now);
void sizes_stop(struct sizes *sizes); /* answers that still come change nothing */

/* A poll that lists a project begins; then what it says of each timeline of it. */
void sizes_listed(struct project *project);
void sizes_listed_timeline(const struct branch *branch, lsn_t cutoff_lsn, lsn_t durable_lsn);
