/*
 * mark.h - coverage marks: MARK("acceptor.append.stale") counts that a branch was taken.
 *
 * A test asserts with mark_hits() that it reached the branch that it is named for. Marks cost one
 * relaxed increment; they stay on. Threads: [any].
 */
#pragma once

#include <stdatomic.h>

#include "common/base/types.h"

struct mark {
    const char *name;
    _Atomic uint64_t hits;
    struct mark *next;
    atomic_bool listed;
};

void mark_hit(struct mark *mark);
uint64_t mark_hits(const char *name); /* 0 when it was never reached */
void mark_reset_all(void);

#define MARK(mark_name)                                                                            \
    do {                                                                                           \
        static struct mark mark_here = {.name = (mark_name)};                                      \
        mark_hit(&mark_here);                                                                      \
    } while (0)
