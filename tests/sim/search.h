/*
 * search.h - many schedules, in one process or several, and how often each MARK was reached.
 */
#pragma once

#include "tests/sim/world.h"

struct search {
    uint64_t from;          /* the first seed; a second process begins 2^32 later, and so on */
    uint64_t runs, seconds; /* of each process; 0: no limit */
    uint64_t jobs;          /* processes */
    const char *save;       /* the tape of the violation goes there; NULL: nowhere */
    bool with_marks;        /* printed at the end */
    bool needs_marks;       /* one that was never reached is a finding */
};

/* The exit code: 0 safe, 1 violated, 2 something is wrong with the machine. */
int search_run(struct world *world, const struct search *search);

/* What every long search must reach, with how often this process has. */
void search_print_marks(void);

/* Run a seed; NULL, or the violation. */
const char *search_run_seed(struct world *world, uint64_t seed);
