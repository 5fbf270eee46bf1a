/* A record's headers are believed by nobody: take it apart, restore its images, print it. */
#include "common/base/mem.h"
#include "common/pg/page.h"
#include "common/pg/wal_record.h"
#include "tests/fuzz/fuzz.h"

static struct wal_record record;

static void use(const struct wal_block *block)
{
    uint8_t page[PAGE_SIZE];
    struct errmsg msg;
    uint8_t sum = 0;
    for (size_t i = 0; i < block->data.size; i++) {
        sum ^= block->data.data[i];
    }
    (void)sum;
    if (block->has_image) {
        err_ignore(wal_block_restore_image(block, page, &msg), "any answer will do");
    }
}

/* The input is the record but for its length, which is always right: else it gets nowhere. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < WAL_RECORD_HEADER_SIZE) {
        return 0;
    }
    struct errmsg msg;
    uint8_t *bytes = mem_dup(data, size);
    page_set_u32(bytes, 0, (uint32_t)size);
    struct bytes view = bytes_of(bytes, size);
    err_ignore(wal_record_check_crc(view, &msg), "any answer will do");
    if (wal_record_decode(view, 0x1000100, 0x1000200, &record, &msg) == ERR_OK) {
        (void)wal_record_text(&record);
        for (size_t i = 0; i < record.block_count; i++) {
            if (record.blocks[i].in_use) {
                use(&record.blocks[i]);
            }
        }
    }
    mem_free(bytes);
    return 0;
}
