/*
 * s3_digest.h - the digests that S3 asks for with a body. [any]
 */
#pragma once

#include "common/base/bytes.h"

struct s3_digest {
    uint8_t md5[16];
    char sha256_hex[65];
    char md5_hex[33];
    char md5_base64[25];
};

struct s3_digest s3_digest(struct bytes data);
