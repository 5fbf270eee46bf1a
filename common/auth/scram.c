#include "common/auth/scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/str.h"

#define PREFIX               "SCRAM-SHA-256$"
#define BASE64_SIZE(bytes)   (((bytes) + 2) / 3 * 4)
#define KEY_TEXT_SIZE        BASE64_SIZE(SCRAM_KEY_SIZE)
#define ITERATIONS_MAX       1000000
#define MOCK_ITERATIONS      4096
#define MOCK_SALT_SIZE       16
#define BINDING_TYPE         "tls-server-end-point"
#define AUTH_MESSAGE_MAX     (3 * SCRAM_TEXT_MAX)
#define CLIENT_GS2_HEADER    "n,,"
#define CLIENT_GS2_IN_BASE64 "biws"

static bool is_ascii(const char *text)
{
    for (const char *c = text; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~') {
            return false;
        }
    }
    return true;
}

/* ---- base64 and hashes ---- */

/* `size` characters of base64, a multiple of 4. Returns the number of bytes, 0: not base64, or too
 * many. */
static size_t decode_base64(const char *text, size_t size, uint8_t *to, size_t to_size)
{
    uint8_t decoded[SCRAM_TEXT_MAX];
    if (size == 0 || size % 4 != 0 || size > sizeof decoded) {
        return 0;
    }
    int count = EVP_DecodeBlock(decoded, (const unsigned char *)text, (int)size);
    if (count < 0) {
        return 0;
    }
    size_t padding = (text[size - 1] == '=' ? 1u : 0u) + (text[size - 2] == '=' ? 1u : 0u);
    size_t bytes = (size_t)count - padding;
    if (bytes > to_size) {
        return 0;
    }
    memcpy(to, decoded, bytes);
    return bytes;
}

/* `to` has room for BASE64_SIZE(size) + 1. */
static void encode_base64(const uint8_t *bytes, size_t size, char *to)
{
    (void)EVP_EncodeBlock((unsigned char *)to, bytes, (int)size);
}

static void hmac_of(const uint8_t *key, const void *data, size_t size, uint8_t *ret_hmac)
{
    unsigned hmac_size = SCRAM_KEY_SIZE;
    const void *hmac = HMAC(EVP_sha256(), key, SCRAM_KEY_SIZE, data, size, ret_hmac, &hmac_size);
    ASSERT(hmac != NULL && hmac_size == SCRAM_KEY_SIZE);
}

static void hash_of(const uint8_t *data, size_t size, uint8_t *ret_hash)
{
    unsigned hash_size = SCRAM_KEY_SIZE;
    int rc = EVP_Digest(data, size, ret_hash, &hash_size, EVP_sha256(), NULL);
    ASSERT(rc == 1 && hash_size == SCRAM_KEY_SIZE);
}

/* ---- verifier ---- */

static err_t malformed(const char *what, struct errmsg *msg)
{
    return err_set(msg, ERR_INVALID, "stored password is not a SCRAM-SHA-256 verifier: %s", what);
}

err_t scram_verifier_parse(
    const char *text, struct scram_verifier *ret_verifier, struct errmsg *msg)
{
    struct scram_verifier verifier = {0};
    if (!str_starts_with(text, PREFIX)) {
        return malformed("it begins otherwise", msg);
    }
    char *end = NULL;
    unsigned long iterations = strtoul(text + strlen(PREFIX), &end, 10);
    if (*end != ':' || iterations == 0 || iterations > ITERATIONS_MAX) {
        return malformed("number of iterations", msg);
    }
    verifier.iterations = (uint32_t)iterations;
    const char *salt = end + 1;
    size_t salt_chars = strcspn(salt, "$");
    verifier.salt_size = decode_base64(salt, salt_chars, verifier.salt, sizeof verifier.salt);
    if (verifier.salt_size == 0 || salt[salt_chars] != '$') {
        return malformed("salt", msg);
    }
    const char *stored = salt + salt_chars + 1;
    if (strlen(stored) != 2 * KEY_TEXT_SIZE + 1 || stored[KEY_TEXT_SIZE] != ':' ||
        decode_base64(stored, KEY_TEXT_SIZE, verifier.stored_key, SCRAM_KEY_SIZE) !=
            SCRAM_KEY_SIZE ||
        decode_base64(
            stored + KEY_TEXT_SIZE + 1, KEY_TEXT_SIZE, verifier.server_key, SCRAM_KEY_SIZE) !=
            SCRAM_KEY_SIZE) {
        return malformed("keys", msg);
    }
    *ret_verifier = verifier;
    return ERR_OK;
}

