#include "tests/unit/disk/disk_lab.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/prng.h"
#include "common/io/file.h"
#include "common/pg/wal_reader.h"
#include "tests/unit/unit.h"

char lab_dir[PATH_SIZE];
lsn_t lab_begin_lsn;
unsigned lab_recycled_max;

static void remove_dir(void)
{
    err_ignore(dir_remove(lab_dir, NULL), "left behind for a look");
}

void lab_make_dir(void)
{
    unit_folder(lab_dir, sizeof(lab_dir), "disk");
    (void)atexit(remove_dir);
}

struct wal_store_options lab_options(void)
{
    return (struct wal_store_options){
        .dir = lab_dir,
        .tenant = {.bytes = {1}},
        .timeline = {.bytes = {2}},
        .start_lsn = LAB_START_LSN,
        .begin_lsn = lab_begin_lsn,
        .recycled_max = lab_recycled_max,
        .system_id = 7123456789012345678ull,
        .segment_size = LAB_SEGMENT_SIZE,
    };
}

struct wal_store *lab_open(void)
{
    struct wal_store_options options = lab_options();
    struct wal_store *store = NULL;
    struct errmsg msg = {0};
    ck_assert_ok(wal_store_open(&options, &store, &msg), &msg);
    return store;
}

err_t lab_try_open(lsn_t certified_lsn, struct errmsg *msg)
{
    struct wal_store_options options = lab_options();
    struct wal_store *store = NULL;
    options.certified_lsn = certified_lsn;
    TRY(wal_store_open(&options, &store, msg));
    wal_store_close(store);
    return ERR_OK;
}

void lab_fill(uint8_t *to, lsn_t begin_lsn, size_t size, unsigned salt)
{
    for (size_t i = 0; i < size; i++) {
        uint64_t at = (begin_lsn + i) / 8 * 0x9E3779B97F4A7C15ull + salt * 0x632BE59Bull;
        to[i] = (uint8_t)(at >> 8 * ((begin_lsn + i) % 8)) | 1; /* never zero */
    }
}

/* In place where that may be, as a timeline does; the sidecar first, which is the harder order. */
static err_t write_group(struct wal_store *store, const struct wal_group *group, struct errmsg *msg)
{
    struct wal_store_files files;
    if (wal_store_write_in_place(store, group, &files, msg) == ERR_OK) {
        TRY(file_sync(files.fds[1], files.paths[1], msg));
        return file_sync(files.fds[0], files.paths[0], msg);
    }
    TRY(wal_store_write_sidecar(store, group, msg));
    return wal_store_write_segment(store, group, msg);
}

err_t lab_try_append(struct wal_store *store, size_t size, unsigned salt, struct errmsg *msg)
{
    lsn_t begin_lsn = wal_store_flush_lsn(store);
    uint8_t *bytes = mem_alloc(size);
    lab_fill(bytes, begin_lsn, size, salt);
    struct wal_group group = {
        .wal = bytes_of(bytes, size),
        .record_lsn = MAX_OF((begin_lsn + size) / 8 * 8, wal_store_record_lsn(store)),
    };
    wal_store_group_begin(store, &group);
    err_t err = write_group(store, &group, msg);
    if (err == ERR_OK) {
        wal_store_group_end(store, &group);
    }
    mem_free(bytes);
    return err;
}

void lab_append(struct wal_store *store, size_t size, unsigned salt)
{
    struct errmsg msg = {0};
    ck_assert_ok(lab_try_append(store, size, salt, &msg), &msg);
}

void lab_fill_to_segment_end(struct wal_store *store, unsigned salt)
{
    do {
        lab_append(store, MIN_OF(wal_store_group_room(store), 100 * KIB), salt);
    } while (wal_store_flush_lsn(store) % LAB_SEGMENT_SIZE != 0);
}

void lab_assert_bytes(lsn_t begin_lsn, lsn_t end_lsn, unsigned salt)
{
    struct wal_store_options options = lab_options();
    struct wal_store_reader *reader = wal_store_reader_create(&options);
    struct buf wal = {0};
    struct errmsg msg = {0};
    ck_assert_ok(wal_store_reader_read(reader, begin_lsn, end_lsn, &wal, &msg), &msg);
    ck_assert_uint_eq(wal.size, end_lsn - begin_lsn);
    uint8_t *expected = mem_alloc(wal.size + 1);
    lab_fill(expected, begin_lsn, wal.size, salt);
    ck_assert_int_eq(memcmp(wal.data, expected, wal.size), 0);
    mem_free(expected);
    buf_deinit(&wal);
    wal_store_reader_destroy(reader);
}

const char *lab_path(lsn_t lsn, const char *suffix)
{
    static char path[PATH_SIZE];
    ck_assert_int_lt(
        snprintf(
            path, sizeof(path), "%.900s/%s%s", lab_dir,
            wal_segment_name(lsn, LAB_SEGMENT_SIZE).text, suffix),
        PATH_SIZE);
    return path;
}

