/*
 * wire.h - the project's own headers beside Postgres' headers.
 *
 * Both name two constants alike, with the same value. Include this after
 * postgres.h and whatever else of Postgres is needed.
 */
#pragma once

#include "portability/instr_time.h"

#undef NS_PER_S
#undef NS_PER_MS

#include "common/base/id.h"
#include "common/wire/hello_proto.h"
#include "common/wire/page_proto.h"
