#include "tests/sim/shrink.h"

#include <ctype.h>

#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "tests/sim/trial.h"

/* How a schedule ends: 0 safe, else a number for the words of the violation. */
static uint64_t verdict_of(struct world *world, const struct tape *tape)
{
    char words[VIOLATION_MAX];
    size_t size = 0;
    tape_copy(&world->tape, tape);
    const char *violation = trial_run(world, NULL);
    for (; violation != NULL && *violation != '\0'; violation++) {
        if (!isdigit((unsigned char)*violation)) {
            words[size++] = *violation;
        }
    }
    return violation == NULL ? 0 : hash64(words, size, 0) | 1;
}

struct shrinking {
    struct world *world;
    struct tape *best, trial;
    uint64_t verdict;
    uint64_t trials, trials_max;
};

/* Is `trial` violated like the best one? Then it is the best one, otherwise it is the best again.
 */
static bool keep_if_violated(struct shrinking *shrinking)
{
    shrinking->trials++;
    bool good = verdict_of(shrinking->world, &shrinking->trial) == shrinking->verdict;
    tape_copy(
        good ? shrinking->best : &shrinking->trial, good ? &shrinking->trial : shrinking->best);
    return good;
}

static bool is_over(const struct shrinking *shrinking)
{
    return shrinking->trials >= shrinking->trials_max;
}

static bool try_cut(struct shrinking *shrinking, int stream, size_t at, size_t size)
{
    struct tape_values *values = &shrinking->trial.streams[stream];
    memmove(
        &values->items[at], &values->items[at + size],
        (values->count - at - size) * sizeof(values->items[0]));
    values->count -= size;
    return keep_if_violated(shrinking);
}

static bool try_zeros(struct shrinking *shrinking, int stream, size_t at, size_t size)
{
    uint64_t *items = shrinking->trial.streams[stream].items + at;
    uint64_t any = 0;
    for (size_t i = 0; i < size; i++) {
        any |= items[i];
        items[i] = 0;
    }
    return any != 0 && keep_if_violated(shrinking);
}

/* One stream, in ever smaller pieces, from its end: what comes later depends on what was before. */
static bool shrink_stream(struct shrinking *shrinking, int stream)
{
    bool better = false;
    const struct tape_values *values = &shrinking->trial.streams[stream];
    for (size_t size = values->count; size > 0; size /= 2) {
        for (size_t end = values->count; end > 0 && !is_over(shrinking);) {
            size_t begin = end > size ? end - size : 0;
            bool cut = try_cut(shrinking, stream, begin, end - begin);
            better |= cut || try_zeros(shrinking, stream, begin, end - begin);
            end = MIN_OF(begin, values->count);
        }
    }
    return better;
}

static bool lower_values(struct shrinking *shrinking, int stream)
{
    bool better = false;
    struct tape_values *values = &shrinking->trial.streams[stream];
    for (size_t i = 0; i < values->count && !is_over(shrinking); i++) {
        while (values->items[i] > 1 && !is_over(shrinking)) {
            values->items[i] /= 2;
            if (!keep_if_violated(shrinking)) {
                break;
            }
            better = true;
        }
    }
    return better;
}

static bool leave_out_trouble(struct shrinking *shrinking)
{
    bool better = false;
    for (int i = 0; i < CALMS; i++) {
        if ((shrinking->trial.calm >> i & 1) == 0 && !is_over(shrinking)) {
            shrinking->trial.calm |= 1u << i;
            better |= keep_if_violated(shrinking);
        }
    }
    return better;
}

uint64_t shrink_tape(struct world *world, struct tape *tape, uint64_t trials_max)
{
    struct shrinking shrinking = {.world = world, .best = tape, .trials_max = trials_max};
    shrinking.verdict = verdict_of(world, tape);
    if (shrinking.verdict == 0) {
        return 0;
    }
    world->steps_max = MIN_OF(2 * world->steps, STEPS_MAX); /* a trial that goes on is none */
    tape_copy(&shrinking.trial, tape);
    for (bool better = true; better && !is_over(&shrinking);) {
        better = leave_out_trouble(&shrinking);
        for (int i = 0; i < TAPE_STREAM_COUNT; i++) {
            better |= shrink_stream(&shrinking, i);
        }
        for (int i = 0; i < TAPE_STREAM_COUNT; i++) {
            better |= lower_values(&shrinking, i);
        }
    }
    world->steps_max = STEPS_MAX;
    tape_deinit(&shrinking.trial);
    return shrinking.trials;
}
