/*
 * file.c - the vfs table and everything above it.
 *
 * A short write or read is continued; EINTR is retried; an fsync that fails is ERR_FAILED, because
 * Linux may have dropped the dirty pages and a second fsync would lie.
 */
#include "common/io/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/base/mem.h"

static int real_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

static int real_fallocate(int fd, off_t at, off_t size)
{
    return fallocate(fd, 0, at, size);
}

struct vfs vfs = {
    .open = real_open,
    .pread = pread,
    .pwrite = pwrite,
    .fdatasync = fdatasync,
    .fsync = fsync,
    .rename = rename,
    .unlink = unlink,
    .ftruncate = ftruncate,
    .fallocate = real_fallocate,
    .mkdir = mkdir,
};

err_t file_open(int *ret_fd, const char *path, enum file_mode mode, struct errmsg *msg)
{
    static const int flags[] = {
        [FILE_READ] = O_RDONLY,
        [FILE_WRITE] = O_RDWR,
        [FILE_CREATE] = O_RDWR | O_CREAT,
        [FILE_CREATE_NEW] = O_RDWR | O_CREAT | O_EXCL,
    };
    int fd = -1;
    do {
        fd = vfs.open(path, flags[mode] | O_CLOEXEC, 0600);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return err_set(
            msg, err_from_errno(errno), "%s %s: %m",
            mode == FILE_CREATE || mode == FILE_CREATE_NEW ? "create" : "open", path);
    }
    *ret_fd = fd;
    return ERR_OK;
}

void file_close(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd); /* what matters was synced before */
        *fd = -1;
    }
}

/* Reads up to `size` bytes; fewer only at the end of the file. */
static err_t read_some(
    int fd, const char *path, struct bytes to, uint64_t at, size_t *ret_size, struct errmsg *msg)
{
    size_t done = 0;
    while (done < to.size) {
        uint8_t *next = (uint8_t *)to.data + done;
        ssize_t got = vfs.pread(fd, next, to.size - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return err_set(
                msg, err_from_errno(errno), "read %s at %" PRIu64 ": %m", path, at + done);
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    *ret_size = done;
    return ERR_OK;
}

err_t file_read_at(int fd, const char *path, void *to, size_t size, uint64_t at, struct errmsg *msg)
{
    size_t got = 0;
    TRY(read_some(fd, path, bytes_of(to, size), at, &got, msg));
    if (got < size) {
        return err_set(
            msg, ERR_CORRUPT, "%s ends at %" PRIu64 ", expected %zu bytes at %" PRIu64, path,
            at + got, size, at);
    }
    return ERR_OK;
}

err_t file_write_at(int fd, const char *path, struct bytes data, uint64_t at, struct errmsg *msg)
{
    size_t done = 0;
    while (done < data.size) {
        ssize_t put = vfs.pwrite(fd, data.data + done, data.size - done, (off_t)(at + done));
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return err_set(
                msg, err_from_errno(errno), "write %s at %" PRIu64 ": %m", path, at + done);
        }
        if (put == 0) {
            return err_set(msg, ERR_IO, "write %s at %" PRIu64 ": wrote nothing", path, at + done);
        }
        done += (size_t)put;
    }
    return ERR_OK;
}

err_t file_sync(int fd, const char *path, struct errmsg *msg)
{
    if (vfs.fdatasync(fd) != 0) {
        return err_set(msg, ERR_FAILED, "fdatasync %s: %m", path);
    }
    return ERR_OK;
}

err_t file_size(int fd, const char *path, uint64_t *ret_size, struct errmsg *msg)
{
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return err_set(msg, err_from_errno(errno), "stat %s: %m", path);
    }
    *ret_size = (uint64_t)status.st_size;
    return ERR_OK;
}

err_t file_resize(int fd, const char *path, uint64_t size, bool reserve, struct errmsg *msg)
{
    uint64_t before = 0;
    TRY(file_size(fd, path, &before, msg));
    int rc = 0;
    if (reserve && size > before) {
        do {
            rc = vfs.fallocate(fd, 0, (off_t)size);
        } while (rc != 0 && errno == EINTR);
        if (rc != 0 && errno != EOPNOTSUPP) {
            return err_set(
                msg, err_from_errno(errno), "reserve %" PRIu64 " bytes for %s: %m", size, path);
        }
        if (rc == 0) {
            return ERR_OK;
        }
    }
    do {
        rc = vfs.ftruncate(fd, (off_t)size);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0) {
        return err_set(msg, err_from_errno(errno), "resize %s to %" PRIu64 ": %m", path, size);
    }
    return ERR_OK;
}

