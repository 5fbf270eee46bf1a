/*
 * tar_writer.h - a tar archive (ustar) in memory: the base backup of a compute. [any]
 */
#pragma once

#include "common/base/bytes.h"

/* Names up to 100 bytes. The modification time is fixed, so that equal content is equal bytes. */
void tar_add_dir(struct buf *tar, const char *name);
void tar_add_file(struct buf *tar, const char *name, struct bytes data);
/* The same file, but zeros take no space in the archive (GNU's sparse form; tar makes holes). */
void tar_add_sparse_file(struct buf *tar, const char *name, struct bytes data);
void tar_finish(struct buf *tar);
