#include "tests/fuzz/redo_pair.h"

#include "common/pg/cursor.h"

#define RUN_ZEROS_MIN 8 /* fewer zeros are not worth the four bytes of a run */

static bool read_runs(struct cursor *fields, uint8_t *page)
{
    size_t at = 0;
    memset(page, 0, PAGE_SIZE);
    while (at < PAGE_SIZE && cursor_is_good(fields)) {
        size_t zeros = cursor_u16(fields), size = cursor_u16(fields);
        struct bytes run = cursor_bytes(fields, size);
        if (zeros > PAGE_SIZE - at || run.size > PAGE_SIZE - at - zeros || zeros + size == 0) {
            return false;
        }
        at += zeros;
        if (run.size > 0) {
            memcpy(page + at, run.data, run.size);
        }
        at += run.size;
    }
    return cursor_is_good(fields);
}

bool redo_pair_read(struct bytes input, struct redo_pair *ret_pair)
{
    struct cursor fields = cursor_of(input);
    uint8_t kind = cursor_u8(&fields);
    ret_pair->block_index = cursor_u8(&fields);
    ret_pair->key.fork = cursor_u8(&fields);
    cursor_skip(&fields, 1);
    ret_pair->key.spc = cursor_u32(&fields);
    ret_pair->key.db = cursor_u32(&fields);
    ret_pair->key.rel = cursor_u32(&fields);
    ret_pair->key.block = cursor_u32(&fields);
    ret_pair->begin_lsn = cursor_u64(&fields);
    ret_pair->end_lsn = cursor_u64(&fields);
    if (kind == 'Q') {
        if (!read_runs(&fields, ret_pair->page)) {
            return false;
        }
    } else {
        struct bytes page = cursor_bytes(&fields, PAGE_SIZE);
        if (kind != 'P' || page.size != PAGE_SIZE) {
            return false;
        }
        memcpy(ret_pair->page, page.data, PAGE_SIZE);
    }
    ret_pair->record = cursor_bytes(&fields, fields.left);
    return true;
}

static size_t zeros_at(const uint8_t *page, size_t at)
{
    size_t end = at;
    while (end < PAGE_SIZE && page[end] == 0) {
        end++;
    }
    return end - at;
}

/* Where the next zeros begin that are worth a run. */
static size_t next_zeros(const uint8_t *page, size_t at)
{
    while (at < PAGE_SIZE) {
        size_t zeros = zeros_at(page, at);
        if (zeros >= RUN_ZEROS_MIN || (zeros > 0 && at + zeros == PAGE_SIZE)) {
            return at;
        }
        at += zeros + 1;
    }
    return PAGE_SIZE;
}

static void put_field(struct buf *to, uint64_t value, size_t size)
{
    buf_append(to, &value, size);
}

void redo_pair_write(const struct redo_pair *pair, struct buf *to)
{
    put_field(to, 'Q', 1);
    put_field(to, pair->block_index, 1);
    put_field(to, pair->key.fork, 2);
    put_field(to, pair->key.spc, 4);
    put_field(to, pair->key.db, 4);
    put_field(to, pair->key.rel, 4);
    put_field(to, pair->key.block, 4);
    put_field(to, pair->begin_lsn, 8);
    put_field(to, pair->end_lsn, 8);
    for (size_t at = 0; at < PAGE_SIZE;) {
        size_t zeros = zeros_at(pair->page, at);
        size_t begin = at + zeros;
        size_t end = next_zeros(pair->page, begin);
        put_field(to, zeros, 2);
        put_field(to, end - begin, 2);
        buf_append(to, pair->page + begin, end - begin);
        at = end;
    }
    buf_append(to, pair->record.data, pair->record.size);
}