void scram_verifier_mock(struct bytes secret, const char *role, struct scram_verifier *ret_verifier)
{
    uint8_t key[SCRAM_KEY_SIZE];
    uint8_t salt[SCRAM_KEY_SIZE];
    hash_of(secret.data, secret.size, key);
    hmac_of(key, role, strlen(role), salt);
    *ret_verifier = (struct scram_verifier){
        .iterations = MOCK_ITERATIONS,
        .salt_size = MOCK_SALT_SIZE,
    };
    memcpy(ret_verifier->salt, salt, MOCK_SALT_SIZE);
    /* Hashes of what nobody knows: no client key has this stored key but by breaking SHA-256. */
    hmac_of(key, salt, sizeof salt, ret_verifier->stored_key);
    hmac_of(key, ret_verifier->stored_key, SCRAM_KEY_SIZE, ret_verifier->server_key);
}

bool scram_matches(const char *verifier, const char *password)
{
    static const char label[] = "Server Key";
    struct scram_verifier parsed;
    uint8_t salted[SCRAM_KEY_SIZE];
    uint8_t key[SCRAM_KEY_SIZE];
    if (!is_ascii(password) || scram_verifier_parse(verifier, &parsed, NULL) != ERR_OK) {
        return false;
    }
    int rc = PKCS5_PBKDF2_HMAC(
        password, (int)strlen(password), parsed.salt, (int)parsed.salt_size, (int)parsed.iterations,
        EVP_sha256(), SCRAM_KEY_SIZE, salted);
    if (rc != 1) {
        return false;
    }
    hmac_of(salted, label, strlen(label), key);
    OPENSSL_cleanse(salted, sizeof salted);
    return CRYPTO_memcmp(parsed.server_key, key, SCRAM_KEY_SIZE) == 0;
}

/* ---- attributes of a message: "r=abc,s=def" ---- */

/* The value of the attribute that `*at` begins with; `*at` moves behind the comma after it. */
static err_t take_attribute(
    const char **at, char name, const char **ret_value, size_t *ret_size, struct errmsg *msg)
{
    const char *text = *at;
    if (text[0] != name || text[1] != '=') {
        return err_set(
            msg, ERR_INVALID, "malformed SCRAM message: expected attribute \"%c\"", name);
    }
    size_t size = strcspn(text + 2, ",");
    *ret_value = text + 2;
    *ret_size = size;
    *at = text[2 + size] == ',' ? text + 2 + size + 1 : text + 2 + size;
    return ERR_OK;
}

static err_t text_of(struct bytes message, char to[SCRAM_TEXT_MAX], struct errmsg *msg)
{
    if (message.size >= SCRAM_TEXT_MAX) {
        return err_set(
            msg, ERR_INVALID, "SCRAM message of %zu bytes: the limit is %d", message.size,
            SCRAM_TEXT_MAX);
    }
    if (message.size > 0 && memchr(message.data, '\0', message.size) != NULL) {
        return err_set(msg, ERR_INVALID, "malformed SCRAM message: a zero byte");
    }
    if (message.size > 0) {
        memcpy(to, message.data, message.size);
    }
    to[message.size] = '\0';
    return ERR_OK;
}

