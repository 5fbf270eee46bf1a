#include "common/base/assert.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

_Noreturn void assert_failed(const char *expression, const char *file, int line, const char *func)
{
    (void)fprintf(stderr, "%s:%d: %s: ASSERT(%s) failed\n", file, line, func, expression);
    abort();
}

_Noreturn void fatal(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    abort();
}
