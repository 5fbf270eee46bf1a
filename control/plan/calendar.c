#include "control/plan/calendar.h"

#include "common/base/assert.h"

#define US_PER_S     ((wall_us_t)1000000)
#define US_PER_HOUR  (3600 * US_PER_S)
#define US_PER_DAY   (24 * US_PER_HOUR)
#define DAYS_PER_ERA 146097 /* 400 years */
#define ERA_BEGIN    719468 /* days from 0000-03-01 to 1970-01-01 */

const char *const frequency_names[] = {"hourly", "daily", "weekly", "monthly", "yearly", NULL};

struct date {
    int64_t year;
    unsigned month, day; /* from 1 */
};

/* Years begin in March, so that the day that only some have is the last of them. */
static struct date date_of(int64_t days)
{
    int64_t shifted = days + ERA_BEGIN;
    int64_t era = shifted / DAYS_PER_ERA;
    int64_t of_era = shifted % DAYS_PER_ERA;
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    unsigned month = (unsigned)((5 * of_year + 2) / 153); /* 0 is March */
    unsigned day = (unsigned)(of_year - (153 * (int64_t)month + 2) / 5 + 1);
    month = month < 10 ? month + 3 : month - 9;
    return (struct date){.year = year + era * 400 + (month <= 2), .month = month, .day = day};
}

static int64_t days_of(const struct date *date)
{
    int64_t year = date->year - (date->month <= 2);
    int64_t era = year / 400, of_era = year % 400;
    int64_t month = date->month > 2 ? date->month - 3 : date->month + 9;
    int64_t of_year = (153 * month + 2) / 5 + date->day - 1;
    return era * DAYS_PER_ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - ERA_BEGIN;
}

static unsigned days_in_month(int64_t year, unsigned month)
{
    struct date first = {.year = year, .month = month, .day = 1};
    struct date next = {
        .year = month == 12 ? year + 1 : year, .month = month == 12 ? 1 : month + 1, .day = 1};
    return (unsigned)(days_of(&next) - days_of(&first));
}

static wall_us_t moment(int64_t year, unsigned month, const struct calendar_rule *rule)
{
    unsigned last = days_in_month(year, month);
    struct date date = {.year = year, .month = month, .day = rule->day < last ? rule->day : last};
    return days_of(&date) * US_PER_DAY + rule->hour * US_PER_HOUR;
}

static wall_us_t last_of_month(
    const struct calendar_rule *rule, const struct date *today, wall_us_t now)
{
    wall_us_t due = moment(today->year, today->month, rule);
    if (due <= now) {
        return due;
    }
    return today->month == 1 ? moment(today->year - 1, 12, rule)
                             : moment(today->year, today->month - 1, rule);
}

wall_us_t calendar_last(const struct calendar_rule *rule, wall_us_t now)
{
    int64_t days = now / US_PER_DAY;
    struct date today = date_of(days);
    wall_us_t hour = rule->hour * US_PER_HOUR, due = 0;
    ASSERT(now > 0);
    switch (rule->frequency) {
    case FREQUENCY_HOURLY: return now - now % US_PER_HOUR;
    case FREQUENCY_DAILY:
        due = days * US_PER_DAY + hour;
        return due <= now ? due : due - US_PER_DAY;
    case FREQUENCY_WEEKLY: {
        int64_t weekday = (days + 3) % 7; /* 0 is Monday */
        due = (days - (weekday + 8 - rule->day) % 7) * US_PER_DAY + hour;
        return due <= now ? due : due - 7 * US_PER_DAY;
    }
    case FREQUENCY_MONTHLY: return last_of_month(rule, &today, now);
    case FREQUENCY_YEARLY:
        due = moment(today.year, rule->month, rule);
        return due <= now ? due : moment(today.year - 1, rule->month, rule);
    }
    ASSERT(false);
    return 0;
}
