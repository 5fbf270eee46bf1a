#include "common/base/clock.h"

#include <stdio.h>
#include <time.h>

mono_ns_t clock_mono(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (mono_ns_t)now.tv_sec * NS_PER_S + (mono_ns_t)now.tv_nsec;
}

wall_us_t clock_wall(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (wall_us_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

struct time_text time_text(wall_us_t time)
{
    struct time_text text;
    wall_us_t micros = (time % 1000000 + 1000000) % 1000000;
    time_t seconds = (time_t)((time - micros) / 1000000);
    struct tm tm;
    (void)gmtime_r(&seconds, &tm);
    char date[24];
    (void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(text.text, sizeof(text.text), "%.19s.%06uZ", date, (unsigned)micros);
    return text;
}
