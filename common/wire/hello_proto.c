#include "common/wire/hello_proto.h"

WIRE_DEFINE(hello, HELLO_FIELDS)
WIRE_DEFINE(hello_reply, HELLO_REPLY_FIELDS)
WIRE_DEFINE(error_reply, ERROR_REPLY_FIELDS)
