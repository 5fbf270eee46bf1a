#include "safekeeper/timeline/wal_tail.h"

#include "common/base/mem.h"

void wal_tail_deinit(struct wal_tail *tail)
{
    mem_free(tail->ring);
    *tail = (struct wal_tail){0};
}

void wal_tail_append(struct wal_tail *tail, lsn_t begin_lsn, struct bytes wal)
{
    if (tail->ring == NULL) {
        tail->ring = mem_alloc(WAL_TAIL_SIZE);
    }
    if (begin_lsn != tail->end_lsn) {
        tail->begin_lsn = begin_lsn;
    }
    tail->end_lsn = begin_lsn + wal.size;
    if (wal.size > WAL_TAIL_SIZE) {
        size_t skipped = wal.size - WAL_TAIL_SIZE;
        begin_lsn += skipped;
        wal = bytes_of(wal.data + skipped, WAL_TAIL_SIZE);
    }
    if (tail->end_lsn - tail->begin_lsn > WAL_TAIL_SIZE) {
        tail->begin_lsn = tail->end_lsn - WAL_TAIL_SIZE;
    }
    size_t at = (size_t)(begin_lsn % WAL_TAIL_SIZE);
    size_t first = MIN_OF(wal.size, WAL_TAIL_SIZE - at);
    memcpy(tail->ring + at, wal.data, first);
    memcpy(tail->ring, wal.data + first, wal.size - first);
}

void wal_tail_truncate(struct wal_tail *tail, lsn_t lsn)
{
    tail->end_lsn = MIN_OF(tail->end_lsn, lsn);
    tail->begin_lsn = MIN_OF(tail->begin_lsn, lsn);
}

bool wal_tail_read(const struct wal_tail *tail, lsn_t begin_lsn, lsn_t end_lsn, struct buf *to)
{
    if (tail->ring == NULL || begin_lsn < tail->begin_lsn || end_lsn > tail->end_lsn) {
        return false;
    }
    size_t size = (size_t)(end_lsn - begin_lsn);
    size_t at = (size_t)(begin_lsn % WAL_TAIL_SIZE);
    size_t first = MIN_OF(size, WAL_TAIL_SIZE - at);
    buf_append(to, tail->ring + at, first);
    buf_append(to, tail->ring, size - first);
    return true;
}
