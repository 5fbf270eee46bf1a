/*
 * catalog.h - `anabranch catalog`: control's disk was lost.
 */
#pragma once

#include "tools/anabranch/context.h"

/*
 * words: catalog rebuild. Of the local cluster in --data, whose control must not run, or of
 * --catalog DIR (control's data_dir + "/catalog") and --object-store URL.
 */
NODISCARD err_t catalog_command(struct context *context, struct errmsg *msg);
