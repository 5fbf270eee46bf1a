#include "compute/walproposer/wal_window.h"

#include <sys/mman.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/pg/wal_record.h"

/* A record, the page headers in it (24 bytes of 8192), and the rest of a segment. */
#define CAPACITY_MORE_MAX (WAL_RECORD_SIZE_MAX + WAL_RECORD_SIZE_MAX / 256 + 64 * MIB)

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

static err_t map_ring(struct wal_window *window, size_t capacity_min, struct errmsg *msg)
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

err_t wal_window_init(struct wal_window *window, size_t capacity_min, struct errmsg *msg)
{
    TRY(map_ring(window, capacity_min, msg));
    window->capacity_min = window->capacity;
    return ERR_OK;
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

/* What is held moves to a ring of another size. */
static err_t move(struct wal_window *window, size_t capacity, struct errmsg *msg)
{
    struct wal_window other;
    TRY(map_ring(&other, capacity, msg));
    other.capacity_min = window->capacity_min;
    wal_window_reset(&other, window->begin_lsn);
    size_t size = (size_t)(window->end_lsn - window->begin_lsn);
    wal_window_append(&other, wal_window_view(window, window->begin_lsn, size));
    wal_window_deinit(window);
    *window = other;
    return ERR_OK;
}

err_t wal_window_make_room(struct wal_window *window, size_t room, struct errmsg *msg)
{
    if (room <= wal_window_room(window)) {
        return ERR_OK;
    }
    size_t wanted = (size_t)(window->end_lsn - window->begin_lsn) + room;
    if (wanted > window->capacity_min + CAPACITY_MORE_MAX) {
        return err_set(msg, ERR_FULL, "a WAL window of %zu bytes", wanted);
    }
    return move(window, MAX_OF(wanted, 2 * window->capacity), msg);
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
    if (window->capacity > window->capacity_min &&
        window->end_lsn - begin_lsn <= window->capacity_min / 2) {
        struct errmsg msg;
        err_ignore(
            move(window, window->capacity_min, &msg), "a ring that stays large serves as well");
    }
}

struct bytes wal_window_view(const struct wal_window *window, lsn_t lsn, size_t size)
{
    ASSERT(lsn >= window->begin_lsn && lsn <= window->end_lsn && size <= window->end_lsn - lsn);
    return bytes_of(window->memory + lsn % window->capacity, size);
}
