/*
 * sim - search schedules for one that breaks the consensus; replay the one that did.
 *
 *   sim SEED [--without a,b]   one schedule with its message chart; some kinds of trouble left out
 *   sim --tape FILE            the schedule of a tape (tape.h), with its chart
 *   sim --bytes FILE          the schedule of an input of tests/fuzz/fuzz_sim.c, with its chart
 *   sim --shrink SEED|FILE     leave out whatever the violation does not need
 *   sim --tapes DIR            each tape in there must be safe; `ok NAME` for each
 *   sim --runs N [--from S]    many, quickly; each 1000th runs twice and must be the same
 *   sim --seconds T [--from S]
 *   sim --determinism N [--from S]  N seeds in two other processes: the same to the last byte
 *   --save FILE                write what was replayed, shrunk or found there, as a tape
 *   --jobs N                   as many processes; --runs and --seconds are of each
 *   --marks                    how often each MARK was reached, at the end
 *   --need-marks               one that was never reached is a violation
 * Exit code: 0 safe, 1 violated (the seed is printed), 2 usage.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/parse.h"
#include "common/base/str.h"
#include "tests/sim/search.h"
#include "tests/sim/shrink.h"
#include "tests/sim/trial.h"

#define USAGE                                                                                      \
    "usage: sim SEED [--without KIND,...] | --tape FILE | --bytes FILE | --shrink SEED|FILE | "    \
    "--tapes DIR |\n"                                                                              \
    "       --runs N | --seconds T | --determinism N\n"                                            \
    "       [--from SEED] [--jobs N] [--save FILE] [--marks] [--need-marks]\n"

#define SHRINK_TRIALS_MAX 20000

static struct world *world;

/* What the command line says. */
struct request {
    const char *tape, *bytes, *shrink, *tapes, *save;
    const char *seed_text;
    struct search search;
    uint64_t determinism, digests;
    uint32_t calm;
};

static int save(const struct tape *tape, const char *path, const char *comment)
{
    if (path == NULL) {
        return 0;
    }
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        perror(path);
        return 2;
    }
    tape_save(tape, comment, file);
    return fclose(file) == 0 ? 0 : 2;
}

static bool load(struct tape *tape, const char *path)
{
    struct errmsg msg;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        return false;
    }
    err_t err = tape_load(tape, file, &msg);
    (void)fclose(file);
    if (err != ERR_OK) {
        (void)fprintf(stderr, "%s: %s\n", path, msg.text);
    }
    return err == ERR_OK;
}

/* world->tape is ready. */
static int replay(const struct request *request)
{
    const char *violation = trial_run(world, stdout);
    const char *verdict = violation == NULL ? "safe" : violation;
    printf(
        "seed %" PRIu64 ": %s (%" PRIu64 " events, digest %016" PRIx64 ")\n", world->tape.seed,
        verdict, world->steps, world->digest);
    int failed = save(&world->tape, request->save, verdict);
    return failed != 0 ? failed : violation != NULL;
}

static int replay_seed(const struct request *request)
{
    uint64_t seed = 0;
    if (parse_u64(request->seed_text, 0, UINT64_MAX, &seed, NULL) != ERR_OK) {
        (void)fputs(USAGE, stderr);
        return 2;
    }
    world->tape.recording = true;
    tape_seed(&world->tape, seed);
    world->tape.calm = request->calm;
    return replay(request);
}

static int replay_tape(const struct request *request)
{
    return load(&world->tape, request->tape) ? replay(request) : 2;
}

static int replay_bytes(const struct request *request)
{
    static uint8_t input[1 * MIB];
    FILE *file = fopen(request->bytes, "rb");
    if (file == NULL) {
        perror(request->bytes);
        return 2;
    }
    size_t size = fread(input, 1, sizeof(input), file);
    (void)fclose(file);
    world->tape.recording = true;
    tape_bytes(&world->tape, bytes_of(input, size));
    return replay(request);
}

/* The decisions of a seed, up to the violation or the end. */
static void record(struct tape *tape, uint64_t seed)
{
    world->tape.recording = true;
    tape_seed(&world->tape, seed);
    (void)trial_run(world, NULL);
    tape_copy(tape, &world->tape);
    world->tape.recording = false;
}

static void print_calm(uint32_t calm)
{
    for (int i = 0; i < CALMS; i++) {
        if ((calm >> i & 1) != 0) {
            printf(" %s", climate_calm_name((enum climate_calm)i));
        }
    }
    printf("\n");
}

static int shrink(const struct request *request)
{
    struct tape tape = {0};
    uint64_t seed = 0;
    if (parse_u64(request->shrink, 0, UINT64_MAX, &seed, NULL) == ERR_OK) {
        record(&tape, seed);
    } else if (!load(&tape, request->shrink)) {
        return 2;
    }
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    (void)dup2(null, STDERR_FILENO); /* the same assertion a thousand times */
    uint64_t trials = shrink_tape(world, &tape, SHRINK_TRIALS_MAX);
    tape_copy(&world->tape, &tape);
    tape_deinit(&tape);
    if (trials == 0) {
        printf("%s is safe\n", request->shrink);
        return 0;
    }
    int code = replay(request);
    printf("%" PRIu64 " trials; left out:", trials);
    print_calm(world->tape.calm);
    return code;
}

static int only_tapes(const struct dirent *entry)
{
    return str_ends_with(entry->d_name, ".tape");
}

