/*
 * conf.h - settings: one X-list per daemon gives struct, defaults, parser, dump and documentation.
 *
 *   #define SAFEKEEPER_SETTINGS(X)                                                          \
 *       X(str,  listen_host, "127.0.0.1", RESTART, "address of the framed port")            \
 *       X(u64,  listen_port, "7411", RESTART, "port of the framed protocol; 0: any free")   \
 *       X(ms,   election_timeout_ms, "1000", RELOAD, "...")
 *   struct safekeeper_conf { SAFEKEEPER_SETTINGS(CONF_FIELD) };
 *   #define CONF_OWNER struct safekeeper_conf
 *   static const struct conf_setting settings[] = { SAFEKEEPER_SETTINGS(CONF_ROW) };
 *
 * File: `name = value` lines, # comments, values may be in double quotes. Later sources win:
 * defaults, --config FILE, --name=value flags. An unknown name or a bad value is ERR_INVALID that
 * names file, line, setting and what was expected.
 */
#pragma once

#include "common/base/bytes.h"

enum conf_type { CONF_STR, CONF_U64, CONF_BOOL, CONF_SIZE, CONF_MS };
enum conf_change { CONF_RESTART, CONF_RELOAD };

#define CONF_STR_SIZE 512
typedef char conf_str_t[CONF_STR_SIZE];
typedef uint64_t conf_u64_t;
typedef bool conf_bool_t;
typedef uint64_t conf_size_t; /* bytes; written "64MB" */
typedef uint64_t conf_ms_t;   /* milliseconds; written "10s" */

struct conf_setting {
    const char *name;
    enum conf_type type;
    size_t offset;
    const char *default_text;
    enum conf_change change;
    const char *help;
};

#define CONF_FIELD(type, name, default_text, change, help) conf_##type##_t name;

#define CONF_TYPE_str  CONF_STR
#define CONF_TYPE_u64  CONF_U64
#define CONF_TYPE_bool CONF_BOOL
#define CONF_TYPE_size CONF_SIZE
#define CONF_TYPE_ms   CONF_MS

/* Define before use: #define CONF_OWNER struct safekeeper_conf */
#define CONF_ROW(type_, name_, default_text_, change_, help_)                                      \
    {.name = #name_,                                                                               \
     .type = CONF_TYPE_##type_,                                                                    \
     .offset = offsetof(CONF_OWNER, name_),                                                        \
     .default_text = (default_text_),                                                              \
     .change = CONF_##change_,                                                                     \
     .help = (help_)},

NODISCARD err_t conf_set_defaults(
    void *conf, const struct conf_setting *settings, size_t count, struct errmsg *msg);
NODISCARD err_t conf_set(
    void *conf,
    const struct conf_setting *settings,
    size_t count,
    const char *name,
    const char *value,
    struct errmsg *msg);
NODISCARD err_t conf_load_file(
    void *conf,
    const struct conf_setting *settings,
    size_t count,
    const char *path,
    struct errmsg *msg);

/* A commented file with every setting, its unit, default and help; with the current values. */
void conf_print(
    const void *conf, const struct conf_setting *settings, size_t count, struct buf *to);
