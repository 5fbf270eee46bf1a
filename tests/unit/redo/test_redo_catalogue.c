/*
 * The bad-input catalogue of redo as a table: what WAL or a page may say that cannot be. Each row
 * is refused with a typed error that says what is wrong, or accepted because Postgres would do the
 * same and nothing is harmed; never is a byte written beside the page.
 *
 * What a record is refused for before redo sees it: tests/unit/pg/test_wal_catalogue.c.
 */
#include "tests/unit/redo/redo_fixture.h"

#define HEAP_BLOCK 5

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

/* -- B-tree -- */

static void write_tuple(uint8_t *to, size_t size, unsigned number)
{
    memset(to, 0, size);
    page_set_u16(to, 4, (uint16_t)number);
    page_set_u16(to, 6, (uint16_t)size);
}

/* A rightmost leaf with `count` tuples of `size` bytes. */
static void given_btree(unsigned op, size_t count, size_t size)
{
    given_record(RM_BTREE, op);
    given_block(0, heap_key(7));
    given_page(16);
    page_set_u16(fixture.page, PAGE_SIZE - 4, 1);
    for (unsigned i = 1; i <= count; i++) {
        write_tuple(given_item(size, 1), size, i);
    }
}
static void make_posting(unsigned number, unsigned at, unsigned count)
{
    uint8_t *tuple = item(number);
    page_set_u16(tuple, 2, (uint16_t)at);
    page_set_u16(tuple, 4, (uint16_t)(0x2000 | count));
    page_set_u16(tuple, 6, page_u16(tuple, 6) | 0x2000);
}
static void split_left_of(size_t high_key_size)
{
    static uint8_t data[PAGE_SIZE];
    given_btree(0x40, 100, 64);
    uint8_t *at = fixture.main;
    put(&at, 4, 0);
    put(&at, 2, 101);
    put(&at, 2, 101);
    put(&at, 2, 0);
    main_ends(at);
    given_block(1, heap_key(8));
    write_tuple(data, high_key_size, 1);
    fixture.record.blocks[0].data = bytes_of(data, high_key_size);
}
static void split_left_larger_than_a_page(void)
{
    split_left_of(2704);
}
static void split_at_no_item(void)
{
    split_left_of(64);
    page_set_u16(fixture.main, 4, 0xFFFF);
}
static void posting_insert(unsigned list_at, unsigned count)
{
    given_btree(0x50, 3, 64);
    uint8_t *at = fixture.main;
    put(&at, 2, 2);
    main_ends(at);
    at = fixture.data[0];
    put(&at, 2, 1);
    write_tuple(at, 16, 9);
    data_ends(0, at + 16);
    make_posting(1, list_at, count);
}
static void posting_of_4095(void)
{
    posting_insert(16, 0xFFF);
}
static void posting_of_1(void)
{
    posting_insert(16, 1);
}
static void posting_behind_its_tuple(void)
{
    posting_insert(72, 2);
}
static void posting_misaligned(void)
{
    posting_insert(12, 2);
}
static void dedup_of(const uint16_t *intervals, size_t count)
{
    given_btree(0x60, 6, 16);
    uint8_t *at = fixture.main;
    put(&at, 2, count);
    main_ends(at);
    at = fixture.data[0];
    put_bytes(&at, intervals, count * 4);
    data_ends(0, at);
}
static void dedup_intervals_overlap(void)
{
    dedup_of((uint16_t[]){1, 3, 2, 3}, 2);
}
static void dedup_behind_the_page(void)
{
    dedup_of((uint16_t[]){1, 2, 60000, 2}, 2);
}
static void dedup_interval_of_all_items_and_more(void)
{
    dedup_of((uint16_t[]){1, 0xFFFF}, 1); /* Postgres joins what there is, too */
}
static void dedup_lists_too_long(void)
{
    dedup_of((uint16_t[]){1, 2}, 1);
    given_page(16);
    page_set_u16(fixture.page, PAGE_SIZE - 4, 1);
    for (unsigned i = 1; i <= 2; i++) {
        write_tuple(given_item(2704, 1), 2704, i);
        make_posting(i, 16, 448);
    }
}

/* -- GIN -- */

