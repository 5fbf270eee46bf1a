/*
 * child.c - fork and exec, with everything that can fail or allocate done before the fork.
 *
 * Between fork and exec the child may only make async-signal-safe calls (other threads may hold
 * locks); a failure there travels back through a close-on-exec pipe, so that child_start() reports
 * "no such program" itself instead of an exit status 127.
 */
#include "common/io/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/io/loop_private.h"

#define GROUPS_MAX 64

struct child {
    struct list_link link; /* in loop->children */
    struct child_user *user;
    pid_t pid;
};

/* What the child process needs, all prepared before the fork. */
struct launch {
    char **argv;
    char **env;
    const char *working_dir;
    int stdin_fd, stdout_fd, stderr_fd, report_fd;
    int cgroup_fds[3]; /* -1: none */
    uint64_t data_size_max, file_size_max;
    bool changes_user, dies_with_us;
    uid_t uid;
    gid_t gid;
    gid_t groups[GROUPS_MAX];
    int group_count;
    pid_t parent;
};

struct failure {
    int number;
    int step;
};

enum launch_step {
    STEP_GROUP,
    STEP_LIMITS,
    STEP_USER,
    STEP_DIR,
    STEP_FILES,
    STEP_PARENT,
    STEP_EXEC
};
static const char *const step_names[] = {
    "set the process group of",
    "set the limits of",
    "change the user of",
    "enter the folder of",
    "redirect the output of",
    "find the parent of",
    "execute"};

static _Noreturn void child_fail(const struct launch *launch, enum launch_step step)
{
    struct failure failure = {.number = errno, .step = (int)step};
    ssize_t ignored = write(launch->report_fd, &failure, sizeof(failure));
    (void)ignored;
    _exit(127);
}

static bool set_limit(__rlimit_resource_t resource, uint64_t value)
{
    struct rlimit limit = {.rlim_cur = value, .rlim_max = value};
    return value == 0 || setrlimit(resource, &limit) == 0;
}

/* While we may: as the user we become we may not join a group. */
static bool enter_limits(const struct launch *launch)
{
    for (size_t i = 0; i < ARRAY_LEN(launch->cgroup_fds); i++) {
        if (launch->cgroup_fds[i] >= 0 && write(launch->cgroup_fds[i], "0", 1) != 1) {
            return false;
        }
    }
    return set_limit(RLIMIT_DATA, launch->data_size_max) &&
           set_limit(RLIMIT_FSIZE, launch->file_size_max);
}

static _Noreturn void child_main(const struct launch *launch)
{
    sigset_t none;
    (void)sigemptyset(&none);
    for (int number = 1; number < NSIG; number++) {
        (void)signal(number, SIG_DFL);
    }
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (setpgid(0, 0) != 0) {
        child_fail(launch, STEP_GROUP);
    }
    if (!enter_limits(launch)) {
        child_fail(launch, STEP_LIMITS);
    }
    if (launch->changes_user && (setgroups((size_t)launch->group_count, launch->groups) != 0 ||
                                 setgid(launch->gid) != 0 || setuid(launch->uid) != 0)) {
        child_fail(launch, STEP_USER);
    }
    /* After setuid, which clears it; then check that the parent did not die before. */
    if (launch->dies_with_us &&
        (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != launch->parent)) {
        child_fail(launch, STEP_PARENT);
    }
    if (launch->working_dir != NULL && chdir(launch->working_dir) != 0) {
        child_fail(launch, STEP_DIR);
    }
    if (dup2(launch->stdin_fd, STDIN_FILENO) < 0 || dup2(launch->stdout_fd, STDOUT_FILENO) < 0 ||
        dup2(launch->stderr_fd, STDERR_FILENO) < 0) {
        child_fail(launch, STEP_FILES);
    }
    (void)execve(launch->argv[0], launch->argv, launch->env);
    child_fail(launch, STEP_EXEC);
}

static err_t open_output(const char *path, int flags, int *ret_fd, struct errmsg *msg)
{
    int fd =
        open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600); /* logs hold what people wrote */
    if (fd < 0) {
        return err_set(msg, err_from_errno(errno), "open %s: %m", path);
    }
    *ret_fd = fd;
    return ERR_OK;
}

