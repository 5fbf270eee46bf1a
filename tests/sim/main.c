/*
 * sim - search schedules for one that breaks the consensus; replay the one that did.
 *
 *   sim SEED [--without a,b]  one schedule with its message chart; some kinds of trouble left out
 *   sim --shrink SEED         leave out whatever the violation does not need
 *   sim --runs N [--from S]   many, quickly; each 1000th runs twice and must be the same
 *   sim --seconds T [--from S]
 *   --marks                   how often each MARK was reached, at the end
 * Exit code: 0 safe, 1 violated (the seed is printed), 2 usage.
 */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/mark.h"
#include "common/base/parse.h"
#include "common/base/str.h"
#include "tests/sim/world.h"

#define USAGE                                                                                      \
    "usage: sim SEED [--without KIND,...] | sim --shrink SEED | sim --runs N | sim --seconds T\n"  \
    "       [--from SEED] [--marks]\n"

static struct world *world;

/* A broken ASSERT inside a core is a finding too: say with which seed. */
static void on_abort(int number)
{
    char text[] = "assertion: sim                     \n"; /* 20 digits fit */
    size_t at = sizeof(text) - 2;
    uint64_t seed = world->seed;
    (void)number;
    do {
        text[--at] = "0123456789"[seed % 10];
        seed /= 10;
    } while (seed > 0);
    (void)!write(STDOUT_FILENO, text, sizeof(text) - 1);
    _exit(1);
}

static const char *const marks[] = {
    "acceptor.vote.denied",
    "acceptor.vote.overtaken",
    "acceptor.elected.stale",
    "acceptor.elected.overtaken",
    "acceptor.elected.truncated",
    "acceptor.elected.known_already",
    "acceptor.append.stale",
    "acceptor.append.before_elected",
    "acceptor.flushed.before_truncation",
    "acceptor.storage.failed",
    "acceptor.commit.persisted",
    "acceptor.append.gap",
    "proposer.deposed",
    "proposer.campaign.higher_term",
    "proposer.campaign.split",
    "proposer.campaign.timeout",
    "proposer.repair.timeout",
    "proposer.vote.old",
    "proposer.appended.old",
    "proposer.read.old",
    "proposer.read.failed",
    "proposer.read.no_source",
    "proposer.reply.old_connection",
    "proposer.hello.higher_term",
    "proposer.window.slow_acceptor",
    "sim.node.crashed",
    "sim.read.refused",
    "acceptor.elected.still_truncating",
    "sim.healing.synced",
    "proposer.peer.silent",
    "proposer.reply.generation",
    "term_history.common.none",
    "proposer.appended.invalid",
    "proposer.vote.invalid",
};

static void print_marks(void)
{
    for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
        printf("%12" PRIu64 "  %s\n", mark_hits(marks[i]), marks[i]);
    }
}

static int replay(uint64_t seed, uint32_t calm)
{
    const char *violation = world_run(world, seed, calm, stdout);
    printf(
        "seed %" PRIu64 ": %s (%" PRIu64 " events, digest %016" PRIx64 ")\n", seed,
        violation == NULL ? "safe" : violation, world->steps, world->digest);
    return violation == NULL ? 0 : 1;
}

/* In a process of its own, because it may end by an assertion. */
static bool is_violated(uint64_t seed, uint32_t calm)
{
    int status = 0;
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        _exit(world_run(world, seed, calm, NULL) == NULL ? 0 : 1);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status != 0;
}

static void print_calm(uint32_t calm)
{
    const char *separator = " --without ";
    for (int i = 0; i < CALMS; i++) {
        if ((calm >> i & 1) != 0) {
            printf("%s%s", separator, climate_calm_name((enum climate_calm)i));
            separator = ",";
        }
    }
    printf("\n");
}

static int shrink(uint64_t seed)
{
    uint32_t calm = 0;
    if (!is_violated(seed, calm)) {
        printf("seed %" PRIu64 " is safe\n", seed);
        return 0;
    }
    for (int i = 0; i < CALMS; i++) {
        uint32_t calmer = calm | 1u << i;
        calm = is_violated(seed, calmer) ? calmer : calm;
    }
    printf("replay with: sim %" PRIu64, seed);
    print_calm(calm);
    return 1;
}

static bool parse_calms(const char *text, uint32_t *ret_calm)
{
    char copy[256];
    if (text == NULL || str_copy(copy, sizeof(copy), text, NULL) != ERR_OK) {
        return false;
    }
    char *rest = copy;
    for (char *name = strsep(&rest, ","); name != NULL; name = strsep(&rest, ",")) {
        enum climate_calm calm;
        if (!climate_calm_parse(name, &calm)) {
            return false;
        }
        *ret_calm |= 1u << calm;
    }
    return true;
}

static bool is_repeatable(uint64_t seed)
{
    uint64_t digest = world->digest;
    (void)world_run(world, seed, 0, NULL);
    return digest == world->digest;
}

static int search(uint64_t from, uint64_t runs, uint64_t seconds)
{
    mono_ns_t begin = clock_mono();
    uint64_t events = 0, done = 0;
    for (uint64_t seed = from; done < runs; seed++, done++) {
        if (seconds > 0 && (clock_mono() - begin) / NS_PER_S >= seconds) {
            break;
        }
        const char *violation = world_run(world, seed, 0, NULL);
        if (violation != NULL) {
            printf(
                "VIOLATED after %" PRIu64 " schedules: %s\nreplay with: sim %" PRIu64 "\n",
                done + 1, violation, seed);
            return 1;
        }
        events += world->steps;
        if (seed % 1000 == 0 && !is_repeatable(seed)) {
            printf("NOT REPEATABLE: sim %" PRIu64 "\n", seed);
            return 1;
        }
    }
    double took_s = (double)(clock_mono() - begin) / 1e9;
    printf(
        "safe: %" PRIu64 " schedules, %" PRIu64
        " events, %.1f s: %.0f schedules/s, %.0f events/s\n",
        done, events, took_s, (double)done / took_s, (double)events / took_s);
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t runs = UINT64_MAX, from = 1, seconds = 0, seed = 0;
    uint32_t calm = 0;
    bool with_marks = false, with_chart = false, with_shrink = false, many = false, good = true;
    for (int i = 1; i < argc && good; i++) {
        bool is_flag = strncmp(argv[i], "--", 2) == 0;
        const char *flag = is_flag ? argv[i] : "";
        if (strcmp(flag, "--marks") == 0) {
            with_marks = true;
            continue;
        }
        const char *value = is_flag ? argv[++i] : argv[i];
        if (strcmp(flag, "--without") == 0) {
            good = parse_calms(value, &calm);
            continue;
        }
        uint64_t *to = strcmp(flag, "--runs") == 0      ? &runs
                       : strcmp(flag, "--seconds") == 0 ? &seconds
                       : strcmp(flag, "--from") == 0    ? &from
                                                        : &seed;
        many = many || to == &runs || to == &seconds;
        with_chart = with_chart || !is_flag;
        with_shrink = with_shrink || strcmp(flag, "--shrink") == 0;
        good = value != NULL && parse_u64(value, 0, UINT64_MAX, to, NULL) == ERR_OK &&
               (to != &seed || !is_flag || with_shrink);
    }
    if (!good || with_chart + with_shrink + many != 1) {
        (void)fputs(USAGE, stderr);
        return 2;
    }
    world = world_create();
    (void)signal(SIGABRT, on_abort);
    int code = with_chart    ? replay(seed, calm)
               : with_shrink ? shrink(seed)
                             : search(from, runs, seconds);
    if (with_marks) {
        print_marks();
    }
    world_destroy(world);
    return code;
}
