/* The bad-input catalogue of redo: heap, pages without a reference, any resource manager. */
#include "tests/unit/redo/redo_catalogue.h"

/* -- heap -- */

static void insert_at(unsigned number, unsigned hoff, size_t user_size)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP, 0x00);
    put(&at, 2, number);
    put(&at, 1, 0);
    main_ends(at);
    at = given_block(0, heap_key(HEAP_BLOCK));
    put(&at, 4, 0);
    put(&at, 1, hoff);
    data_ends(0, at + user_size);
    given_page(0);
}

static void delete_of(unsigned number)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP, 0x10);
    put(&at, 4, 999);
    put(&at, 2, number);
    put(&at, 2, 0);
    main_ends(at);
    given_block(0, heap_key(HEAP_BLOCK));
    given_page(0);
    uint8_t *tuple = given_item(40, 1);
    memset(tuple, 0, 40);
    tuple[22] = 24;
}

static void offnum_0(void)
{
    insert_at(0, 24, 10);
}
static void offnum_behind_max(void)
{
    insert_at(292, 24, 10);
}
static void offnum_behind_count(void)
{
    delete_of(2);
}
static void offnum_of_unused(void)
{
    delete_of(1);
    set_line_pointer(1, page_u16(fixture.page, PAGE_UPPER), 0, 40);
}
static void item_past_the_page(void)
{
    delete_of(1);
    set_line_pointer(1, 8160, 1, 40);
}
static void item_in_the_line_pointers(void)
{
    delete_of(1);
    set_line_pointer(1, 24, 1, 40);
}
static void lower_behind_upper(void)
{
    insert_at(1, 24, 10);
    page_set_u16(fixture.page, PAGE_LOWER, 4000);
    page_set_u16(fixture.page, PAGE_UPPER, 3996);
}
static void special_misaligned(void)
{
    insert_at(1, 24, 10);
    page_set_u16(fixture.page, PAGE_SPECIAL, 8190);
    page_set_u16(fixture.page, PAGE_UPPER, 8190);
}
static void special_behind_the_page(void)
{
    insert_at(1, 24, 10);
    page_set_u16(fixture.page, PAGE_SPECIAL, 0xFFF8);
}
static void tuple_of_nothing(void)
{
    insert_at(1, 24, 0);
}
static void tuple_shorter_than_its_header(void)
{
    delete_of(1);
    set_line_pointer(1, page_u16(fixture.page, PAGE_UPPER), 1, 22);
}
static void hoff_behind_the_tuple(void)
{
    insert_at(1, 34, 10);
}
static void hoff_inside_the_header(void)
{
    insert_at(1, 22, 10);
}
static void hoff_behind_an_old_tuple(void)
{
    delete_of(1);
    item(1)[22] = 41;
}

/* HOT update of a tuple with 16 user bytes. */
static void update_with(unsigned flags, unsigned prefix, unsigned suffix)
{
    delete_of(1);
    uint8_t *at = fixture.main;
    fixture.record.info = 0x40;
    put(&at, 4, 700);
    put(&at, 2, 1);
    put(&at, 1, 0);
    put(&at, 1, flags);
    put(&at, 4, 0);
    put(&at, 2, 2);
    main_ends(at);
    at = fixture.data[0];
    put(&at, 2, prefix);
    put(&at, 2, suffix);
    put(&at, 4, 0);
    put(&at, 1, 24);
    put(&at, 4, 0);
    data_ends(0, at);
}
static void prefix_too_long(void)
{
    update_with(0x60, 17, 0);
}
static void suffix_too_long(void)
{
    update_with(0x60, 0, 17);
}
static void prefix_and_suffix_huge(void)
{
    update_with(0x60, 0xFFFF, 0xFFFF);
}
static void prefix_and_suffix_overlap(void)
{
    update_with(0x60, 10, 10);
}
static void null_bitmap_cut(void)
{
    update_with(0x60, 1, 0);
    fixture.data[0][8] = 28;
}

