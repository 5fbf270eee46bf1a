#include "common/base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

err_t str_copy(char *to, size_t to_size, const char *from, struct errmsg *msg)
{
    size_t size = strlen(from) + 1;
    if (size > to_size) {
        to[0] = '\0';
        return err_set(
            msg, ERR_INVALID, "text of %zu bytes is longer than the limit of %zu: \"%.40s...\"",
            size - 1, to_size - 1, from);
    }
    memcpy(to, from, size);
    return ERR_OK;
}

err_t str_format(char *to, size_t to_size, struct errmsg *msg, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int needed = vsnprintf(to, to_size, format, args);
    va_end(args);
    if (needed < 0 || (size_t)needed >= to_size) {
        to[0] = '\0';
        return err_set(
            msg, ERR_INVALID, "text of %d bytes is longer than the limit of %zu", needed,
            to_size - 1);
    }
    return ERR_OK;
}

int str_prefix(const char *text, int max)
{
    int size = (int)strnlen(text, (size_t)max + 1);
    if (size <= max) {
        return size;
    }
    for (size = max; size > 0 && ((uint8_t)text[size] & 0xC0) == 0x80; size--) {
        /* a byte that goes on with a character does not begin what is cut off */
    }
    return size;
}

size_t str_control(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    if (c[0] == 0xC2 && c[1] >= 0x80 && c[1] <= 0x9F) { /* U+0080 to U+009F */
        return 2;
    }
    return c[0] != '\0' && (c[0] < ' ' || c[0] == 0x7F) ? 1 : 0;
}

bool str_has_control(const char *text)
{
    while (*text != '\0' && str_control(text) == 0) {
        text++;
    }
    return *text != '\0';
}

bool str_starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool str_ends_with(const char *text, const char *suffix)
{
    size_t text_size = strlen(text);
    size_t suffix_size = strlen(suffix);
    return text_size >= suffix_size && strcmp(text + text_size - suffix_size, suffix) == 0;
}
