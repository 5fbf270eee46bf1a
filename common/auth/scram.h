/*
 * scram.h - SCRAM-SHA-256 (RFC 5802, 7677) as Postgres speaks it (src/backend/libpq/auth-scram.c):
 * the verifier of pg_authid.rolpassword, the server's side of an exchange, and the client's side
 * without a password.
 *
 * A proxy that holds the verifier learns from a client's proof the client key, and may then log in
 * to the server that has the same verifier as that client, without ever seeing the password. A
 * client key is as good as the password for that one verifier: it lives as long as the session that
 * it came from.
 *
 * Pure: the nonces come from the caller, who takes them from the system's random source. No
 * allocation. Texts of a peer are refused with ERR_INVALID (not understood) or ERR_DENIED (proof or
 * signature is wrong). Threads: [any].
 */
#pragma once

#include "common/base/bytes.h"

#define SCRAM_KEY_SIZE     32
#define SCRAM_SALT_MAX     64
#define SCRAM_NONCE_SIZE   18   /* raw bytes of our half of the nonce */
#define SCRAM_TEXT_MAX     1024 /* bytes of one message of the exchange */
#define SCRAM_BINDING_MAX  64   /* bytes of tls-server-end-point data */
#define SCRAM_SHA_256      "SCRAM-SHA-256"
#define SCRAM_SHA_256_PLUS "SCRAM-SHA-256-PLUS"

/* "SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY", the last three in base64. */
struct scram_verifier {
    uint32_t iterations;
    uint8_t salt[SCRAM_SALT_MAX];
    size_t salt_size;
    uint8_t stored_key[SCRAM_KEY_SIZE];
    uint8_t server_key[SCRAM_KEY_SIZE];
};

NODISCARD err_t
scram_verifier_parse(const char *text, struct scram_verifier *ret_verifier, struct errmsg *msg);

/*
 * A verifier that no password fits, always the same for a name and a secret: who asks for a role
 * that does not exist gets a salt like everybody else.
 */
void scram_verifier_mock(
    struct bytes secret, const char *role, struct scram_verifier *ret_verifier);

/*
 * Does a stored verifier belong to a password? False as well when it cannot be told: another kind
 * of verifier, a damaged one, or a password beyond ASCII, which Postgres normalises first.
 */
bool scram_matches(const char *verifier, const char *password);

/* ---- the server's side ---- */

enum scram_state { SCRAM_WANTS_FIRST, SCRAM_WANTS_FINAL, SCRAM_DONE };

struct scram_server {
    /* Set by the caller. */
    const struct scram_verifier *verifier;
    struct bytes binding; /* tls-server-end-point data; size 0: no TLS, or nothing to bind to */
    bool plus;            /* the client chose SCRAM-SHA-256-PLUS */
    uint8_t nonce[SCRAM_NONCE_SIZE];

    /* private */
    enum scram_state state;
    char gs2_header[64];
    char first_bare[SCRAM_TEXT_MAX];
    char server_first[SCRAM_TEXT_MAX];
    char full_nonce[SCRAM_TEXT_MAX];
    uint8_t client_key[SCRAM_KEY_SIZE];
};

/*
 * Take the client's message, append the answer to `reply`. ERR_OK with state SCRAM_DONE: the client
 * has proved the password, scram_server_client_key() tells its key.
 */
NODISCARD err_t scram_server_step(
    struct scram_server *server, struct bytes message, struct buf *reply, struct errmsg *msg);

const uint8_t *scram_server_client_key(const struct scram_server *server);

/* ---- the client's side ---- */

struct scram_client {
    /* Set by the caller. */
    const struct scram_verifier *verifier;
    uint8_t client_key[SCRAM_KEY_SIZE];
    uint8_t nonce[SCRAM_NONCE_SIZE];

    /* private */
    char nonce_text[32];
    uint8_t signature[SCRAM_KEY_SIZE]; /* that the server has to show */
};

void scram_client_first(struct scram_client *client, struct buf *message);
/* ERR_STALE: the server has another verifier by now (the password was changed). */
NODISCARD err_t scram_client_final(
    struct scram_client *client,
    struct bytes server_first,
    struct buf *message,
    struct errmsg *msg);
/* ERR_DENIED: this is not the server that has the verifier. */
NODISCARD err_t scram_client_check(
    const struct scram_client *client, struct bytes server_final, struct errmsg *msg);