static void multi_insert_of(unsigned count, unsigned logged)
{
    uint8_t *at = fixture.main;
    given_record(RM_HEAP2, 0x50);
    put(&at, 2, 0);
    put(&at, 2, count);
    for (unsigned i = 1; i <= logged; i++) {
        put(&at, 2, i);
    }
    main_ends(at);
    at = given_block(0, heap_key(HEAP_BLOCK));
    for (unsigned i = 0; i < logged; i++) {
        put(&at, 2, 3);
        put(&at, 4, 0);
        put(&at, 1, 24);
        put(&at, 4, 0); /* three bytes, and one so that the next is aligned */
    }
    data_ends(0, at);
    given_page(0);
}
static void ntuples_huge(void)
{
    multi_insert_of(0xFFFF, 2);
}
static void offsets_fewer_than_count(void)
{
    multi_insert_of(3, 2);
}
static void tuples_fewer_than_count(void)
{
    multi_insert_of(2, 2);
    fixture.record.blocks[0].data.size = 12;
}
static void tuple_length_0(void)
{
    multi_insert_of(1, 1);
    page_set_u16(fixture.data[0], 0, 0);
}
static void tuple_length_behind_the_record(void)
{
    multi_insert_of(1, 1);
    page_set_u16(fixture.data[0], 0, 0xFFFF);
}

static void prune_redirects(unsigned from, unsigned to)
{
    given_record(RM_HEAP2, 0x20);
    uint8_t *at = fixture.main;
    put(&at, 1, 0);
    put(&at, 1, 0x04 | 0x20); /* cleanup lock, redirections */
    main_ends(at);
    at = given_block(0, heap_key(HEAP_BLOCK));
    put(&at, 2, 1);
    put(&at, 2, from);
    put(&at, 2, to);
    data_ends(0, at);
    given_page(0);
    memset(given_item(40, 1), 0, 40);
}

/* -- pages without a reference -- */

static void commit_of(uint32_t xid, uint32_t subxids)
{
    given_record(RM_XACT, 0x80);
    fixture.record.xid = xid;
    uint8_t *at = fixture.main;
    put(&at, 8, 1);
    put(&at, 4, 2);
    put(&at, 4, subxids);
    main_ends(at);
}
static void commit_on_another_page(void)
{
    commit_of(UINT32_MAX, 0);
}
static void commit_of_a_billion(void)
{
    commit_of(700, 0x40000000);
}
static void multixact_of(uint32_t offset, uint32_t count, uint32_t status)
{
    given_record(RM_MULTIXACT, 0x20);
    uint8_t *at = fixture.main;
    put(&at, 4, 5);
    put(&at, 4, offset);
    put(&at, 4, count);
    put(&at, 4, 800);
    put(&at, 4, status);
    main_ends(at);
}
static void members_more_than_there_are(void)
{
    multixact_of(0, UINT32_MAX, 1);
}
static void member_of_no_status(void)
{
    multixact_of(0, 1, 6);
}
static void members_wrap_around(void)
{
    multixact_of(UINT32_MAX, 1, 1);
}
static void truncate_to(uint32_t blocks)
{
    given_record(RM_SMGR, 0x20);
    uint8_t *at = fixture.main;
    put(&at, 4, blocks);
    put(&at, 4, 1663);
    put(&at, 8, 5);
    put(&at, 4, 7);
    main_ends(at);
    given_page(0);
}
static void truncate_to_the_future(void)
{
    truncate_to(UINT32_MAX);
}

/* -- any resource manager -- */

static void page_never_made(void)
{
    insert_at(1, 24, 10);
    memset(fixture.page, 0, PAGE_SIZE);
}
static void lsn_going_backwards(void)
{
    insert_at(0xFFFF, 0, 0);
    page_set_lsn(fixture.page, FIXTURE_END + 8); /* it has this change, whatever it says */
}
static void reference_to_another_page(void)
{
    insert_at(1, 24, 10);
    fixture.record.blocks[0].key.block = HEAP_BLOCK + 1;
}
static void generic_piece_past_the_page(void)
{
    given_record(RM_GENERIC, 0);
    uint8_t *at = given_block(0, heap_key(HEAP_BLOCK));
    put(&at, 2, 8190);
    put(&at, 2, 4);
    put(&at, 4, 0);
    data_ends(0, at);
    given_page(0);
}
static void generic_breaks_the_header(void)
{
    given_record(RM_GENERIC, 0);
    uint8_t *at = given_block(0, heap_key(HEAP_BLOCK));
    put(&at, 2, PAGE_LOWER);
    put(&at, 2, 2);
    put(&at, 2, 0xFFFF);
    data_ends(0, at);
    given_page(0);
}
static void sequence_larger_than_a_page(void)
{
    static uint8_t main[PAGE_SIZE + 12];
    given_record(RM_SEQ, 0);
    given_block(0, heap_key(HEAP_BLOCK));
    fixture.record.main_data = bytes_of(main, sizeof(main));
    fixture.record.blocks[0].will_init = true;
}
static void prune_to_no_item(void)
{
    prune_redirects(1, 2);
}
static void prune_of_no_item(void)
{
    prune_redirects(9, 1);
}

