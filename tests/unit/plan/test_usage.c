/* Periods of usage: what is stored counts for as long as it is stored, with a row or without. */
#include "control/plan/usage.h"

#include "common/base/parse.h"
#include "tests/unit/unit.h"

#define NOW "2026-11-27T12:30:00Z"

static struct errmsg msg;
static struct list usages;
static struct usage rows[USAGE_ROWS_MAX];
static size_t row_count;
static struct usage_row frames[USAGE_ROWS_MAX];

static wall_us_t at(const char *text)
{
    wall_us_t time = 0;
    ck_assert_ok(parse_time(text, &time, &msg), &msg);
    return time;
}

static void begin(void)
{
    row_count = 0;
    list_init(&usages);
}

/* From `time` on so much is stored. */
static struct usage_row *note(const char *time, uint64_t bytes)
{
    const struct stored stored = {.of = {[STORED_SYNTHETIC] = bytes}};
    wall_us_t hour = usage_begin(USAGE_HOURLY, at(time));
    struct usage_row *row = row_count == 0 ? NULL : &rows[row_count - 1].row;
    if (row == NULL || row->begin != hour) {
        row = &rows[row_count].row;
        *row = (struct usage_row){.granularity = USAGE_HOURLY, .begin = hour};
        list_push_back(&usages, &rows[row_count++].in_target);
    }
    usage_note(row, usage_before(&usages, USAGE_HOURLY, hour), &stored, at(time));
    return row;
}

static size_t frames_of(const char *from, const char *to)
{
    return usage_frames(&usages, USAGE_HOURLY, at(from), at(to), at(NOW), frames, USAGE_ROWS_MAX);
}

static void assert_frame(size_t i, const char *hour, uint64_t byte_hours, uint64_t bytes)
{
    ck_assert_int_eq(frames[i].begin, at(hour));
    ck_assert_uint_eq(frames[i].byte_hours.of[STORED_SYNTHETIC], byte_hours);
    ck_assert_uint_eq(frames[i].stored.of[STORED_SYNTHETIC], bytes);
}

START_TEST(test_a_size_counts_until_the_next_one)
{
    begin();
    note("2026-11-27T10:15:00Z", 4000);
    note("2026-11-27T10:45:00Z", 8000);
    note("2026-11-27T10:45:00Z", 16000);
    ck_assert_uint_eq(frames_of("2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z"), 3);
    assert_frame(0, "2026-11-27T10:00:00Z", 4000 / 2 + 16000 / 4, 16000);
    assert_frame(1, "2026-11-27T11:00:00Z", 16000, 16000);
    assert_frame(2, "2026-11-27T12:00:00Z", 16000 / 2, 16000); /* until now */
}
END_TEST

START_TEST(test_a_row_after_a_pause_begins_with_what_was_stored_before)
{
    begin();
    note("2026-11-27T08:30:00Z", 1000);
    note("2026-11-27T11:30:00Z", 3000);
    ck_assert_uint_eq(frames_of("2026-11-27T00:00:00Z", "2026-11-27T12:00:00Z"), 4);
    assert_frame(0, "2026-11-27T08:00:00Z", 500, 1000);
    assert_frame(1, "2026-11-27T09:00:00Z", 1000, 1000);
    assert_frame(2, "2026-11-27T10:00:00Z", 1000, 1000);
    assert_frame(3, "2026-11-27T11:00:00Z", 1000 / 2 + 3000 / 2, 3000);
    ck_assert_uint_eq(usage_stored(&usages).of[STORED_SYNTHETIC], 3000);
}
END_TEST

START_TEST(test_nothing_is_stored_any_more)
{
    begin();
    note("2026-11-27T08:00:00Z", 1000);
    note("2026-11-27T08:30:00Z", 0);
    rows[row_count].row = (struct usage_row){
        .granularity = USAGE_HOURLY,
        .begin = at("2026-11-27T11:00:00Z"),
        .written_bytes = 7}; /* of before sizes were noted */
    list_push_back(&usages, &rows[row_count++].in_target);
    ck_assert_uint_eq(frames_of("2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z"), 2);
    assert_frame(0, "2026-11-27T08:00:00Z", 500, 0);
    assert_frame(1, "2026-11-27T11:00:00Z", 0, 0);
    ck_assert_uint_eq(frames[1].written_bytes, 7);
}
END_TEST

