#include "common/auth/token_hash.h"

#include <openssl/evp.h>

#include "common/base/assert.h"
#include "common/base/parse.h"

void token_hash(struct bytes token, char ret_hex[TOKEN_HASH_SIZE])
{
    uint8_t digest[32];
    unsigned size = 0;
    int done = EVP_Digest(token.data, token.size, digest, &size, EVP_sha256(), NULL);
    ASSERT(done == 1);
    ASSERT(size == sizeof digest);
    format_hex(digest, sizeof digest, ret_hex);
}
