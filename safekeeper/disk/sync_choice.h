/*
 * sync_choice.h - who syncs the small commit groups of this process: the kernel or our workers.
 *
 * The kernel's sync costs half the CPU, and is the quicker one as long as there are processors to
 * spare; its threads wait longer for one than ours do when there are not. So the median of both is
 * followed, and some groups go the other way to know it. Pure; zeroed is a fresh one.
 */
#pragma once

#include "common/base/clock.h"

struct sync_choice {
    mono_ns_t kernel_ns, workers_ns; /* medians, about; 0: nothing is known */
    unsigned count;
};

#define SYNC_CHOICE_EXPLORE_EVERY 32u

/* For the next group. */
bool sync_choice_is_kernel(struct sync_choice *choice);
/* What it took; told of both. */
void sync_choice_note(struct sync_choice *choice, bool is_kernel, mono_ns_t took_ns);
