#include "tests/model/store/episode.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/fault.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "tests/model/store/episode_private.h"
#include "tests/model/store/subject.h"

struct episode *episode;
struct model *model;

/* A mounted lossyfs, on which any change may be the last: see episode_set_lossy(). */
static struct {
    const char *mountpoint; /* NULL: no power is ever cut */
    struct prng prng;
    struct episode_deaths deaths;
} lossy;

static const uint32_t kind_weights[] = {
#define OP_WEIGHT(name, weight) weight,
    OP_KINDS(OP_WEIGHT)
#undef OP_WEIGHT
};

void episode_init(void)
{
    episode =
        mmap(NULL, sizeof(*episode), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT(episode != MAP_FAILED);
    model = &episode->model;
    fault_enable();
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0}); /* crashes are what we are here for */
}

void episode_generate(uint64_t seed, struct op *ops, size_t count)
{
    struct prng prng;
    prng_init(&prng, seed);
    uint32_t weight_sum = 0;
    for (size_t i = 0; i < ARRAY_LEN(kind_weights); i++) {
        weight_sum += kind_weights[i];
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t dice = (uint32_t)prng_below(&prng, weight_sum);
        size_t kind = 0;
        while (dice >= kind_weights[kind]) {
            dice -= kind_weights[kind++];
        }
        ops[i] = (struct op){
            .kind = (enum op_kind)kind,
            .a = (uint32_t)prng_next(&prng),
            .b = (uint32_t)prng_next(&prng),
            .c = (uint32_t)prng_next(&prng),
            .d = (uint32_t)prng_next(&prng),
        };
    }
}

void episode_differ(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(episode->why.text, sizeof(episode->why.text), format, args);
    va_end(args);
    _exit(1);
}

/* -- the parent -- */

void episode_set_lossy(const char *mountpoint)
{
    lossy.mountpoint = mountpoint;
}

struct episode_deaths episode_deaths(void)
{
    return lossy.deaths;
}

static void tell_lossy(const char *line)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/.lossyfs", lossy.mountpoint);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ASSERT(fd >= 0 && write(fd, line, strlen(line)) == (ssize_t)strlen(line));
    (void)close(fd);
}

/* Lives of all lengths: many end while they recover, or in one of the first flushes. */
static uint64_t draw_changes(void)
{
    static const uint64_t most[] = {20, 80, 300, 1000};
    return 1 + prng_below(&lossy.prng, most[prng_below(&lossy.prng, ARRAY_LEN(most))]);
}

/* After so many changes of the disk the child has to go; 0: never. */
static void arm(uint64_t changes, pid_t child)
{
    char line[64];
    if (lossy.mountpoint != NULL) {
        (void)snprintf(line, sizeof(line), "kill %" PRIu64 " %d", changes, (int)child);
        tell_lossy(line);
    }
}

/* The child begins only when the disk knows when it has to go. */
static int run_child_once(void)
{
    int status, go[2];
    ASSERT(pipe(go) == 0);
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        (void)close(go[1]);
        (void)!read(go[0], &byte, 1);
        episode_run_child();
    }
    (void)close(go[0]);
    arm(draw_changes(), child);
    (void)close(go[1]);
    ASSERT(child > 0 && waitpid(child, &status, 0) == child);
    arm(0, child);
    return status;
}

/* Half of the deaths take what was not synced along. */
static bool is_survivable(int status)
{
    bool is_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (lossy.mountpoint == NULL || !is_killed) {
        return WIFSIGNALED(status) && episode->crashing;
    }
    lossy.deaths.kills++;
    if (prng_below(&lossy.prng, 2) == 0) {
        char line[64];
        (void)snprintf(line, sizeof(line), "cut %" PRIu64, prng_next(&lossy.prng));
        tell_lossy(line);
        lossy.deaths.cuts++;
    }
    return true;
}

static void make_folder(void)
{
    struct errmsg msg;
    const char *base = lossy.mountpoint != NULL ? lossy.mountpoint : subject_base();
    (void)snprintf(episode->folder, sizeof(episode->folder), "%s/store_model.XXXXXX", base);
    ASSERT(mkdtemp(episode->folder) != NULL);
    ASSERT(lossy.mountpoint == NULL || file_sync_dir(base, &msg) == ERR_OK);
}

bool episode_run(
    uint64_t seed, const struct op *ops, size_t count, bool trace, struct errmsg *ret_why)
{
    model_init(model);
    prng_init(&lossy.prng, seed);
    *ret_why = episode->why = (struct errmsg){0};
    episode->ops = ops; /* a child sees what its parent had when it was made */
    episode->op_count = count;
    episode->next = 0;
    episode->trace = trace;
    episode->is_unfinished = false;
    make_folder();
    int status;
    do {
        episode->crashing = false;
        status = run_child_once();
    } while (status != 0 && is_survivable(status));
    if (status != 0 && episode->why.text[0] == '\0') {
        (void)snprintf(
            episode->why.text, sizeof(episode->why.text), "the child ended with status %x",
            (unsigned)status);
    }
    *ret_why = episode->why;
    struct errmsg msg;
    err_ignore(dir_remove(episode->folder, &msg), "a temporary folder");
    return status == 0;
}

void episode_counts(uint64_t *ret_checks, uint64_t *ret_beside)
{
    *ret_checks = episode->checks;
    *ret_beside = episode->beside;
}