void lab_flip(const char *path, uint64_t at)
{
    struct errmsg msg = {0};
    uint8_t byte;
    int fd = -1;
    ck_assert_ok(file_open(&fd, path, FILE_WRITE, &msg), &msg);
    ck_assert_ok(file_read_at(fd, path, &byte, 1, at, &msg), &msg);
    byte ^= 0x10;
    ck_assert_ok(file_write_at(fd, path, bytes_of(&byte, 1), at, &msg), &msg);
    file_close(&fd);
}

bool lab_is_zero_behind(lsn_t lsn)
{
    const char *path = lab_path(lsn, "");
    struct buf file = {0};
    struct errmsg msg = {0};
    bool is_zero = true;
    if (!file_exists(path)) {
        return true;
    }
    ck_assert_ok(file_read_all(path, LAB_SEGMENT_SIZE, &file, &msg), &msg);
    for (size_t i = lsn % LAB_SEGMENT_SIZE; i < file.size; i++) {
        is_zero = is_zero && file.data[i] == 0;
    }
    buf_deinit(&file);
    return is_zero;
}

/* ---- the crashing disk ---- */

#define FILES_MAX 64
#define FDS_MAX   1024
#define SECTOR    512

struct change { /* not synced yet */
    bool is_resize;
    uint64_t at; /* or the new size */
    struct buf data;
};

struct model_file {
    char path[PATH_SIZE];
    struct buf durable;
    bool is_durable; /* its name is */
    bool exists;     /* now */
    bool is_removed; /* without a sync of the folder */
    struct change *changes;
    size_t count;
};

static struct vfs real;
static struct model_file files[FILES_MAX];
static size_t file_count;
static int file_of_fd[FDS_MAX]; /* index + 1 */
static struct prng prng;
static unsigned steps_left;
static bool is_dead;
static unsigned full_one_of;

static bool die(void)
{
    if (!is_dead && steps_left-- == 0) {
        is_dead = true;
    }
    if (is_dead) {
        errno = EIO;
    }
    return is_dead;
}

static struct model_file *find(const char *path, bool create)
{
    for (size_t i = 0; i < file_count; i++) {
        if (strcmp(files[i].path, path) == 0) {
            return &files[i];
        }
    }
    if (!create) {
        return NULL;
    }
    ASSERT(file_count < FILES_MAX);
    struct model_file *file = &files[file_count++];
    (void)snprintf(file->path, sizeof(file->path), "%s", path);
    return file;
}

static void drop_changes(struct model_file *file)
{
    for (size_t i = 0; i < file->count; i++) {
        buf_deinit(&file->changes[i].data);
    }
    mem_free(file->changes);
    file->changes = NULL;
    file->count = 0;
}

static void resize_image(struct buf *image, uint64_t size)
{
    size_t before = image->size;
    if (size > before) {
        memset(buf_extend(image, size - before), 0, size - before);
    } else {
        image->size = size;
    }
}

/* A chance of 100: all of it. */
static void apply(struct buf *image, const struct change *change, unsigned chance)
{
    if (change->is_resize) {
        if (prng_below(&prng, 100) < chance) {
            resize_image(image, change->at);
        }
        return;
    }
    unsigned fate = (unsigned)prng_below(&prng, 3); /* none, all, sector by sector */
    for (size_t i = 0; i < change->data.size;) {
        uint64_t at = change->at + i;
        size_t size = MIN_OF(change->data.size - i, SECTOR - at % SECTOR);
        bool is_there = chance == 100 || fate == 1 || (fate == 2 && prng_below(&prng, 2) == 0);
        if (is_there) {
            if (image->size < at + size) {
                resize_image(image, at + size);
            }
            memcpy(image->data + at, change->data.data + i, size);
        }
        i += size;
    }
}

static int model_open(const char *path, int flags, mode_t mode)
{
    bool is_dir = false;
    struct stat status;
    bool existed = stat(path, &status) == 0;
    is_dir = existed && S_ISDIR(status.st_mode);
    bool creates = (flags & O_CREAT) != 0 && !existed;
    if (is_dead || (creates && die())) {
        errno = EIO;
        return -1;
    }
    int fd = real.open(path, flags, mode);
    if (fd < 0 || is_dir) {
        if (fd >= 0) {
            file_of_fd[fd] = 0;
        }
        return fd;
    }
    struct model_file *file = find(path, true);
    if (creates) {
        drop_changes(file);
        if (!file->is_removed) {
            buf_deinit(&file->durable);
            file->is_durable = false;
        }
        file->exists = true;
    } else if (!file->exists) { /* it was there before the model began */
        file->exists = file->is_durable = true;
        err_ignore(file_read_all(path, 64 * MIB, &file->durable, NULL), "empty");
    }
    ASSERT(fd < FDS_MAX);
    file_of_fd[fd] = (int)(file - files) + 1;
    return fd;
}

