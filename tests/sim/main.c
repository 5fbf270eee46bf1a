/*
 * sim - search schedules for one that breaks the consensus; replay the one that did.
 *
 *   sim SEED                  one schedule with its message chart
 *   sim --runs N [--from S]   many, quickly; each 1000th runs twice and must be the same
 *   sim --seconds T [--from S]
 *   --marks                   how often each MARK was reached, at the end
 * Exit code: 0 safe, 1 violated (the seed is printed), 2 usage.
 */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/mark.h"
#include "common/base/parse.h"
#include "tests/sim/world.h"

static struct world *world;

/* A broken ASSERT inside a core is a finding too: say with which seed. */
static void on_abort(int number)
{
    char text[64];
    int size = snprintf(text, sizeof(text), "assertion: sim %" PRIu64 "\n", world->seed);
    (void)number;
    if (size > 0) {
        (void)!write(STDOUT_FILENO, text, (size_t)size);
    }
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

static int replay(uint64_t seed)
{
    const char *violation = world_run(world, seed, stdout);
    printf(
        "seed %" PRIu64 ": %s (%" PRIu64 " events, digest %016" PRIx64 ")\n", seed,
        violation == NULL ? "safe" : violation, world->steps, world->digest);
    return violation == NULL ? 0 : 1;
}

static bool is_repeatable(uint64_t seed)
{
    uint64_t digest = world->digest;
    (void)world_run(world, seed, NULL);
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
        const char *violation = world_run(world, seed, NULL);
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
    bool with_marks = false, one = false, many = false;
    for (int i = 1; i < argc; i++) {
        struct errmsg msg;
        uint64_t *to = &seed;
        const char *text = argv[i];
        if (strcmp(text, "--marks") == 0) {
            with_marks = true;
            continue;
        }
        if (strcmp(text, "--runs") == 0 || strcmp(text, "--seconds") == 0) {
            to = text[2] == 'r' ? &runs : &seconds;
            many = true;
            text = argv[++i];
        } else if (strcmp(text, "--from") == 0) {
            to = &from;
            text = argv[++i];
        } else {
            one = true;
        }
        if (text == NULL || parse_u64(text, 0, UINT64_MAX, to, &msg) != ERR_OK) {
            fputs("usage: sim SEED | sim --runs N | --seconds T [--from SEED] [--marks]\n", stderr);
            return 2;
        }
    }
    if (one == many) {
        fputs("usage: sim SEED | sim --runs N | --seconds T [--from SEED] [--marks]\n", stderr);
        return 2;
    }
    world = world_create();
    (void)signal(SIGABRT, on_abort);
    int code = one ? replay(seed) : search(from, runs, seconds);
    if (with_marks) {
        print_marks();
    }
    world_destroy(world);
    return code;
}
