/*
 * log.h - one line an event, to stderr or a file: time, level, process, context, text.
 *
 * ERROR someone must act; WARN we coped, say how; INFO a state change of a timeline, node or
 * process; DEBUG the rest. Modules log through the context of their object, so ids are typed once:
 * log_info(&tl->log, "caught up at " LSN_FMT, LSN_ARGS(lsn)). A NULL context is the process.
 * Threads: [any]; a line is one write().
 *
 * Nobody waits for whoever reads the log: when it is a pipe, a terminal or a socket that is full,
 * lines are dropped, counted in log_lines_dropped_total, and the next line that is taken says how
 * many were missing.
 */
#pragma once

#include "common/base/err.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

struct log {
    char name[96]; /* "timeline 3f.. of 7a..": printed in brackets */
};

/* Set once at start, before threads. */
void log_init(const char *process_name, enum log_level level);
NODISCARD err_t log_level_parse(const char *text, enum log_level *ret_level, struct errmsg *msg);
void log_name(struct log *log, const char *format, ...) PRINTF_LIKE(2, 3);

void log_write(const struct log *log, enum log_level level, const char *format, ...)
    PRINTF_LIKE(3, 4);

#define log_debug(log, ...) log_write((log), LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(log, ...)  log_write((log), LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(log, ...)  log_write((log), LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(log, ...) log_write((log), LOG_LEVEL_ERROR, __VA_ARGS__)
