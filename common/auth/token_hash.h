/*
 * token_hash.h - what is kept of a secret that only has to be recognised: SHA-256, in hex.
 *
 * Good for tokens that are random numbers of 128 bits and more; not for what people choose.
 */
#pragma once

#include "common/base/bytes.h"

#define TOKEN_HASH_SIZE 65

void token_hash(struct bytes token, char ret_hex[TOKEN_HASH_SIZE]);
