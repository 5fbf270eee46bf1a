#include "compute/agent/postmaster_pid.h"

#include <stdio.h>
#include <sys/ipc.h>
#include <sys/shm.h>

#include "common/base/log.h"
#include "common/io/file.h"

#define FILE_MAX    4096
#define MEMORY_LINE 7
#define STATUS_LINE 8

bool postmaster_pid_read(const char *pgdata, struct postmaster_pid *ret_info)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    if (str_format(path, sizeof(path), NULL, "%s/postmaster.pid", pgdata) != ERR_OK ||
        file_read_all(path, FILE_MAX, &text, NULL) != ERR_OK) {
        return false;
    }
    struct postmaster_pid info = {.shared_memory_id = -1};
    char *rest = (char *)buf_cstr(&text);
    for (int number = 1; number <= STATUS_LINE; number++) {
        const char *line = strsep(&rest, "\n");
        if (line == NULL || rest == NULL) {
            break; /* the last line is complete only with its end */
        }
        unsigned long key = 0;
        int id = -1;
        if (number == MEMORY_LINE && sscanf(line, "%lu %d", &key, &id) == 2 && id >= 0) {
            info.shared_memory_id = id;
        } else if (number == STATUS_LINE) {
            info.ready = str_starts_with(line, "ready");
        }
    }
    buf_deinit(&text);
    *ret_info = info;
    return true;
}

void postmaster_pid_drop_memory(const char *pgdata, uid_t owner)
{
    struct postmaster_pid info;
    struct shmid_ds segment;
    if (!postmaster_pid_read(pgdata, &info) || info.shared_memory_id < 0) {
        return; /* it ended well and removed both */
    }
    if (shmctl(info.shared_memory_id, IPC_STAT, &segment) == 0 && segment.shm_perm.uid == owner &&
        segment.shm_perm.cuid == owner && shmctl(info.shared_memory_id, IPC_RMID, NULL) != 0) {
        log_warn(NULL, "memory segment %d of %s stays: %m", info.shared_memory_id, pgdata);
    }
}
