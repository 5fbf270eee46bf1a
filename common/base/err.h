/*
 * err.h - how functions fail.
 *
 * Every fallible function returns err_t. The code tells a caller what to do; the optional errmsg
 * tells a human what happened. Neither allocates.
 */
#pragma once

#include "common/base/types.h"

#define ERR_CODES(X)                                                                               \
    X(ERR_OK, "ok")                                                                                \
    X(ERR_NOT_FOUND, "not found")                                                                  \
    X(ERR_EXISTS, "already exists")                                                                \
    X(ERR_INVALID, "invalid request")                                                              \
    X(ERR_CORRUPT, "corrupt data")                                                                 \
    X(ERR_IO, "i/o failure")                                                                       \
    X(ERR_FULL, "out of space or over a memory limit, ends by itself")                             \
    X(ERR_FAILED, "out of service until re-opened and verified")                                   \
    X(ERR_STALE, "superseded by a newer term or generation")                                       \
    X(ERR_BUSY, "over a limit, try later")                                                         \
    X(ERR_TIMEOUT, "timed out")                                                                    \
    X(ERR_CANCELED, "canceled")                                                                    \
    X(ERR_DENIED, "not allowed")                                                                   \
    X(ERR_RANGE, "outside the retained or existing range")                                         \
    X(ERR_UNSUPPORTED, "not supported yet")

/* The numeric values travel on the wire (page_proto, feed_proto): append only. */
typedef enum err {
#define X(code, text) code,
    ERR_CODES(X)
#undef X
        ERR_COUNT
} err_t;

struct errmsg {
    char text[400];
};

const char *err_name(err_t err); /* "not found" */
const char *err_code(err_t err); /* "ERR_NOT_FOUND": stable, for machines */

/* Describe a failure and hand its code back: return err_set(msg, ERR_IO, "fsync %s: %m", path). */
NODISCARD err_t err_set(struct errmsg *msg, err_t err, const char *format, ...) PRINTF_LIKE(3, 4);

/* Prefix what is already there: "attach timeline 3f..: open /data/..: Permission denied". */
NODISCARD err_t err_wrap(struct errmsg *msg, err_t err, const char *format, ...) PRINTF_LIKE(3, 4);

/* ERR_NOT_FOUND, ERR_EXISTS, ERR_FULL, ERR_DENIED, ERR_BUSY (EMFILE) or ERR_IO for an errno. */
NODISCARD err_t err_from_errno(int number);

/* The only way to drop an error. `why` is for the reader. */
static inline void err_ignore(err_t err, const char *why)
{
    (void)err;
    (void)why;
}

/* Early return, for functions that own nothing yet. Functions with an `out:` label use goto. */
#define TRY(expression)                                                                            \
    do {                                                                                           \
        err_t try_err = (expression);                                                              \
        if (try_err != ERR_OK) {                                                                   \
            return try_err;                                                                        \
        }                                                                                          \
    } while (0)