static struct change *add_change(int fd)
{
    struct model_file *file = &files[file_of_fd[fd] - 1];
    file->changes = mem_realloc(file->changes, (file->count + 1) * sizeof(*file->changes));
    struct change *change = &file->changes[file->count++];
    *change = (struct change){0};
    return change;
}

static ssize_t model_pwrite(int fd, const void *from, size_t size, off_t at)
{
    bool was_dead = is_dead;
    bool dies = die();
    if (was_dead) {
        return -1;
    }
    bool is_full = full_one_of > 0 && prng_below(&prng, full_one_of) == 0;
    if (is_full) {
        size = prng_below(&prng, size + 1);
    }
    if (is_full && size == 0) {
        errno = ENOSPC;
        return -1;
    }
    struct change *change = add_change(fd); /* also of the call during which the power went */
    change->at = (uint64_t)at;
    buf_append(&change->data, from, size);
    ssize_t written = real.pwrite(fd, from, size, at);
    errno = EIO;
    return dies ? -1 : written;
}

static ssize_t model_pread(int fd, void *to, size_t size, off_t at)
{
    if (is_dead) {
        errno = EIO;
        return -1;
    }
    return real.pread(fd, to, size, at);
}

static int model_fdatasync(int fd)
{
    if (die()) {
        return -1;
    }
    if (file_of_fd[fd] != 0) {
        struct model_file *file = &files[file_of_fd[fd] - 1];
        for (size_t i = 0; i < file->count; i++) {
            apply(&file->durable, &file->changes[i], 100);
        }
        drop_changes(file);
    }
    return 0;
}

static int model_fsync(int fd)
{
    if (file_of_fd[fd] != 0) {
        return model_fdatasync(fd);
    }
    if (die()) {
        return -1;
    }
    for (size_t i = 0; i < file_count; i++) { /* a folder */
        files[i].is_durable = files[i].exists;
        files[i].is_removed = false;
        if (!files[i].exists) {
            buf_deinit(&files[i].durable);
        }
    }
    return 0;
}

static int model_unlink(const char *path)
{
    if (die()) {
        return -1;
    }
    struct model_file *file = find(path, false);
    if (file == NULL && access(path, F_OK) == 0) {
        int fd = model_open(path, O_RDONLY, 0);
        (void)close(fd);
        file = find(path, false);
    }
    if (file != NULL && file->exists) {
        file->exists = false;
        file->is_removed = file->is_durable;
        drop_changes(file);
    }
    return real.unlink(path);
}

static int model_ftruncate(int fd, off_t size)
{
    if (die()) {
        return -1;
    }
    struct change *change = add_change(fd);
    change->is_resize = true;
    change->at = (uint64_t)size;
    return real.ftruncate(fd, size);
}

void disk_model_start(uint64_t seed, unsigned steps)
{
    if (real.open == NULL) {
        real = vfs;
    }
    prng_init(&prng, seed);
    steps_left = steps;
    is_dead = false;
    full_one_of = 0;
    memset(file_of_fd, 0, sizeof(file_of_fd));
    vfs.open = model_open;
    vfs.pread = model_pread;
    vfs.pwrite = model_pwrite;
    vfs.fdatasync = model_fdatasync;
    vfs.fsync = model_fsync;
    vfs.unlink = model_unlink;
    vfs.ftruncate = model_ftruncate;
}

void disk_model_fill(unsigned one_of)
{
    full_one_of = one_of;
}

void disk_model_revive(unsigned steps)
{
    steps_left = steps;
    is_dead = false;
    memset(file_of_fd, 0, sizeof(file_of_fd));
}

bool disk_model_is_dead(void)
{
    return is_dead;
}

void disk_model_stop(void)
{
    vfs = real;
    for (size_t i = 0; i < file_count; i++) {
        drop_changes(&files[i]);
        buf_deinit(&files[i].durable);
        files[i] = (struct model_file){0};
    }
    file_count = 0;
}

static void leave_behind(struct model_file *file)
{
    bool is_there = file->exists ? file->is_durable || prng_below(&prng, 2) == 0
                                 : file->is_removed && prng_below(&prng, 2) == 0;
    (void)unlink(file->path);
    if (!is_there) {
        return;
    }
    for (size_t i = 0; i < file->count; i++) {
        apply(&file->durable, &file->changes[i], 50);
    }
    int fd = open(file->path, O_RDWR | O_CREAT, 0600);
    ASSERT(fd >= 0);
    ssize_t written = pwrite(fd, file->durable.data, file->durable.size, 0);
    ASSERT(written == (ssize_t)file->durable.size);
    (void)close(fd);
}

void disk_model_crash(void)
{
    for (size_t i = 0; i < file_count; i++) {
        leave_behind(&files[i]);
    }
    disk_model_stop();
}
