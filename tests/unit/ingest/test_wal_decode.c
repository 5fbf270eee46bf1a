/* What versions a record makes of the blocks it names, of maps, and of relations. */
#include "tests/unit/ingest/decode_fixture.h"

/* -- block references -- */

START_TEST(test_record_on_an_existing_block_is_a_delta)
{
    given_size(rel, 10);
    when(&(struct wal_builder_record){
        .rmgr = RM_BTREE, .block_count = 1, .blocks = {{.key = block_of(rel, 3)}}});
    assert_made(block_of(rel, 3), VALUE_DELTA, 0);
    assert_made_count(1);
}
END_TEST

START_TEST(test_block_made_from_nothing_is_an_init)
{
    given_size(rel, 10);
    when(&(struct wal_builder_record){
        .rmgr = RM_BTREE,
        .block_count = 2,
        .blocks = {{.key = block_of(rel, 3)}, {.key = block_of(rel, 4), .will_init = true}}});
    assert_made(block_of(rel, 3), VALUE_DELTA, 0);
    assert_made(block_of(rel, 4), VALUE_INIT, 1);
    assert_made_count(2);
}
END_TEST

START_TEST(test_block_at_the_end_extends_its_fork)
{
    given_size(rel, 3);
    when(&(struct wal_builder_record){
        .rmgr = RM_HEAP2, .info = 0x40, .block_count = 1, .blocks = {{.key = block_of(rel, 3)}}});
    assert_made(block_of(rel, 3), VALUE_INIT, 0); /* not a delta: an older life must not show */
    assert_size(rel, true, 4);
    assert_made_count(2);
}
END_TEST

START_TEST(test_block_of_an_unknown_relation_creates_it)
{
    when(&(struct wal_builder_record){
        .rmgr = RM_BTREE, .block_count = 1, .blocks = {{.key = rel, .will_init = true}}});
    assert_made(rel, VALUE_INIT, 0);
    assert_size(rel, true, 1);
}
END_TEST

START_TEST(test_skipped_blocks_are_zero)
{
    given_size(rel, 2);
    when(&(struct wal_builder_record){
        .rmgr = RM_HASH,
        .block_count = 2,
        .blocks = {{.key = block_of(rel, 6), .will_init = true}, {.key = block_of(rel, 4)}}});
    assert_made(block_of(rel, 2), VALUE_ZERO, 0);
    assert_made(block_of(rel, 3), VALUE_ZERO, 0);
    assert_made(block_of(rel, 4), VALUE_INIT, 1);
    assert_made(block_of(rel, 5), VALUE_ZERO, 0);
    assert_made(block_of(rel, 6), VALUE_INIT, 0);
    assert_size(rel, true, 7);
    assert_made_count(6);
}
END_TEST

START_TEST(test_huge_gap_is_refused)
{
    given_size(rel, 2);
    struct wal_builder_record bad = {
        .rmgr = RM_HASH, .block_count = 1, .blocks = {{.key = block_of(rel, UINT32_MAX - 1)}}};
    assert_refused(&bad, "wal_decode.huge_gap", 1);
}
END_TEST

START_TEST(test_same_block_twice_is_refused)
{
    struct wal_builder_record bad = {
        .rmgr = RM_HASH, .block_count = 2, .blocks = {{.key = rel}, {.key = rel}}};
    assert_refused(&bad, "wal_decode.block_twice", 1);
}
END_TEST

START_TEST(test_block_after_a_truncation_begins_anew)
{
    given_size(rel, 5);
    struct fields main = {0};
    add_u32(&main, 2);
    add_u32(&main, rel.spc);
    add_u32(&main, rel.db);
    add_u32(&main, rel.rel);
    add_u32(&main, 1);
    struct wal_builder_record truncate = record_of(RM_SMGR, 0x20, 0, &main);
    when(&truncate);
    assert_size(rel, true, 2);
    when(&(struct wal_builder_record){
        .rmgr = RM_HEAP,
        .info = 0x50, /* anything without a side effect */
        .block_count = 1,
        .blocks = {{.key = block_of(rel, 4)}}});
    assert_made(block_of(rel, 2), VALUE_ZERO, 0);
    assert_made(block_of(rel, 3), VALUE_ZERO, 0);
    assert_made(block_of(rel, 4), VALUE_INIT, 0);
    assert_size(rel, true, 5);
}
END_TEST

