/*
 * F3. Redo of one record on one page, both from anywhere: an answer, twice the same one, and a page
 * whose header was sound is left with a sound one.
 *
 * An input that begins with 'P' or 'Q' is a pair (redo_pair.h): a real page and a real record that
 * was applied to it, both changed by the mutator below. Any other input makes up a record and a
 * page of its own. The stack is filled with other bytes before the second run, so that a byte that
 * was never written shows.
 */
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/pg/cursor.h"
#include "pageserver/redo/redo.h"
#include "tests/fuzz/mutate_page.h"
#include "tests/fuzz/mutate_record.h"
#include "tests/fuzz/redo_pair.h"

static struct wal_record record;

__attribute__((noinline)) static void fill_stack(uint8_t byte)
{
    uint8_t room[64 * KIB];
    memset(room, byte, sizeof(room));
    __asm__ volatile("" : : "r"(room) : "memory"); /* it counts as used */
}

/* lower <= upper <= special, all inside: what every reader of a page believes first. */
static bool has_sound_header(const uint8_t *page)
{
    unsigned lower = page_u16(page, PAGE_LOWER), upper = page_u16(page, PAGE_UPPER);
    unsigned special = page_u16(page, PAGE_SPECIAL);
    return lower >= PAGE_HEADER_SIZE && lower <= upper && upper <= special &&
           special <= PAGE_SIZE && special % 8 == 0;
}

/* Where redo vouches for the header: not for images, which are the page, nor for SLRU pages. */
static bool keeps_header_sound(uint8_t block_index, struct page_key key)
{
    bool has_image = block_index < record.block_count && record.blocks[block_index].in_use &&
                     record.blocks[block_index].has_image;
    return key.spc != KEY_SPC_STATE && !has_image;
}

/* In the middle of other bytes: a write beside the page shows without ASan, too. */
static err_t apply_in_room(
    uint8_t block_index, struct page_key key, const uint8_t *page, uint8_t *after)
{
    static uint8_t room[PAGE_SIZE * 3];
    struct errmsg msg = {.text = ""};
    memset(room, 0xC3, sizeof(room));
    memcpy(room + PAGE_SIZE, page, PAGE_SIZE);
    fill_stack(0xA5);
    err_t err = redo_apply(&record, block_index, key, room + PAGE_SIZE, &msg);
    ASSERT(room[0] == 0xC3 && memcmp(room, room + 1, PAGE_SIZE - 1) == 0);
    ASSERT(memcmp(room, room + (size_t)2 * PAGE_SIZE, PAGE_SIZE) == 0);
    ASSERT(IMPLIES(err != ERR_OK, msg.text[0] != '\0'));
    memcpy(after, room + PAGE_SIZE, PAGE_SIZE);
    return err;
}

/* In memory of just its size: ASan sees what is read beside it, and other bytes lie there. */
static err_t apply_alone(
    uint8_t block_index, struct page_key key, const uint8_t *page, uint8_t *after)
{
    struct errmsg msg;
    uint8_t *exact = mem_dup(page, PAGE_SIZE);
    fill_stack(0x5A);
    err_t err = redo_apply(&record, block_index, key, exact, &msg);
    memcpy(after, exact, PAGE_SIZE);
    mem_free(exact);
    return err;
}

static void apply_twice(uint8_t block_index, struct page_key key, const uint8_t *page)
{
    uint8_t first[PAGE_SIZE], second[PAGE_SIZE];
    err_t err = apply_in_room(block_index, key, page, first);
    err_t again = apply_alone(block_index, key, page, second);
    ASSERT(err == again);
    if (err == ERR_OK) {
        ASSERT(memcmp(first, second, PAGE_SIZE) == 0);
        if (has_sound_header(page) && keeps_header_sound(block_index, key)) {
            ASSERT(has_sound_header(first));
        }
    }
}

static void run_pair(const uint8_t *data, size_t size)
{
    static struct redo_pair pair;
    struct errmsg msg;
    if (!redo_pair_read(bytes_of(data, size), &pair)) {
        return;
    }
    uint8_t *exact = mem_dup(pair.record.data, pair.record.size);
    struct bytes bytes = bytes_of(exact, pair.record.size);
    if (wal_record_decode(bytes, pair.begin_lsn, pair.end_lsn, &record, &msg) == ERR_OK) {
        apply_twice(pair.block_index, pair.key, pair.page);
    }
    mem_free(exact);
}

