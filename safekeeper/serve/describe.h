/*
 * describe.h - what GET says of a timeline (docs/protocol/rpc.md). Threads: loop only.
 */
#pragma once

#include "common/json/doc.h"
#include "safekeeper/timeline/timeline.h"

struct doc *describe_timeline(const struct timeline *tl);
