/*
 * clock.h - the two clocks. Pure cores get time in their events instead. [any]
 */
#pragma once

#include "common/base/types.h"

mono_ns_t clock_mono(void); /* for timeouts and durations */
wall_us_t clock_wall(void); /* for people: logs, timestamps in the API */

#define TIME_TEXT_SIZE 28 /* "2026-11-22T10:00:00.123456Z" and the final NUL */
struct time_text {
    char text[TIME_TEXT_SIZE];
};
struct time_text time_text(wall_us_t time);
