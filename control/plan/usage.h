/*
 * usage.h - periods of usage rows, and what sizes come to over time.
 *
 * A size holds until another one is noted. So a project whose size stays as it is needs no rows,
 * however long: what is missing between two rows is worked out when somebody asks. One row of each
 * granularity that is too old to be shown is kept for that: USAGE_ROWS_MAX a project, and as many a
 * branch. Pure: time is an argument. Threads: loop only, like the model.
 */
#pragma once

#include "control/model/model.h"

#define USAGE_HOURS    168
#define USAGE_DAYS     62
#define USAGE_MONTHS   14
#define USAGE_ROWS_MAX (USAGE_HOURS + USAGE_DAYS + USAGE_MONTHS + USAGE_GRANULARITIES)

/* When the hour, day or month of a time began (UTC). */
wall_us_t usage_begin(enum usage_granularity granularity, wall_us_t time);
/* And when the next one does. */
wall_us_t usage_end(enum usage_granularity granularity, wall_us_t begin);
/* A row of a period that is shown no more. */
bool usage_is_too_old(const struct usage_row *row, wall_us_t now);

/* Of `usages`, the newest row of that granularity that begins before then; NULL: none. */
const struct usage_row *usage_before(
    const struct list *usages, enum usage_granularity granularity, wall_us_t begin);
/* What was stored last, as far as it is on record. */
struct stored usage_stored(const struct list *usages);

/*
 * From `now` on this is stored (NULL: as before), and what was before counts until then. `before`:
 * the row before it, NULL: there is none.
 */
void usage_note(
    struct usage_row *row,
    const struct usage_row *before,
    const struct stored *stored,
    wall_us_t now);

/*
 * The periods from..to of a project or branch, each as of now or its end, in order of time, at most
 * so many; there are no more than USAGE_ROWS_MAX. Those in which nothing was used and nothing
 * stored are left out.
 */
size_t usage_frames(
    const struct list *usages,
    enum usage_granularity granularity,
    wall_us_t from,
    wall_us_t to,
    wall_us_t now,
    struct usage_row *frames,
    size_t frames_max);
