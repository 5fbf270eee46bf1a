#include "safekeeper/disk/settle.h"

#include <fcntl.h>

#include "common/io/file.h"

err_t file_settle(const char *path, struct errmsg *msg)
{
    int fd = -1;
    err_t err = file_open(&fd, path, FILE_READ, msg);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_OK : err;
    }
    err = file_sync(fd, path, msg);
    if (err == ERR_OK) {
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* advice; dirty pages would stay */
    }
    file_close(&fd);
    return err;
}
