/*
 * ip_range.h - ranges of IP addresses as people write them, and whether an address is in one.
 *
 *   192.0.2.7   192.0.2.0/24   192.0.2.1-192.0.2.9   2001:db8::/32
 *
 * An IPv4 address that came in through an IPv6 socket (::ffff:192.0.2.7) is the IPv4 address.
 * Threads: [any].
 */
#pragma once

#include "common/base/err.h"

struct ip_range {
    bool is_v6;
    uint8_t first[16], last[16]; /* the first 4 bytes of an IPv4 address */
};

/* ERR_INVALID says what is wrong with the text. Bits behind a prefix length are ignored. */
NODISCARD err_t ip_range_parse(const char *text, struct ip_range *ret_range, struct errmsg *msg);
/* `address` is one address; what is none is in no range. */
bool ip_range_has(const struct ip_range *range, const char *address);
