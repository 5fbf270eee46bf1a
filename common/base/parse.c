#include "common/base/parse.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

err_t parse_u64(
    const char *text, uint64_t min, uint64_t max, uint64_t *ret_value, struct errmsg *msg)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || value < min ||
        value > max) {
        return err_set(
            msg, ERR_INVALID, "\"%.60s\" is not a number from %" PRIu64 " to %" PRIu64, text, min,
            max);
    }
    *ret_value = value;
    return ERR_OK;
}

err_t parse_u32(const char *text, uint32_t *ret_value, struct errmsg *msg)
{
    uint64_t value = 0;
    TRY(parse_u64(text, 0, UINT32_MAX, &value, msg));
    *ret_value = (uint32_t)value;
    return ERR_OK;
}

err_t parse_bool(const char *text, bool *ret_value, struct errmsg *msg)
{
    if (strcmp(text, "true") == 0 || strcmp(text, "on") == 0 || strcmp(text, "1") == 0) {
        *ret_value = true;
        return ERR_OK;
    }
    if (strcmp(text, "false") == 0 || strcmp(text, "off") == 0 || strcmp(text, "0") == 0) {
        *ret_value = false;
        return ERR_OK;
    }
    return err_set(msg, ERR_INVALID, "\"%.60s\" is not true or false", text);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* Reads 1 to 8 hex digits; NULL when there is none or a ninth. */
static const char *take_hex_u32(const char *text, uint32_t *value)
{
    *value = 0;
    int digits = 0;
    while (hex_digit(*text) >= 0) {
        if (++digits > 8) {
            return NULL;
        }
        *value = *value << 4 | (uint32_t)hex_digit(*text++);
    }
    return digits > 0 ? text : NULL;
}

err_t parse_lsn(const char *text, lsn_t *ret_lsn, struct errmsg *msg)
{
    uint32_t high = 0;
    uint32_t low = 0;
    const char *next = take_hex_u32(text, &high);
    if (next != NULL && *next == '/') {
        next = take_hex_u32(next + 1, &low);
        if (next != NULL && *next == '\0') {
            *ret_lsn = (lsn_t)high << 32 | low;
            return ERR_OK;
        }
    }
    return err_set(msg, ERR_INVALID, "\"%.40s\" is not an LSN such as 0/16B3748", text);
}

struct unit {
    const char *name;
    uint64_t factor;
};

static err_t parse_with_unit(
    const char *text, const struct unit *units, size_t count, uint64_t *ret, struct errmsg *msg)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (isdigit((unsigned char)text[0]) && errno == 0) {
        while (*end == ' ') {
            end++;
        }
        for (size_t i = 0; i < count; i++) {
            if (strcmp(end, units[i].name) == 0 && value <= UINT64_MAX / units[i].factor) {
                *ret = value * units[i].factor;
                return ERR_OK;
            }
        }
    }
    return err_set(
        msg, ERR_INVALID, "\"%.60s\" is not a number with a unit such as 10%s", text,
        units[count - 1].name);
}

err_t parse_size(const char *text, uint64_t *ret_bytes, struct errmsg *msg)
{
    static const struct unit units[] = {
        {"", 1}, {"B", 1}, {"kB", KIB}, {"KB", KIB}, {"GB", GIB}, {"TB", 1024 * GIB}, {"MB", MIB},
    };
    return parse_with_unit(text, units, ARRAY_LEN(units), ret_bytes, msg);
}

err_t parse_duration(const char *text, uint64_t *ret_ms, struct errmsg *msg)
{
    static const struct unit units[] = {
        {"", 1}, {"ms", 1}, {"min", 60000}, {"h", 3600000}, {"d", 86400000}, {"s", 1000},
    };
    return parse_with_unit(text, units, ARRAY_LEN(units), ret_ms, msg);
}

err_t parse_time(const char *text, wall_us_t *ret_time, struct errmsg *msg)
{
    struct tm tm = {0};
    int used = 0;
    int offset_minutes = 0;
    int64_t micros = 0;
    bool ok = sscanf(
                  text, "%4d-%2d-%2d%*1[Tt ]%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
                  &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &used) == 6 &&
              used == 19;
    const char *next = text + used;
    if (ok && *next == '.') {
        int64_t scale = 100000;
        for (next++; isdigit((unsigned char)*next); next++, scale /= 10) {
            micros += (*next - '0') * scale;
        }
    }
    if (ok && (*next == 'Z' || *next == 'z')) {
        next++;
    } else if (ok) {
        char sign = 0;
        int hours = 0;
        int minutes = 0;
        int zone = 0;
        ok = sscanf(next, "%c%2d:%2d%n", &sign, &hours, &minutes, &zone) == 3 && zone == 6 &&
             (sign == '+' || sign == '-') && hours < 24 && minutes < 60 && hours >= 0 &&
             minutes >= 0;
        next += zone;
        offset_minutes = (sign == '-' ? -1 : 1) * (hours * 60 + minutes);
    }
    ok = ok && *next == '\0' && tm.tm_year >= 1970 && tm.tm_mon >= 1 && tm.tm_mon <= 12 &&
         tm.tm_mday >= 1 && tm.tm_mday <= 31 && tm.tm_hour >= 0 && tm.tm_hour < 24 &&
         tm.tm_min >= 0 && tm.tm_min < 60 && tm.tm_sec >= 0 && tm.tm_sec <= 60;
    if (!ok) {
        return err_set(
            msg, ERR_INVALID, "\"%.60s\" is not a time such as 2026-11-22T10:00:00Z", text);
    }
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    int day = tm.tm_mday;
    bool leap_second = tm.tm_sec == 60;
    wall_us_t seconds = (wall_us_t)timegm(&tm); /* makes March 3 of February 31 */
    if (tm.tm_mday != day && !leap_second) {
        return err_set(msg, ERR_INVALID, "\"%.60s\" is a day that does not exist", text);
    }
    *ret_time = (seconds - offset_minutes * 60) * 1000000 + micros;
    return ERR_OK;
}

err_t parse_hex(const char *text, uint8_t *to, size_t size, struct errmsg *msg)
{
    bool ok = strnlen(text, 2 * size + 1) == 2 * size;
    for (size_t i = 0; ok && i < size; i++) {
        int high = hex_digit(text[2 * i]);
        int low = hex_digit(text[2 * i + 1]);
        ok = high >= 0 && low >= 0;
        if (ok) {
            to[i] = (uint8_t)(high << 4 | low);
        }
    }
    if (!ok) {
        return err_set(msg, ERR_INVALID, "\"%.60s\" is not %zu hex digits", text, 2 * size);
    }
    return ERR_OK;
}

void format_hex(const uint8_t *from, size_t size, char *to)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        to[2 * i] = digits[from[i] >> 4];
        to[2 * i + 1] = digits[from[i] & 15];
    }
    to[2 * size] = '\0';
}
