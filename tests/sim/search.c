#include "tests/sim/search.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/mark.h"
#include "tests/sim/trial.h"

/*
 * Every branch of the cores that a schedule can reach, and every kind of trouble. Unit tests hold
 * the others: acceptor.append.size and elected.below_commit need a proposer that is wrong in a way
 * that nonsense is not, change.judge.superseded a second control, append.ends_coarsened more
 * records in one group than fit into a WAL of this size.
 */
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
    "sim.paused",
    "sim.clock.jumped",
    "sim.frame.split",
    "sim.frame.together",
    "sim.frame.unknown",
    "sim.message.nonsense",
    "sim.hello.unsupported",
    "sim.compute.version",
    "sim.disk.full",
    "sim.disk.group_given_up",
    "sim.frame.damaged",
    "sim.connection.silent",
    "sim.healing.frozen",
    "sim.read.refused",
    "sim.disk.slow_cut",
    "acceptor.elected.still_truncating",
    "sim.healing.synced",
    "proposer.peer.silent",
    "proposer.reply.generation",
    "term_history.common.none",
    "term_history.common.followed",
    "term_history.push.replaced",
    "term_history.push.trimmed",
    "acceptor.append.record_lsn",
    "acceptor.elected.bad_history",
    "change.judge.suspect",
    "proposer.appended.invalid",
    "proposer.vote.invalid",
    "sim.node.rotten",
    "acceptor.catch_up.begun",
    "acceptor.catch_up.truncated",
    "acceptor.catch_up.done",
    "acceptor.catch_up.not_now",
    "acceptor.catch_up.old",
    "acceptor.catch_up.below_commit",
    "proposer.vote.suspect",
    "proposer.campaign.suspect_vote",
    "acceptor.suspicion.ended",
    "acceptor.vote.generation",
    "acceptor.elected.generation",
    "acceptor.append.generation",
    "acceptor.membership.known",
    "acceptor.membership.led",
    "acceptor.membership.voting",
    "acceptor.membership.promised",
    "proposer.membership.known",
    "proposer.membership.campaign",
    "proposer.membership.led",
    "sim.hello.generation",
    "sim.hello.brought",
    "sim.change.began",
    "sim.change.finished",
    "sim.change.given_up",
    "sim.change.newcomer_lost",
    "sim.changer.crashed",
    "sim.compute.learned",
    "sim.compute.stale_membership",
    "sim.create.other_folder",
    "sim.create.tombstone",
    "sim.node.wiped",
    "sim.wal.removed",
    "sim.owner.replaced",
    "sim.read.forgotten",
    "retention.older_attachment",
    "retention.member_given_up",
    "acceptor.unneeded.forgotten",
    "acceptor.unneeded.not_now",
    "acceptor.elected.anew",
    "acceptor.catch_up.anew",
    "acceptor.anew.emptied",
    "acceptor.anew.overtaken",
    "acceptor.anew.still_truncating",
    "proposer.told.anew",
    "proposer.read.not_kept",
    "proposer.read.forgotten",
};

#define MARKS    ARRAY_LEN(marks)
#define JOBS_MAX 64

/* Of one process. */
struct result {
    uint64_t done, events, seed;
    double cpu_s;
    enum { SEARCH_SAFE, SEARCH_VIOLATED, SEARCH_NOT_REPEATABLE } verdict;
    char violation[VIOLATION_MAX];
    uint64_t hits[MARKS];
};

static void print_hits(const uint64_t *hits)
{
    for (size_t i = 0; i < MARKS; i++) {
        printf("%12" PRIu64 "  %s\n", hits[i], marks[i]);
    }
}

static void take_hits(uint64_t *hits)
{
    for (size_t i = 0; i < MARKS; i++) {
        hits[i] = mark_hits(marks[i]);
    }
}

void search_print_marks(void)
{
    uint64_t hits[MARKS];
    take_hits(hits);
    print_hits(hits);
}

const char *search_run_seed(struct world *world, uint64_t seed)
{
    tape_seed(&world->tape, seed);
    return trial_run(world, NULL);
}

static bool is_repeatable(struct world *world, uint64_t seed)
{
    uint64_t digest = world->digest;
    (void)search_run_seed(world, seed);
    return digest == world->digest;
}