static err_t folder_of(const char *path, char *to, struct errmsg *msg)
{
    TRY(str_copy(to, PATH_SIZE, path, msg));
    char *slash = strrchr(to, '/');
    if (slash == NULL) {
        return str_copy(to, PATH_SIZE, ".", msg);
    }
    slash[slash == to ? 1 : 0] = '\0'; /* "/name" lies in "/" */
    return ERR_OK;
}

err_t file_sync_dir(const char *path, struct errmsg *msg)
{
    int fd = vfs.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) {
        return err_set(msg, err_from_errno(errno), "open folder %s: %m", path);
    }
    err_t err = ERR_OK;
    if (vfs.fsync(fd) != 0) {
        err = err_set(msg, ERR_FAILED, "fsync folder %s: %m", path);
    }
    file_close(&fd);
    return err;
}

err_t file_rename_durably(const char *from, const char *to, struct errmsg *msg)
{
    char folder[PATH_SIZE];
    TRY(folder_of(to, folder, msg));
    if (vfs.rename(from, to) != 0) {
        return err_set(msg, err_from_errno(errno), "rename %s to %s: %m", from, to);
    }
    return file_sync_dir(folder, msg);
}

err_t file_remove(const char *path, struct errmsg *msg)
{
    if (vfs.unlink(path) != 0 && errno != ENOENT) {
        return err_set(msg, err_from_errno(errno), "remove %s: %m", path);
    }
    return ERR_OK;
}

bool file_exists(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0;
}

err_t file_read_all(const char *path, size_t size_max, struct buf *ret_data, struct errmsg *msg)
{
    int fd = -1;
    struct buf data = {0};
    uint64_t size = 0;
    err_t err = file_open(&fd, path, FILE_READ, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_size(fd, path, &size, msg);
    if (err != ERR_OK) {
        goto out;
    }
    /* Files of /proc have size 0; so read until the end and not only as much as stat says. */
    for (;;) {
        size_t piece = MAX_OF((size_t)MIN_OF(size, size_max), 4095) + 1;
        if (data.size > size_max) {
            err =
                err_set(msg, ERR_FULL, "%s is larger than the limit of %zu bytes", path, size_max);
            goto out;
        }
        buf_reserve(&data, piece);
        size_t got = 0;
        err = read_some(fd, path, bytes_of(data.data + data.size, piece), data.size, &got, msg);
        if (err != ERR_OK) {
            goto out;
        }
        data.size += got;
        if (got < piece) {
            break;
        }
        size = 0;
    }
    if (data.size > size_max) {
        err = err_set(msg, ERR_FULL, "%s is larger than the limit of %zu bytes", path, size_max);
        goto out;
    }
    *ret_data = data;
    data = (struct buf){0};
out:
    buf_deinit(&data);
    file_close(&fd);
    return err;
}

static err_t write_whole(const char *path, struct bytes data, bool sync, struct errmsg *msg)
{
    int fd = -1;
    err_t err = file_open(&fd, path, FILE_CREATE, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_resize(fd, path, 0, false, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = file_write_at(fd, path, data, 0, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = sync ? file_sync(fd, path, msg) : ERR_OK;
out:
    file_close(&fd);
    return err;
}

err_t file_write_durably(const char *path, struct bytes data, struct errmsg *msg)
{
    char temp[PATH_SIZE];
    TRY(str_format(temp, sizeof(temp), msg, "%s.new", path));
    err_t err = write_whole(temp, data, true, msg);
    if (err != ERR_OK) {
        err_ignore(file_remove(temp, NULL), "a stale .new file is overwritten next time");
        return err;
    }
    return file_rename_durably(temp, path, msg);
}

err_t file_write_atomically(const char *path, struct bytes data, struct errmsg *msg)
{
    char temp[PATH_SIZE];
    TRY(str_format(temp, sizeof(temp), msg, "%s.new", path));
    err_t err = write_whole(temp, data, false, msg);
    if (err == ERR_OK && vfs.rename(temp, path) != 0) {
        err = err_set(msg, err_from_errno(errno), "rename %s to %s: %m", temp, path);
    }
    if (err != ERR_OK) {
        err_ignore(file_remove(temp, NULL), "a stale .new file is overwritten next time");
    }
    return err;
}

err_t dir_create(const char *path, struct errmsg *msg)
{
    char prefix[PATH_SIZE];
    TRY(str_copy(prefix, sizeof(prefix), path, msg));
    for (char *next = prefix + 1; next[-1] != '\0'; next++) {
        if (*next != '/' && *next != '\0') {
            continue;
        }
        char kept = *next;
        *next = '\0';
        if (vfs.mkdir(prefix, 0700) != 0 && errno != EEXIST) {
            return err_set(msg, err_from_errno(errno), "create folder %s: %m", prefix);
        }
        *next = kept;
        if (kept == '\0') {
            break;
        }
    }
    struct stat status;
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode)) {
        return err_set(msg, ERR_EXISTS, "create folder %s: something else has this name", path);
    }
    return ERR_OK;
}

err_t dir_create_durably(const char *path, struct errmsg *msg)
{
    char folder[PATH_SIZE];
    TRY(dir_create(path, msg));
    TRY(folder_of(path, folder, msg));
    return file_sync_dir(folder, msg);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
    char **items;
    size_t count, capacity;
};

static void names_add(struct names *names, const char *name)
{
    if (names->count == names->capacity) {
        names->capacity = MAX_OF(names->capacity * 2, 16);
        names->items = mem_realloc(names->items, names->capacity * sizeof(names->items[0]));
    }
    names->items[names->count++] = mem_strdup(name);
}

static void names_deinit(struct names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        mem_free(names->items[i]);
    }
    mem_free(names->items);
}

static err_t read_names(const char *path, struct names *names, struct errmsg *msg)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return err_set(msg, err_from_errno(errno), "list folder %s: %m", path);
    }
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir); /* one DIR belongs to one thread */
        if (entry == NULL) {
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        names_add(names, entry->d_name);
    }
    err_t err =
        errno == 0 ? ERR_OK : err_set(msg, err_from_errno(errno), "list folder %s: %m", path);
    (void)closedir(dir);
    if (names->count > 0) {
        qsort(names->items, names->count, sizeof(names->items[0]), by_name);
    }
    return err;
}