/* -- the table -- */

static const struct row rows[] = {
    {"offnum 0", offnum_0, 0, "item 0 cannot be added"},
    {"offnum > max", offnum_behind_max, 0, "item 292 cannot be added"},
    {"offnum > max", offnum_behind_count, 0, "item 2 of 1"},
    {"unused line pointer", offnum_of_unused, 0, "no tuple"},
    {"lp_off + len past the page", item_past_the_page, 0, "lies at 8160"},
    {"lp_off in front of pd_upper", item_in_the_line_pointers, 0, "lies at 24"},
    {"pd_lower > pd_upper", lower_behind_upper, 0, "lower 4000, upper 3996"},
    {"pd_special misaligned", special_misaligned, 0, "special 8190"},
    {"pd_special past the page", special_behind_the_page, 0, "special 65528"},
    {"ntuples huge", ntuples_huge, 0, "too short"},
    {"offsets array shorter than count", offsets_fewer_than_count, 0, "too short"},
    {"fewer tuples than count", tuples_fewer_than_count, 0, "too short"},
    {"tuple length 0", tuple_of_nothing, 0, "too short"},
    {"tuple length 0", tuple_length_0, 0, "size is out of range"},
    {"tuple length past the record", tuple_length_behind_the_record, 0, "too short"},
    {"tuple shorter than its header", tuple_shorter_than_its_header, 0, "no tuple"},
    {"t_hoff > len", hoff_behind_the_tuple, 0, "size is out of range"},
    {"t_hoff > len", hoff_behind_an_old_tuple, 0, "no tuple"},
    {"t_hoff < header", hoff_inside_the_header, 0, "size is out of range"},
    {"prefix longer than the old tuple", prefix_too_long, 0, "longer than the old tuple"},
    {"suffix longer than the old tuple", suffix_too_long, 0, "longer than the old tuple"},
    {"prefix and suffix huge", prefix_and_suffix_huge, 0, "size is out of range"},
    {"prefix and suffix overlap", prefix_and_suffix_overlap, 0, NULL},
    {"null bitmap longer than the record", null_bitmap_cut, 0, "too short"},
    {"redirection to no item", prune_to_no_item, 0, "a redirection to no item"},
    {"redirection of no item", prune_of_no_item, 0, "item 9 of 1"},
    {"SLRU page past limits", commit_on_another_page, CLOG_0, NULL},
    {"SLRU counts past the record", commit_of_a_billion, CLOG_0, "too short"},
    {"SLRU counts past the record", members_more_than_there_are, MEMBERS_0, "too short"},
    {"SLRU member status", member_of_no_status, MEMBERS_0, "status"},
    {"SLRU offset wraps around", members_wrap_around, MEMBERS_0, NULL},
    {"truncate to the future", truncate_to_the_future, VM_0, "does not end on this page"},
    {"page never made", page_never_made, 0, "never initialised"},
    {"LSN going backwards", lsn_going_backwards, 0, NULL},
    {"reference to another page", reference_to_another_page, 0, "names another page"},
    {"no such reference", offnum_0, 33, "block reference 33"},
    {"generic piece past the page", generic_piece_past_the_page, 0, "over the end"},
    {"generic piece breaks the header", generic_breaks_the_header, 0, "page header"},
    {"sequence larger than a page", sequence_larger_than_a_page, 0, "does not fit"},
};

int main(void)
{
    return run_catalogue("redo_catalogue", rows, ARRAY_LEN(rows));
}
