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

/* `count` digits at `to`. */
static void put_digits(char *to, unsigned count, uint64_t value)
{
    for (unsigned i = count; i > 0; i--) {
        to[i - 1] = (char)('0' + value % 10);
        value /= 10;
    }
}

/* The Gregorian date of a day, counted from 1970-01-01; years are counted from March for it. */
static void date_of_day(int64_t day, int64_t *ret_year, unsigned *ret_month, unsigned *ret_day)
{
    int64_t since = day + 719468; /* 0000-03-01 */
    int64_t era = (since >= 0 ? since : since - 146096) / 146097;
    unsigned of_era = (unsigned)(since - era * 146097);
    unsigned year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned of_year = of_era - (365 * year + year / 4 - year / 100);
    unsigned month = (5 * of_year + 2) / 153;
    *ret_day = of_year - (153 * month + 2) / 5 + 1;
    *ret_month = month < 10 ? month + 3 : month - 9;
    *ret_year = (int64_t)year + era * 400 + (*ret_month <= 2);
}

/* Without the C library, which takes a lock and reads the zone: lists have thousands of these. */
struct time_text time_text(wall_us_t time)
{
    struct time_text text = {.text = "0000-00-00T00:00:00.000000Z"};
    int64_t micros = (time % 1000000 + 1000000) % 1000000;
    int64_t seconds = (time - micros) / 1000000;
    int64_t of_day = (seconds % 86400 + 86400) % 86400;
    int64_t year;
    unsigned month, day;
    date_of_day((seconds - of_day) / 86400, &year, &month, &day);
    put_digits(text.text, 4, year < 0 ? 0 : year > 9999 ? 9999 : (uint64_t)year);
    put_digits(text.text + 5, 2, month);
    put_digits(text.text + 8, 2, day);
    put_digits(text.text + 11, 2, (uint64_t)of_day / 3600);
    put_digits(text.text + 14, 2, (uint64_t)of_day / 60 % 60);
    put_digits(text.text + 17, 2, (uint64_t)of_day % 60);
    put_digits(text.text + 20, 6, (uint64_t)micros);
    return text;
}
