#include "safekeeper/disk/sync_choice.h"

#include "common/base/assert.h"

/* The kernel may be so much slower, for the CPU that it saves. */
static mono_ns_t limit_of(mono_ns_t workers_ns)
{
    return workers_ns + workers_ns / 4;
}

bool sync_choice_is_kernel(struct sync_choice *choice)
{
    bool is_known = choice->kernel_ns > 0 && choice->workers_ns > 0;
    bool is_kernel = !is_known || choice->kernel_ns <= limit_of(choice->workers_ns);
    bool explores = ++choice->count % SYNC_CHOICE_EXPLORE_EVERY == 0;
    return explores ? !is_kernel : is_kernel;
}

/*
 * A step of a sixteenth up or down: where half of all are above, there it stays. Down from far away
 * of a quarter: the one that is only looked at now and then must not stay slow for what once was.
 * Not up: a slow tail would turn the choice.
 */
static mono_ns_t moved(mono_ns_t median_ns, mono_ns_t took_ns)
{
    if (took_ns > median_ns) {
        return median_ns + median_ns / 16 + 1;
    }
    mono_ns_t step_ns = took_ns < median_ns / 4 ? median_ns / 4 : median_ns / 16;
    return took_ns < median_ns ? median_ns - step_ns : median_ns;
}

void sync_choice_note(struct sync_choice *choice, bool is_kernel, mono_ns_t took_ns)
{
    mono_ns_t *median_ns = is_kernel ? &choice->kernel_ns : &choice->workers_ns;
    mono_ns_t next_ns = *median_ns == 0 ? took_ns : moved(*median_ns, took_ns);
    *median_ns = MAX_OF(next_ns, 1);
}
