#include "common/wire/feed_proto.h"

WIRE_DEFINE(feed_start, FEED_START_FIELDS)
WIRE_DEFINE(feed_wal, FEED_WAL_FIELDS)
WIRE_DEFINE(feed_status, FEED_STATUS_FIELDS)
WIRE_DEFINE(feed_feedback, FEED_FEEDBACK_FIELDS)
WIRE_DEFINE(feed_window, FEED_WINDOW_FIELDS)
