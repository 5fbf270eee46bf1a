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

/* Bytes of `text`, UTF-8, that are at most `max` and end with a character: for "%.*s". */
int str_prefix(const char *text, int max);

/* Bytes of the control character, UTF-8, that `text` begins with: a terminal may obey it. 0: none.
 */
size_t str_control(const char *text);
bool str_has_control(const char *text);

bool str_starts_with(const char *text, const char *prefix);
bool str_ends_with(const char *text, const char *suffix);