static err_t find_user(const char *name, struct launch *launch, struct errmsg *msg)
{
    if (name == NULL || name[0] == '\0' || geteuid() != 0) {
        return ERR_OK;
    }
    struct passwd entry;
    struct passwd *found = NULL;
    char text[4096];
    int rc = getpwnam_r(name, &entry, text, sizeof(text), &found);
    if (found == NULL) {
        return err_set(
            msg, ERR_NOT_FOUND, "user \"%s\" to run as: %s", name,
            rc == 0 ? "no such user" : "cannot be looked up");
    }
    launch->group_count = GROUPS_MAX;
    if (getgrouplist(name, entry.pw_gid, launch->groups, &launch->group_count) < 0) {
        return err_set(
            msg, ERR_UNSUPPORTED, "user \"%s\" is in more than %d groups", name, GROUPS_MAX);
    }
    launch->uid = entry.pw_uid;
    launch->gid = entry.pw_gid;
    launch->changes_user = true;
    return ERR_OK;
}

static bool is_overridden(const char *variable, const char *const *env)
{
    size_t name_size = (size_t)(strchrnul(variable, '=') - variable) + 1;
    for (size_t i = 0; env != NULL && env[i] != NULL; i++) {
        if (strncmp(env[i], variable, name_size) == 0) {
            return true;
        }
    }
    return false;
}

static char **merge_env(const char *const *env)
{
    size_t count = 1;
    for (size_t i = 0; environ != NULL && environ[i] != NULL; i++) {
        count++;
    }
    for (size_t i = 0; env != NULL && env[i] != NULL; i++) {
        count++;
    }
    char **merged = MEM_ARRAY(char *, count);
    size_t used = 0;
    for (size_t i = 0; environ != NULL && environ[i] != NULL; i++) {
        if (!is_overridden(environ[i], env)) {
            merged[used++] = environ[i];
        }
    }
    for (size_t i = 0; env != NULL && env[i] != NULL; i++) {
        merged[used++] = (char *)env[i]; /* execve does not write to it */
    }
    return merged;
}

static err_t open_cgroups(
    const struct child_limits *limits, struct launch *launch, struct errmsg *msg)
{
    for (size_t i = 0; i < ARRAY_LEN(limits->cgroup_procs) && limits->cgroup_procs[i] != NULL;
         i++) {
        launch->cgroup_fds[i] = open(limits->cgroup_procs[i], O_WRONLY | O_CLOEXEC);
        if (launch->cgroup_fds[i] < 0) {
            return err_set(
                msg, err_from_errno(errno), "open cgroup %s: %m", limits->cgroup_procs[i]);
        }
    }
    return ERR_OK;
}

/* Reads what child_main() reported; nothing means that exec succeeded and closed the pipe. */
static err_t await_exec(int report_fd, pid_t pid, const char *program, struct errmsg *msg)
{
    struct failure failure;
    ssize_t size = 0;
    do {
        size = read(report_fd, &failure, sizeof(failure));
    } while (size < 0 && errno == EINTR);
    if (size != (ssize_t)sizeof(failure)) {
        return ERR_OK;
    }
    (void)waitpid(pid, NULL, 0);
    errno = failure.number;
    return err_set(
        msg, err_from_errno(failure.number), "%s %s: %m",
        step_names[(size_t)failure.step % ARRAY_LEN(step_names)], program);
}

static err_t fork_child(struct launch *launch, pid_t *ret_pid, struct errmsg *msg)
{
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
        return err_set(msg, err_from_errno(errno), "start %s: pipe: %m", launch->argv[0]);
    }
    launch->report_fd = pipe_fds[1];
    launch->parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        child_main(launch);
    }
    int number = errno;
    (void)close(pipe_fds[1]);
    err_t err = ERR_OK;
    if (pid < 0) {
        errno = number;
        err = err_set(msg, err_from_errno(number), "start %s: fork: %m", launch->argv[0]);
    } else {
        err = await_exec(pipe_fds[0], pid, launch->argv[0], msg);
    }
    (void)close(pipe_fds[0]);
    *ret_pid = pid;
    return err;
}