static void recompress_of(const void *segments, size_t size, unsigned action)
{
    given_record(RM_GIN, 0x90);
    uint8_t *at = given_block(0, heap_key(7));
    put(&at, 2, 1);
    put(&at, 1, 0);
    put(&at, 1, action);
    put(&at, 2, 1);
    put(&at, 4, 0);
    put(&at, 2, 7);
    data_ends(0, at);
    given_page(8);
    page_set_u16(fixture.page, PAGE_SIZE - 2, 1 | 2 | 128);
    page_set_u16(fixture.page, PAGE_LOWER, (uint16_t)(32 + size));
    memcpy(fixture.page + 32, segments, size);
}
static void varbyte_without_an_end(void)
{
    recompress_of((uint8_t[]){0, 0, 0, 0, 1, 0, 2, 0, 0x80, 0x80}, 10, 4);
}
static void varbyte_of_8_bytes(void)
{
    uint8_t segment[] = {0, 0, 0, 0, 1, 0, 8, 0, 255, 255, 255, 255, 255, 255, 255, 1};
    recompress_of(segment, sizeof(segment), 4);
}
static void varbyte_of_distance_0(void)
{
    recompress_of((uint8_t[]){0, 0, 0, 0, 1, 0, 2, 0, 0, 0}, 10, 4);
}
static void segment_longer_than_the_page(void)
{
    recompress_of((uint8_t[]){0, 0, 0, 0, 1, 0, 0xF0, 0xFF, 2, 2}, 10, 4);
}
static void segment_action_unknown(void)
{
    recompress_of((uint8_t[]){0, 0, 0, 0, 1, 0, 2, 0, 2, 2}, 10, 9);
}
/* Found by fuzzing: segments grew over pd_upper, where tuples would be. */
static void data_page_with_tuples(void)
{
    recompress_of((uint8_t[]){0, 0, 0, 0, 1, 0, 1, 0, 2, 0}, 10, 4);
    page_set_u16(fixture.page, PAGE_UPPER, 42);
}
static void posting_tree_larger_than_a_page(void)
{
    given_record(RM_GIN, 0x10);
    uint8_t *at = fixture.main;
    put(&at, 4, 0x7FFFFFFF);
    main_ends(at + 10);
    given_block(0, heap_key(7));
    fixture.record.blocks[0].will_init = true;
}
static void list_page_of(uint32_t count)
{
    given_record(RM_GIN, 0x70);
    uint8_t *at = fixture.main;
    put(&at, 4, UINT32_MAX);
    put(&at, 4, count);
    main_ends(at);
    write_tuple(given_block(0, heap_key(7)), 16, 1);
    data_ends(0, fixture.data[0] + 16);
    fixture.record.blocks[0].will_init = true;
}
static void ntuples_negative(void)
{
    list_page_of(UINT32_MAX);
}
static void ntuples_more_than_there_are(void)
{
    list_page_of(0x7FFFFFFF);
}
static void gin_children_more_than_fit(void)
{
    given_record(RM_GIN, 0x20);
    uint8_t *at = fixture.main;
    put(&at, 2, 1);
    put(&at, 8, 0);
    main_ends(at);
    at = given_block(0, heap_key(7));
    put(&at, 2, 1);
    data_ends(0, at + 10);
    given_page(8);
    page_set_u16(fixture.page, PAGE_LOWER, 32);
    page_set_u16(fixture.page, PAGE_SIZE - 2, 1);
    page_set_u16(fixture.page, PAGE_SIZE - 4, 0xFFFF);
}

/* -- GiST, SP-GiST, hash, BRIN -- */

