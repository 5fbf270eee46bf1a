/*
 * types.h - the few scalar types that every module speaks.
 */
#pragma once

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t lsn_t;        /* byte position in the WAL; 0 is "none" */
typedef uint64_t term_t;       /* proposer epoch; 0 is "never voted" */
typedef uint32_t generation_t; /* of a membership or an attachment; 0 is "none" */
typedef uint64_t node_id_t;    /* identity of a safekeeper or pageserver; 0 is "none" */
typedef uint64_t mono_ns_t;    /* monotonic time; never wall-clock time */
typedef int64_t wall_us_t;     /* microseconds since 1970-01-01 UTC; for people, never for safety */

#define LSN_NONE ((lsn_t)0)
#define LSN_HEAD UINT64_MAX /* in a request: the newest there is */

/* log_info("ingested up to " LSN_FMT, LSN_ARGS(lsn)) prints 0/1A2B3C like Postgres does. */
#define LSN_FMT       "%" PRIX32 "/%" PRIX32
#define LSN_ARGS(lsn) (uint32_t)((lsn) >> 32), (uint32_t)(lsn)
#define LSN_TEXT_SIZE 18 /* "FFFFFFFF/FFFFFFFF" and the final NUL */

#define NODISCARD                           __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_arg, first_arg)  __attribute__((format(printf, format_arg, first_arg)))
#define ARRAY_LEN(array)                    (sizeof(array) / sizeof((array)[0]))
#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))
#define MIN_OF(a, b)                        ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b)                        ((a) > (b) ? (a) : (b))

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

#define NS_PER_MS ((mono_ns_t)1000000)
#define NS_PER_S  (1000 * NS_PER_MS)
