/*
 * tar_reader.h - the members of a tar archive (ustar, GNU, pax with short names) in memory. Pure.
 */
#pragma once

#include "common/base/bytes.h"

#define TAR_NAME_SIZE 257

struct tar_reader {
    struct bytes left;
};

struct tar_member {
    char name[TAR_NAME_SIZE]; /* without a leading "./" */
    bool is_file;             /* else a folder or a link: no data */
    struct bytes data;        /* a view into the archive */
};

/* ERR_NOT_FOUND: the archive ended well. ERR_CORRUPT: cut short or malformed. */
NODISCARD err_t
tar_reader_next(struct tar_reader *reader, struct tar_member *ret_member, struct errmsg *msg);