static void search_seeds(struct world *world, const struct search *search, struct result *result)
{
    mono_ns_t begin = clock_mono();
    uint64_t runs = search->runs > 0 ? search->runs : UINT64_MAX;
    for (; result->done < runs && result->verdict == SEARCH_SAFE; result->seed++, result->done++) {
        if (search->seconds > 0 && (clock_mono() - begin) / NS_PER_S >= search->seconds) {
            break;
        }
        const char *violation = search_run_seed(world, result->seed);
        result->events += world->steps;
        if (violation != NULL) {
            (void)snprintf(result->violation, sizeof(result->violation), "%s", violation);
            result->verdict = SEARCH_VIOLATED;
            result->done++;
            break;
        }
        if (result->seed % 1000 == 0 && !is_repeatable(world, result->seed)) {
            result->verdict = SEARCH_NOT_REPEATABLE;
            break;
        }
    }
    struct timespec cpu;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    result->cpu_s = (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9;
    take_hits(result->hits);
}

/* ---- several processes ---- */

struct worker {
    pid_t pid;
    int fd; /* its result comes from there */
};

static bool start_worker(
    struct world *world, const struct search *search, uint64_t from, struct worker *worker)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0 || fflush(stdout) != 0) {
        return false;
    }
    worker->pid = fork();
    if (worker->pid == 0) {
        struct result result = {.seed = from};
        search_seeds(world, search, &result);
        /* It fits into the pipe, or the reader is there. */
        ssize_t written = write(ends[1], &result, sizeof(result));
        _exit(written == (ssize_t)sizeof(result) ? 0 : 2);
    }
    (void)close(ends[1]);
    worker->fd = ends[0];
    return worker->pid > 0;
}

static bool read_result(int fd, struct result *ret_result)
{
    size_t got = 0;
    while (got < sizeof(*ret_result)) {
        ssize_t size = read(fd, (uint8_t *)ret_result + got, sizeof(*ret_result) - got);
        if (size <= 0) {
            return false;
        }
        got += (size_t)size;
    }
    return true;
}

static void add_result(struct result *sum, const struct result *one)
{
    sum->done += one->done;
    sum->events += one->events;
    sum->cpu_s += one->cpu_s;
    for (size_t i = 0; i < MARKS; i++) {
        sum->hits[i] += one->hits[i];
    }
    if (sum->verdict == SEARCH_SAFE && one->verdict != SEARCH_SAFE) {
        sum->verdict = one->verdict;
        sum->seed = one->seed;
        memcpy(sum->violation, one->violation, sizeof(sum->violation));
    }
}

static bool search_in_processes(
    struct world *world, const struct search *search, struct result *sum)
{
    struct worker workers[JOBS_MAX] = {0};
    bool good = true;
    for (uint64_t i = 0; i < search->jobs && good; i++) {
        good = start_worker(world, search, search->from + (i << 32), &workers[i]);
    }
    for (uint64_t i = 0; i < search->jobs && workers[i].pid > 0; i++) {
        struct result one;
        good = read_result(workers[i].fd, &one) && good;
        (void)close(workers[i].fd);
        (void)waitpid(workers[i].pid, NULL, 0);
        if (good) {
            add_result(sum, &one);
        }
    }
    return good;
}

/* ---- what came of it ---- */

static void save_tape(struct world *world, const struct result *result, const char *path)
{
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        perror(path);
        return;
    }
    world->tape.recording = true;
    (void)search_run_seed(world, result->seed);
    tape_save(&world->tape, result->violation, file);
    world->tape.recording = false;
    (void)fclose(file);
}

static int report(struct world *world, const struct search *search, const struct result *result)
{
    if (result->verdict == SEARCH_VIOLATED) {
        printf(
            "VIOLATED after %" PRIu64 " schedules: %s\nreplay with: sim %" PRIu64 "\n",
            result->done, result->violation, result->seed);
        if (search->save != NULL) {
            save_tape(world, result, search->save);
        }
        return 1;
    }
    if (result->verdict == SEARCH_NOT_REPEATABLE) {
        printf("NOT REPEATABLE: sim %" PRIu64 "\n", result->seed);
        return 1;
    }
    printf(
        "safe: %" PRIu64 " schedules, %" PRIu64
        " events, %.1f CPU s: %.0f schedules/s, %.0f events/s\n",
        result->done, result->events, result->cpu_s, (double)result->done / result->cpu_s,
        (double)result->events / result->cpu_s);
    return 0;
}

int search_run(struct world *world, const struct search *search)
{
    struct result sum = {.seed = search->from};
    if (search->jobs <= 1) {
        search_seeds(world, search, &sum);
    } else if (search->jobs > JOBS_MAX || !search_in_processes(world, search, &sum)) {
        perror("search");
        return 2;
    }
    int code = report(world, search, &sum);
    if (search->with_marks) {
        print_hits(sum.hits);
    }
    uint64_t missing = 0;
    for (size_t i = 0; i < MARKS && search->needs_marks && code == 0; i++) {
        if (sum.hits[i] == 0) {
            printf("NOT REACHED: %s\n", marks[i]);
            missing++;
        }
    }
    if (search->needs_marks && code == 0) {
        printf("%zu of %zu marks reached\n", MARKS - missing, MARKS);
    }
    return missing > 0 ? 1 : code;
}
