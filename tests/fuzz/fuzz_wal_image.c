/*
 * F4. A page image of any method and hole: it becomes a page, the same one whatever was there
 * before, or nothing is written.
 *
 * The input: u8 image flags, u16 hole offset, u16 hole size, then the image as stored.
 */
#include <lz4.h>
#include <string.h>
#include <zstd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/pg/cursor.h"
#include "common/pg/page.h"
#include "common/pg/wal_image.h"
#include "common/pg/wal_record.h"
#include "tests/fuzz/mutate.h"

#define IMAGE_HEADER_SIZE 5
#define BOMB_SIZE_MAX     (64 * KIB)

static struct wal_block read_block(const uint8_t *data, size_t size)
{
    struct cursor input = cursor_of(bytes_of(data, size));
    struct wal_block block = {.in_use = true, .has_image = true, .apply_image = true};
    block.image_flags = cursor_u8(&input) & WAL_IMAGE_FLAGS_KNOWN;
    block.hole_offset = cursor_u16(&input);
    block.hole_size = cursor_u16(&input);
    block.image = cursor_bytes(&input, input.left);
    return block;
}

__attribute__((noinline)) static void fill_stack(uint8_t byte)
{
    uint8_t room[32 * KIB];
    memset(room, byte, sizeof(room));
    __asm__ volatile("" : : "r"(room) : "memory"); /* it counts as used */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wal_block block = read_block(data, size);
    uint8_t page[2][PAGE_SIZE], before[PAGE_SIZE];
    struct errmsg msg;
    err_t errs[2];
    for (int i = 0; i < 2; i++) {
        uint8_t byte = i == 0 ? 0xA5 : 0x5A;
        memset(before, byte, PAGE_SIZE);
        memset(page[i], byte, PAGE_SIZE);
        fill_stack(byte);
        errs[i] = wal_block_restore_image(&block, page[i], &msg);
        ASSERT(IMPLIES(errs[i] != ERR_OK, memcmp(page[i], before, PAGE_SIZE) == 0));
    }
    ASSERT(errs[0] == errs[1]);
    if (errs[0] == ERR_OK) {
        ASSERT(memcmp(page[0], page[1], PAGE_SIZE) == 0);
        static const uint8_t zeros[PAGE_SIZE];
        ASSERT(memcmp(page[0] + block.hole_offset, zeros, block.hole_size) == 0);
    }
    return 0;
}

/* -- the mutator -- */

struct image {
    uint8_t header[IMAGE_HEADER_SIZE];
    struct buf stored;
};

/*
 * pglz of our own making: tags that add up to `size` bytes, mostly. Eight tags under a control
 * byte; a back reference is distance and length, or a byte of the page as it is.
 */
static void make_pglz(struct mutation *mutation, struct buf *to, size_t size)
{
    size_t out = 0, control = 0;
    for (unsigned bit = 0; out < size; bit = (bit + 1) % 8) {
        if (bit == 0) {
            control = to->size;
            *buf_extend(to, 1) = 0;
        }
        if (out == 0 || mutation_one_in(mutation, 6)) {
            *buf_extend(to, 1) = (uint8_t)mutation_below(mutation, 256);
            out++;
            continue;
        }
        size_t distance = 1 + mutation_below(mutation, MIN_OF(out, (size_t)4095));
        size_t length = MIN_OF(3 + mutation_below(mutation, 271), MAX_OF(size - out, (size_t)3));
        distance += mutation_one_in(mutation, 500) ? 1 : 0; /* before the first byte, maybe */
        unsigned nibble = length >= 18 ? 15 : (unsigned)length - 3;
        to->data[control] |= (uint8_t)(1u << bit);
        *buf_extend(to, 1) = (uint8_t)((distance >> 4 & 0xF0) | nibble);
        *buf_extend(to, 1) = (uint8_t)distance;
        if (nibble == 15) {
            *buf_extend(to, 1) = (uint8_t)(length - 18);
        }
        out += length;
    }
}

