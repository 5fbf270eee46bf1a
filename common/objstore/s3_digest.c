#include "common/objstore/s3_digest.h"

#include <openssl/evp.h>

#include "common/base/assert.h"
#include "common/base/parse.h"

static void digest(const EVP_MD *kind, struct bytes data, uint8_t *to, size_t size)
{
    unsigned written = 0;
    if (EVP_Digest(data.data, data.size, to, &written, kind, NULL) != 1 || written != size) {
        fatal("libcrypto has no %s", EVP_MD_get0_name(kind));
    }
}

struct s3_digest s3_digest(struct bytes data)
{
    struct s3_digest result;
    uint8_t sha256[32];
    digest(EVP_sha256(), data, sha256, sizeof(sha256));
    digest(EVP_md5(), data, result.md5, sizeof(result.md5));
    format_hex(sha256, sizeof(sha256), result.sha256_hex);
    format_hex(result.md5, sizeof(result.md5), result.md5_hex);
    int size = EVP_EncodeBlock((uint8_t *)result.md5_base64, result.md5, sizeof(result.md5));
    ASSERT(size == sizeof(result.md5_base64) - 1);
    return result;
}
