/*
 * store_model - random lives of a store against the model, or one of them again.
 *
 *   store_model SEED             one episode, step by step
 *   store_model --shrink SEED    leave out whatever the difference does not need
 *   store_model --steps N [--from SEED] [--seconds T]
 *   store_model --checks N [--from SEED] [--seconds T]   until so many answers were compared
 *   store_model --lossy MOUNTPOINT ...      on a lossyfs: any change may be the last
 * Exit code: 0 as the model says, 1 different (the seed is printed), 2 usage.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "tests/model/store/episode.h"

#define USAGE                                                                                      \
    "usage: store_model SEED | store_model --shrink SEED |\n"                                      \
    "       store_model --steps N|--checks N [--from SEED] [--seconds T]\n"                        \
    "       store_model --lossy MOUNTPOINT ...\n"
#define EPISODE_OPS 3000

struct arguments {
    uint64_t seed, steps, checks, from, seconds;
    bool has_seed, shrink;
};

static struct op ops[EPISODE_OPS];

/* Leave out pieces, large ones first, as long as it still fails. */
static size_t shrink_ops(uint64_t seed, size_t count)
{
    struct op *tried = MEM_ARRAY(struct op, EPISODE_OPS);
    for (size_t piece = count / 2; piece > 0; piece /= 2) {
        for (size_t at = 0; at < count;) {
            size_t left_out = MIN_OF(piece, count - at);
            struct errmsg why;
            memcpy(tried, ops, at * sizeof(ops[0]));
            memcpy(tried + at, ops + at + left_out, (count - at - left_out) * sizeof(ops[0]));
            if (episode_run(seed, tried, count - left_out, false, &why)) {
                at += left_out;
                continue;
            }
            count -= left_out;
            memcpy(ops, tried, count * sizeof(ops[0]));
        }
    }
    mem_free(tried);
    return count;
}

static int show_one(const struct arguments *arguments)
{
    struct errmsg why;
    size_t count = EPISODE_OPS;
    episode_generate(arguments->seed, ops, count);
    if (arguments->shrink) {
        if (episode_run(arguments->seed, ops, count, false, &why)) {
            printf("seed %" PRIu64 ": as the model says\n", arguments->seed);
            return 0;
        }
        count = shrink_ops(arguments->seed, count);
    }
    bool same = episode_run(arguments->seed, ops, count, true, &why);
    printf(
        "seed %" PRIu64 ", %zu operations: %s\n", arguments->seed, count,
        same ? "as the model says" : why.text);
    return same ? 0 : 1;
}

static int search(const struct arguments *arguments)
{
    mono_ns_t begin = clock_mono();
    uint64_t steps = 0, seed = arguments->from, checks = 0, beside = 0;
    for (; steps < arguments->steps || checks < arguments->checks; seed++, steps += EPISODE_OPS) {
        struct errmsg why;
        if (arguments->seconds > 0 && clock_mono() - begin > arguments->seconds * NS_PER_S) {
            break;
        }
        episode_generate(seed, ops, EPISODE_OPS);
        if (!episode_run(seed, ops, EPISODE_OPS, false, &why)) {
            printf(
                "seed %" PRIu64 " after %" PRIu64
                " steps: %s\nsmaller: store_model --shrink %" PRIu64 "\n",
                seed, steps, why.text, seed);
            return 1;
        }
        episode_counts(&checks, &beside);
    }
    printf(
        "%" PRIu64 " steps, seeds %" PRIu64 " to %" PRIu64 ": %" PRIu64
        " answers compared, %" PRIu64
        " of them while all files were rewritten: as the model says\n",
        steps, arguments->from, seed - 1, checks, beside);
    struct episode_deaths deaths = episode_deaths();
    if (deaths.kills > 0) {
        printf(
            "%" PRIu64 " deaths at a change of the disk, %" PRIu64 " of them power cuts\n",
            deaths.kills, deaths.cuts);
    }
    return 0;
}

static err_t parse(int argc, char **argv, struct arguments *ret, struct errmsg *msg)
{
    struct arguments got = {.from = 1};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--lossy") == 0 && *value != '\0') {
            episode_set_lossy(argv[++i]);
            continue;
        }
        uint64_t *to = strcmp(argv[i], "--steps") == 0     ? &got.steps
                       : strcmp(argv[i], "--checks") == 0  ? &got.checks
                       : strcmp(argv[i], "--from") == 0    ? &got.from
                       : strcmp(argv[i], "--seconds") == 0 ? &got.seconds
                       : strcmp(argv[i], "--shrink") == 0  ? &got.seed
                                                           : NULL;
        got.has_seed |= to == NULL || to == &got.seed;
        got.shrink |= to == &got.seed;
        i += to == NULL ? 0 : 1;
        TRY(parse_u64(
            to == NULL ? argv[i] : value, 0, UINT64_MAX, to == NULL ? &got.seed : to, msg));
    }
    *ret = got;
    return got.has_seed || got.steps > 0 || got.checks > 0
               ? ERR_OK
               : err_set(msg, ERR_INVALID, "nothing to do");
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    struct errmsg msg;
    if (parse(argc, argv, &arguments, &msg) != ERR_OK) {
        (void)fputs(USAGE, stderr);
        return 2;
    }
    log_init("store_model", LOG_LEVEL_ERROR); /* armed failpoints announce themselves */
    episode_init();
    return arguments.has_seed ? show_one(&arguments) : search(&arguments);
}