/* `plain` as this method stores it. */
static void compress(struct mutation *mutation, unsigned method, struct bytes plain, struct buf *to)
{
    buf_clear(to);
    if (method == WAL_IMAGE_LZ4) {
        int bound = LZ4_compressBound((int)plain.size);
        uint8_t *room = buf_extend(to, (size_t)bound);
        int made =
            LZ4_compress_default((const char *)plain.data, (char *)room, (int)plain.size, bound);
        to->size = (size_t)made;
    } else if (method == WAL_IMAGE_ZSTD) {
        size_t bound = ZSTD_compressBound(plain.size);
        static ZSTD_CCtx *context;
        context = context != NULL ? context : ZSTD_createCCtx();
        (void)ZSTD_CCtx_setParameter(
            context, ZSTD_c_compressionLevel, (int)mutation_below(mutation, 4));
        (void)ZSTD_CCtx_setParameter(
            context, ZSTD_c_checksumFlag, (int)mutation_below(mutation, 2));
        (void)ZSTD_CCtx_setParameter(
            context, ZSTD_c_contentSizeFlag, (int)mutation_below(mutation, 2));
        uint8_t *room = buf_extend(to, bound);
        size_t made = ZSTD_compress2(context, room, bound, plain.data, plain.size);
        to->size = ZSTD_isError(made) ? 0 : made;
    } else {
        buf_append(to, plain.data, plain.size);
    }
}

static void fill_plain(struct mutation *mutation, uint8_t *plain, size_t size)
{
    unsigned variety = 1u << mutation_below(mutation, 9);
    for (size_t i = 0; i < size; i++) {
        bool repeats = i > 32 && !mutation_one_in(mutation, 16);
        plain[i] = repeats ? plain[i - 17] : (uint8_t)mutation_below(mutation, variety);
    }
}

/* A good image of a page of any contents; now and then one that decompresses to too much. */
static void make_image(struct mutation *mutation, struct image *image)
{
    static const uint8_t methods[] = {0, WAL_IMAGE_PGLZ, WAL_IMAGE_LZ4, WAL_IMAGE_ZSTD};
    static const uint16_t holes[] = {0, 1, 8, 24, 4000, 8100, 8168, 8191, 8192};
    uint8_t method = methods[mutation_below(mutation, ARRAY_LEN(methods))];
    uint16_t hole_size = holes[mutation_below(mutation, ARRAY_LEN(holes))];
    uint16_t hole_offset = (uint16_t)mutation_below(mutation, PAGE_SIZE + 1u - hole_size);
    image->header[0] = method | WAL_IMAGE_APPLY | (hole_size > 0 ? WAL_IMAGE_HAS_HOLE : 0);
    page_set_u16(image->header, 1, hole_offset);
    page_set_u16(image->header, 3, hole_size);
    size_t size = (size_t)PAGE_SIZE - hole_size;
    if (mutation_one_in(mutation, 8)) {
        size = mutation_one_in(mutation, 2) ? mutation_below(mutation, BOMB_SIZE_MAX)
                                            : size + mutation_below(mutation, 3);
    }
    buf_clear(&image->stored);
    if (method == WAL_IMAGE_PGLZ) {
        make_pglz(mutation, &image->stored, size);
        return;
    }
    uint8_t *plain = mem_zalloc(size + 1);
    if (mutation_one_in(mutation, 2)) {
        fill_plain(mutation, plain, size);
    }
    compress(mutation, method, bytes_of(plain, size), &image->stored);
    mem_free(plain);
}

static void mutate_image(struct mutation *mutation, struct image *image, size_t size_max)
{
    switch (mutation_below(mutation, 10)) {
    case 0: make_image(mutation, image); break;
    case 1: mutate_field(mutation, image->header, 1); break;
    case 2: mutate_field(mutation, image->header + 1, 2); break;
    case 3: mutate_field(mutation, image->header + 3, 2); break;
    case 4: { /* the hole is what is missing from a page */
        size_t size = image->stored.size;
        page_set_u16(image->header, 3, (uint16_t)(size > PAGE_SIZE ? 0 : PAGE_SIZE - size));
        break;
    }
    default: mutate_payload(mutation, &image->stored, size_max);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    struct mutation mutation;
    struct image image = {.stored.data = NULL};
    mutation_init(&mutation, seed);
    if (size < IMAGE_HEADER_SIZE) {
        make_image(&mutation, &image);
    } else {
        memcpy(image.header, data, IMAGE_HEADER_SIZE);
        buf_append(&image.stored, data + IMAGE_HEADER_SIZE, size - IMAGE_HEADER_SIZE);
    }
    mutation_hint(&mutation, (uint32_t)image.stored.size);
    mutation_hint(&mutation, (uint32_t)(PAGE_SIZE - image.stored.size));
    for (size_t i = 0; i <= mutation_below(&mutation, 3); i++) {
        mutate_image(&mutation, &image, size_max - IMAGE_HEADER_SIZE);
    }
    size_t stored = MIN_OF(image.stored.size, size_max - IMAGE_HEADER_SIZE);
    memcpy(data, image.header, IMAGE_HEADER_SIZE);
    if (stored > 0) {
        memcpy(data + IMAGE_HEADER_SIZE, image.stored.data, stored);
    }
    buf_deinit(&image.stored);
    return IMAGE_HEADER_SIZE + stored;
}
