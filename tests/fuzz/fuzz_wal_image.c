/* A page image of any method and hole: it becomes a page, or nothing is written. */
#include <string.h>

#include "common/base/assert.h"
#include "common/pg/cursor.h"
#include "common/pg/page.h"
#include "common/pg/wal_image.h"
#include "common/pg/wal_record.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t methods[] = {
        0, WAL_IMAGE_PGLZ, WAL_IMAGE_PGLZ, WAL_IMAGE_LZ4, WAL_IMAGE_ZSTD};
    struct cursor input = cursor_of(bytes_of(data, size));
    uint8_t method = methods[cursor_u8(&input) % ARRAY_LEN(methods)];
    struct wal_block block = {.in_use = true, .has_image = true, .apply_image = true};
    block.hole_offset = cursor_u16(&input);
    block.hole_size = cursor_u16(&input);
    if (block.hole_size % 4 != 0) { /* else few inputs are as long as they have to be */
        block.hole_offset = 10;
        block.hole_size = (uint16_t)(PAGE_SIZE - block.hole_size % 64);
    }
    block.image_flags = method | WAL_IMAGE_HAS_HOLE;
    block.image = cursor_bytes(&input, input.left);

    uint8_t page[PAGE_SIZE], before[PAGE_SIZE];
    struct errmsg msg;
    memset(page, 0xA5, sizeof(page));
    memcpy(before, page, sizeof(page));
    if (wal_block_restore_image(&block, page, &msg) != ERR_OK) {
        ASSERT(memcmp(page, before, sizeof(page)) == 0);
    }
    return 0;
}
