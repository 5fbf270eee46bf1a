/*
 * calendar.h - when something that comes back by the calendar was due last. In UTC.
 *
 * Pure: the time is an argument.
 */
#pragma once

#include "common/base/types.h"

enum frequency {
    FREQUENCY_HOURLY,
    FREQUENCY_DAILY,
    FREQUENCY_WEEKLY,
    FREQUENCY_MONTHLY,
    FREQUENCY_YEARLY,
};
extern const char *const frequency_names[]; /* "hourly", ..., NULL */

struct calendar_rule {
    enum frequency frequency;
    unsigned hour;  /* 0 to 23; not of hourly */
    unsigned day;   /* weekly: 1 is Monday; monthly, yearly: one that a month has not is its last */
    unsigned month; /* 1 to 12; of yearly */
};

/* The latest moment that is not after `now`, which lies after 1970. */
wall_us_t calendar_last(const struct calendar_rule *rule, wall_us_t now);