static void hmac_of_auth_message(
    const uint8_t *key,
    const char *first_bare,
    const char *server_first,
    const char *final_bare,
    uint8_t *ret_hmac)
{
    char text[AUTH_MESSAGE_MAX + 3];
    int size = snprintf(text, sizeof text, "%s,%s,%s", first_bare, server_first, final_bare);
    ASSERT(size > 0 && (size_t)size < sizeof text);
    hmac_of(key, text, (size_t)size, ret_hmac);
}

/* ---- server ---- */

/* "n,," or "y,," or "p=tls-server-end-point,,": what the client says about channel binding. */
static err_t check_gs2_header(
    const struct scram_server *server, const char *text, size_t *ret_size, struct errmsg *msg)
{
    const char *comma = strchr(text, ',');
    if (comma == NULL || (text[0] != 'n' && text[0] != 'y' && text[0] != 'p')) {
        return err_set(
            msg, ERR_INVALID,
            "malformed SCRAM message: it does not begin with a channel binding flag");
    }
    size_t flag_size = (size_t)(comma - text);
    if ((text[0] == 'p') != server->plus) {
        return err_set(msg, ERR_INVALID, "SCRAM: channel binding flag and mechanism do not fit");
    }
    if (text[0] == 'p') {
        if (flag_size != strlen("p=" BINDING_TYPE) ||
            strncmp(text, "p=" BINDING_TYPE, flag_size) != 0) {
            return err_set(
                msg, ERR_INVALID, "SCRAM: only channel binding \"" BINDING_TYPE "\" is supported");
        }
    } else if (flag_size != 1) {
        return err_set(msg, ERR_INVALID, "malformed SCRAM message: channel binding flag");
    } else if (text[0] == 'y' && server->binding.size > 0) {
        return err_set(
            msg, ERR_DENIED,
            "SCRAM: the client supports channel binding and was not offered it: somebody is in "
            "between");
    }
    if (comma[1] != ',') {
        return err_set(msg, ERR_INVALID, "SCRAM: an authorization identity is not supported");
    }
    *ret_size = flag_size + 2;
    return ERR_OK;
}

static err_t take_client_first(
    struct scram_server *server, const char *text, struct buf *reply, struct errmsg *msg)
{
    const char *value = NULL;
    size_t size = 0;
    size_t header_size = 0;
    TRY(check_gs2_header(server, text, &header_size, msg));
    (void)snprintf(server->gs2_header, sizeof server->gs2_header, "%.*s", (int)header_size, text);
    (void)snprintf(server->first_bare, sizeof server->first_bare, "%s", text + header_size);
    const char *at = text + header_size;
    if (at[0] == 'm') {
        return err_set(
            msg, ERR_INVALID, "SCRAM: the client asks for an extension that is not supported");
    }
    TRY(take_attribute(&at, 'n', &value, &size, msg)); /* the role is that of the start-up packet */
    TRY(take_attribute(&at, 'r', &value, &size, msg));
    char salt[BASE64_SIZE(SCRAM_SALT_MAX) + 1];
    char nonce[BASE64_SIZE(SCRAM_NONCE_SIZE) + 1];
    if (size == 0 || size > SCRAM_TEXT_MAX / 2) {
        return err_set(msg, ERR_INVALID, "SCRAM: a nonce of %zu bytes", size);
    }
    encode_base64(server->verifier->salt, server->verifier->salt_size, salt);
    encode_base64(server->nonce, SCRAM_NONCE_SIZE, nonce);
    (void)snprintf(
        server->full_nonce, sizeof server->full_nonce, "%.*s%s", (int)size, value, nonce);
    int length = snprintf(
        server->server_first, sizeof server->server_first, "r=%s,s=%s,i=%u", server->full_nonce,
        salt, server->verifier->iterations);
    ASSERT(length > 0 && (size_t)length < sizeof server->server_first);
    buf_append(reply, server->server_first, (size_t)length);
    server->state = SCRAM_WANTS_FINAL;
    return ERR_OK;
}

