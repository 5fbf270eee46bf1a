#include "common/wire/hello_proto.h"

WIRE_DEFINE(hello, HELLO_FIELDS)
WIRE_DEFINE(hello_reply, HELLO_REPLY_FIELDS)
WIRE_DEFINE(error_reply, ERROR_REPLY_FIELDS)

err_t hello_check_protocol(const struct hello *hello, struct errmsg *msg)
{
    if (hello->protocol_min > PROTOCOL_VERSION_MAX || hello->protocol_max < PROTOCOL_VERSION_MIN) {
        return err_set(
            msg, ERR_UNSUPPORTED, "protocol versions %u to %u: this side speaks %u to %u",
            hello->protocol_min, hello->protocol_max, PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX);
    }
    return ERR_OK;
}
