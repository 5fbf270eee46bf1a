#include "control/plan/usage.h"

#include "control/plan/calendar.h"

#define US_PER_HOUR ((wall_us_t)3600 * 1000000)

static const enum frequency frequencies[] = {
    [USAGE_HOURLY] = FREQUENCY_HOURLY,
    [USAGE_DAILY] = FREQUENCY_DAILY,
    [USAGE_MONTHLY] = FREQUENCY_MONTHLY,
};

/* ---- periods ---- */

wall_us_t usage_begin(enum usage_granularity granularity, wall_us_t time)
{
    struct calendar_rule rule = {.frequency = frequencies[granularity], .day = 1, .month = 1};
    return calendar_last(&rule, time);
}

wall_us_t usage_end(enum usage_granularity granularity, wall_us_t begin)
{
    static const int64_t hours[] = {
        [USAGE_HOURLY] = 1, [USAGE_DAILY] = 24, [USAGE_MONTHLY] = 32 * 24};
    return usage_begin(granularity, begin + hours[granularity] * US_PER_HOUR);
}

static wall_us_t kept_for(enum usage_granularity granularity)
{
    static const int64_t hours[] = {
        [USAGE_HOURLY] = USAGE_HOURS,
        [USAGE_DAILY] = USAGE_DAYS * 24,
        [USAGE_MONTHLY] = USAGE_MONTHS * 31 * 24};
    return hours[granularity] * US_PER_HOUR;
}

bool usage_is_too_old(const struct usage_row *row, wall_us_t now)
{
    return row->begin + kept_for(row->granularity) <= now;
}

/* ---- sizes ---- */

const struct usage_row *usage_before(
    const struct list *usages, enum usage_granularity granularity, wall_us_t begin)
{
    const struct usage_row *newest = NULL;
    LIST_FOR_EACH(usages, link)
    {
        const struct usage_row *row = &CONTAINER_OF(link, struct usage, in_target)->row;
        if (row->granularity == granularity && row->begin < begin &&
            (newest == NULL || row->begin > newest->begin)) {
            newest = row;
        }
    }
    return newest;
}

struct stored usage_stored(const struct list *usages)
{
    const struct usage_row *newest = NULL;
    LIST_FOR_EACH(usages, link)
    {
        const struct usage_row *row = &CONTAINER_OF(link, struct usage, in_target)->row;
        if (newest == NULL || row->stored_at > newest->stored_at) {
            newest = row;
        }
    }
    return newest == NULL ? (struct stored){.of = {0}} : newest->stored;
}

/* Bytes for so long, without a product that is too large. */
static uint64_t byte_hours(uint64_t bytes, wall_us_t us)
{
    uint64_t seconds = (uint64_t)us / 1000000, rest = seconds % 3600;
    return bytes * (seconds / 3600) + bytes / 3600 * rest + bytes % 3600 * rest / 3600;
}

void usage_note(
    struct usage_row *row,
    const struct usage_row *before,
    const struct stored *stored,
    wall_us_t now)
{
    const struct usage_row *last = row->stored_at != 0 || before == NULL ? row : before;
    const struct stored was = last->stored;
    wall_us_t since = last->stored_at == 0 ? now : MAX_OF(row->begin, last->stored_at);
    for (size_t i = 0; i < STORED_KINDS && now > since; i++) {
        row->byte_hours.of[i] += byte_hours(was.of[i], now - since);
    }
    row->stored = stored == NULL ? was : *stored;
    if (stored != NULL || last->stored_at != 0) {
        row->stored_at = MAX_OF(now, since);
    }
}

/* ---- frames ---- */

struct frame_rows {
    const struct usage_row *items[USAGE_ROWS_MAX];
    size_t count, next;
};

static void sort_rows(
    struct frame_rows *rows, const struct list *usages, enum usage_granularity granularity)
{
    LIST_FOR_EACH(usages, link)
    {
        const struct usage_row *row = &CONTAINER_OF(link, struct usage, in_target)->row;
        if (row->granularity != granularity || rows->count == USAGE_ROWS_MAX) {
            continue;
        }
        size_t at = rows->count++;
        for (; at > 0 && rows->items[at - 1]->begin > row->begin; at--) {
            rows->items[at] = rows->items[at - 1];
        }
        rows->items[at] = row;
    }
}

static wall_us_t oldest_shown(enum usage_granularity granularity, wall_us_t now)
{
    wall_us_t edge = now - kept_for(granularity);
    return edge <= 0 ? 0 : usage_end(granularity, usage_begin(granularity, edge));
}

/* The period itself if it has a row or what was stored before counts in it, else the next row's. */
static wall_us_t next_begin(
    const struct frame_rows *rows, const struct usage_row *before, wall_us_t begin, wall_us_t now)
{
    bool goes_on = before != NULL && !stored_is_nothing(&before->stored) && begin <= now;
    if (goes_on || (rows->next < rows->count && rows->items[rows->next]->begin <= begin)) {
        return begin;
    }
    return rows->next < rows->count ? rows->items[rows->next]->begin : INT64_MAX;
}

size_t usage_frames(
    const struct list *usages,
    enum usage_granularity granularity,
    wall_us_t from,
    wall_us_t to,
    wall_us_t now,
    struct usage_row *frames,
    size_t frames_max)
{
    struct frame_rows rows = {.count = 0};
    const struct usage_row *before = NULL;
    size_t count = 0;
    sort_rows(&rows, usages, granularity);
    wall_us_t begin = MAX_OF(usage_begin(granularity, from), oldest_shown(granularity, now));
    for (; rows.next < rows.count && rows.items[rows.next]->begin < begin; rows.next++) {
        before = rows.items[rows.next];
    }
    while ((begin = next_begin(&rows, before, begin, now)) < to && count < frames_max) {
        bool has_row = rows.next < rows.count && rows.items[rows.next]->begin == begin;
        wall_us_t end = usage_end(granularity, begin);
        struct usage_row *frame = &frames[count++];
        *frame = has_row ? *rows.items[rows.next]
                         : (struct usage_row){.granularity = granularity, .begin = begin};
        usage_note(frame, before, NULL, MIN_OF(end, now));
        before = has_row ? rows.items[rows.next++] : before;
        begin = end;
    }
    return count;
}