err_t dir_list(
    const char *path,
    err_t (*visit)(const char *name, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg)
{
    struct names names = {0};
    err_t err = read_names(path, &names, msg);
    for (size_t i = 0; i < names.count && err == ERR_OK; i++) {
        err = visit(names.items[i], context, msg);
    }
    names_deinit(&names);
    return err;
}

/* Walks without recursion: a stack of folders; files are passed to `visit`, folders afterwards. */
struct walk {
    struct names folders; /* every folder found, parents before children */
    uint64_t bytes;
    bool remove;
};

static err_t visit_entry(struct walk *walk, const char *path, struct errmsg *msg)
{
    struct stat status;
    if (lstat(path, &status) != 0) {
        return errno == ENOENT ? ERR_OK : err_set(msg, err_from_errno(errno), "stat %s: %m", path);
    }
    if (S_ISDIR(status.st_mode)) {
        names_add(&walk->folders, path);
        return ERR_OK;
    }
    walk->bytes += (uint64_t)status.st_blocks * 512;
    return walk->remove ? file_remove(path, msg) : ERR_OK;
}

static err_t walk_folders(struct walk *walk, const char *path, struct errmsg *msg)
{
    err_t err = visit_entry(walk, path, msg);
    for (size_t next = 0; next < walk->folders.count && err == ERR_OK; next++) {
        struct names names = {0};
        err = read_names(walk->folders.items[next], &names, msg);
        if (err == ERR_NOT_FOUND) {
            err = ERR_OK; /* removed by another while we walked */
        }
        for (size_t i = 0; i < names.count && err == ERR_OK; i++) {
            char child[PATH_SIZE];
            err = str_format(
                child, sizeof(child), msg, "%s/%s", walk->folders.items[next], names.items[i]);
            if (err == ERR_OK) {
                err = visit_entry(walk, child, msg);
            }
        }
        names_deinit(&names);
    }
    return err;
}

err_t dir_remove(const char *path, struct errmsg *msg)
{
    struct walk walk = {.remove = true};
    err_t err = walk_folders(&walk, path, msg);
    for (size_t i = walk.folders.count; i > 0 && err == ERR_OK; i--) {
        if (rmdir(walk.folders.items[i - 1]) != 0 && errno != ENOENT) {
            err = err_set(
                msg, err_from_errno(errno), "remove folder %s: %m", walk.folders.items[i - 1]);
        }
    }
    names_deinit(&walk.folders);
    return err;
}

err_t dir_usage(const char *path, uint64_t *ret_bytes, struct errmsg *msg)
{
    struct walk walk = {0};
    err_t err = walk_folders(&walk, path, msg);
    if (err == ERR_OK) {
        *ret_bytes = walk.bytes;
    }
    names_deinit(&walk.folders);
    return err;
}

err_t dir_free_bytes(const char *path, uint64_t *ret_bytes, struct errmsg *msg)
{
    struct statvfs disk;
    if (statvfs(path, &disk) != 0) {
        return err_set(msg, err_from_errno(errno), "statvfs %s: %m", path);
    }
    *ret_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    return ERR_OK;
}
