#include "common/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"

static const char *const level_names[] = {"DEBUG", "INFO", "WARN", "ERROR"};
static enum log_level level_min = LOG_LEVEL_INFO;
static char process[48] = "anabranch";

void log_init(const char *process_name, enum log_level level)
{
    (void)snprintf(process, sizeof(process), "%s", process_name);
    level_min = level;
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
        if (line[i] == '\n') {
            line[i] = ' '; /* one event, one line: text from a peer cannot forge a line */
        }
    }
    line[size] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, size + 1);
    (void)ignored; /* a full log disk must not stop the data path */
}
