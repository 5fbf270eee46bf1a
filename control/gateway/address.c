#include "control/gateway/address.h"

#include <stdio.h>

#include "common/base/parse.h"
#include "common/base/str.h"

#define POOLER "-pooler"

static bool is_name(const char *text)
{
    size_t size = strlen(text);
    return (str_starts_with(text, "ep-") || str_starts_with(text, "br-")) &&
           size < ADDRESS_NAME_SIZE &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == size;
}

static err_t take_name(const char *text, size_t size, struct address *address, struct errmsg *msg)
{
    char name[ADDRESS_NAME_SIZE + sizeof POOLER];
    (void)snprintf(name, sizeof name, "%.*s", (int)MIN_OF(size, sizeof name - 1), text);
    for (char *c = name; *c != '\0'; c++) {
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c); /* host names have no case */
    }
    bool pooled = str_ends_with(name, POOLER);
    if (pooled) {
        name[strlen(name) - strlen(POOLER)] = '\0';
    }
    if (size >= sizeof name || !is_name(name)) {
        return err_set(
            msg, ERR_INVALID, "\"%.*s\" is not the name of an endpoint (ep-..) or a branch (br-..)",
            (int)MIN_OF(size, 80), text);
    }
    (void)snprintf(address->name, sizeof address->name, "%s", name);
    address->pooled = pooled;
    return ERR_OK;
}

/* A word of the options with its escapes; Postgres splits at spaces that no backslash precedes. */
static size_t word_size(const char *text)
{
    size_t size = 0;
    while (text[size] != '\0' && text[size] != ' ') {
        size += text[size] == '\\' && text[size + 1] != '\0' ? 2 : 1;
    }
    return size;
}

enum option { OPTION_ENDPOINT, OPTION_LSN, OPTION_TIME, OPTION_OTHER };

/* Which of ours a word is, and how much of it says so. */
static enum option option_of(const char *word, size_t *ret_skip)
{
    static const struct {
        const char *text;
        enum option option;
    } ours[] = {
        {"endpoint=", OPTION_ENDPOINT}, {"project=", OPTION_ENDPOINT},
        {"lsn=", OPTION_LSN},           {"neon_lsn:", OPTION_LSN},
        {"timestamp=", OPTION_TIME},    {"neon_timestamp:", OPTION_TIME},
    };
    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        if (str_starts_with(word, ours[i].text)) {
            *ret_skip = strlen(ours[i].text);
            return ours[i].option;
        }
    }
    *ret_skip = 0;
    return OPTION_OTHER;
}

static err_t take_endpoint(
    const char *text, size_t size, struct address *address, struct errmsg *msg)
{
    struct address said = {0};
    TRY(take_name(text, size, &said, msg));
    if (address->name[0] != '\0' && strcmp(address->name, said.name) != 0) {
        return err_set(
            msg, ERR_INVALID, "the host name says %s and the options say %s", address->name,
            said.name);
    }
    memcpy(address->name, said.name, sizeof address->name);
    address->pooled = said.pooled || address->pooled;
    return ERR_OK;
}

static err_t take_moment(
    const char *text, size_t size, bool is_lsn, struct address *address, struct errmsg *msg)
{
    char moment[ADDRESS_MOMENT_SIZE];
    lsn_t lsn = 0;
    wall_us_t time = 0;
    if (address->moment[0] != '\0') {
        return err_set(msg, ERR_INVALID, "the options name two moments");
    }
    (void)snprintf(moment, sizeof moment, "%.*s", (int)MIN_OF(size, sizeof moment - 1), text);
    if (size >= sizeof moment) {
        return err_set(msg, ERR_INVALID, "\"%s...\" is no LSN or time", moment);
    }
    TRY(is_lsn ? parse_lsn(moment, &lsn, msg) : parse_time(moment, &time, msg));
    memcpy(address->moment, moment, sizeof moment);
    address->moment_is_lsn = is_lsn;
    return ERR_OK;
}

static err_t take_options(
    const char *options, struct address *address, struct buf *rest, struct errmsg *msg)
{
    const char *at = options + strspn(options, " ");
    while (*at != '\0') {
        size_t size = word_size(at);
        size_t skip = 0;
        enum option option = option_of(at, &skip);
        const char *value = at + skip;
        switch (option) {
        case OPTION_ENDPOINT: TRY(take_endpoint(value, size - skip, address, msg)); break;
        case OPTION_LSN:
        case OPTION_TIME:
            TRY(take_moment(value, size - skip, option == OPTION_LSN, address, msg));
            break;
        case OPTION_OTHER:
            buf_printf(rest, "%s%.*s", rest->size > 0 ? " " : "", (int)size, at);
            break;
        }
        at += size;
        at += strspn(at, " ");
    }
    return ERR_OK;
}

err_t address_of(
    const char *server_name,
    const char *options,
    struct address *ret_address,
    struct buf *rest,
    struct errmsg *msg)
{
    struct address address = {0};
    const char *dot = strchr(server_name, '.');
    if (dot != NULL &&
        (strncasecmp(server_name, "ep-", 3) == 0 || strncasecmp(server_name, "br-", 3) == 0)) {
        TRY(take_name(server_name, (size_t)(dot - server_name), &address, msg));
    }
    if (options != NULL) {
        TRY(take_options(options, &address, rest, msg));
    }
    *ret_address = address;
    return ERR_OK;
}
