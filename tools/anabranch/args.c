#include "tools/anabranch/args.h"

#include <string.h>

static const char *const with_value[] = {
    "add",      "remove",  "api-ca",     "api-key-file", "api-key",   "api-url",        "binaries",
    "branch",   "catalog", "data",       "database",     "endpoint",  "local-cache-mb", "lsn",
    "name",     "output",  "gateway",    "object-store", "parent",    "port-base",      "postgres",
    "preserve", "project", "role",       "safekeepers",  "signal",    "source",         "time",
    "from",     "ttl",     "expires-at", "other",        "other-lsn", "seconds",        "set",
    "target"};
static const char *const without_value[] = {
    "give-up",   "delete",    "follow",  "force", "help",     "no-endpoint", "no-wait",
    "protected", "read-only", "version", "wait",  "finalize", "deleted",     "hard"};

static bool is_in(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* Takes one or two of argv; returns how many. */
static err_t take_flag(struct args *args, char **argv, int left, int *ret_taken, struct errmsg *msg)
{
    char *name = argv[0] + (argv[0][1] == '-' ? 2 : 1);
    char *equals = strchr(name, '=');
    char *value = NULL;
    int taken = 1;
    if (equals != NULL) {
        *equals = '\0';
        value = equals + 1;
    }
    if (strcmp(name, "o") == 0) {
        name = (char *)"output";
    } else if (strcmp(name, "h") == 0) {
        name = (char *)"help";
    }
    if (is_in(without_value, ARRAY_LEN(without_value), name)) {
        if (value != NULL) {
            return err_set(msg, ERR_INVALID, "--%s takes no value", name);
        }
    } else if (!is_in(with_value, ARRAY_LEN(with_value), name)) {
        return err_set(msg, ERR_INVALID, "unknown flag --%s (see anabranch --help)", name);
    } else if (value == NULL) {
        if (left < 2) {
            return err_set(msg, ERR_INVALID, "--%s needs a value", name);
        }
        value = argv[1];
        taken = 2;
    }
    if (args->flag_count == ARGS_FLAGS_MAX) {
        return err_set(msg, ERR_INVALID, "too many flags");
    }
    args->flags[args->flag_count++] = (struct args_flag){.name = name, .value = value};
    *ret_taken = taken;
    return ERR_OK;
}

err_t args_parse(struct args *args, int argc, char **argv, struct errmsg *msg)
{
    *args = (struct args){0};
    for (int i = 1; i < argc;) {
        int taken = 1;
        if (argv[i][0] == '-' && argv[i][1] != '\0') {
            TRY(take_flag(args, argv + i, argc - i, &taken, msg));
        } else if (args->word_count == ARGS_WORDS_MAX) {
            return err_set(msg, ERR_INVALID, "too many words");
        } else {
            args->words[args->word_count++] = argv[i];
        }
        i += taken;
    }
    return ERR_OK;
}

const char *args_flag(struct args *args, const char *name)
{
    const char *value = NULL;
    for (size_t i = 0; i < args->flag_count; i++) {
        if (strcmp(args->flags[i].name, name) == 0) {
            args->flags[i].used = true;
            value = args->flags[i].value; /* the last one wins */
        }
    }
    return value;
}

err_t args_take_secret(
    struct args *args, const char *name, char *to, size_t size, struct errmsg *msg)
{
    to[0] = '\0';
    for (size_t i = 0; i < args->flag_count; i++) {
        struct args_flag *flag = &args->flags[i];
        if (strcmp(flag->name, name) != 0) {
            continue;
        }
        flag->used = true;
        TRY(str_copy(to, size, flag->value, msg));
        memset(flag->value, 'x', strlen(flag->value));
    }
    return ERR_OK;
}

bool args_has(struct args *args, const char *name)
{
    bool found = false;
    for (size_t i = 0; i < args->flag_count; i++) {
        if (strcmp(args->flags[i].name, name) == 0) {
            args->flags[i].used = true;
            found = true;
        }
    }
    return found;
}

const char *args_word(const struct args *args, size_t index)
{
    return index < args->word_count ? args->words[index] : NULL;
}

err_t args_check_words(const struct args *args, size_t count_max, struct errmsg *msg)
{
    return args->word_count <= count_max
               ? ERR_OK
               : err_set(msg, ERR_INVALID, "\"%s\" is one word too many", args->words[count_max]);
}

err_t args_check_used(const struct args *args, struct errmsg *msg)
{
    for (size_t i = 0; i < args->flag_count; i++) {
        if (!args->flags[i].used) {
            return err_set(
                msg, ERR_INVALID, "--%s does not belong to this command", args->flags[i].name);
        }
    }
    return ERR_OK;
}
