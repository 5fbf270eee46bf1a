/*
 * meter.h - what projects and their branches use: how long their computes run, and how much they
 * write.
 *
 * Measured from what the polls of the nodes have seen anyway, every few seconds. Once a minute it
 * is added to rows of the hour, the day and the month (UTC), and rows that are too old go: at most
 * USAGE_ROWS_MAX a project and as many a branch, which go with it. What a control that dies has not
 * recorded yet (a minute at most) and what happens while none runs is not counted: the figures are
 * never above what was used. Threads: loop only.
 */
#pragma once

#include "control/act/reconcile.h"

#define USAGE_HOURS    168
#define USAGE_DAYS     62
#define USAGE_MONTHS   14
#define USAGE_ROWS_MAX (USAGE_HOURS + USAGE_DAYS + USAGE_MONTHS)

struct meter;

struct meter *meter_start(struct loop *loop, struct store *store, struct reconciler *reconciler);
void meter_stop(struct meter *meter);   /* NULL is fine */
void meter_record(struct meter *meter); /* now, not at the end of the minute */

/* When the hour, day or month of a time began. */
wall_us_t usage_begin(enum usage_granularity granularity, wall_us_t time);
/* And when the next one does. */
wall_us_t usage_end(enum usage_granularity granularity, wall_us_t begin);