START_TEST(test_image_is_the_page_with_the_lsn_of_the_record)
{
    uint8_t page[PAGE_SIZE];
    fill_page(page, false);
    given_size(rel, 1);
    when(&(struct wal_builder_record){
        .rmgr = RM_HEAP,
        .info = 0x50,
        .block_count = 1,
        .blocks = {{.key = rel, .image = bytes_of(page, sizeof(page))}}});
    assert_made(rel, VALUE_IMAGE, 0);
    const uint8_t *stored = made(rel)->value.data;
    ck_assert_uint_eq(made(rel)->value.size, PAGE_SIZE);
    ck_assert_uint_eq(page_lsn(stored), record.end_lsn);
    page_set_lsn(page, record.end_lsn);
    ck_assert_mem_eq(stored, page, PAGE_SIZE);
    assert_made_count(1);
}
END_TEST

START_TEST(test_image_of_a_new_page_keeps_its_bytes)
{
    uint8_t page[PAGE_SIZE];
    fill_page(page, true);
    when(&(struct wal_builder_record){
        .rmgr = RM_XLOG,
        .info = 0xB0,
        .block_count = 1,
        .blocks = {{.key = rel, .image = bytes_of(page, sizeof(page))}}});
    ck_assert_mem_eq(made(rel)->value.data, page, PAGE_SIZE);
    assert_size(rel, true, 1);
}
END_TEST

START_TEST(test_image_for_checking_is_not_the_page)
{
    uint8_t page[PAGE_SIZE];
    fill_page(page, false);
    given_size(rel, 1);
    struct wal_builder_record checked = {
        .rmgr = RM_BTREE, .info = 0, .block_count = 1, .blocks = {{.key = rel}}};
    checked.blocks[0].image = bytes_of(page, 4096);
    checked.blocks[0].image_flags = WAL_IMAGE_HAS_HOLE;
    checked.blocks[0].hole_offset = 100;
    checked.blocks[0].hole_size = 4096;
    when(&checked);
    assert_made(rel, VALUE_DELTA, 0);
}
END_TEST

START_TEST(test_hash_and_gist_go_on_after_the_image)
{
    uint8_t page[PAGE_SIZE];
    fill_page(page, false);
    struct {
        uint8_t rmgr, info;
        size_t index;
    } cases[] = {
        {RM_HASH, 0x40, 0},
        {RM_HASH, 0x60, 0},
        {RM_HASH, 0x60, 1},
        {RM_GIST, 0x00, 1},
        {RM_GIST, 0x30, 0}};
    given_size(rel, 2);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wal_builder_record two = {
            .rmgr = cases[i].rmgr,
            .info = cases[i].info,
            .block_count = 2,
            .blocks = {{.key = rel}, {.key = block_of(rel, 1)}}};
        two.blocks[cases[i].index].image = bytes_of(page, sizeof(page));
        when(&two);
        assert_made(block_of(rel, (uint32_t)cases[i].index), VALUE_INIT, (uint8_t)cases[i].index);
    }
}
END_TEST

START_TEST(test_bad_image_is_refused)
{
    uint8_t garbage[50] = {1, 2, 3};
    struct wal_builder_record bad = {
        .rmgr = RM_XLOG, .info = 0xB0, .block_count = 1, .blocks = {{.key = rel}}};
    bad.blocks[0].image = bytes_of(garbage, sizeof(garbage));
    bad.blocks[0].image_flags = WAL_IMAGE_APPLY | WAL_IMAGE_LZ4;
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
}
END_TEST

START_TEST(test_hint_without_an_image_is_nothing)
{
    when(&(struct wal_builder_record){
        .rmgr = RM_XLOG, .info = 0xA0, .block_count = 1, .blocks = {{.key = rel}}});
    assert_made_count(0);
    struct wal_builder_record bad = {
        .rmgr = RM_XLOG, .info = 0xB0, .block_count = 1, .blocks = {{.key = rel}}};
    assert_refused(&bad, "wal_decode.fpi_without_image", 1);
}
END_TEST

