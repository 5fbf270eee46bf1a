#include "common/pg/wal_image.h"

#include <lz4.h>
#include <zstd.h>

#include "common/base/assert.h"
#include "common/base/mark.h"
#include "common/pg/page.h"
#include "common/pg/wal_record.h"

/*
 * A back reference of pglz. Two bytes: high nibble of the first and the second are the distance
 * back (1 to 4095), the low nibble of the first is the length minus 3; the length 18 is extended by
 * a third byte (up to 273).
 */
struct pglz_match {
    size_t distance, size;
};

enum { PGLZ_SIZE_MIN = 3, PGLZ_SIZE_EXTENDED = 18 };

/* Returns how many bytes the tag took; 0 when it is cut short. */
static size_t pglz_read_match(struct bytes from, size_t at, struct pglz_match *ret_match)
{
    if (from.size - at < 2) {
        return 0;
    }
    uint8_t first = from.data[at], second = from.data[at + 1];
    struct pglz_match match = {
        .distance = (size_t)(first & 0xF0) << 4 | second,
        .size = (size_t)(first & 0x0F) + PGLZ_SIZE_MIN,
    };
    size_t used = 2;
    if (match.size == PGLZ_SIZE_EXTENDED) {
        if (from.size - at < 3) {
            return 0;
        }
        match.size += from.data[at + 2];
        used = 3;
    }
    *ret_match = match;
    return used;
}

struct pglz {
    struct bytes from;
    size_t in; /* read so far */
    uint8_t *to;
    size_t size, out; /* wanted; written so far */
};

static err_t pglz_copy_match(struct pglz *pglz)
{
    struct pglz_match match;
    size_t used = pglz_read_match(pglz->from, pglz->in, &match);
    if (used == 0) {
        MARK("pglz.tag_short");
        return ERR_CORRUPT;
    }
    if (match.distance == 0 || match.distance > pglz->out) {
        MARK("pglz.bad_distance");
        return ERR_CORRUPT;
    }
    if (match.size > pglz->size - pglz->out) {
        MARK("pglz.too_long");
        return ERR_CORRUPT;
    }
    pglz->in += used;
    /* The source may overlap what is being written: byte by byte repeats a pattern. */
    for (size_t i = 0; i < match.size; i++, pglz->out++) {
        pglz->to[pglz->out] = pglz->to[pglz->out - match.distance];
    }
    return ERR_OK;
}

static bool pglz_goes_on(const struct pglz *pglz)
{
    return pglz->in < pglz->from.size && pglz->out < pglz->size;
}

/* A control byte: eight bits for what follows, a back reference or a byte as it is. */
static err_t pglz_take_eight(struct pglz *pglz)
{
    unsigned control = pglz->from.data[pglz->in++];
    err_t err = ERR_OK;
    for (int bit = 0; bit < 8 && err == ERR_OK && pglz_goes_on(pglz); bit++, control >>= 1) {
        if ((control & 1) != 0) {
            err = pglz_copy_match(pglz);
        } else {
            pglz->to[pglz->out++] = pglz->from.data[pglz->in++];
        }
    }
    return err;
}

err_t pglz_decompress(struct bytes from, uint8_t *to, size_t size)
{
    struct pglz pglz = {.from = from, .size = size};
    pglz.to = to;
    while (pglz_goes_on(&pglz)) {
        TRY(pglz_take_eight(&pglz));
    }
    if (pglz.in != from.size || pglz.out != size) {
        MARK("pglz.wrong_size");
        return ERR_CORRUPT;
    }
    return ERR_OK;
}

static err_t decompress(const struct wal_block *block, uint8_t *to, size_t size)
{
    struct bytes image = block->image;
    if ((block->image_flags & WAL_IMAGE_PGLZ) != 0) {
        return pglz_decompress(image, to, size);
    }
    if ((block->image_flags & WAL_IMAGE_LZ4) != 0) {
        int made =
            LZ4_decompress_safe((const char *)image.data, (char *)to, (int)image.size, (int)size);
        return made >= 0 && (size_t)made == size ? ERR_OK : ERR_CORRUPT;
    }
    /* One pass into a bounded target: no window is allocated whatever the frame asks for. */
    size_t made = ZSTD_decompress(to, size, image.data, image.size);
    return !ZSTD_isError(made) && made == size ? ERR_OK : ERR_CORRUPT;
}

err_t wal_block_restore_image(const struct wal_block *block, uint8_t *to, struct errmsg *msg)
{
    ASSERT(block->in_use && block->has_image);
    size_t hole_begin = block->hole_offset, hole_size = block->hole_size;
    if (hole_begin + hole_size > PAGE_SIZE) {
        MARK("wal_image.bad_hole");
        return err_set(
            msg, ERR_CORRUPT, "page image: hole of %zu bytes at %zu", hole_size, hole_begin);
    }
    size_t size = PAGE_SIZE - hole_size;
    uint8_t plain[PAGE_SIZE];
    const uint8_t *source = block->image.data;
    if ((block->image_flags & WAL_IMAGE_COMPRESSED) != 0) {
        if (decompress(block, plain, size) != ERR_OK) {
            MARK("wal_image.bad_compression");
            return err_set(
                msg, ERR_CORRUPT, "page image of %zu bytes does not decompress to %zu (flags %#x)",
                block->image.size, size, (unsigned)block->image_flags);
        }
        source = plain;
    } else if (block->image.size != size) {
        MARK("wal_image.bad_size");
        return err_set(
            msg, ERR_CORRUPT, "page image has %zu bytes instead of %zu", block->image.size, size);
    }
    size_t hole_end = hole_begin + hole_size;
    memcpy(to, source, hole_begin);
    memset(to + hole_begin, 0, hole_size);
    memcpy(to + hole_end, source + hole_begin, PAGE_SIZE - hole_end);
    return ERR_OK;
}
