/*
 * assert.h - assertions that stay on in release builds.
 *
 * ASSERT states what must be true of our own code. Bytes that came from a peer, a file or a user
 * are never asserted: they are validated and refused with an err_t.
 */
#pragma once

#include <assert.h> /* static_assert */

#include "common/base/types.h"

_Noreturn void assert_failed(const char *expression, const char *file, int line, const char *func);

/* Our own invariant is broken or memory ran out: say so on stderr and abort. */
_Noreturn void fatal(const char *format, ...) PRINTF_LIKE(1, 2);

#define ASSERT(expression)                                                                         \
    do {                                                                                           \
        if (__builtin_expect(!(expression), 0)) {                                                  \
            assert_failed(#expression, __FILE__, __LINE__, __func__);                              \
        }                                                                                          \
    } while (0)

/* a => b, for invariants such as ASSERT(IMPLIES(voted, term > 0)). */
#define IMPLIES(a, b) (!(a) || (b))
