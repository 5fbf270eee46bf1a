#include "tools/pagedump/page_text.h"

#include "common/base/prng.h"
#include "common/pg/page.h"
#include "tests/unit/unit.h"

static uint8_t page[PAGE_SIZE];
static struct buf text;

static const char *shown(bool is_map)
{
    buf_clear(&text);
    page_text(page, is_map, &text);
    return buf_cstr(&text);
}

static void make_page(unsigned special_size, unsigned pointers)
{
    memset(page, 0, sizeof(page));
    page_set_lsn(page, 0x16B3748);
    page_set_u16(page, PAGE_LOWER, (uint16_t)(PAGE_HEADER_SIZE + 4 * pointers));
    page_set_u16(page, PAGE_UPPER, (uint16_t)(PAGE_SIZE - special_size - 40 * pointers));
    page_set_u16(page, PAGE_SPECIAL, (uint16_t)(PAGE_SIZE - special_size));
    page_set_u16(page, PAGE_VERSION, PAGE_SIZE | 4);
}

START_TEST(test_page_of_zeros_was_never_initialised)
{
    memset(page, 0, sizeof(page));
    ck_assert_ptr_nonnull(strstr(shown(false), "never initialised"));
}
END_TEST

START_TEST(test_heap_page_shows_its_tuples)
{
    make_page(0, 1);
    uint8_t *tuple = page + PAGE_SIZE - 40;
    page_set_u32(page, PAGE_HEADER_SIZE, (PAGE_SIZE - 40) | 1u << 15 | 40u << 17);
    page_set_u32(tuple, 0, 742);
    page_set_u16(tuple, 14, 7);
    page_set_u16(tuple, 16, 1);
    page_set_u16(tuple, 18, 3 | 0x8000);
    page_set_u16(tuple, 20, 0x0100 | 0x0800);
    tuple[22] = 24;
    const char *got = shown(false);
    ck_assert_ptr_nonnull(strstr(got, "heap page: lsn 0/16B3748"));
    ck_assert_ptr_nonnull(strstr(
        got, "xmin 742 xmax 0 field3 0 ctid (7,1) natts 3 hoff 24 "
             "[xmin_committed xmax_invalid heap_only]"));
}
END_TEST

START_TEST(test_index_pages_are_told_apart_by_their_special_space)
{
    static const struct {
        unsigned size, id;
        const char *name;
    } kinds[] = {
        {16, 0, "btree page"},      {16, 0xFF80, "hash page"}, {16, 0xFF81, "gist page"},
        {8, 0xFF82, "spgist page"}, {8, 0xF092, "brin page"},  {8, 0x0002, "gin page"},
    };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        make_page(kinds[i].size, 0);
        page_set_u16(page, PAGE_SIZE - 2, (uint16_t)kinds[i].id);
        ck_assert_msg(strstr(shown(false), kinds[i].name) != NULL, "%s", buf_cstr(&text));
    }
}
END_TEST

START_TEST(test_map_counts_its_bits)
{
    make_page(0, 0);
    page[PAGE_HEADER_SIZE] = 0x07; /* block 0 both, block 1 visible */
    ck_assert_ptr_nonnull(strstr(shown(true), "2 all-visible, 1 all-frozen"));
}
END_TEST

START_TEST(test_pointer_out_of_the_page_is_said_and_not_followed)
{
    make_page(0, 1);
    page_set_u32(page, PAGE_HEADER_SIZE, 8000u | 1u << 15 | 400u << 17);
    ck_assert_ptr_nonnull(strstr(shown(false), "at 8000 size 400: out of range"));
}
END_TEST

START_TEST(test_any_bytes_are_a_page)
{
    struct prng prng;
    prng_init(&prng, 1);
    for (int run = 0; run < 2000; run++) {
        for (size_t at = 0; at < PAGE_SIZE; at++) {
            page[at] = (uint8_t)prng_next(&prng);
        }
        if (run % 2 == 0) { /* deeper: a header that fits, items that do not */
            page_set_u16(page, PAGE_LOWER, (uint16_t)(PAGE_HEADER_SIZE + prng_below(&prng, 8168)));
            page_set_u16(page, PAGE_SPECIAL, (uint16_t)(PAGE_SIZE - 8 * prng_below(&prng, 3)));
        }
        ck_assert_uint_gt(strlen(shown(run % 3 == 0)), 0);
    }
}
END_TEST

UNIT_MAIN(
    "page_text",
    test_page_of_zeros_was_never_initialised,
    test_heap_page_shows_its_tuples,
    test_index_pages_are_told_apart_by_their_special_space,
    test_map_counts_its_bits,
    test_pointer_out_of_the_page_is_said_and_not_followed,
    test_any_bytes_are_a_page);