/* "c=" repeats the header, and what the client's end of the TLS connection is bound to. */
static err_t check_binding(
    const struct scram_server *server, const char *value, size_t size, struct errmsg *msg)
{
    uint8_t expected[sizeof server->gs2_header + SCRAM_BINDING_MAX];
    uint8_t got[sizeof expected];
    size_t expected_size = strlen(server->gs2_header);
    memcpy(expected, server->gs2_header, expected_size);
    if (server->plus) {
        ASSERT(server->binding.size <= SCRAM_BINDING_MAX);
        memcpy(expected + expected_size, server->binding.data, server->binding.size);
        expected_size += server->binding.size;
    }
    size_t got_size = decode_base64(value, size, got, sizeof got);
    if (got_size != expected_size || CRYPTO_memcmp(got, expected, expected_size) != 0) {
        return err_set(msg, ERR_DENIED, "SCRAM: channel binding check failed");
    }
    return ERR_OK;
}

static err_t check_proof(
    struct scram_server *server, const char *final_bare, const uint8_t *proof, struct errmsg *msg)
{
    uint8_t signature[SCRAM_KEY_SIZE];
    uint8_t stored_key[SCRAM_KEY_SIZE];
    const uint8_t *verified = server->verifier->stored_key;
    hmac_of_auth_message(verified, server->first_bare, server->server_first, final_bare, signature);
    for (size_t i = 0; i < SCRAM_KEY_SIZE; i++) {
        server->client_key[i] = proof[i] ^ signature[i];
    }
    hash_of(server->client_key, SCRAM_KEY_SIZE, stored_key);
    if (CRYPTO_memcmp(stored_key, verified, SCRAM_KEY_SIZE) != 0) {
        OPENSSL_cleanse(server->client_key, SCRAM_KEY_SIZE);
        return err_set(msg, ERR_DENIED, "the password is wrong");
    }
    return ERR_OK;
}

static err_t take_client_final(
    struct scram_server *server, char *text, struct buf *reply, struct errmsg *msg)
{
    const char *value = NULL;
    size_t size = 0;
    const char *at = text;
    uint8_t proof[SCRAM_KEY_SIZE];
    uint8_t signature[SCRAM_KEY_SIZE];
    char signature_text[KEY_TEXT_SIZE + 1];
    TRY(take_attribute(&at, 'c', &value, &size, msg));
    TRY(check_binding(server, value, size, msg));
    TRY(take_attribute(&at, 'r', &value, &size, msg));
    if (size != strlen(server->full_nonce) || memcmp(value, server->full_nonce, size) != 0) {
        return err_set(msg, ERR_DENIED, "SCRAM: the nonce is not that of this exchange");
    }
    char *proof_at = strstr(text, ",p=");
    if (proof_at == NULL ||
        decode_base64(proof_at + 3, strlen(proof_at + 3), proof, sizeof proof) != sizeof proof) {
        return err_set(msg, ERR_INVALID, "malformed SCRAM message: expected a proof");
    }
    *proof_at = '\0';
    TRY(check_proof(server, text, proof, msg));
    hmac_of_auth_message(
        server->verifier->server_key, server->first_bare, server->server_first, text, signature);
    encode_base64(signature, sizeof signature, signature_text);
    buf_printf(reply, "v=%s", signature_text);
    server->state = SCRAM_DONE;
    return ERR_OK;
}

err_t scram_server_step(
    struct scram_server *server, struct bytes message, struct buf *reply, struct errmsg *msg)
{
    char text[SCRAM_TEXT_MAX];
    TRY(text_of(message, text, msg));
    switch (server->state) {
    case SCRAM_WANTS_FIRST: return take_client_first(server, text, reply, msg);
    case SCRAM_WANTS_FINAL: return take_client_final(server, text, reply, msg);
    case SCRAM_DONE: break;
    }
    return err_set(msg, ERR_INVALID, "SCRAM: a message after the exchange");
}

