/*
 * fault.h - failpoints: named places where a test makes the process fail.
 *
 * Always compiled in, off unless the process was started with --faults (app) and armed through
 * fault_arm(). FAULT("wal_store.after_write") returns the error to act as if happened, ERR_OK when
 * it is off; actions `crash`, `pause` and `exit` do not return an error. Threads: [any].
 */
#pragma once

#include "common/base/err.h"

/*
 * Spec: "wal_store.before_sync=io" (any err name in lower case without ERR_), "=full",
 * "=crash" (abort without cleaning up), "=pause:250" (sleep ms), each with an optional "@5" (from
 * the fifth hit on), "%10" (one of ten) and "*3" (only three times), in this order. Several are
 * separated by ";". Replaces earlier specs.
 */
NODISCARD err_t fault_arm(const char *spec, struct errmsg *msg);
void fault_enable(void); /* without this every FAULT is off and fault_arm refuses */

bool fault_is_armed(void); /* at least one: who must not be made to wait goes another way */

NODISCARD err_t fault_check(const char *name);

extern bool fault_enabled; /* written once at start */

#define FAULT(name) (__builtin_expect(fault_enabled, 0) ? fault_check(name) : ERR_OK)
