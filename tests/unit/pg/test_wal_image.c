/* Page images: hole and compressions undone; nothing written past the page whatever they say. */
#include <lz4.h>
#include <zstd.h>

#include "common/base/mark.h"
#include "common/base/mem.h"
#include "common/pg/page.h"
#include "common/pg/wal_image.h"
#include "common/pg/wal_record.h"
#include "tests/unit/unit.h"

enum { HOLE_OFFSET = 100, HOLE_SIZE = 5000, PLAIN_SIZE = PAGE_SIZE - HOLE_SIZE };

static struct errmsg msg;
static uint8_t page[PAGE_SIZE], restored[PAGE_SIZE], plain[PLAIN_SIZE];

static void setup(void)
{
    mark_reset_all();
    srand(1);
    memset(page, 0, sizeof(page));
    for (size_t i = 0; i < PAGE_SIZE; i++) {
        bool in_hole = i >= HOLE_OFFSET && i < HOLE_OFFSET + HOLE_SIZE;
        page[i] = (uint8_t)(in_hole ? 0 : rand() % 4);
    }
    memcpy(plain, page, HOLE_OFFSET);
    memcpy(plain + HOLE_OFFSET, page + HOLE_OFFSET + HOLE_SIZE, PLAIN_SIZE - HOLE_OFFSET);
}

static err_t restore(struct bytes image, unsigned flags)
{
    struct wal_block block = {
        .in_use = true,
        .has_image = true,
        .apply_image = true,
        .image = image,
        .image_flags = (uint8_t)(flags | WAL_IMAGE_APPLY | WAL_IMAGE_HAS_HOLE),
        .hole_offset = HOLE_OFFSET,
        .hole_size = HOLE_SIZE,
    };
    memset(restored, 0xEE, sizeof(restored));
    return wal_block_restore_image(&block, restored, &msg);
}

/* A plain compressor for pglz: the longest match in the last 4095 bytes, else a literal. */
static size_t pglz_compress(const uint8_t *from, size_t size, uint8_t *to)
{
    size_t in = 0, out = 0;
    while (in < size) {
        size_t control = out++;
        to[control] = 0;
        for (int bit = 0; bit < 8 && in < size; bit++) {
            size_t best = 0, best_distance = 0;
            for (size_t distance = 1; distance <= 4095 && distance <= in; distance++) {
                size_t length = 0;
                while (length < 273 && in + length < size &&
                       from[in + length] == from[in + length - distance]) {
                    length++;
                }
                if (length > best) {
                    best = length;
                    best_distance = distance;
                }
            }
            if (best < 3) {
                to[out++] = from[in++];
                continue;
            }
            to[control] |= (uint8_t)(1 << bit);
            unsigned nibble = best >= 18 ? 15 : (unsigned)best - 3;
            to[out++] = (uint8_t)((best_distance >> 4 & 0xF0) | nibble);
            to[out++] = (uint8_t)best_distance;
            if (nibble == 15) {
                to[out++] = (uint8_t)(best - 18);
            }
            in += best;
        }
    }
    return out;
}

START_TEST(test_hole_is_filled_with_zeros)
{
    ck_assert_int_eq(restore(bytes_of(plain, PLAIN_SIZE), 0), ERR_OK);
    ck_assert_mem_eq(restored, page, PAGE_SIZE);
}
END_TEST

START_TEST(test_page_without_a_hole)
{
    struct wal_block block = {
        .in_use = true, .has_image = true, .image = bytes_of(page, PAGE_SIZE)};
    ck_assert_int_eq(wal_block_restore_image(&block, restored, &msg), ERR_OK);
    ck_assert_mem_eq(restored, page, PAGE_SIZE);
}
END_TEST

START_TEST(test_pglz_is_undone)
{
    static uint8_t packed[2 * PAGE_SIZE];
    size_t size = pglz_compress(plain, PLAIN_SIZE, packed);
    ck_assert_uint_lt(size, PLAIN_SIZE);
    ck_assert_int_eq(restore(bytes_of(packed, size), WAL_IMAGE_PGLZ), ERR_OK);
    ck_assert_mem_eq(restored, page, PAGE_SIZE);
}
END_TEST

START_TEST(test_pglz_of_one_repeated_byte)
{
    static uint8_t zeros[PAGE_SIZE], packed[2 * PAGE_SIZE], to[PAGE_SIZE];
    size_t size = pglz_compress(zeros, PAGE_SIZE, packed);
    memset(to, 1, sizeof(to));
    ck_assert_int_eq(pglz_decompress(bytes_of(packed, size), to, PAGE_SIZE), ERR_OK);
    ck_assert_mem_eq(to, zeros, PAGE_SIZE);
}
END_TEST

START_TEST(test_lz4_is_undone)
{
    static char packed[2 * PAGE_SIZE];
    int size = LZ4_compress_default((char *)plain, packed, PLAIN_SIZE, sizeof(packed));
    ck_assert_int_eq(restore(bytes_of(packed, (size_t)size), WAL_IMAGE_LZ4), ERR_OK);
    ck_assert_mem_eq(restored, page, PAGE_SIZE);
}
END_TEST

START_TEST(test_zstd_is_undone)
{
    static uint8_t packed[2 * PAGE_SIZE];
    size_t size = ZSTD_compress(packed, sizeof(packed), plain, PLAIN_SIZE, 3);
    ck_assert_int_eq(restore(bytes_of(packed, size), WAL_IMAGE_ZSTD), ERR_OK);
    ck_assert_mem_eq(restored, page, PAGE_SIZE);
}
END_TEST

