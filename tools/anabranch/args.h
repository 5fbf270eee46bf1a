/*
 * args.h - the command line: words and --flags in any order.
 *
 * `--name value`, `--name=value`, `-o json`. Flags that take no value are listed in args.c.
 */
#pragma once

#include "common/base/str.h"

#define ARGS_WORDS_MAX 16
#define ARGS_FLAGS_MAX 32

struct args {
    const char *words[ARGS_WORDS_MAX];
    size_t word_count;
    struct args_flag {
        const char *name; /* without dashes */
        char *value;      /* NULL: it takes none */
        bool used;
    } flags[ARGS_FLAGS_MAX];
    size_t flag_count;
};

/* An unknown flag or a missing value is ERR_INVALID and names it. `argv` is cut into pieces. */
NODISCARD err_t args_parse(struct args *args, int argc, char **argv, struct errmsg *msg);
/* NULL or "" when there is no such flag or word. */
const char *args_flag(struct args *args, const char *name);
/*
 * The value of a flag that nobody else may see: copied, and blanked in argv, which everybody on the
 * machine can read. "" when there is no such flag; ERR_INVALID: longer than `size`.
 */
NODISCARD err_t
args_take_secret(struct args *args, const char *name, char *to, size_t size, struct errmsg *msg);
bool args_has(struct args *args, const char *name);
const char *args_word(const struct args *args, size_t index);
/* ERR_INVALID when there are more words: a name with a blank that was not quoted, say. */
NODISCARD err_t args_check_words(const struct args *args, size_t count_max, struct errmsg *msg);
/* ERR_INVALID when a flag was given that the command did not look at. */
NODISCARD err_t args_check_used(const struct args *args, struct errmsg *msg);