static void gist_split(unsigned page_count)
{
    given_record(RM_GIST, 0x30);
    uint8_t *at = fixture.main;
    put(&at, 8, 0);
    put(&at, 8, 0);
    put(&at, 2, 1);
    put(&at, 2, page_count);
    put(&at, 8, 0);
    main_ends(at);
    for (unsigned i = 1; i <= 2; i++) {
        at = given_block(i, heap_key(6 + i));
        put(&at, 4, 1);
        write_tuple(at, 16, 1);
        data_ends(i, at + 16);
        fixture.record.blocks[i].will_init = true;
    }
}
static void gist_split_into_65535(void)
{
    gist_split(0xFFFF);
}
static void gist_split_into_fewer(void)
{
    gist_split(1);
}
static void gist_tuple_of_nothing(void)
{
    gist_split(2);
    page_set_u16(fixture.data[2] + 4, 6, 7);
}
static void spgist_leaf(unsigned number, unsigned head, uint32_t size)
{
    given_record(RM_SPGIST, 0x10);
    uint8_t *at = fixture.main;
    put(&at, 2, 0);
    put(&at, 2, number);
    put(&at, 2, head);
    put(&at, 4, 0);
    put(&at, 4, size << 2);
    put(&at, 8, 0);
    put(&at, 4, 0);
    main_ends(at);
    given_block(0, heap_key(3));
    given_page(8);
    memset(given_item(16, 1), 0, 16);
}
static void chain_from_no_tuple(void)
{
    spgist_leaf(2, 9, 16);
}
static void leaf_of_no_size(void)
{
    spgist_leaf(2, 1, 0);
}
static void leaf_longer_than_the_record(void)
{
    spgist_leaf(2, 1, 0x3FFFFFFF);
}
static void leaf_over_a_live_tuple(void)
{
    spgist_leaf(1, 2, 16);
}
static void spgist_inner(unsigned node, unsigned node_count, unsigned node_size)
{
    spgist_leaf(2, 0, 16);
    page_set_u16(fixture.main, 6, 1);
    page_set_u16(fixture.main, 8, (uint16_t)node);
    given_block(1, heap_key(4));
    given_page(8);
    uint8_t *inner = given_item(24, 1);
    memset(inner, 0, 24);
    page_set_u32(inner, 0, node_count << 3);
    write_tuple(inner + 8, 8, 0);
    write_tuple(inner + 16, 8, 0);
    page_set_u16(inner + 8, 6, (uint16_t)node_size);
}
static void node_behind_the_last(void)
{
    spgist_inner(3, 2, 8);
}
static void nodes_more_than_bytes(void)
{
    spgist_inner(3, 8191, 8);
}
static void node_chain_stands_still(void)
{
    spgist_inner(1, 2, 0);
}
static void spgist_moves_too_many(void)
{
    given_record(RM_SPGIST, 0x60);
    uint8_t *at = fixture.main;
    put(&at, 2, 0xFFFF);
    put(&at, 6, 0);
    put(&at, 8, 0);
    main_ends(at);
    given_block(0, heap_key(3));
    given_page(8);
}
static void hash_overflow(unsigned reference, uint32_t value)
{
    given_record(RM_HASH, 0x30);
    uint8_t *at = fixture.main;
    put(&at, 2, 4096);
    put(&at, 1, 0);
    main_ends(at);
    for (unsigned i = 0; i <= 4; i++) {
        given_block(i, heap_key(i));
    }
    at = fixture.data[reference];
    put(&at, 4, value);
    data_ends(reference, at);
    given_page(16);
}
static void bitmap_index_out_of_range(void)
{
    hash_overflow(2, 8152 * 8);
}
static void bitmap_index_wraps(void)
{
    hash_overflow(2, UINT32_MAX);
}
static void split_point_out_of_range(void)
{
    hash_overflow(4, 1);
    page_set_u32(fixture.page, 24 + 36, UINT32_MAX);
}
static void hash_meta_of(double tuples, unsigned fill_factor)
{
    given_record(RM_HASH, 0x00);
    uint8_t *at = fixture.main;
    put_bytes(&at, &tuples, sizeof(tuples));
    put(&at, 4, 0);
    put(&at, 2, fill_factor);
    main_ends(at);
    given_block(0, heap_key(0));
    fixture.record.blocks[0].will_init = true;
}
static void hash_of_negative_tuples(void)
{
    hash_meta_of(-1, 75);
}
static void hash_without_fill_factor(void)
{
    hash_meta_of(100, 0);
}
static void hash_of_endless_tuples(void)
{
    hash_meta_of(__builtin_inf(), 1);
}
static void brin_revmap(uint32_t heap_block, uint32_t pages_per_range, size_t special)
{
    given_record(RM_BRIN, 0x50);
    uint8_t *at = fixture.main;
    put(&at, 4, pages_per_range);
    put(&at, 4, heap_block);
    put(&at, 2, 1);
    main_ends(at);
    given_block(0, heap_key(1));
    given_page(special);
}
static void revmap_range_of_no_pages(void)
{
    brin_revmap(100, 0, 8);
}
static void revmap_on_another_page(void)
{
    brin_revmap(100, 128, 16);
}
static void revmap_of_the_last_block(void)
{
    brin_revmap(UINT32_MAX, 1, 8);
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

enum { CLOG_0 = 100, MEMBERS_0, VM_0 }; /* implied pages */

static const struct row {
    const char *entry;
    void (*given)(void);
    unsigned target;  /* block reference, or an implied page */
    const char *says; /* of the refusal; NULL: accepted, as Postgres accepts it */
} rows[] = {
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
    {"ntuples huge", ntuples_more_than_there_are, 0, "too short"},
    {"ntuples negative", ntuples_negative, 0, "too short"},
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
    {"split with left size > page", split_left_larger_than_a_page, 0, "does not fit"},
    {"split at no item", split_at_no_item, 0, "item 101 of 100"},
    {"posting list nhtids overflow", posting_of_4095, 0, "posting list is malformed"},
    {"posting list of one", posting_of_1, 0, "posting list is malformed"},
    {"posting list behind its tuple", posting_behind_its_tuple, 0, "posting list is malformed"},
    {"posting list misaligned", posting_misaligned, 0, "posting list is malformed"},
    {"posting list grows too long", dedup_lists_too_long, 0, "posting list is too long"},
    {"dedup intervals overlap", dedup_intervals_overlap, 0, "intervals do not fit"},
    {"dedup interval of no item", dedup_behind_the_page, 0, "intervals do not fit"},
    {"dedup interval too long", dedup_interval_of_all_items_and_more, 0, NULL},
    {"gin: bad varbyte", varbyte_without_an_end, 0, "malformed"},
    {"gin: bad varbyte", varbyte_of_8_bytes, 0, "malformed"},
    {"gin: bad varbyte", varbyte_of_distance_0, 0, "malformed"},
    {"gin: segment length", segment_longer_than_the_page, 0, "no such segment"},
    {"gin: segment action", segment_action_unknown, 0, "is not known"},
    {"gin: tuples on a data page", data_page_with_tuples, 0, "no such GIN data page"},
    {"gin: posting tree > page", posting_tree_larger_than_a_page, 0, "too short"},
    {"gin: children > page", gin_children_more_than_fit, 0, "more children"},
    {"gist split npages huge", gist_split_into_65535, 2, NULL},
    {"gist split npages too small", gist_split_into_fewer, 2, "block reference 2"},
    {"gist tuple of no size", gist_tuple_of_nothing, 2, "too short"},
    {"spgist tuple chain", chain_from_no_tuple, 0, "item 9 of 2"},
    {"spgist tuple of no size", leaf_of_no_size, 0, "too short"},
    {"spgist tuple past the record", leaf_longer_than_the_record, 0, "too short"},
    {"spgist tuple over a live one", leaf_over_a_live_tuple, 0, "no placeholder"},
    {"spgist node chain", node_behind_the_last, 1, "no such node"},
    {"spgist node chain", nodes_more_than_bytes, 1, "no such node"},
    {"spgist node chain", node_chain_stands_still, 1, "no such node"},
    {"spgist vacuum of too many", spgist_moves_too_many, 0, "too short"},
    {"hash ovfl bitmap index", bitmap_index_out_of_range, 2, "outside the bitmap"},
    {"hash ovfl bitmap index", bitmap_index_wraps, 2, "outside the bitmap"},
    {"hash split point", split_point_out_of_range, 4, "split point"},
    {"hash meta page", hash_of_negative_tuples, 0, "out of range"},
    {"hash meta page", hash_without_fill_factor, 0, "out of range"},
    {"hash meta page", hash_of_endless_tuples, 0, NULL},
    {"BRIN revmap offset", revmap_range_of_no_pages, 0, "no pages"},
    {"BRIN revmap offset", revmap_of_the_last_block, 0, NULL},
    {"BRIN revmap on another page", revmap_on_another_page, 0, "no BRIN page"},
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

static struct page_key target_key(const struct row *row)
{
    switch (row->target) {
    case CLOG_0: return page_key_state(STATE_CLOG, 0, 0);
    case MEMBERS_0: return page_key_state(STATE_MULTI_MEMBERS, 0, 0);
    case VM_0: return vm_key(0);
    case 33: return heap_key(HEAP_BLOCK);
    default: return fixture.record.blocks[row->target].key;
    }
}

START_TEST(test_the_catalogue)
{
    static struct fixture before;
    const struct row *row = &rows[_i];
    row->given();
    struct page_key key = target_key(row);
    if (strcmp(row->entry, "reference to another page") == 0) {
        key.block--;
    }
    memcpy(&before, &fixture, sizeof(fixture));
    uint8_t index = row->target < CLOG_0 ? (uint8_t)row->target : VALUE_BLOCK_IMPLIED;

    err_t err = redo_apply(&fixture.record, index, key, fixture.page, &fixture.msg);

    if (row->says == NULL) {
        ck_assert_msg(err == ERR_OK, "%s: %s", row->entry, fixture.msg.text);
        unsigned lower = page_u16(fixture.page, PAGE_LOWER);
        ck_assert_uint_le(lower, page_u16(fixture.page, PAGE_UPPER));
    } else {
        ck_assert_msg(err == ERR_CORRUPT, "%s: %s", row->entry, err_code(err));
        bool says = strstr(fixture.msg.text, row->says) != NULL;
        ck_assert_msg(says, "%s: it says: %s", row->entry, fixture.msg.text);
        ck_assert_ptr_nonnull(strstr(fixture.msg.text, "0/2000100"));
    }
    /* Only the page and the message: not the record, not what lies beside the page. */
    memcpy(before.page, fixture.page, PAGE_SIZE);
    before.msg = fixture.msg;
    ck_assert_mem_eq(&before, &fixture, sizeof(fixture));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("redo_catalogue");
    TCase *tcase = tcase_create("redo_catalogue");
    tcase_add_loop_test(tcase, test_the_catalogue, 0, (int)ARRAY_LEN(rows));
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
