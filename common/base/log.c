#include "common/base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/metric.h"

METRIC_COUNTER(dropped, "log_lines_dropped_total", "log lines that nobody read in time");

static const char *const level_names[] = {"DEBUG", "INFO", "WARN", "ERROR"};
static enum log_level level_min = LOG_LEVEL_INFO;
static char process[48] = "anabranch";

/* Where lines go; once a pipe or terminal has been opened anew, one that does not block. */
static struct {
    int fd;
    bool is_opened, is_socket;
    _Atomic int64_t missing; /* lines that were dropped since the last one that was taken */
} sink = {.fd = STDERR_FILENO};

/*
 * O_NONBLOCK belongs to what was opened, which others share with us: so it is opened again. What
 * cannot be (it is somebody else's terminal) blocks as before; files never do.
 */
static void open_sink(void)
{
    struct stat info;
    if (sink.is_opened || fstat(STDERR_FILENO, &info) != 0) {
        return;
    }
    sink.is_opened = true;
    sink.is_socket = S_ISSOCK(info.st_mode);
    if (S_ISFIFO(info.st_mode) || S_ISCHR(info.st_mode)) {
        int fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        sink.fd = fd < 0 ? STDERR_FILENO : fd;
    }
}

/* False: it is full, the line is lost. */
static bool put_line(const char *line, size_t size)
{
    ssize_t done = sink.is_socket ? send(sink.fd, line, size, MSG_DONTWAIT | MSG_NOSIGNAL)
                                  : write(sink.fd, line, size);
    return done >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

/* A full log disk must not stop the data path either: other errors are passed over. */
static void emit(const char *line, size_t size)
{
    int64_t missing = atomic_exchange(&sink.missing, 0);
    bool is_taken = true;
    if (missing > 0) {
        char text[160];
        int used = snprintf(
            text, sizeof(text), "%s %-5s %s %" PRId64 " lines of the log are missing here\n",
            time_text(clock_wall()).text, level_names[LOG_LEVEL_WARN], process, missing);
        is_taken = put_line(text, (size_t)used);
        atomic_fetch_add(&sink.missing, is_taken ? 0 : missing);
    }
    if (!is_taken || !put_line(line, size)) {
        atomic_fetch_add(&sink.missing, 1);
        metric_add(&dropped, 1);
    }
}

void log_init(const char *process_name, enum log_level level)
{
    (void)snprintf(process, sizeof(process), "%s", process_name);
    level_min = level;
    open_sink();
}

err_t log_level_parse(const char *text, enum log_level *ret_level, struct errmsg *msg)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcasecmp(text, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return ERR_OK;
        }
    }
    return err_set(
        msg, ERR_INVALID, "\"%.40s\" is not a log level (debug, info, warn, error)", text);
}

void log_name(struct log *log, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(log->name, sizeof(log->name), format, args);
    va_end(args);
}

void log_write(const struct log *log, enum log_level level, const char *format, ...)
{
    if (level < level_min) {
        return;
    }
    char line[2048];
    const char *name = log != NULL ? log->name : "";
    int used = snprintf(
        line, sizeof(line), "%s %-5s %s %s%s%s", time_text(clock_wall()).text, level_names[level],
        process, name[0] != '\0' ? "[" : "", name, name[0] != '\0' ? "] " : "");
    va_list args;
    va_start(args, format);
    used += vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, args);
    va_end(args);
    size_t size = MIN_OF((size_t)used, sizeof(line) - 2);
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)line[i] < ' ' || line[i] == '\x7f') {
            line[i] = ' '; /* text from a peer forges no line, and says nothing to a terminal */
        }
    }
    line[size] = '\n';
    emit(line, size + 1);
}