START_TEST(test_custom_resource_manager_is_stored)
{
    given_size(rel, 1);
    when(&(struct wal_builder_record){.rmgr = 150, .block_count = 1, .blocks = {{.key = rel}}});
    assert_made(rel, VALUE_DELTA, 0);
    struct wal_builder_record bad = {.rmgr = 50};
    assert_refused(&bad, "wal_decode.unknown_rmgr", 1);
}
END_TEST

/* -- visibility map -- */

static struct wal_builder_record heap_record(uint8_t info, size_t flags_at, uint8_t flags)
{
    static uint8_t main[16];
    memset(main, 0, sizeof(main));
    main[flags_at] = flags;
    return (struct wal_builder_record){
        .rmgr = RM_HEAP,
        .info = info,
        .main_data = bytes_of(main, sizeof(main)),
        .block_count = 1,
        .blocks = {{.key = block_of(rel, 40000)}}};
}

START_TEST(test_cleared_visibility_is_a_delta_of_the_map)
{
    struct page_key map = block_of(fork_of(rel, FORK_VM), 1); /* 32672 heap blocks a page */
    given_size(rel, 50000);
    given_size(map, 2);
    struct {
        uint8_t rmgr, info;
        size_t flags_at;
    } cases[] = {{RM_HEAP, 0x00, 2},  {RM_HEAP, 0x10, 7}, {RM_HEAP, 0x60, 7}, {RM_HEAP2, 0x50, 0},
                 {RM_HEAP2, 0x60, 7}, {RM_HEAP, 0x20, 7}, {RM_HEAP, 0x40, 7}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct wal_builder_record heap = heap_record(cases[i].info, cases[i].flags_at, 1);
        heap.rmgr = cases[i].rmgr;
        when(&heap);
        assert_made(map, VALUE_DELTA, VALUE_BLOCK_IMPLIED);
        assert_made_count(2);

        heap = heap_record(cases[i].info, cases[i].flags_at, 0);
        heap.rmgr = cases[i].rmgr;
        when(&heap);
        assert_made_count(1);

        heap.main_data.size = cases[i].flags_at;
        ck_assert_int_eq(decode(&heap), ERR_CORRUPT);
    }
    ck_assert_uint_eq(mark_hits("wal_decode.short_heap_record"), ARRAY_LEN(cases));
}
END_TEST

START_TEST(test_named_map_page_is_not_implied)
{
    struct page_key map = block_of(fork_of(rel, FORK_VM), 1);
    given_size(rel, 50000);
    given_size(map, 2);
    struct wal_builder_record heap = heap_record(0x10, 7, 1);
    heap.block_count = 2;
    heap.blocks[1] = (struct wal_builder_block){.key = map};
    when(&heap);
    assert_made(map, VALUE_DELTA, 1);
    assert_made_count(2);

    heap = heap_record(0x20, 7, 3);
    heap.block_count = 2;
    heap.blocks[1] = (struct wal_builder_block){.key = map, .id = 3};
    when(&heap);
    assert_made(map, VALUE_DELTA, 3);
    assert_made_count(2);
}
END_TEST

/* Found by fuzzing: the heap block is itself a map page, so that both would be the same version. */
START_TEST(test_map_page_that_is_named_and_implied_is_refused)
{
    struct wal_builder_record heap = heap_record(0x00, 2, 1);
    heap.blocks[0].key = fork_of(rel, FORK_VM);
    ck_assert_int_eq(decode(&heap), ERR_CORRUPT);
    heap = heap_record(0x40, 7, 3);
    heap.block_count = 2;
    heap.blocks[1] = (struct wal_builder_block){.key = block_of(fork_of(rel, FORK_VM), 1), .id = 4};
    assert_refused(&heap, "wal_decode.vm_page_twice", 2);
}
END_TEST

