/*
 * conf.c - settings by name: one table drives defaults, parser, reader of files and printer.
 */
#include "common/conf/conf.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/mem.h"
#include "common/base/parse.h"
#include "common/base/str.h"

#define CONF_FILE_MAX (1 * MIB)

/* A value that is too long leaves the old one. */
static err_t set_str(char *field, const char *value, struct errmsg *msg)
{
    conf_str_t copy;
    if (strpbrk(value, "\n\"") != NULL) {
        return err_set(msg, ERR_INVALID, "a line break or a double quote is not possible here");
    }
    TRY(str_copy(copy, sizeof(copy), value, msg));
    memcpy(field, copy, sizeof(copy));
    return ERR_OK;
}

static err_t set_one(
    void *conf, const struct conf_setting *setting, const char *value, struct errmsg *msg)
{
    void *field = (char *)conf + setting->offset;
    switch (setting->type) {
    case CONF_STR: return set_str(field, value, msg);
    case CONF_U64: return parse_u64(value, 0, UINT64_MAX, field, msg);
    case CONF_BOOL: return parse_bool(value, field, msg);
    case CONF_SIZE: return parse_size(value, field, msg);
    case CONF_MS: return parse_duration(value, field, msg);
    }
    return err_set(msg, ERR_INVALID, "unknown type of setting");
}

err_t conf_set(
    void *conf,
    const struct conf_setting *settings,
    size_t count,
    const char *name,
    const char *value,
    struct errmsg *msg)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(settings[i].name, name) == 0) {
            err_t err = set_one(conf, &settings[i], value, msg);
            return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "setting %s", name);
        }
    }
    return err_set(msg, ERR_INVALID, "there is no setting \"%.60s\"", name);
}

err_t conf_set_defaults(
    void *conf, const struct conf_setting *settings, size_t count, struct errmsg *msg)
{
    for (size_t i = 0; i < count; i++) {
        err_t err = set_one(conf, &settings[i], settings[i].default_text, msg);
        if (err != ERR_OK) {
            return err_wrap(msg, err, "default of setting %s", settings[i].name);
        }
    }
    return ERR_OK;
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text)) {
        text++;
    }
    size_t size = strlen(text);
    while (size > 0 && isspace((unsigned char)text[size - 1])) {
        text[--size] = '\0';
    }
    return text;
}

/* Cuts `line` into name and value. An empty line or a comment gives an empty name. */
static err_t split_line(char *line, char **ret_name, char **ret_value, struct errmsg *msg)
{
    char *text = trim(line);
    *ret_name = *ret_value = text + strlen(text);
    if (text[0] == '\0' || text[0] == '#') {
        return ERR_OK;
    }
    char *equals = strchr(text, '=');
    if (equals == NULL || equals == text) {
        return err_set(msg, ERR_INVALID, "expected name = value, found \"%.60s\"", text);
    }
    *equals = '\0';
    char *value = trim(equals + 1);
    if (value[0] == '"') {
        char *end = strchr(value + 1, '"');
        if (end == NULL) {
            return err_set(msg, ERR_INVALID, "the double quote is never closed");
        }
        *end = '\0';
        value++;
        const char *rest = trim(end + 1);
        if (rest[0] != '\0' && rest[0] != '#') {
            return err_set(msg, ERR_INVALID, "\"%.40s\" behind the closing quote", rest);
        }
    } else {
        char *comment = strchr(value, '#');
        if (comment != NULL) {
            *comment = '\0';
        }
        value = trim(value);
    }
    *ret_name = trim(text);
    *ret_value = value;
    return ERR_OK;
}

static err_t load_text(
    void *conf, const struct conf_setting *settings, size_t count, char *text, struct errmsg *msg)
{
    int number = 0;
    for (char *line = strsep(&text, "\n"); line != NULL; line = strsep(&text, "\n")) {
        char *name = NULL;
        char *value = NULL;
        number++;
        err_t err = split_line(line, &name, &value, msg);
        if (err == ERR_OK && name[0] != '\0') {
            err = conf_set(conf, settings, count, name, value, msg);
        }
        if (err != ERR_OK) {
            return err_wrap(msg, err, "line %d", number);
        }
    }
    return ERR_OK;
}

/* Reads at most CONF_FILE_MAX; the settings are read before common/io exists for the process. */
static err_t read_text(const char *path, struct buf *to, struct errmsg *msg)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return err_set(msg, err_from_errno(errno), "open: %m");
    }
    buf_reserve(to, CONF_FILE_MAX + 1);
    to->size = fread(to->data, 1, CONF_FILE_MAX + 1, file);
    err_t err = ERR_OK;
    if (ferror(file) != 0) {
        err = err_set(msg, ERR_IO, "cannot be read");
    } else if (to->size > CONF_FILE_MAX) {
        err = err_set(msg, ERR_FULL, "larger than %zu bytes", CONF_FILE_MAX);
    } else if (memchr(to->data, '\0', to->size) != NULL) {
        err = err_set(msg, ERR_INVALID, "contains a NUL byte: not a text file");
    }
    (void)fclose(file); /* only read */
    return err;
}

err_t conf_load_file(
    void *conf,
    const struct conf_setting *settings,
    size_t count,
    const char *path,
    struct errmsg *msg)
{
    struct buf text = {0};
    err_t err = read_text(path, &text, msg);
    if (err == ERR_OK) {
        err = load_text(conf, settings, count, (char *)buf_cstr(&text), msg);
    }
    buf_deinit(&text);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "settings file %s", path);
}

static void print_size(uint64_t value, struct buf *to)
{
    static const struct {
        const char *name;
        uint64_t factor;
    } units[] = {{"GB", GIB}, {"MB", MIB}, {"kB", KIB}};
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (value > 0 && value % units[i].factor == 0) {
            buf_printf(to, "%" PRIu64 "%s", value / units[i].factor, units[i].name);
            return;
        }
    }
    buf_printf(to, "%" PRIu64, value);
}

static void print_value(const void *conf, const struct conf_setting *setting, struct buf *to)
{
    const void *field = (const char *)conf + setting->offset;
    uint64_t number = 0;
    switch (setting->type) {
    case CONF_STR: buf_printf(to, "\"%s\"", (const char *)field); break;
    case CONF_BOOL: buf_printf(to, "%s", *(const bool *)field ? "true" : "false"); break;
    case CONF_U64:
    case CONF_SIZE:
    case CONF_MS:
        memcpy(&number, field, sizeof(number));
        if (setting->type == CONF_SIZE) {
            print_size(number, to);
        } else {
            buf_printf(to, "%" PRIu64 "%s", number, setting->type == CONF_MS ? "ms" : "");
        }
        break;
    }
}

void conf_print(const void *conf, const struct conf_setting *settings, size_t count, struct buf *to)
{
    static const char *const types[] = {"text", "number", "true or false", "size", "duration"};
    for (size_t i = 0; i < count; i++) {
        const struct conf_setting *setting = &settings[i];
        buf_printf(
            to, "# %s\n# %s, default %s%s%s, %s\n", setting->help, types[setting->type],
            setting->default_text[0] == '\0' ? "empty" : "\"", setting->default_text,
            setting->default_text[0] == '\0' ? "" : "\"",
            setting->change == CONF_RELOAD ? "read again on SIGHUP" : "needs a restart");
        buf_printf(to, "%s = ", setting->name);
        print_value(conf, setting, to);
        buf_printf(to, "\n\n");
    }
}
