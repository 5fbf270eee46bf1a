/*
 * str.h - fixed-size C strings without surprises.
 */
#pragma once

#include "common/base/err.h"

#define PATH_SIZE 1024

/* Copy or format into `to`; a text that does not fit is ERR_INVALID and leaves `to` empty. */
NODISCARD err_t str_copy(char *to, size_t to_size, const char *from, struct errmsg *msg);
NODISCARD err_t str_format(char *to, size_t to_size, struct errmsg *msg, const char *format, ...)
    PRINTF_LIKE(4, 5);

bool str_starts_with(const char *text, const char *prefix);
bool str_ends_with(const char *text, const char *suffix);
