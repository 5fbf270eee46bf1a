#include "tests/lib/lossyfs/lossy_control.h"

#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>

#include "common/base/parse.h"

#define WORDS_MAX 5

static const char *const op_names[] = {
    [LOSSY_READ] = "read", [LOSSY_WRITE] = "write", [LOSSY_SYNC] = "sync"};

static const struct {
    const char *name;
    int error;
} errors[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EROFS", EROFS}, {"EDQUOT", EDQUOT}};

struct words {
    const char *at[WORDS_MAX];
    size_t count;
    uint64_t numbers[WORDS_MAX]; /* of those that are numbers */
    bool is_number[WORDS_MAX];
};

static void split(char *line, struct words *ret)
{
    *ret = (struct words){0};
    for (char *word; (word = strsep(&line, " \n")) != NULL && ret->count < WORDS_MAX;) {
        if (*word != '\0') {
            size_t i = ret->count++;
            ret->at[i] = word;
            ret->is_number[i] = parse_u64(word, 0, UINT64_MAX, &ret->numbers[i], NULL) == ERR_OK;
        }
    }
}

/* -- commands: each checks its words -- */

static bool run_cut(struct lossy_control *control, const struct words *words)
{
    if (words->count < 2 || !words->is_number[1] || (words->count > 2 && !words->is_number[2])) {
        return false;
    }
    static const unsigned percents[] = {0, 0, 10, 50, 50, 90, 100};
    struct lossy_cut *cut = &control->cut;
    prng_init(&cut->prng, words->numbers[1]);
    cut->keep_percent = words->count > 2 ? (unsigned)MIN_OF(words->numbers[2], (uint64_t)100)
                                         : percents[prng_below(&cut->prng, ARRAY_LEN(percents))];
    lossy_tree_cut(control->tree, cut);
    control->cuts++;
    control->changes_left = 0;
    return true;
}

static bool run_kill(struct lossy_control *control, const struct words *words)
{
    if (words->count != 3 || !words->is_number[1] || !words->is_number[2] ||
        words->numbers[2] < 2 || words->numbers[2] > INT32_MAX) {
        return false;
    }
    control->changes_left = words->numbers[1];
    control->victim = (pid_t)words->numbers[2];
    return true;
}

static bool run_lie(struct lossy_control *control, const struct words *words)
{
    if (words->count != 2) {
        return false;
    }
    control->is_lying = strcmp(words->at[1], "on") == 0;
    return control->is_lying || strcmp(words->at[1], "off") == 0;
}

static bool run_names(struct lossy_control *control, const struct words *words)
{
    bool is_linux = words->count == 2 && strcmp(words->at[1], "linux") == 0;
    if (words->count != 2 || (!is_linux && strcmp(words->at[1], "strict") != 0)) {
        return false;
    }
    control->tree->names = is_linux ? LOSSY_NAMES_LINUX : LOSSY_NAMES_STRICT;
    return true;
}

static struct lossy_failure *free_failure(struct lossy_control *control)
{
    for (size_t i = 0; i < LOSSY_FAILURES_MAX; i++) {
        if (control->failures[i].count == 0) {
            return &control->failures[i];
        }
    }
    return NULL;
}

static bool run_fail(struct lossy_control *control, const struct words *words)
{
    struct lossy_failure *to = free_failure(control);
    if (to == NULL || words->count != 5 || !words->is_number[3]) {
        return false;
    }
    for (size_t op = 0; op < ARRAY_LEN(op_names); op++) {
        for (size_t i = 0; i < ARRAY_LEN(errors); i++) {
            if (strcmp(words->at[1], op_names[op]) == 0 &&
                strcmp(words->at[2], errors[i].name) == 0) {
                to->op = (enum lossy_op)op;
                to->error = errors[i].error;
                to->count = words->numbers[3];
                (void)snprintf(to->pattern, sizeof(to->pattern), "%s", words->at[4]);
                return true;
            }
        }
    }
    return false;
}

static bool run_capacity(struct lossy_control *control, const struct words *words)
{
    if (words->count != 2 || !words->is_number[1]) {
        return false;
    }
    control->tree->page_count_max = (size_t)(words->numbers[1] / LOSSY_PAGE_SIZE);
    return true;
}

static bool run_flip(struct lossy_control *control, const struct words *words)
{
    if (words->count != 4 || !words->is_number[2] || !words->is_number[3]) {
        return false;
    }
    struct lossy_inode *inode = lossy_tree_walk(control->tree, words->at[1]);
    return inode != NULL &&
           lossy_file_flip(&inode->file, words->numbers[2], (unsigned)(words->numbers[3] % 8));
}

static bool run_heal(struct lossy_control *control, const struct words *words)
{
    (void)words;
    memset(control->failures, 0, sizeof(control->failures));
    control->is_lying = false;
    control->changes_left = 0;
    control->tree->page_count_max = 0;
    return true;
}

err_t lossy_control_run(struct lossy_control *control, const char *line, struct errmsg *msg)
{
    static const struct {
        const char *name;
        bool (*run)(struct lossy_control *control, const struct words *words);
    } commands[] = {{"names", run_names}, {"cut", run_cut},   {"kill", run_kill},
                    {"lie", run_lie},     {"fail", run_fail}, {"capacity", run_capacity},
                    {"flip", run_flip},   {"heal", run_heal}};
    char copy[1024];
    struct words words;
    (void)snprintf(copy, sizeof(copy), "%s", line);
    split(copy, &words);
    for (size_t i = 0; words.count > 0 && i < ARRAY_LEN(commands); i++) {
        if (strcmp(words.at[0], commands[i].name) == 0) {
            return commands[i].run(control, &words)
                       ? ERR_OK
                       : err_set(msg, ERR_INVALID, "lossyfs: cannot do \"%s\"", line);
        }
    }
    return err_set(msg, ERR_INVALID, "lossyfs: no command in \"%s\"", line);
}

void lossy_control_status(struct lossy_control *control, struct buf *to)
{
    size_t dirty = 0;
    uint64_t failures = 0;
    for (size_t i = 0; i < LOSSY_FAILURES_MAX; i++) {
        failures += control->failures[i].count;
    }
    LIST_FOR_EACH(&control->tree->inodes, link)
    {
        dirty += CONTAINER_OF(link, struct lossy_inode, link)->file.change_count;
    }
    const struct lossy_cut *cut = &control->cut;
    buf_printf(
        to,
        "{\"unsynced\": %zu, \"unsynced_names\": %zu, \"changes\": %" PRIu64 ", \"syncs\": %" PRIu64
        ", \"cuts\": %" PRIu64 ", \"kept\": %zu, \"torn\": %zu, \"lost\": %zu, "
        "\"names_kept\": %zu, \"names_lost\": %zu, \"bytes\": %zu, \"failures_left\": %" PRIu64
        "}\n",
        dirty, control->tree->change_count, control->changes, control->syncs, control->cuts,
        cut->kept, cut->torn, cut->lost, cut->names_kept, cut->names_lost,
        lossy_tree_pages(control->tree) * LOSSY_PAGE_SIZE, failures);
}

/* -- what calls meet -- */

int lossy_control_on_change(struct lossy_control *control)
{
    control->changes++;
    if (control->changes_left > 0 && --control->changes_left == 0) {
        (void)kill(control->victim, SIGKILL);
        return EIO;
    }
    return 0;
}

int lossy_control_on_call(
    struct lossy_control *control, enum lossy_op op, const struct lossy_inode *inode)
{
    char path[1024] = "";
    for (size_t i = 0; i < LOSSY_FAILURES_MAX; i++) {
        struct lossy_failure *failure = &control->failures[i];
        if (failure->count == 0 || failure->op != op) {
            continue;
        }
        lossy_tree_path(inode, NULL, path, sizeof(path));
        if (fnmatch(failure->pattern, path, 0) == 0) {
            failure->count--;
            return failure->error;
        }
    }
    return 0;
}

int lossy_control_sync(struct lossy_control *control, struct lossy_inode *inode)
{
    control->syncs++;
    int error = lossy_control_on_call(control, LOSSY_SYNC, inode);
    if (error != 0) {
        lossy_file_drop_changes(&inode->file);
        return error;
    }
    if (!control->is_lying) {
        lossy_tree_sync(control->tree, inode);
    }
    return 0;
}