err_t child_start(
    struct loop *loop,
    const struct child_options *options,
    struct child_user *user,
    struct errmsg *msg)
{
    ASSERT(user->child == NULL && user->on_exit != NULL);
    struct launch launch = {
        .argv = (char **)options->argv, /* execve does not write to it */
        .working_dir = options->working_dir,
        .stdin_fd = -1,
        .stdout_fd = STDERR_FILENO, /* our own stdout is for answers, never for a child's noise */
        .stderr_fd = STDERR_FILENO,
        .dies_with_us = options->dies_with_us,
        .cgroup_fds = {-1, -1, -1},
        .data_size_max = options->limits.data_size_max,
        .file_size_max = options->limits.file_size_max,
    };
    int output_fd = -1;
    int stdout_fd = -1;
    pid_t pid = -1;
    err_t err = find_user(options->user_name, &launch, msg);
    if (err != ERR_OK) {
        goto out;
    }
    err = open_cgroups(&options->limits, &launch, msg);
    if (err != ERR_OK) {
        goto out;
    }
    launch.stdin_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (launch.stdin_fd < 0) {
        err = err_set(msg, err_from_errno(errno), "open /dev/null: %m");
        goto out;
    }
    if (options->output_path != NULL) {
        err = open_output(options->output_path, O_APPEND, &output_fd, msg);
        if (err != ERR_OK) {
            goto out;
        }
        launch.stdout_fd = launch.stderr_fd = output_fd;
    }
    if (options->stdout_path != NULL) {
        err = open_output(options->stdout_path, O_TRUNC, &stdout_fd, msg);
        if (err != ERR_OK) {
            goto out;
        }
        launch.stdout_fd = stdout_fd;
    }
    launch.env = merge_env(options->env);
    err = fork_child(&launch, &pid, msg);
    if (err == ERR_OK) {
        struct child *child = MEM_NEW(struct child);
        child->user = user;
        child->pid = pid;
        list_push_back(&loop->children, &child->link);
        user->child = child;
    }
out:
    mem_free(launch.env);
    for (size_t i = 0; i < ARRAY_LEN(launch.cgroup_fds); i++) {
        if (launch.cgroup_fds[i] >= 0) {
            (void)close(launch.cgroup_fds[i]);
        }
    }
    if (launch.stdin_fd >= 0) {
        (void)close(launch.stdin_fd);
    }
    if (output_fd >= 0) {
        (void)close(output_fd);
    }
    if (stdout_fd >= 0) {
        (void)close(stdout_fd);
    }
    return err;
}

/* Takes one finished child off the list and tells its user; false when there is none. */
static bool reap_one(struct loop *loop)
{
    LIST_FOR_EACH(&loop->children, link)
    {
        struct child *child = CONTAINER_OF(link, struct child, link);
        int status = 0;
        if (waitpid(child->pid, &status, WNOHANG) == child->pid) {
            /* Free before telling: on_exit may start the next child of the same user. */
            struct child_user *user = child->user;
            list_remove(link);
            mem_free(child);
            user->child = NULL;
            user->on_exit(
                user, WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                WIFSIGNALED(status) ? WTERMSIG(status) : 0);
            return true;
        }
    }
    return false;
}

void children_reap(struct loop *loop)
{
    while (reap_one(loop)) {
        /* on_exit may have changed the list in any way: begin again */
    }
}

void children_forget(struct loop *loop)
{
    for (struct list_link *link = list_pop_front(&loop->children); link != NULL;
         link = list_pop_front(&loop->children)) {
        struct child *child = CONTAINER_OF(link, struct child, link);
        child->user->child = NULL;
        mem_free(child);
    }
}

int child_pid(const struct child *child)
{
    return child->pid;
}

void child_signal(struct child *child, int signal)
{
    (void)kill(child->pid, signal); /* not reaped yet, so the pid is still its */
}

void child_signal_group(struct child *child, int signal)
{
    if (kill(-child->pid, signal) != 0) {
        (void)kill(child->pid, signal);
    }
}