START_TEST(test_update_clears_the_maps_of_both_blocks)
{
    struct page_key map = fork_of(rel, FORK_VM);
    given_size(rel, 50000);
    given_size(map, 2);
    struct wal_builder_record update = heap_record(0x20, 7, 3); /* new: block 40000 */
    update.block_count = 2;
    update.blocks[1] = (struct wal_builder_block){.key = block_of(rel, 5)};
    when(&update);
    assert_made(block_of(map, 0), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made(block_of(map, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made_count(4);

    update = heap_record(0x20, 7, 2); /* the new one alone */
    update.block_count = 2;
    update.blocks[1] = (struct wal_builder_block){.key = block_of(rel, 5)};
    when(&update);
    assert_made(block_of(map, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made_count(3);

    update = heap_record(0x20, 7, 3); /* both on one page of the map */
    update.block_count = 2;
    update.blocks[1] = (struct wal_builder_block){.key = block_of(rel, 40001)};
    when(&update);
    assert_made(block_of(map, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made_count(3);
}
END_TEST

START_TEST(test_map_page_that_does_not_exist_is_made)
{
    struct page_key map = fork_of(rel, FORK_VM);
    given_size(rel, 50000);
    struct wal_builder_record heap = heap_record(0x10, 7, 1);
    when(&heap);
    assert_made(block_of(map, 0), VALUE_ZERO, 0);
    assert_made(block_of(map, 1), VALUE_INIT, VALUE_BLOCK_IMPLIED);
    assert_size(map, true, 2);
}
END_TEST

/* -- relations -- */

static struct wal_builder_record smgr_create(struct page_key key)
{
    static struct fields main;
    main.size = 0;
    add_u32(&main, key.spc);
    add_u32(&main, key.db);
    add_u32(&main, key.rel);
    add_u32(&main, key.fork);
    return record_of(RM_SMGR, 0x10, 700, &main);
}

START_TEST(test_created_fork_is_empty)
{
    struct wal_builder_record create = smgr_create(fork_of(rel, FORK_INIT));
    when(&create);
    assert_size(fork_of(rel, FORK_INIT), true, 0);
    when(&create); /* again: nothing */
    assert_made_count(0);
    assert_prefixes_refused(create);
    ck_assert_uint_gt(mark_hits("wal_decode.short_smgr"), 0);
}
END_TEST

START_TEST(test_created_fork_with_blocks_keeps_them)
{
    given_size(rel, 4);
    struct wal_builder_record create = smgr_create(rel);
    create.xid = 0;
    when(&create);
    assert_made_count(0);
}
END_TEST

START_TEST(test_impossible_relations_are_refused)
{
    struct wal_builder_record bad = smgr_create((struct page_key){.spc = 0, .db = 3, .rel = 1});
    ck_assert_int_eq(decode(&bad), ERR_CORRUPT);
    bad = smgr_create((struct page_key){.spc = 1663, .db = 3, .rel = 0});
    assert_refused(&bad, "wal_decode.smgr_of_state", 2);
    bad = smgr_create(fork_of(rel, 4));
    assert_refused(&bad, "wal_decode.create_bad_fork", 1);
    bad.info = 0x30;
    assert_refused(&bad, "wal_decode.unknown_smgr", 1);
}
END_TEST

static struct wal_builder_record smgr_truncate(uint32_t blocks, uint32_t flags)
{
    static struct fields main;
    main.size = 0;
    add_u32(&main, blocks);
    add_u32(&main, rel.spc);
    add_u32(&main, rel.db);
    add_u32(&main, rel.rel);
    add_u32(&main, flags);
    return record_of(RM_SMGR, 0x20, 0, &main);
}

START_TEST(test_truncation_cuts_all_forks)
{
    struct page_key map = fork_of(rel, FORK_VM), fsm = fork_of(rel, FORK_FSM);
    given_size(rel, 100000);
    given_size(map, 4);
    given_size(fsm, 2 + 25);
    struct wal_builder_record truncate = smgr_truncate(40000, 7);
    when(&truncate);
    assert_size(rel, true, 40000);
    assert_size(map, true, 2);
    assert_made(block_of(map, 1), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_size(fsm, true, 2 + 9 + 1); /* root, middle, leaves 0 to 9; 4069 slots a leaf */
    assert_made(block_of(fsm, 2 + 9), VALUE_ZERO, 0);
    assert_made_count(5);
}
END_TEST

START_TEST(test_truncation_at_a_map_page_boundary_drops_whole_pages)
{
    struct page_key map = fork_of(rel, FORK_VM), fsm = fork_of(rel, FORK_FSM);
    given_size(rel, 100000);
    given_size(map, 4);
    given_size(fsm, 30);
    struct wal_builder_record truncate = smgr_truncate(2 * 32672, 2);
    when(&truncate);
    assert_size(map, true, 2);
    assert_made_count(1);
    truncate = smgr_truncate(4069 * 3, 4);
    when(&truncate);
    assert_size(fsm, true, 2 + 3);
    assert_made_count(1);
}
END_TEST

START_TEST(test_truncation_to_nothing)
{
    struct page_key map = fork_of(rel, FORK_VM), fsm = fork_of(rel, FORK_FSM);
    given_size(rel, 10);
    given_size(map, 1);
    given_size(fsm, 3);
    struct wal_builder_record truncate = smgr_truncate(0, 7);
    when(&truncate);
    assert_size(rel, true, 0);
    assert_size(map, true, 0);
    assert_size(fsm, true, 2);
    assert_made_count(3);
}
END_TEST

START_TEST(test_truncation_of_shorter_forks_is_nothing)
{
    struct page_key map = fork_of(rel, FORK_VM);
    given_size(rel, 100);
    given_size(map, 1);
    struct wal_builder_record truncate = smgr_truncate(40000, 7);
    when(&truncate);
    assert_made_count(0);
    truncate = smgr_truncate(101, 2); /* clears bits on the only page, which stays */
    when(&truncate);
    assert_made(block_of(map, 0), VALUE_DELTA, VALUE_BLOCK_IMPLIED);
    assert_made_count(1);
}
END_TEST

START_TEST(test_truncation_of_an_unknown_relation_makes_it)
{
    struct wal_builder_record truncate = smgr_truncate(10, 7);
    when(&truncate);
    assert_size(rel, true, 0);
    assert_made_count(1);
    assert_prefixes_refused(truncate);
}
END_TEST

START_TEST(test_free_space_map_pages_lie_depth_first)
{
    /* Behind 4069 leaves comes a second middle page. */
    struct page_key fsm = fork_of(rel, FORK_FSM);
    given_size(fsm, 5000);
    uint32_t heap_blocks = 4069u * 4069u + 1;
    struct wal_builder_record truncate = smgr_truncate(heap_blocks, 4);
    when(&truncate);
    assert_size(fsm, true, 1 + 2 + 4069 + 1);
    assert_made(block_of(fsm, 1 + 2 + 4069), VALUE_ZERO, 0);
}
END_TEST

UNIT_MAIN_WITH(
    decode_options,
    "wal_decode",
    test_record_on_an_existing_block_is_a_delta,
    test_block_made_from_nothing_is_an_init,
    test_block_at_the_end_extends_its_fork,
    test_block_of_an_unknown_relation_creates_it,
    test_skipped_blocks_are_zero,
    test_huge_gap_is_refused,
    test_same_block_twice_is_refused,
    test_block_after_a_truncation_begins_anew,
    test_image_is_the_page_with_the_lsn_of_the_record,
    test_image_of_a_new_page_keeps_its_bytes,
    test_image_for_checking_is_not_the_page,
    test_hash_and_gist_go_on_after_the_image,
    test_bad_image_is_refused,
    test_hint_without_an_image_is_nothing,
    test_custom_resource_manager_is_stored,
    test_cleared_visibility_is_a_delta_of_the_map,
    test_named_map_page_is_not_implied,
    test_map_page_that_is_named_and_implied_is_refused,
    test_update_clears_the_maps_of_both_blocks,
    test_map_page_that_does_not_exist_is_made,
    test_created_fork_is_empty,
    test_created_fork_with_blocks_keeps_them,
    test_impossible_relations_are_refused,
    test_truncation_cuts_all_forks,
    test_truncation_at_a_map_page_boundary_drops_whole_pages,
    test_truncation_to_nothing,
    test_truncation_of_shorter_forks_is_nothing,
    test_truncation_of_an_unknown_relation_makes_it,
    test_free_space_map_pages_lie_depth_first);