const uint8_t *scram_server_client_key(const struct scram_server *server)
{
    ASSERT(server->state == SCRAM_DONE);
    return server->client_key;
}

/* ---- client ---- */

void scram_client_first(struct scram_client *client, struct buf *message)
{
    static_assert(sizeof client->nonce_text > BASE64_SIZE(SCRAM_NONCE_SIZE), "text of the nonce");
    encode_base64(client->nonce, SCRAM_NONCE_SIZE, client->nonce_text);
    buf_printf(message, CLIENT_GS2_HEADER "n=,r=%s", client->nonce_text);
}

static err_t check_same_verifier(
    const struct scram_verifier *verifier,
    const char *salt_text,
    size_t salt_chars,
    const char *iterations,
    struct errmsg *msg)
{
    uint8_t salt[SCRAM_SALT_MAX];
    size_t salt_size = decode_base64(salt_text, salt_chars, salt, sizeof salt);
    if (salt_size != verifier->salt_size || memcmp(salt, verifier->salt, salt_size) != 0 ||
        strtoul(iterations, NULL, 10) != verifier->iterations) {
        return err_set(msg, ERR_STALE, "the password was changed a moment ago: try again");
    }
    return ERR_OK;
}

err_t scram_client_final(
    struct scram_client *client, struct bytes server_first, struct buf *message, struct errmsg *msg)
{
    char text[SCRAM_TEXT_MAX];
    char first_bare[64];
    char final_bare[SCRAM_TEXT_MAX + 16];
    const char *nonce = NULL, *salt = NULL, *iterations = NULL;
    size_t nonce_size = 0, salt_size = 0, iterations_size = 0;
    TRY(text_of(server_first, text, msg));
    const char *at = text;
    TRY(take_attribute(&at, 'r', &nonce, &nonce_size, msg));
    TRY(take_attribute(&at, 's', &salt, &salt_size, msg));
    TRY(take_attribute(&at, 'i', &iterations, &iterations_size, msg));
    size_t own_size = strlen(client->nonce_text);
    if (nonce_size <= own_size || memcmp(nonce, client->nonce_text, own_size) != 0) {
        return err_set(msg, ERR_DENIED, "SCRAM: the server's nonce does not continue ours");
    }
    TRY(check_same_verifier(client->verifier, salt, salt_size, iterations, msg));
    (void)snprintf(first_bare, sizeof first_bare, "n=,r=%s", client->nonce_text);
    (void)snprintf(
        final_bare, sizeof final_bare, "c=" CLIENT_GS2_IN_BASE64 ",r=%.*s", (int)nonce_size, nonce);
    uint8_t proof[SCRAM_KEY_SIZE];
    char proof_text[KEY_TEXT_SIZE + 1];
    hmac_of_auth_message(client->verifier->stored_key, first_bare, text, final_bare, proof);
    for (size_t i = 0; i < SCRAM_KEY_SIZE; i++) {
        proof[i] ^= client->client_key[i];
    }
    encode_base64(proof, sizeof proof, proof_text);
    hmac_of_auth_message(
        client->verifier->server_key, first_bare, text, final_bare, client->signature);
    buf_printf(message, "%s,p=%s", final_bare, proof_text);
    return ERR_OK;
}

err_t scram_client_check(
    const struct scram_client *client, struct bytes server_final, struct errmsg *msg)
{
    char text[SCRAM_TEXT_MAX];
    uint8_t signature[SCRAM_KEY_SIZE];
    TRY(text_of(server_final, text, msg));
    if (!str_starts_with(text, "v=") ||
        decode_base64(text + 2, strlen(text + 2), signature, sizeof signature) !=
            sizeof signature ||
        CRYPTO_memcmp(signature, client->signature, sizeof signature) != 0) {
        return err_set(
            msg, ERR_DENIED, "SCRAM: the server did not prove that it knows the verifier");
    }
    return ERR_OK;
}
