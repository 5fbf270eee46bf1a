/*
 * parse.h - text from people and peers into numbers. The whole text must match; each refusal names
 * the text and what was expected.
 */
#pragma once

#include "common/base/err.h"

NODISCARD err_t
parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value, struct errmsg *msg);
NODISCARD err_t parse_u32(const char *text, uint32_t *ret_value, struct errmsg *msg);
NODISCARD err_t parse_bool(const char *text, bool *ret_value, struct errmsg *msg);

/* "0/16B3748": two groups of 1 to 8 hex digits. */
NODISCARD err_t parse_lsn(const char *text, lsn_t *ret_lsn, struct errmsg *msg);

/* Sizes and durations as in postgresql.conf: "64MB", "10s"; a bare number is bytes or ms. */
NODISCARD err_t parse_size(const char *text, uint64_t *ret_bytes, struct errmsg *msg);
NODISCARD err_t parse_duration(const char *text, uint64_t *ret_ms, struct errmsg *msg);

/* RFC 3339: "2026-11-22T10:00:00.123456Z" or with "+02:00". */
NODISCARD err_t parse_time(const char *text, wall_us_t *ret_time, struct errmsg *msg);

/* Exactly 2 * size lower- or upper-case hex digits. */
NODISCARD err_t parse_hex(const char *text, uint8_t *to, size_t size, struct errmsg *msg);
void format_hex(const uint8_t *from, size_t size, char *to); /* 2 * size + 1 bytes, lower-case */
