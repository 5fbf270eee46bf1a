#include "compute/agent/compute_cage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/io/file.h"

#define FOLDER        "anabranch" /* below our own group */
#define PERIOD_US     100000      /* the kernel's default, of processor time */
#define KERNEL_FILE   4096
#define CGROUP_MOUNTS "/sys/fs/cgroup"

static const char *const controllers[CAGE_LIMIT_COUNT] = {"memory", "cpu", "pids"};

/* The kernel's files take what is written by one write(); nothing is created. */
static err_t write_kernel_file(
    const char *dir, const char *name, const char *text, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(str_format(path, sizeof(path), msg, "%s/%s", dir, name));
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_set(msg, err_from_errno(errno), "open %s: %m", path);
    }
    ssize_t written = write(fd, text, strlen(text));
    int number = errno;
    (void)close(fd);
    if (written != (ssize_t)strlen(text)) {
        errno = number;
        return err_set(msg, err_from_errno(number), "write \"%s\" to %s: %m", text, path);
    }
    return ERR_OK;
}

static err_t make_folder(const char *path, struct errmsg *msg)
{
    if (mkdir(path, 0755) != 0 && errno != EEXIST) {
        return err_set(msg, err_from_errno(errno), "create cgroup %s: %m", path);
    }
    return ERR_OK;
}

/* The controllers that children of `dir` have; none when it is no cgroup of version 2. */
static err_t enable_controllers(const char *dir, struct cage_host *host, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    for (size_t i = 0; i < CAGE_LIMIT_COUNT; i++) {
        char word[16];
        (void)snprintf(word, sizeof(word), "+%s", controllers[i]);
        err_ignore(
            write_kernel_file(dir, "cgroup.subtree_control", word, msg),
            "read below what is there now");
    }
    TRY(str_format(path, sizeof(path), msg, "%s/cgroup.subtree_control", dir));
    TRY(file_read_all(path, KERNEL_FILE, &text, msg));
    for (size_t i = 0; i < CAGE_LIMIT_COUNT; i++) {
        if (strstr(buf_cstr(&text), controllers[i]) != NULL) {
            (void)snprintf(host->dirs[i], PATH_SIZE, "%s", dir);
        }
    }
    buf_deinit(&text);
    if (host->dirs[CAGE_MEMORY][0] == '\0') {
        return err_set(msg, ERR_UNSUPPORTED, "cgroup %s cannot limit memory", dir);
    }
    host->kind = CAGE_CGROUP_V2;
    return ERR_OK;
}

/* The path in a line "N:CONTROLLERS:PATH" of /proc/self/cgroup; "0::PATH" is version 2. */
static bool own_group(const char *text, const char *controller, char *to)
{
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        const char *list = strchr(line, ':');
        const char *path = list == NULL ? NULL : strchr(list + 1, ':');
        if (path == NULL) {
            break;
        }
        size_t size = (size_t)(path - list - 1);
        char names[128];
        (void)snprintf(
            names, sizeof(names), "%.*s", (int)MIN_OF(size, sizeof(names) - 1), list + 1);
        char *rest = names;
        for (char *name = strsep(&rest, ","); name != NULL; name = strsep(&rest, ",")) {
            if (strcmp(name, controller) == 0) {
                size_t length = strcspn(path + 1, "\n");
                return str_format(to, PATH_SIZE, NULL, "%.*s", (int)length, path + 1) == ERR_OK;
            }
        }
    }
    return false;
}

/* A group beside those of others below our own group; of version 2 that is possible at the root. */
static err_t find_v2(const char *groups, struct cage_host *host, struct errmsg *msg)
{
    char path[PATH_SIZE];
    char dir[PATH_SIZE];
    if (!own_group(groups, "", path) || !file_exists(CGROUP_MOUNTS "/cgroup.controllers")) {
        return err_set(msg, ERR_NOT_FOUND, "there is no cgroup of version 2");
    }
    TRY(str_format(
        dir, sizeof(dir), msg, "%s%s", CGROUP_MOUNTS, strcmp(path, "/") == 0 ? "" : path));
    struct cage_host parent = {0};
    TRY(enable_controllers(dir, &parent, msg));
    TRY(str_format(path, sizeof(path), msg, "%s/%s", dir, FOLDER));
    TRY(make_folder(path, msg));
    return enable_controllers(path, host, msg);
}

static void find_v1(const char *groups, struct cage_host *host)
{
    struct errmsg msg;
    for (size_t i = 0; i < CAGE_LIMIT_COUNT; i++) {
        char path[PATH_SIZE];
        char dir[PATH_SIZE];
        if (own_group(groups, controllers[i], path) &&
            str_format(
                dir, sizeof(dir), &msg, "%s/%s%s/%s", CGROUP_MOUNTS, controllers[i],
                strcmp(path, "/") == 0 ? "" : path, FOLDER) == ERR_OK &&
            make_folder(dir, &msg) == ERR_OK) {
            (void)snprintf(host->dirs[i], PATH_SIZE, "%s", dir);
            host->kind = CAGE_CGROUP_V1;
        }
    }
}

err_t cage_host_find(const char *setting, struct cage_host *ret_host, struct errmsg *msg)
{
    struct buf groups = {0};
    *ret_host = (struct cage_host){0};
    if (strcmp(setting, "none") == 0) {
        return ERR_OK;
    }
    if (setting[0] != '\0') {
        err_t err = enable_controllers(setting, ret_host, msg);
        return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "cgroup_dir");
    }
    if (file_read_all("/proc/self/cgroup", KERNEL_FILE, &groups, msg) == ERR_OK &&
        find_v2(buf_cstr(&groups), ret_host, msg) != ERR_OK) {
        *ret_host = (struct cage_host){0};
        find_v1(buf_cstr(&groups), ret_host);
    }
    buf_deinit(&groups);
    static const char *const names[] = {"none: rlimits", "version 1", "version 2"};
    log_info(NULL, "cgroups of computes: %s", names[ret_host->kind]);
    return ERR_OK;
}