/* A page with items of index-tuple shape, as many and as broken as the input wants. */
static void make_page(struct cursor *input, uint8_t *page)
{
    static const uint16_t SPECIALS[] = {0, 8, 16, 4};
    unsigned shape = cursor_u8(input);
    unsigned count = cursor_u8(input) % 64;
    unsigned special = PAGE_SIZE - SPECIALS[shape % 4];
    memset(page, 0, PAGE_SIZE);
    struct bytes tail = cursor_bytes(input, MIN_OF((size_t)SPECIALS[shape % 4], input->left));
    if (tail.size > 0) {
        memcpy(page + special, tail.data, tail.size);
    }
    unsigned upper = special & ~7u;
    for (unsigned i = 0; i < count; i++) {
        unsigned size = 8 + cursor_u8(input) % 64;
        unsigned state = shape & 0x80 ? cursor_u8(input) % 4 : 1;
        upper -= (size + 7) & ~7u;
        page_set_u32(page, PAGE_HEADER_SIZE + 4 * (size_t)i, upper | state << 15 | size << 17);
        struct bytes item = cursor_bytes(input, MIN_OF((size_t)size, input->left));
        if (item.size > 0) {
            memcpy(page + upper, item.data, item.size);
        }
        page_set_u16(page, upper + 6, (uint16_t)((page_u16(page, upper + 6) & 0xE000) | size));
        if (size >= 24) {
            page[upper + 22] = 24;
        }
    }
    page_set_u16(page, PAGE_LOWER, (uint16_t)(PAGE_HEADER_SIZE + 4 * count));
    page_set_u16(page, PAGE_UPPER, (uint16_t)upper);
    page_set_u16(page, PAGE_SPECIAL, (uint16_t)special);
    page_set_u16(page, PAGE_VERSION, PAGE_SIZE | 4);
    if (shape & 0x40) {
        page_set_u16(page, cursor_u8(input) % 24, cursor_u16(input));
    }
}

static void run_made_up(const uint8_t *data, size_t size)
{
    static uint8_t page[PAGE_SIZE];
    struct cursor input = cursor_of(bytes_of(data, size));
    struct page_key key = {.spc = 1663, .db = 5, .rel = 16384};
    memset(&record, 0, sizeof(record));
    record.rmgr = cursor_u8(&input) % RM_COUNT;
    record.info = cursor_u8(&input);
    record.xid = 1000;
    record.lsn = 0x1000000;
    record.end_lsn = 0x1000100;
    uint8_t block_index = cursor_u8(&input) % 8;
    unsigned kind = cursor_u8(&input);
    size_t main_size = cursor_u8(&input) % 64;
    record.main_data = cursor_bytes(&input, MIN_OF(main_size, input.left));
    if (record.rmgr == RM_XACT || record.rmgr == RM_MULTIXACT || record.rmgr == RM_SMGR ||
        block_index == 7) {
        block_index = VALUE_BLOCK_IMPLIED;
        key = record.rmgr == RM_HEAP || record.rmgr == RM_HEAP2 || record.rmgr == RM_SMGR
                  ? key
                  : page_key_state(STATE_CLOG + kind % 4, 0, kind / 64);
    }
    key.fork = block_index != 0 && kind & 1 && key.spc != KEY_SPC_STATE ? FORK_VM : FORK_MAIN;
    make_page(&input, page);
    record.block_count = 7;
    for (unsigned i = 0; i < 7; i++) {
        record.blocks[i] = (struct wal_block){.in_use = (kind >> i & 1) != 0 || i == block_index};
        record.blocks[i].key = key;
        record.blocks[i].data = bytes_of(input.at, input.left);
    }
    if (block_index < 7) {
        record.blocks[block_index].will_init = (kind & 2) != 0;
        if (kind & 2) {
            memset(page, 0, PAGE_SIZE);
        }
    }
    apply_twice(block_index, key, page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && (data[0] == 'P' || data[0] == 'Q')) {
        run_pair(data, size);
    } else if (size > 0) {
        run_made_up(data, size);
    }
    return 0;
}

/* -- the mutator -- */

/* The page is the one that the reference names, or redo would say no more than that. */
static void fit_key(struct redo_pair *pair, const struct record_parts *parts)
{
    for (size_t i = 0; i < parts->part_count; i++) {
        const struct record_part *part = &parts->parts[i];
        if (part->id == pair->block_index) {
            pair->key.fork = part->fork_flags & 0x0F;
            pair->key.block = part->block;
            if ((part->fork_flags & 0x80) == 0) {
                pair->key.rel = le_u32(part->locator + 8);
            }
        }
    }
}