START_TEST(test_what_is_too_old_is_not_shown_and_counts_on)
{
    begin();
    note("2026-01-01T00:00:00Z", 1000);
    ck_assert(usage_is_too_old(&rows[0].row, at(NOW)));
    ck_assert_uint_eq(frames_of("2020-01-01T00:00:00Z", "2090-01-01T00:00:00Z"), USAGE_HOURS);
    assert_frame(0, "2026-11-20T13:00:00Z", 1000, 1000);
    assert_frame(USAGE_HOURS - 1, "2026-11-27T12:00:00Z", 500, 1000);
    for (size_t i = 0; i < USAGE_HOURS; i++) {
        ck_assert(!usage_is_too_old(&frames[i], at(NOW)));
    }
    ck_assert_uint_eq(frames_of("2026-11-27T10:59:00Z", "2026-11-27T11:00:01Z"), 2);
    assert_frame(0, "2026-11-27T10:00:00Z", 1000, 1000);
}
END_TEST

/* A clock that was ahead has left a row there. */
START_TEST(test_a_row_of_the_future_is_shown_and_nothing_in_between)
{
    begin();
    note("2026-11-27T12:00:00Z", 1000);
    note("2026-11-29T01:00:00Z", 2000);
    ck_assert_uint_eq(frames_of("2026-11-27T00:00:00Z", "2026-12-01T00:00:00Z"), 2);
    assert_frame(0, "2026-11-27T12:00:00Z", 500, 1000);
    assert_frame(1, "2026-11-29T01:00:00Z", 0, 2000);
}
END_TEST

START_TEST(test_months_of_much_do_not_overflow)
{
    begin();
    note("2026-11-27T08:00:00Z", UINT64_C(1) << 52);
    usage_note(&rows[0].row, NULL, NULL, at("2026-12-28T08:00:00Z"));
    ck_assert_uint_eq(rows[0].row.byte_hours.of[STORED_SYNTHETIC], (UINT64_C(1) << 52) * 31 * 24);
}
END_TEST

START_TEST(test_days_and_months_begin_and_end_by_the_calendar)
{
    wall_us_t month = usage_begin(USAGE_MONTHLY, at(NOW));
    ck_assert_int_eq(month, at("2026-11-01T00:00:00Z"));
    ck_assert_int_eq(usage_end(USAGE_MONTHLY, month), at("2026-12-01T00:00:00Z"));
    ck_assert_int_eq(usage_begin(USAGE_DAILY, at(NOW)), at("2026-11-27T00:00:00Z"));
}
END_TEST

/* -- rows on disk -- */

static err_t decode(const char *text, union any_row *row)
{
    struct doc *doc = NULL;
    ck_assert_ok(doc_parse(bytes_of_str(text), &doc, &msg), &msg);
    err_t err = row_decode(ROW_USAGE, doc, row, &msg);
    doc_unref(doc);
    return err;
}

START_TEST(test_a_row_of_before_has_stored_nothing)
{
    union any_row row;
    ck_assert_ok(
        decode(
            "{\"id\": \"p.h1\", \"project_id\": \"p\", \"granularity\": \"hourly\", \"begin\": "
            "\"2026-11-27T10:00:00Z\", \"active_ms\": 5, \"written_bytes\": 7}",
            &row),
        &msg);
    ck_assert_uint_eq(row.usage.written_bytes, 7);
    ck_assert_int_eq(row.usage.stored_at, 0);
    ck_assert(stored_is_nothing(&row.usage.stored) && stored_is_nothing(&row.usage.byte_hours));
}
END_TEST

START_TEST(test_a_row_comes_back_as_it_was)
{
    union any_row row, bad;
    begin();
    note("2026-11-27T10:15:00Z", 4000)->stored.of[STORED_CHILD] = 9;
    note("2026-11-27T10:45:00Z", 8000)->stored.of[STORED_LOGICAL] = UINT64_C(1) << 52;
    struct doc *doc = row_encode(ROW_USAGE, &rows[0].row);
    ck_assert_ok(row_decode(ROW_USAGE, doc, &row, &msg), &msg);
    ck_assert_int_eq(row.usage.stored_at, rows[0].row.stored_at);
    for (size_t i = 0; i < STORED_KINDS; i++) {
        ck_assert_uint_eq(row.usage.stored.of[i], rows[0].row.stored.of[i]);
        ck_assert_uint_eq(row.usage.byte_hours.of[i], rows[0].row.byte_hours.of[i]);
    }
    doc_unref(doc);
    ck_assert_int_eq(decode("{\"stored\": 7}", &bad), ERR_CORRUPT);
    ck_assert_int_eq(decode("{\"stored\": {\"root\": \"x\"}}", &bad), ERR_CORRUPT);
}
END_TEST

UNIT_MAIN(
    "usage",
    test_a_size_counts_until_the_next_one,
    test_a_row_after_a_pause_begins_with_what_was_stored_before,
    test_nothing_is_stored_any_more,
    test_what_is_too_old_is_not_shown_and_counts_on,
    test_a_row_of_the_future_is_shown_and_nothing_in_between,
    test_months_of_much_do_not_overflow,
    test_days_and_months_begin_and_end_by_the_calendar,
    test_a_row_of_before_has_stored_nothing,
    test_a_row_comes_back_as_it_was);
