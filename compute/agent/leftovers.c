#include "compute/agent/leftovers.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/parse.h"
#include "common/io/file.h"
#include "compute/agent/postmaster_pid.h"

#define PIDS_FILE_MAX 4096
#define PATIENCE_MS   5000
#define LOOK_EVERY_MS 10

/* Field 22 of /proc/PID/stat, in clock ticks since boot; 0: there is no such process. */
static uint64_t start_time_of(int pid)
{
    char path[64];
    struct buf text = {0};
    uint64_t start = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    if (file_read_all(path, PIDS_FILE_MAX, &text, NULL) != ERR_OK) {
        return 0;
    }
    /* The program's name in parentheses may hold anything: count from the last one. */
    const char *rest = strrchr(buf_cstr(&text), ')');
    char state = '?';
    if (rest != NULL) {
        state = rest[1] != '\0' ? rest[2] : '?';
        for (int field = 2; field < 22 && rest != NULL; field++) {
            rest = strchr(rest + 1, ' ');
        }
    }
    if (rest != NULL && state != 'Z') {
        start = strtoull(rest + 1, NULL, 10);
    }
    buf_deinit(&text);
    return start;
}

static void print_process(const char *name, int pid, struct buf *to)
{
    uint64_t start = pid > 0 ? start_time_of(pid) : 0;
    if (start > 0) {
        buf_printf(to, "%s %d %" PRIu64 "\n", name, pid, start);
    }
}

err_t leftovers_note(const char *dir, int postgres, int proposer, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    TRY(str_format(path, sizeof(path), msg, "%s/pids", dir));
    print_process("postgres", postgres, &text);
    print_process("walproposer", proposer, &text);
    /* Not synced: after a crash of the machine there are no processes to find. */
    err_t err = file_write_atomically(path, buf_view(&text), msg);
    buf_deinit(&text);
    return err;
}

static bool is_gone(int pid, uint64_t start)
{
    return start_time_of(pid) != start;
}

static bool wait_until_gone(int pid, uint64_t start)
{
    for (int waited_ms = 0; waited_ms < PATIENCE_MS; waited_ms += LOOK_EVERY_MS) {
        if (is_gone(pid, start)) {
            return true;
        }
        struct timespec pause = {.tv_nsec = LOOK_EVERY_MS * (long)NS_PER_MS};
        (void)nanosleep(&pause, NULL);
    }
    return false;
}

static void end_process(const char *name, int pid, uint64_t start)
{
    if (pid <= 1 || start == 0 || is_gone(pid, start)) {
        return;
    }
    log_warn(NULL, "ends %s %d, which an earlier agent started", name, pid);
    (void)kill(pid, strcmp(name, "postgres") == 0 ? SIGQUIT : SIGTERM);
    if (!wait_until_gone(pid, start)) {
        (void)kill(pid, SIGKILL);
        (void)wait_until_gone(pid, start);
    }
}

static void end_processes(char *text)
{
    for (char *line = strsep(&text, "\n"); line != NULL; line = strsep(&text, "\n")) {
        const char *name = strsep(&line, " ");
        const char *pid_text = strsep(&line, " ");
        const char *start_text = strsep(&line, " ");
        uint64_t pid = 0;
        uint64_t start = 0;
        if (name != NULL && pid_text != NULL && start_text != NULL &&
            parse_u64(pid_text, 2, INT32_MAX, &pid, NULL) == ERR_OK &&
            parse_u64(start_text, 1, UINT64_MAX, &start, NULL) == ERR_OK) {
            end_process(name, (int)pid, start);
        }
    }
}

struct clearing {
    const char *computes_dir;
    uid_t owner;
    const struct cage_host *cages;
};

static err_t clear_one(const char *name, void *context, struct errmsg *msg)
{
    const struct clearing *clearing = context;
    const char *computes_dir = clearing->computes_dir;
    char path[PATH_SIZE];
    struct buf text = {0};
    TRY(str_format(path, sizeof(path), msg, "%s/%s/pids", computes_dir, name));
    if (file_read_all(path, PIDS_FILE_MAX, &text, NULL) == ERR_OK) {
        end_processes((char *)buf_cstr(&text));
    }
    buf_deinit(&text);
    TRY(str_format(path, sizeof(path), msg, "%s/%s/pgdata", computes_dir, name));
    postmaster_pid_drop_memory(path, clearing->owner);
    cage_remove(clearing->cages, name);
    TRY(str_format(path, sizeof(path), msg, "%s/%s", computes_dir, name));
    return dir_remove(path, msg);
}

err_t leftovers_clear(
    const char *computes_dir, uid_t owner, const struct cage_host *cages, struct errmsg *msg)
{
    struct clearing clearing = {.computes_dir = computes_dir, .owner = owner, .cages = cages};
    return file_exists(computes_dir) ? dir_list(computes_dir, clear_one, &clearing, msg) : ERR_OK;
}