static size_t part_of(const struct redo_pair *pair, const struct record_parts *parts)
{
    for (size_t i = 0; i < parts->part_count; i++) {
        if (parts->parts[i].id == pair->block_index) {
            return i;
        }
    }
    return parts->part_count;
}

static void mutate_place(
    struct mutation *mutation, struct redo_pair *pair, struct record_parts *parts)
{
    switch (mutation_below(mutation, 7)) {
    case 0: pair->block_index = VALUE_BLOCK_IMPLIED; break;
    case 1: mutate_field(mutation, (uint8_t *)&pair->key.block, sizeof(pair->key.block)); return;
    case 2: pair->key.fork = (uint8_t)mutation_below(mutation, FORK_COUNT); return;
    case 3: memset(pair->page, 0, PAGE_SIZE); return;
    case 4: page_set_lsn(pair->page, pair->begin_lsn - 8); return;
    case 5: /* a reference that this record should not have */
        if (parts->part_count > 0) {
            struct record_part *last = &parts->parts[parts->part_count - 1];
            last->id = (uint8_t)(last->id + 1 + mutation_below(mutation, 4));
            pair->block_index = last->id;
        }
        break;
    default:
        if (parts->part_count > 0) {
            pair->block_index = parts->parts[mutation_below(mutation, parts->part_count)].id;
        }
    }
    fit_key(pair, parts);
}

static void mutate_pair(
    struct mutation *mutation, struct redo_pair *pair, struct record_parts *parts, size_t size_max)
{
    switch (mutation_below(mutation, 16)) {
    case 0: mutate_place(mutation, pair, parts); break;
    case 1:
    case 2:
        mutate_record_parts(mutation, parts, size_max);
        if (!mutation_one_in(mutation, 8)) {
            fit_key(pair, parts);
        }
        break;
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
    case 9: mutate_record_payload(mutation, parts, part_of(pair, parts), size_max); break;
    default: mutate_page(mutation, pair->page); break;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    struct mutation mutation;
    struct redo_pair pair;
    struct record_parts parts;
    mutation_init(&mutation, seed);
    if (!redo_pair_read(bytes_of(data, size), &pair)) {
        return LLVMFuzzerMutate(data, size, size_max);
    }
    struct buf record_room = {.data = NULL}, out = {.data = NULL};
    bool has_parts = record_parts_parse(pair.record, &parts);
    mutation_hint_page(&mutation, pair.page);
    mutation_hint(&mutation, (uint32_t)parts.main.size);
    if (has_parts && part_of(&pair, &parts) < parts.part_count) {
        struct bytes named = buf_view(&parts.parts[part_of(&pair, &parts)].data);
        mutation_hint_items(
            &mutation, pair.page, bytes_of(named.data, MIN_OF(named.size, (size_t)16)));
    }
    mutation_hint_items(&mutation, pair.page, buf_view(&parts.main));
    for (size_t i = 0; i <= mutation_below(&mutation, 4); i++) {
        if (has_parts) {
            mutate_pair(&mutation, &pair, &parts, PAGE_SIZE * 2);
        } else {
            mutate_page(&mutation, pair.page);
        }
    }
    if (has_parts) {
        record_parts_write(&parts, &record_room);
        pair.record = buf_view(&record_room);
    }
    redo_pair_write(&pair, &out);
    size_t made = out.size <= size_max ? out.size : size;
    if (out.size <= size_max) {
        memcpy(data, out.data, out.size);
    }
    record_parts_deinit(&parts);
    buf_deinit(&record_room);
    buf_deinit(&out);
    return made;
}

/* The page of one pair, the record of the other: of the same resource manager, or nearly never. */
size_t LLVMFuzzerCustomCrossOver(
    const uint8_t *data1,
    size_t size1,
    const uint8_t *data2,
    size_t size2,
    uint8_t *out,
    size_t out_size_max,
    unsigned seed)
{
    struct redo_pair a, b;
    if (!redo_pair_read(bytes_of(data1, size1), &a) ||
        !redo_pair_read(bytes_of(data2, size2), &b) || a.record.size < WAL_RECORD_HEADER_SIZE ||
        b.record.size < WAL_RECORD_HEADER_SIZE ||
        (a.record.data[17] != b.record.data[17] && seed % 16 != 0)) {
        return 0;
    }
    struct buf room = {.data = NULL};
    memcpy(b.page, a.page, PAGE_SIZE);
    page_set_lsn(b.page, b.begin_lsn - 8);
    redo_pair_write(&b, &room);
    size_t made = room.size <= out_size_max ? room.size : 0;
    memcpy(out, room.data, made);
    buf_deinit(&room);
    return made;
}
