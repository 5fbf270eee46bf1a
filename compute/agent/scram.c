/*
 * scram.c - RFC 5802 and 7677: "SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY", base64.
 */
#include "compute/agent/scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX         "SCRAM-SHA-256$"
#define KEY_SIZE       32
#define KEY_TEXT_SIZE  44 /* 32 bytes in base64 */
#define SALT_MAX       96
#define ITERATIONS_MAX 1000000

static bool is_ascii(const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~') {
            return false;
        }
    }
    return true;
}

/* `size` characters of base64, a multiple of 4. Returns the number of bytes, 0: not base64. */
static size_t decode_base64(const char *text, size_t size, uint8_t *to)
{
    if (size == 0 || size % 4 != 0 || size > SALT_MAX) {
        return 0;
    }
    int decoded = EVP_DecodeBlock(to, (const unsigned char *)text, (int)size);
    size_t padding = (text[size - 1] == '=' ? 1u : 0u) + (text[size - 2] == '=' ? 1u : 0u);
    return decoded < 0 ? 0 : (size_t)decoded - padding;
}

static bool server_key_of(
    const char *password,
    const uint8_t *salt,
    size_t salt_size,
    int iterations,
    uint8_t key[KEY_SIZE])
{
    static const char label[] = "Server Key";
    uint8_t salted[KEY_SIZE];
    unsigned size = KEY_SIZE;
    bool good = PKCS5_PBKDF2_HMAC(
                    password, (int)strlen(password), salt, (int)salt_size, iterations, EVP_sha256(),
                    KEY_SIZE, salted) == 1 &&
                HMAC(
                    EVP_sha256(), salted, KEY_SIZE, (const unsigned char *)label, strlen(label),
                    key, &size) != NULL;
    OPENSSL_cleanse(salted, sizeof(salted));
    return good;
}

bool scram_matches(const char *verifier, const char *password)
{
    uint8_t salt[SALT_MAX];
    uint8_t stored[SALT_MAX];
    uint8_t key[KEY_SIZE];
    if (strncmp(verifier, PREFIX, strlen(PREFIX)) != 0 || !is_ascii(password)) {
        return false;
    }
    char *end = NULL;
    long iterations = strtol(verifier + strlen(PREFIX), &end, 10);
    if (*end != ':' || iterations <= 0 || iterations > ITERATIONS_MAX) {
        return false;
    }
    const char *salt_text = end + 1;
    size_t salt_size = decode_base64(salt_text, strcspn(salt_text, "$"), salt);
    const char *colon = strrchr(verifier, ':');
    bool well_formed = salt_size > 0 && colon > salt_text && strlen(colon + 1) == KEY_TEXT_SIZE;
    return well_formed && decode_base64(colon + 1, KEY_TEXT_SIZE, stored) == KEY_SIZE &&
           server_key_of(password, salt, salt_size, (int)iterations, key) &&
           CRYPTO_memcmp(stored, key, KEY_SIZE) == 0;
}
