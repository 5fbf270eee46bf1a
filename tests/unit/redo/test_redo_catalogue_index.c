/* The bad-input catalogue of redo: B-tree, GIN, GiST, SP-GiST, hash, BRIN. */
#include "tests/unit/redo/redo_catalogue.h"

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

/* -- the table -- */

static const struct row rows[] = {
    {"ntuples huge", ntuples_more_than_there_are, 0, "too short"},
    {"ntuples negative", ntuples_negative, 0, "too short"},
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
};

int main(void)
{
    return run_catalogue("redo_catalogue_index", rows, ARRAY_LEN(rows));
}