START_TEST(test_bombs_are_refused_and_write_nothing)
{
    static uint8_t zeros[1 << 20], packed[1 << 16];
    size_t sizes[] = {
        pglz_compress(zeros, 12000, packed),
        (size_t)LZ4_compress_default((char *)zeros, (char *)packed, sizeof(zeros), sizeof(packed)),
        ZSTD_compress(packed, sizeof(packed), zeros, sizeof(zeros), 3),
    };
    unsigned flags[] = {WAL_IMAGE_PGLZ, WAL_IMAGE_LZ4, WAL_IMAGE_ZSTD};
    for (size_t i = 0; i < 3; i++) {
        if (i == 0) {
            (void)pglz_compress(zeros, 12000, packed);
        } else if (i == 1) {
            LZ4_compress_default((char *)zeros, (char *)packed, sizeof(zeros), sizeof(packed));
        } else {
            ZSTD_compress(packed, sizeof(packed), zeros, sizeof(zeros), 3);
        }
        ck_assert_int_eq(restore(bytes_of(packed, sizes[i]), flags[i]), ERR_CORRUPT);
        ck_assert_uint_eq(restored[0], 0xEE);
        ck_assert_uint_eq(restored[PAGE_SIZE - 1], 0xEE);
    }
    ck_assert_uint_eq(mark_hits("wal_image.bad_compression"), 3);
}
END_TEST

START_TEST(test_too_short_an_image_is_refused)
{
    static uint8_t packed[2 * PAGE_SIZE];
    size_t size = ZSTD_compress(packed, sizeof(packed), plain, PLAIN_SIZE - 1, 3);
    ck_assert_int_eq(restore(bytes_of(packed, size), WAL_IMAGE_ZSTD), ERR_CORRUPT);
    int lz4_size =
        LZ4_compress_default((char *)plain, (char *)packed, PLAIN_SIZE - 1, sizeof(packed));
    ck_assert_int_eq(restore(bytes_of(packed, (size_t)lz4_size), WAL_IMAGE_LZ4), ERR_CORRUPT);
    size = pglz_compress(plain, PLAIN_SIZE - 1, packed);
    ck_assert_int_eq(restore(bytes_of(packed, size), WAL_IMAGE_PGLZ), ERR_CORRUPT);
    ck_assert_int_eq(restore(bytes_of(plain, PLAIN_SIZE - 1), 0), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_image.bad_size"), 1);
}
END_TEST

static err_t pglz(struct bytes from, size_t size)
{
    uint8_t *copy = mem_dup(from.data, from.size), *to = mem_alloc(size);
    err_t err = pglz_decompress(bytes_of(copy, from.size), to, size);
    mem_free(copy);
    mem_free(to);
    return err;
}

START_TEST(test_pglz_refuses_what_does_not_fit)
{
    static const uint8_t no_history[] = {1, 0x00, 0x01}, at_zero[] = {2, 'a', 0x00, 0x00},
                         cut_tag[] = {2, 'a', 0x00}, cut_extension[] = {2, 'a', 0x0F, 0x01},
                         good[] = {2, 'a', 0x00, 0x01}, behind[] = {0, 'a', 'b', 'c'};
    ck_assert_int_eq(pglz(bytes_of(good, sizeof(good)), 4), ERR_OK);
    ck_assert_int_eq(pglz(bytes_of(no_history, sizeof(no_history)), 4), ERR_CORRUPT);
    ck_assert_int_eq(pglz(bytes_of(at_zero, sizeof(at_zero)), 4), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("pglz.bad_distance"), 2);
    ck_assert_int_eq(pglz(bytes_of(cut_tag, sizeof(cut_tag)), 4), ERR_CORRUPT);
    ck_assert_int_eq(pglz(bytes_of(cut_extension, sizeof(cut_extension)), 40), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("pglz.tag_short"), 2);
    ck_assert_int_eq(pglz(bytes_of(good, sizeof(good)), 3), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("pglz.too_long"), 1);
    ck_assert_int_eq(pglz(bytes_of(good, sizeof(good)), 5), ERR_CORRUPT);
    ck_assert_int_eq(pglz(bytes_of(behind, sizeof(behind)), 2), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("pglz.wrong_size"), 2);
}
END_TEST

START_TEST(test_garbage_stays_inside)
{
    for (int round = 0; round < 20000; round++) {
        uint8_t garbage[64];
        for (size_t i = 0; i < sizeof(garbage); i++) {
            garbage[i] = (uint8_t)rand();
        }
        (void)!pglz(bytes_of(garbage, sizeof(garbage)), 100);
    }
}
END_TEST

START_TEST(test_hole_past_the_page_is_refused)
{
    struct wal_block block = {
        .in_use = true,
        .has_image = true,
        .image = bytes_of(page, 10),
        .hole_offset = 8000,
        .hole_size = 8182};
    ck_assert_int_eq(wal_block_restore_image(&block, restored, &msg), ERR_CORRUPT);
    ck_assert_uint_eq(mark_hits("wal_image.bad_hole"), 1);
}
END_TEST

static const struct unit_options options = {.setup = setup};

UNIT_MAIN_WITH(
    options,
    "wal_image",
    test_hole_is_filled_with_zeros,
    test_page_without_a_hole,
    test_pglz_is_undone,
    test_pglz_of_one_repeated_byte,
    test_lz4_is_undone,
    test_zstd_is_undone,
    test_bombs_are_refused_and_write_nothing,
    test_too_short_an_image_is_refused,
    test_pglz_refuses_what_does_not_fit,
    test_garbage_stays_inside,
    test_hole_past_the_page_is_refused);
