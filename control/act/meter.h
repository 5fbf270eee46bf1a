/*
 * meter.h - what projects and their branches use: how long their computes run, how much they write,
 * and how much is stored for them.
 *
 * Computes and writes are measured from what the polls of the nodes have seen anyway, every few
 * seconds; sizes are asked for, ever so often (sizes.h). Once a minute it is added to rows of the
 * hour, the day and the month (UTC) of those of which there is something new, and rows that are too
 * old go (control/plan/usage.h); those of a branch go with it. What a control that dies has not
 * recorded yet (a minute at most) and what is used while none runs is not counted: figures of use
 * are never above what was used. What was stored last counts until another size is measured.
 * Threads: loop only.
 */
#pragma once

#include "control/act/reconcile.h"

#define METER_ROWS_MAX                                                                             \
    500 /* of a commit; the project or branch that was the last may be above it */

struct meter;

struct meter *meter_start(
    struct loop *loop, struct store *store, struct reconciler *reconciler, struct nodes *nodes);
void meter_stop(struct meter *meter); /* NULL is fine */
/* Now, not at the end of the minute: ask for sizes that are due, and record. */
void meter_record(struct meter *meter);
