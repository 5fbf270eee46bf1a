#include "compute/walproposer/wal_window.h"

#include <sys/mman.h>
#include <unistd.h>

#include "common/base/assert.h"

static err_t map_twice(struct wal_window *window, int fd, struct errmsg *msg)
{
    size_t size = window->capacity;
    if (ftruncate(fd, (off_t)size) != 0) {
        return err_set(msg, ERR_FULL, "reserve %zu bytes for the WAL window: %m", size);
    }
    uint8_t *memory = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return err_set(msg, ERR_FULL, "map the WAL window: %m");
    }
    for (int half = 0; half < 2; half++) {
        void *at = memory + (size_t)half * size;
        if (mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
            (void)munmap(memory, 2 * size);
            return err_set(msg, ERR_FULL, "map the WAL window: %m");
        }
    }
    window->memory = memory;
    return ERR_OK;
}

err_t wal_window_init(struct wal_window *window, size_t capacity_min, struct errmsg *msg)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *window = (struct wal_window){.capacity = (capacity_min + page - 1) / page * page};
    int fd = memfd_create("wal_window", MFD_CLOEXEC);
    if (fd < 0) {
        return err_set(msg, ERR_FULL, "create memory for the WAL window: %m");
    }
    err_t err = map_twice(window, fd, msg);
    (void)close(fd); /* the mappings keep the memory */
    return err;
}

void wal_window_deinit(struct wal_window *window)
{
    if (window->memory != NULL) {
        (void)munmap(window->memory, 2 * window->capacity);
        window->memory = NULL;
    }
}

void wal_window_reset(struct wal_window *window, lsn_t lsn)
{
    window->begin_lsn = window->end_lsn = lsn;
}

size_t wal_window_room(const struct wal_window *window)
{
    return window->capacity - (size_t)(window->end_lsn - window->begin_lsn);
}

void wal_window_append(struct wal_window *window, struct bytes wal)
{
    ASSERT(wal.size <= wal_window_room(window));
    if (wal.size > 0) {
        memcpy(window->memory + window->end_lsn % window->capacity, wal.data, wal.size);
    }
    window->end_lsn += wal.size;
}

void wal_window_trim(struct wal_window *window, lsn_t begin_lsn)
{
    ASSERT(begin_lsn >= window->begin_lsn && begin_lsn <= window->end_lsn);
    window->begin_lsn = begin_lsn;
}

struct bytes wal_window_view(const struct wal_window *window, lsn_t lsn, size_t size)
{
    ASSERT(lsn >= window->begin_lsn && lsn <= window->end_lsn && size <= window->end_lsn - lsn);
    return bytes_of(window->memory + lsn % window->capacity, size);
}