static int run_tapes(const struct request *request)
{
    struct dirent **entries = NULL;
    int count = scandir(request->tapes, &entries, only_tapes, alphasort);
    int failed = 0;
    for (int i = 0; i < count; i++) {
        char path[PATH_SIZE];
        const char *name = entries[i]->d_name;
        bool fits = str_format(path, sizeof(path), NULL, "%s/%s", request->tapes, name) == ERR_OK;
        const char *violation = "it cannot be read";
        if (fits && load(&world->tape, path)) {
            violation = trial_run(world, NULL);
        }
        printf(
            "%s %s%s%s\n", violation == NULL ? "ok" : "FAILED", name, violation == NULL ? "" : ": ",
            violation == NULL ? "" : violation);
        failed += violation != NULL;
        free(entries[i]);
    }
    free(entries);
    if (count <= 0) {
        printf("no tape in %s\n", request->tapes);
    }
    return failed > 0 || count <= 0;
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

/* ---- many ---- */

static int search(const struct request *request)
{
    struct search search = request->search;
    search.save = request->save;
    return search_run(world, &search);
}

/* One line a seed, for whoever compares. */
static int print_digests(const struct request *request)
{
    for (uint64_t seed = request->search.from; seed < request->search.from + request->digests;
         seed++) {
        const char *violation = search_run_seed(world, seed);
        printf(
            "%" PRIu64 " %016" PRIx64 " %" PRIu64 " %s\n", seed, world->digest, world->steps,
            violation == NULL ? "safe" : violation);
    }
    return 0;
}

/* Another process: other addresses, another environment. */
static FILE *start_digests(const struct request *request, const char *environment)
{
    char count[24], from[24];
    (void)snprintf(count, sizeof(count), "%" PRIu64, request->determinism);
    (void)snprintf(from, sizeof(from), "%" PRIu64, request->search.from);
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0 || fflush(stdout) != 0) {
        return NULL;
    }
    pid_t child = fork();
    if (child == 0) {
        char *arguments[] = {"sim", "--digests", count, "--from", from, NULL};
        char *variables[] = {(char *)environment, NULL};
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)execve("/proc/self/exe", arguments, variables);
        _exit(2);
    }
    (void)close(ends[1]);
    return fdopen(ends[0], "r");
}

static int compare_processes(const struct request *request)
{
    FILE *one = start_digests(request, "MALLOC_PERTURB_=85");
    FILE *two = start_digests(request, "MALLOC_PERTURB_=170");
    char one_line[512], two_line[512];
    uint64_t same = 0;
    if (one == NULL || two == NULL) {
        perror("determinism");
        return 2;
    }
    while (fgets(one_line, sizeof(one_line), one) != NULL &&
           fgets(two_line, sizeof(two_line), two) != NULL) {
        if (strcmp(one_line, two_line) != 0) {
            printf("NOT REPEATABLE:\n%s%s", one_line, two_line);
            break;
        }
        same++;
    }
    (void)fclose(one);
    (void)fclose(two);
    while (wait(NULL) > 0) {
    }
    printf("%" PRIu64 " of %" PRIu64 " seeds alike\n", same, request->determinism);
    return same != request->determinism;
}

/* ---- the command line ---- */

static bool take_flag(struct request *request, const char *flag, const char *value)
{
    const struct {
        const char *flag;
        const char **text;
        uint64_t *number;
    } flags[] = {
        {"--tape", .text = &request->tape},
        {"--bytes", .text = &request->bytes},
        {"--shrink", .text = &request->shrink},
        {"--tapes", .text = &request->tapes},
        {"--save", .text = &request->save},
        {"--from", .number = &request->search.from},
        {"--runs", .number = &request->search.runs},
        {"--seconds", .number = &request->search.seconds},
        {"--jobs", .number = &request->search.jobs},
        {"--determinism", .number = &request->determinism},
        {"--digests", .number = &request->digests},
    };
    if (value == NULL) {
        return false;
    }
    if (strcmp(flag, "--without") == 0) {
        return parse_calms(value, &request->calm);
    }
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        if (strcmp(flag, flags[i].flag) == 0) {
            if (flags[i].text != NULL) {
                *flags[i].text = value;
                return true;
            }
            return parse_u64(value, 0, UINT64_MAX, flags[i].number, NULL) == ERR_OK;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    struct request request = {.search = {.from = 1, .jobs = 1}};
    bool good = true;
    for (int i = 1; i < argc && good; i++) {
        if (strcmp(argv[i], "--marks") == 0) {
            request.search.with_marks = true;
        } else if (strcmp(argv[i], "--need-marks") == 0) {
            request.search.needs_marks = true;
        } else if (strncmp(argv[i], "--", 2) == 0) {
            good = take_flag(&request, argv[i], argv[i + 1]);
            i++;
        } else {
            good = request.seed_text == NULL;
            request.seed_text = argv[i];
        }
    }
    const struct {
        bool wanted;
        int (*run)(const struct request *request);
    } verbs[] = {
        {request.seed_text != NULL, replay_seed},
        {request.tape != NULL, replay_tape},
        {request.bytes != NULL, replay_bytes},
        {request.shrink != NULL, shrink},
        {request.tapes != NULL, run_tapes},
        {request.search.runs > 0 || request.search.seconds > 0, search},
        {request.determinism > 0, compare_processes},
        {request.digests > 0, print_digests},
    };
    int verb = -1;
    for (int i = 0; i < (int)ARRAY_LEN(verbs); i++) {
        if (verbs[i].wanted) {
            good = good && verb < 0;
            verb = i;
        }
    }
    if (!good || verb < 0) {
        (void)fputs(USAGE, stderr);
        return 2;
    }
    world = world_create();
    int code = verbs[verb].run(&request);
    if (request.search.with_marks && verbs[verb].run != search) {
        search_print_marks();
    }
    world_destroy(world);
    return code;
}
