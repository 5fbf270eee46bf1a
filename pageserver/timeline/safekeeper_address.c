#include "pageserver/timeline/safekeeper_address.h"

#include <string.h>

#include "common/base/parse.h"
#include "common/base/str.h"

err_t safekeeper_address_take(
    const char **text, struct safekeeper_address *ret_address, struct errmsg *msg)
{
    if ((*text)[0] == '\0') {
        return ERR_NOT_FOUND;
    }
    char entry[200], *host, *port;
    size_t length = strcspn(*text, ",");
    if (length >= sizeof(entry)) {
        return err_set(msg, ERR_INVALID, "safekeepers: an entry of %zu bytes", length);
    }
    memcpy(entry, *text, length);
    entry[length] = '\0';
    *text += length + ((*text)[length] == ',' ? 1 : 0);
    host = strchr(entry, '@');
    port = strrchr(entry, ':');
    if (host == NULL || port == NULL || port < host) {
        return err_set(msg, ERR_INVALID, "safekeepers: \"%s\": expected ID@HOST:PORT", entry);
    }
    *host++ = '\0';
    *port++ = '\0';
    uint64_t number;
    TRY(parse_u64(entry, 1, UINT64_MAX, &ret_address->id, msg));
    TRY(parse_u64(port, 1, UINT16_MAX, &number, msg));
    ret_address->port = (uint16_t)number;
    return str_copy(ret_address->host, sizeof(ret_address->host), host, msg);
}
