#include "common/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/assert.h"

const char *err_name(err_t err)
{
    switch (err) {
#define X(code, text)                                                                              \
    case code: return text;
        ERR_CODES(X)
#undef X
    case ERR_COUNT: break;
    }
    return "unknown";
}

const char *err_code(err_t err)
{
    switch (err) {
#define X(code, text)                                                                              \
    case code: return #code;
        ERR_CODES(X)
#undef X
    case ERR_COUNT: break;
    }
    return "ERR_UNKNOWN";
}

err_t err_set(struct errmsg *msg, err_t err, const char *format, ...)
{
    ASSERT(err != ERR_OK);
    if (msg != NULL) {
        int saved = errno; /* so that %m means what it meant in the caller */
        va_list args;
        va_start(args, format);
        errno = saved;
        (void)vsnprintf(msg->text, sizeof(msg->text), format, args);
        va_end(args);
    }
    return err;
}

err_t err_wrap(struct errmsg *msg, err_t err, const char *format, ...)
{
    ASSERT(err != ERR_OK);
    if (msg != NULL) {
        struct errmsg cause = *msg;
        va_list args;
        va_start(args, format);
        (void)vsnprintf(msg->text, sizeof(msg->text), format, args);
        va_end(args);
        size_t used = strlen(msg->text);
        (void)snprintf(msg->text + used, sizeof(msg->text) - used, ": %s", cause.text);
    }
    return err;
}

err_t err_from_errno(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR: return ERR_NOT_FOUND;
    case EEXIST:
    case ENOTEMPTY: return ERR_EXISTS;
    case ENOSPC:
    case EDQUOT: return ERR_FULL;
    case EACCES:
    case EPERM: return ERR_DENIED;
    case EMFILE:
    case ENFILE: return ERR_BUSY;
    case ETIMEDOUT: return ERR_TIMEOUT;
    default: return ERR_IO;
    }
}
