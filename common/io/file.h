/*
 * file.h - all file I/O of the daemons, through one table of calls (vfs) that tests can replace.
 *
 * Blocking: call from a worker (executor.h) or at start. Every error names the path. Short reads
 * and writes are completed inside. RocksDB is the one that does its own I/O. Threads: [any].
 */
#pragma once

#include <sys/types.h>

#include "common/base/bytes.h"
#include "common/base/str.h"

/* The system calls underneath; each as in POSIX (-1 and errno). Replaced by fault tests. */
struct vfs {
    int (*open)(const char *path, int flags, mode_t mode);
    ssize_t (*pread)(int fd, void *to, size_t size, off_t at);
    ssize_t (*pwrite)(int fd, const void *from, size_t size, off_t at);
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);
    int (*rename)(const char *from, const char *to);
    int (*unlink)(const char *path);
    int (*ftruncate)(int fd, off_t size);
    int (*fallocate)(int fd, off_t at, off_t size);
    int (*mkdir)(const char *path, mode_t mode);
};
extern struct vfs vfs;

enum file_mode {
    FILE_READ,       /* must exist */
    FILE_WRITE,      /* must exist; read and write */
    FILE_CREATE,     /* created when missing; read and write */
    FILE_CREATE_NEW, /* ERR_EXISTS when it is there */
};

NODISCARD err_t file_open(int *ret_fd, const char *path, enum file_mode mode, struct errmsg *msg);
void file_close(int *fd); /* accepts -1, sets -1 */

/* Reads exactly `size` bytes; ERR_CORRUPT "ends at .." when the file is shorter. */
NODISCARD err_t
file_read_at(int fd, const char *path, void *to, size_t size, uint64_t at, struct errmsg *msg);
NODISCARD err_t
file_write_at(int fd, const char *path, struct bytes data, uint64_t at, struct errmsg *msg);
/* fdatasync. A failure is ERR_FAILED: the caller must not sync again and believe it. */
NODISCARD err_t file_sync(int fd, const char *path, struct errmsg *msg);
NODISCARD err_t file_size(int fd, const char *path, uint64_t *ret_size, struct errmsg *msg);
/* Set the size; blocks are reserved when `reserve`, so that a full disk shows here. */
NODISCARD err_t
file_resize(int fd, const char *path, uint64_t size, bool reserve, struct errmsg *msg);

NODISCARD err_t file_rename_durably(const char *from, const char *to, struct errmsg *msg);
NODISCARD err_t file_remove(const char *path, struct errmsg *msg); /* missing is ERR_OK */
NODISCARD err_t file_sync_dir(const char *path, struct errmsg *msg);
bool file_exists(const char *path);

/* Whole small files. write is atomic and durable: temp file, sync, rename, sync of the folder. */
NODISCARD err_t
file_read_all(const char *path, size_t size_max, struct buf *ret_data, struct errmsg *msg);
NODISCARD err_t file_write_durably(const char *path, struct bytes data, struct errmsg *msg);
/* Atomic for readers, but not synced: for what is of no use after a crash of the machine. */
NODISCARD err_t file_write_atomically(const char *path, struct bytes data, struct errmsg *msg);

/* With parents; exists is ERR_OK. */
NODISCARD err_t dir_create(const char *path, struct errmsg *msg);
/*
 * And its name is on disk, also when it existed: whoever made it may have died before. Its parents'
 * names are not looked after. What is durable in a folder without a durable name is lost with it.
 */
NODISCARD err_t dir_create_durably(const char *path, struct errmsg *msg);
NODISCARD err_t dir_remove(const char *path, struct errmsg *msg); /* recursive; missing is ERR_OK */
/* Names (not "." and ".."), sorted, each passed to `visit`; it stops at the first error. */
NODISCARD err_t dir_list(
    const char *path,
    err_t (*visit)(const char *name, void *context, struct errmsg *msg),
    void *context,
    struct errmsg *msg);
NODISCARD err_t dir_usage(const char *path, uint64_t *ret_bytes, struct errmsg *msg); /* on disk */
/* What is free for us on the file system of the folder. */
NODISCARD err_t dir_free_bytes(const char *path, uint64_t *ret_bytes, struct errmsg *msg);
