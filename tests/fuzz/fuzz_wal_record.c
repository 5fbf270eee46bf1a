/*
 * F2. A record's headers are believed by nobody: take it apart, restore its images, print it.
 *
 * What was accepted adds up: every part lies inside the record, in the order of the headers, and
 * together they are all of it.
 */
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/pg/page.h"
#include "common/pg/wal_record.h"
#include "tests/fuzz/mutate_record.h"

static struct wal_record record;

static void use(const struct wal_block *block)
{
    uint8_t page[PAGE_SIZE];
    struct errmsg msg;
    ASSERT(block->key.spc != KEY_SPC_STATE && block->key.rel != 0);
    ASSERT(block->key.fork < FORK_COUNT && block->key.block != KEY_BLOCK_SIZE);
    if (block->has_image) {
        err_ignore(wal_block_restore_image(block, page, &msg), "any answer will do");
    }
}

/* `part` begins where the one before ended. */
static void check_part(struct bytes part, const uint8_t **at)
{
    if (part.size > 0) {
        ASSERT(part.data == *at);
        *at += part.size;
    }
}

static void check_parts(struct bytes view)
{
    size_t size = record.main_data.size;
    for (size_t i = 0; i < record.block_count; i++) {
        const struct wal_block *block = &record.blocks[i];
        if (block->in_use) {
            size += (block->has_image ? block->image.size : 0) + block->data.size;
            use(block);
        }
    }
    ASSERT(size <= view.size - WAL_RECORD_HEADER_SIZE);
    const uint8_t *at = view.data + view.size - size;
    for (size_t i = 0; i < record.block_count; i++) {
        const struct wal_block *block = &record.blocks[i];
        if (block->in_use) {
            check_part(block->has_image ? block->image : bytes_of(NULL, 0), &at);
            check_part(block->data, &at);
        }
    }
    check_part(record.main_data, &at);
    ASSERT(at == view.data + view.size);
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
        check_parts(view);
    }
    mem_free(bytes);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
    struct mutation mutation;
    mutation_init(&mutation, seed);
    return mutate_record(&mutation, data, size, size_max);
}
