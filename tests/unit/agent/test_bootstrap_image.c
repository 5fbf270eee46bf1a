/* Where a record ends, over pages and segments. */
#include "compute/agent/bootstrap_image.h"

#include "tests/unit/unit.h"

#define PAGE    ((lsn_t)8192)
#define SEGMENT ((lsn_t)16 * 1024 * 1024)

START_TEST(test_record_inside_a_page_ends_aligned)
{
    ck_assert_uint_eq(bootstrap_record_end(0x14E6130, 114), 0x14E61A8);
}
END_TEST

START_TEST(test_record_that_fills_its_page_ends_at_the_boundary)
{
    lsn_t boundary = SEGMENT + 5 * PAGE;
    ck_assert_uint_eq(bootstrap_record_end(boundary - 120, 114), boundary);
    ck_assert_uint_eq(bootstrap_record_end(boundary - 120, 120), boundary);
}
END_TEST

START_TEST(test_record_over_a_page_boundary_skips_the_header)
{
    lsn_t boundary = SEGMENT + 5 * PAGE;
    ck_assert_uint_eq(bootstrap_record_end(boundary - 8, 114), boundary + 24 + 112);
}
END_TEST

START_TEST(test_record_over_a_segment_boundary_skips_the_long_header)
{
    ck_assert_uint_eq(bootstrap_record_end(2 * SEGMENT - 8, 114), 2 * SEGMENT + 40 + 112);
}
END_TEST

START_TEST(test_record_over_many_pages_skips_every_header)
{
    lsn_t begin = SEGMENT + PAGE + 24;
    uint64_t size = (PAGE - 24) * 3 + 8;
    ck_assert_uint_eq(bootstrap_record_end(begin, size), SEGMENT + 4 * PAGE + 24 + 8);
}
END_TEST

UNIT_MAIN(
    "bootstrap_image",
    test_record_inside_a_page_ends_aligned,
    test_record_that_fills_its_page_ends_at_the_boundary,
    test_record_over_a_page_boundary_skips_the_header,
    test_record_over_a_segment_boundary_skips_the_long_header,
    test_record_over_many_pages_skips_every_header);
