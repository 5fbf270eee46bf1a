#include "tools/anabranch/process.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/parse.h"
#include "common/io/file.h"
#include "tools/anabranch/context.h"
#include "tools/anabranch/output.h"

#define POLL_MS         20
#define TERM_TIMEOUT_MS 15000
#define LOG_TAIL        3000
#define CMDLINE_MAX     4096

static void pause_ms(unsigned ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

/* The command line with spaces between the words; "" when there is no such process or a zombie. */
static void read_cmdline(int pid, char ret_text[CMDLINE_MAX])
{
    char path[64];
    ret_text[0] = '\0';
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    ssize_t size = read(fd, ret_text, CMDLINE_MAX - 1);
    close(fd);
    for (ssize_t i = 0; i < size; i++) {
        if (ret_text[i] == '\0') {
            ret_text[i] = ' ';
        }
    }
    ret_text[size > 0 ? size : 0] = '\0';
}

bool process_is_running(const struct process *process)
{
    char text[CMDLINE_MAX];
    if (process->pid <= 0) {
        return false;
    }
    read_cmdline(process->pid, text);
    return strstr(text, process->conf) != NULL;
}

/* ---- starting ---- */

/* In the child, after fork: only calls that are safe there. */
static _Noreturn void become(const struct process *process, int log_fd, int null_fd)
{
    char *argv[] = {
        (char *)(uintptr_t)process->binary, (char *)"--config", (char *)(uintptr_t)process->conf,
        (char *)"--faults", NULL};
    setsid();
    if (dup2(null_fd, STDIN_FILENO) >= 0 && dup2(log_fd, STDOUT_FILENO) >= 0 &&
        dup2(log_fd, STDERR_FILENO) >= 0) {
        execv(process->binary, argv);
    }
    _exit(127);
}

/*
 * Until the child has become the program: before that its command line is still ours, and it would
 * look as if it had ended. The pipe closes by itself when the program is loaded.
 */
static void wait_for_exec(const int pipe_fds[2])
{
    char byte;
    close(pipe_fds[1]);
    (void)!read(pipe_fds[0], &byte, 1);
    close(pipe_fds[0]);
}

/* Somebody who was killed a moment ago may still hold the port. */
static void wait_for_port(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    mono_ns_t began = clock_mono();
    for (bool is_free = port == 0; !is_free && clock_mono() - began < 5 * NS_PER_S;) {
        int on = 1;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        is_free = bind(fd, (const struct sockaddr *)&address, sizeof address) == 0;
        file_close(&fd);
        if (!is_free) {
            pause_ms(POLL_MS);
        }
    }
}

err_t process_start(struct process *process, struct errmsg *msg)
{
    if (access(process->binary, X_OK) != 0) {
        return err_set(
            msg, ERR_NOT_FOUND, "%s: no program %s: build it (ninja) or say --binaries DIR",
            process->name, process->binary);
    }
    wait_for_port(process->http_port);
    wait_for_port(process->listen_port);
    int pipe_fds[2] = {-1, -1};
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int log_fd = open(process->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int pid = -1;
    if (null_fd >= 0 && log_fd >= 0 && pipe2(pipe_fds, O_CLOEXEC) == 0) {
        pid = fork();
    }
    if (pid == 0) {
        become(process, log_fd, null_fd);
    }
    err_t err = ERR_OK;
    if (pid < 0) {
        err = err_set(
            msg, ERR_IO, "%s: cannot be started with log %s: error %d", process->name, process->log,
            errno);
        file_close(&pipe_fds[0]);
        file_close(&pipe_fds[1]);
    } else {
        process->pid = pid;
        wait_for_exec(pipe_fds);
    }
    file_close(&null_fd);
    file_close(&log_fd);
    return err;
}

/* From the line on with which the program began, or the first whole one. */
static const char *last_start(const char *tail)
{
    const char *found = strchr(tail, '\n');
    found = found == NULL || strlen(tail) < LOG_TAIL ? tail : found + 1;
    for (const char *at = strstr(found, " starts in "); at != NULL;
         at = strstr(at + 1, " starts in ")) {
        found = at;
    }
    while (found > tail && found[-1] != '\n') {
        found--;
    }
    return found;
}

static err_t tell_end(const struct process *process, struct errmsg *msg)
{
    char tail[LOG_TAIL + 1] = "";
    int fd = open(process->log, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        off_t size = lseek(fd, 0, SEEK_END);
        ssize_t got = pread(fd, tail, LOG_TAIL, size > LOG_TAIL ? size - LOG_TAIL : 0);
        tail[got > 0 ? got : 0] = '\0';
        close(fd);
    }
    fprintf(stderr, "--- end of %s\n%s---\n", process->log, last_start(tail));
    return err_set(msg, ERR_FAILED, "%s has ended: see %s", process->name, process->log);
}

err_t process_wait_ready(
    const struct cluster *cluster,
    const struct process *process,
    uint64_t timeout_ms,
    struct errmsg *msg)
{
    char url[96];
    mono_ns_t began = clock_mono(), told = began;
    cluster_url(cluster, process, url);
    strncat(url, "/readyz", sizeof url - strlen(url) - 1);
    for (;;) {
        struct doc *answer = NULL;
        struct errmsg why = {0};
        err_t err = call_url("GET", url, (struct api_access){0}, NULL, 2000, &answer, &why);
        doc_unref(answer);
        if (err == ERR_OK) {
            return ERR_OK;
        }
        (void)waitpid(process->pid, NULL, WNOHANG); /* our own child: or it stays a zombie */
        if (!process_is_running(process)) {
            return tell_end(process, msg);
        }
        mono_ns_t now = clock_mono();
        if (now - began > timeout_ms * NS_PER_MS) {
            return err_set(
                msg, ERR_TIMEOUT, "%s is not ready after %" PRIu64 " s: %.200s (log: %s)",
                process->name, timeout_ms / 1000, why.text, process->log);
        }
        if (now - told > 3 * NS_PER_S) {
            output_progress("  %s: %s\n", process->name, why.text);
            told = now;
        }
        pause_ms(POLL_MS);
    }
}

/* ---- ending ---- */

static size_t thread_count(int pid)
{
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    while (dir != NULL && readdir(dir) != NULL) { // NOLINT(concurrency-mt-unsafe)
        count++;
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return count < 2 ? 0 : count - 2; /* without "." and ".." */
}

/* A zombie whose other threads still end holds its ports and locks: it exists. */
static bool pid_exists(int pid)
{
    char path[64], text[256];
    (void)waitpid(pid, NULL, WNOHANG);
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    text[size > 0 ? size : 0] = '\0';
    const char *state = strrchr(text, ')'); /* "PID (NAME) STATE ..." */
    bool is_zombie = state != NULL && strlen(state) > 2 && (state[2] == 'Z' || state[2] == 'X');
    return size > 0 && (!is_zombie || thread_count(pid) > 1);
}

void process_wait_end(int pid, uint64_t timeout_ms)
{
    mono_ns_t began = clock_mono();
    while (pid_exists(pid) && clock_mono() - began < timeout_ms * NS_PER_MS) {
        pause_ms(POLL_MS);
    }
}

void process_stop(const struct process *process)
{
    if (!process_is_running(process)) {
        return;
    }
    kill(process->pid, SIGTERM);
    process_wait_end(process->pid, TERM_TIMEOUT_MS);
    if (process_is_running(process)) {
        fprintf(
            stderr, "%s did not end by itself after %d s: killed\n", process->name,
            TERM_TIMEOUT_MS / 1000);
        kill(process->pid, SIGKILL);
        process_wait_end(process->pid, TERM_TIMEOUT_MS);
    }
}

static bool is_below(int pid, const char *data_dir)
{
    char path[64], folder[PATH_SIZE];
    char text[CMDLINE_MAX];
    size_t size = strlen(data_dir);
    snprintf(path, sizeof path, "/proc/%d/cwd", pid);
    ssize_t got = readlink(path, folder, sizeof folder - 1);
    folder[got > 0 ? got : 0] = '\0';
    if (strncmp(folder, data_dir, size) == 0 && folder[size] == '/') {
        return true;
    }
    /* A walproposer stands anywhere, but names its postmaster's pid file. */
    read_cmdline(pid, text);
    return strstr(text, "walproposer") != NULL && strstr(text, data_dir) != NULL;
}

static size_t signal_strays(const char *data_dir, int signal_number)
{
    size_t count = 0;
    DIR *dir = opendir("/proc");
    const struct dirent *entry = NULL;
    while (dir != NULL && (entry = readdir(dir)) != NULL) { // NOLINT(concurrency-mt-unsafe)
        uint64_t pid = 0;
        if (parse_u64(entry->d_name, 2, INT32_MAX, &pid, NULL) == ERR_OK && (int)pid != getpid() &&
            pid_exists((int)pid) && is_below((int)pid, data_dir)) {
            kill((int)pid, signal_number);
            count++;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    return count;
}

void process_end_strays(const char *data_dir)
{
    mono_ns_t began = clock_mono();
    while (signal_strays(data_dir, SIGQUIT) > 0 && clock_mono() - began < 5 * NS_PER_S) {
        pause_ms(100);
    }
    if (signal_strays(data_dir, SIGKILL) > 0) {
        pause_ms(100);
    }
}

err_t process_signal_parse(const char *text, int *ret_signal, struct errmsg *msg)
{
    static const struct {
        const char *name;
        int number;
    } signals[] = {{"KILL", SIGKILL}, {"TERM", SIGTERM}, {"INT", SIGINT},   {"QUIT", SIGQUIT},
                   {"STOP", SIGSTOP}, {"CONT", SIGCONT}, {"ABRT", SIGABRT}, {"HUP", SIGHUP}};
    uint64_t number = 0;
    const char *name = str_starts_with(text, "SIG") ? text + 3 : text;
    for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
        if (strcmp(signals[i].name, name) == 0) {
            *ret_signal = signals[i].number;
            return ERR_OK;
        }
    }
    if (parse_u64(name, 1, 64, &number, NULL) != ERR_OK) {
        return err_set(
            msg, ERR_INVALID, "--signal %s: expected KILL, TERM, STOP, CONT, .. or a number", text);
    }
    *ret_signal = (int)number;
    return ERR_OK;
}
