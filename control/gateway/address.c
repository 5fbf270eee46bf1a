#include "control/gateway/address.h"

#include <stdio.h>

#include "common/base/str.h"

#define POOLER          "-pooler"
#define OPTION_ENDPOINT "endpoint="

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

static err_t take_options(
    const char *options, struct address *address, struct buf *rest, struct errmsg *msg)
{
    const char *at = options + strspn(options, " ");
    while (*at != '\0') {
        size_t size = word_size(at);
        if (str_starts_with(at, OPTION_ENDPOINT)) {
            struct address said = {0};
            TRY(take_name(
                at + strlen(OPTION_ENDPOINT), size - strlen(OPTION_ENDPOINT), &said, msg));
            if (address->name[0] != '\0' && strcmp(address->name, said.name) != 0) {
                return err_set(
                    msg, ERR_INVALID, "the host name says %s and the options say %s", address->name,
                    said.name);
            }
            said.pooled = said.pooled || address->pooled;
            *address = said;
        } else {
            buf_printf(rest, "%s%.*s", rest->size > 0 ? " " : "", (int)size, at);
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