/* -- one cage -- */

static bool group_path(
    const struct cage_host *host, enum cage_limit limit, const char *id, char *to)
{
    return host->dirs[limit][0] != '\0' &&
           str_format(to, PATH_SIZE, NULL, "%s/%s", host->dirs[limit], id) == ERR_OK;
}

/* As the kernel wants it; a limit of 0 is none. */
static void limit_text(
    const struct cage_host *host, enum cage_limit limit, uint64_t value, char to[64])
{
    bool is_v2 = host->kind == CAGE_CGROUP_V2;
    const char *none = is_v2 || limit == CAGE_PROCESSES ? "max" : "-1";
    if (value == 0) {
        (void)snprintf(to, 64, "%s", none);
    } else if (limit == CAGE_CPU && is_v2) {
        (void)snprintf(to, 64, "%" PRIu64 " %d", value * PERIOD_US / 1000, PERIOD_US);
    } else {
        uint64_t scaled = limit == CAGE_MEMORY ? value * MIB
                          : limit == CAGE_CPU  ? value * PERIOD_US / 1000
                                               : value;
        (void)snprintf(to, 64, "%" PRIu64, scaled);
    }
}

static uint64_t limit_of(const struct compute_size *size, enum cage_limit limit)
{
    return limit == CAGE_MEMORY ? size->memory_mb
           : limit == CAGE_CPU  ? size->cpu_milli
                                : size->processes;
}

static err_t make_group(
    const struct cage_host *host,
    enum cage_limit limit,
    const char *path,
    uint64_t value,
    struct errmsg *msg)
{
    static const char *const files[][CAGE_LIMIT_COUNT] = {
        [CAGE_CGROUP_V1] = {"memory.limit_in_bytes", "cpu.cfs_quota_us", "pids.max"},
        [CAGE_CGROUP_V2] = {"memory.max", "cpu.max", "pids.max"}};
    char text[64];
    TRY(make_folder(path, msg));
    limit_text(host, limit, value, text);
    return write_kernel_file(path, files[host->kind][limit], text, msg);
}

void cage_make(
    const struct cage_host *host,
    const char *compute_id,
    const struct compute_size *size,
    struct cage *ret_cage)
{
    *ret_cage = (struct cage){.kind = host->kind};
    if (size->memory_mb == 0 && size->cpu_milli == 0 && size->processes == 0) {
        cage_remove(host, compute_id); /* of an earlier start; to join one takes milliseconds */
        return;
    }
    for (enum cage_limit limit = 0; limit < CAGE_LIMIT_COUNT; limit++) {
        char path[PATH_SIZE];
        struct errmsg msg;
        uint64_t value = limit_of(size, limit);
        if (!group_path(host, limit, compute_id, path)) {
            continue;
        }
        /* One that is not limited, too: an earlier start may have been. */
        err_t err = make_group(host, limit, path, value, &msg);
        if (err != ERR_OK) {
            log_warn(
                NULL, "compute %s: no limit of %s: %s", compute_id, controllers[limit], msg.text);
            continue;
        }
        ret_cage->holds[limit] = value != 0;
        err = str_format(ret_cage->procs[limit], PATH_SIZE, &msg, "%s/cgroup.procs", path);
        if (limit == CAGE_MEMORY && err == ERR_OK) {
            err = str_format(
                ret_cage->events, PATH_SIZE, &msg, "%s/%s", path,
                host->kind == CAGE_CGROUP_V2 ? "memory.events" : "memory.oom_control");
        }
        err_ignore(err, "the folder's path had room for longer names");
    }
}

void cage_remove(const struct cage_host *host, const char *compute_id)
{
    for (enum cage_limit limit = 0; limit < CAGE_LIMIT_COUNT; limit++) {
        char path[PATH_SIZE];
        if (group_path(host, limit, compute_id, path)) {
            (void)rmdir(path); /* of version 2 all three are one; there may be none */
        }
    }
}

struct child_limits cage_limits(const struct cage *cage, const struct compute_size *size)
{
    struct child_limits limits = {.file_size_max = size->file_size_mb * MIB};
    size_t count = 0;
    for (enum cage_limit limit = 0; limit < CAGE_LIMIT_COUNT; limit++) {
        if (cage->procs[limit][0] != '\0') {
            limits.cgroup_procs[count++] = cage->procs[limit];
        }
    }
    if (!cage->holds[CAGE_MEMORY]) {
        limits.data_size_max = size->memory_mb * MIB;
    }
    return limits;
}

uint64_t cage_memory_kills(const struct cage *cage)
{
    struct buf text = {0};
    uint64_t count = 0;
    if (cage->events[0] != '\0' &&
        file_read_all(cage->events, KERNEL_FILE, &text, NULL) == ERR_OK) {
        const char *found = strstr(buf_cstr(&text), "oom_kill ");
        count = found == NULL ? 0 : strtoull(found + strlen("oom_kill "), NULL, 10);
    }
    buf_deinit(&text);
    return count;
}

const char *cage_holder(
    const struct cage *cage, const struct compute_size *size, enum cage_limit limit)
{
    if (cage->holds[limit]) {
        return "cgroup";
    }
    return limit == CAGE_MEMORY && size->memory_mb != 0 ? "rlimit of each process" : "none";
}
