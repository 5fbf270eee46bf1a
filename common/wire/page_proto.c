#include "common/wire/page_proto.h"

WIRE_DEFINE(get_page, GET_PAGE_FIELDS)
WIRE_DEFINE(get_page_reply, GET_PAGE_REPLY_FIELDS)
WIRE_DEFINE(rel_size, REL_SIZE_FIELDS)
WIRE_DEFINE(rel_size_reply, REL_SIZE_REPLY_FIELDS)
WIRE_DEFINE(db_size, DB_SIZE_FIELDS)
WIRE_DEFINE(db_size_reply, DB_SIZE_REPLY_FIELDS)
