#include "common/base/ip_range.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_SIZE 128

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

static size_t size_of(const struct ip_range *range)
{
    return range->is_v6 ? 16 : 4;
}

/* One address, into first and last. */
static bool parse_address(const char *text, bool *ret_is_v6, uint8_t ret_bytes[16])
{
    uint8_t bytes[16] = {0};
    *ret_is_v6 = strchr(text, ':') != NULL;
    if (inet_pton(*ret_is_v6 ? AF_INET6 : AF_INET, text, bytes) != 1) {
        return false;
    }
    if (*ret_is_v6 && memcmp(bytes, mapped, sizeof mapped) == 0) {
        *ret_is_v6 = false;
        memmove(bytes, bytes + sizeof mapped, 4);
        memset(bytes + 4, 0, 12);
    }
    memcpy(ret_bytes, bytes, 16);
    return true;
}

static err_t apply_prefix(struct ip_range *range, const char *text, struct errmsg *msg)
{
    char *end = NULL;
    size_t bits = 8 * size_of(range);
    unsigned long length = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || length > bits) {
        return err_set(msg, ERR_INVALID, "\"/%s\" is no prefix length of 0 to %zu", text, bits);
    }
    for (size_t bit = length; bit < bits; bit++) {
        uint8_t mask = (uint8_t)(0x80 >> (bit % 8));
        range->first[bit / 8] &= (uint8_t)~mask;
        range->last[bit / 8] |= mask;
    }
    return ERR_OK;
}

static err_t apply_last(struct ip_range *range, const char *text, struct errmsg *msg)
{
    bool is_v6 = false;
    if (!parse_address(text, &is_v6, range->last) || is_v6 != range->is_v6) {
        return err_set(msg, ERR_INVALID, "\"%s\" is no address of the same kind", text);
    }
    if (memcmp(range->first, range->last, size_of(range)) > 0) {
        return err_set(msg, ERR_INVALID, "the range ends before it begins");
    }
    return ERR_OK;
}

err_t ip_range_parse(const char *text, struct ip_range *ret_range, struct errmsg *msg)
{
    char copy[TEXT_SIZE];
    struct ip_range range = {0};
    if (strlen(text) >= sizeof copy) {
        return err_set(msg, ERR_INVALID, "longer than any address");
    }
    (void)snprintf(copy, sizeof copy, "%s", text);
    char *rest = copy + strcspn(copy, "/-");
    char kind = *rest;
    *rest = '\0';
    if (!parse_address(copy, &range.is_v6, range.first)) {
        return err_set(msg, ERR_INVALID, "\"%s\" is no IPv4 or IPv6 address", copy);
    }
    memcpy(range.last, range.first, sizeof range.last);
    if (kind == '/') {
        TRY(apply_prefix(&range, rest + 1, msg));
    } else if (kind == '-') {
        TRY(apply_last(&range, rest + 1, msg));
    }
    *ret_range = range;
    return ERR_OK;
}

bool ip_range_has(const struct ip_range *range, const char *address)
{
    bool is_v6 = false;
    uint8_t bytes[16];
    return parse_address(address, &is_v6, bytes) && is_v6 == range->is_v6 &&
           memcmp(range->first, bytes, size_of(range)) <= 0 &&
           memcmp(bytes, range->last, size_of(range)) <= 0;
}
