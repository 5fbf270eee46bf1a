/*
 * tls.c - two memory BIOs a session: what the peer sent, and what it shall get.
 */
#include "common/io/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define READ_PIECE ((size_t)16 * KIB) /* a TLS record holds as much */

struct tls_context {
    SSL_CTX *ssl;
    uint8_t binding[TLS_BINDING_SIZE];
    size_t binding_size;
    bool check_name; /* client */
};

struct tls_session {
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    char server_name[TLS_NAME_SIZE];
};

static const unsigned char alpn_postgresql[] = "\x0apostgresql";

/* The newest reason of OpenSSL's queue, which is emptied. */
static err_t failed(struct errmsg *msg, err_t err, const char *what)
{
    char reason[160] = "unknown reason";
    unsigned long code = ERR_peek_last_error();
    if (code != 0) {
        ERR_error_string_n(code, reason, sizeof reason);
        const char *text = ERR_reason_error_string(code);
        if (text != NULL) {
            (void)snprintf(reason, sizeof reason, "%s", text);
        }
    }
    ERR_clear_error();
    return err_set(msg, err, "%s: %s", what, reason);
}

/* ---- context ---- */

static int on_select_protocol(
    SSL *ssl,
    const unsigned char **ret_name,
    unsigned char *ret_size,
    const unsigned char *offered,
    unsigned offered_size,
    void *unused)
{
    (void)ssl;
    (void)unused;
    int rc = SSL_select_next_proto(
        (unsigned char **)ret_name, ret_size, alpn_postgresql, sizeof alpn_postgresql - 1, offered,
        offered_size);
    return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* RFC 5929 section 4.1: by the digest of the certificate's signature, but SHA-256 for MD5 and
 * SHA-1. */
static err_t take_binding(struct tls_context *context, struct errmsg *msg)
{
    X509 *certificate = SSL_CTX_get0_certificate(context->ssl);
    int digest = NID_undef;
    if (certificate == NULL ||
        OBJ_find_sigid_algs(X509_get_signature_nid(certificate), &digest, NULL) != 1) {
        return failed(msg, ERR_INVALID, "find the digest of the certificate's signature");
    }
    const EVP_MD *md = digest == NID_md5 || digest == NID_sha1 || digest == NID_undef
                           ? EVP_sha256()
                           : EVP_get_digestbynid(digest);
    unsigned size = 0;
    if (md == NULL || X509_digest(certificate, md, context->binding, &size) != 1) {
        return failed(msg, ERR_INVALID, "digest the certificate");
    }
    context->binding_size = size;
    return ERR_OK;
}

static err_t load(
    struct tls_context *context,
    const char *certificate_path,
    const char *key_path,
    struct errmsg *msg)
{
    SSL_CTX *ssl = context->ssl;
    SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION);
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(ssl, on_select_protocol, NULL);
    if (SSL_CTX_use_certificate_chain_file(ssl, certificate_path) != 1) {
        err_t err = failed(msg, ERR_INVALID, "read the certificate");
        return err_wrap(msg, err, "%s", certificate_path);
    }
    if (SSL_CTX_use_PrivateKey_file(ssl, key_path, SSL_FILETYPE_PEM) != 1) {
        err_t err = failed(msg, ERR_INVALID, "read the key of the certificate");
        return err_wrap(msg, err, "%s", key_path);
    }
    return take_binding(context, msg);
}

err_t tls_context_create(
    const char *certificate_path,
    const char *key_path,
    struct tls_context **ret_context,
    struct errmsg *msg)
{
    struct tls_context *context = MEM_NEW(struct tls_context);
    context->ssl = SSL_CTX_new(TLS_server_method());
    err_t err = context->ssl == NULL ? failed(msg, ERR_INVALID, "prepare TLS")
                                     : load(context, certificate_path, key_path, msg);
    if (err != ERR_OK) {
        tls_context_destroy(context);
        return err;
    }
    *ret_context = context;
    return ERR_OK;
}

static err_t load_authorities(
    struct tls_context *context, const char *authorities_path, struct errmsg *msg)
{
    SSL_CTX_set_min_proto_version(context->ssl, TLS1_2_VERSION);
    SSL_CTX_set_options(context->ssl, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context->ssl, SSL_MODE_RELEASE_BUFFERS);
    if (authorities_path == NULL) {
        SSL_CTX_set_verify(context->ssl, SSL_VERIFY_NONE, NULL);
        return ERR_OK;
    }
    SSL_CTX_set_verify(context->ssl, SSL_VERIFY_PEER, NULL);
    if (SSL_CTX_load_verify_locations(context->ssl, authorities_path, NULL) != 1) {
        err_t err = failed(msg, ERR_INVALID, "read the certificates that are trusted");
        return err_wrap(msg, err, "%s", authorities_path);
    }
    return ERR_OK;
}

err_t tls_client_context_create(
    const char *authorities_path,
    bool check_name,
    struct tls_context **ret_context,
    struct errmsg *msg)
{
    struct tls_context *context = MEM_NEW(struct tls_context);
    context->check_name = check_name;
    context->ssl = SSL_CTX_new(TLS_client_method());
    err_t err = context->ssl == NULL ? failed(msg, ERR_INVALID, "prepare TLS")
                                     : load_authorities(context, authorities_path, msg);
    if (err != ERR_OK) {
        tls_context_destroy(context);
        return err;
    }
    *ret_context = context;
    return ERR_OK;
}

void tls_context_destroy(struct tls_context *context)
{
    if (context != NULL) {
        SSL_CTX_free(context->ssl); /* counted: sessions hold it too */
        mem_free(context);
    }
}

struct bytes tls_context_binding(const struct tls_context *context)
{
    return bytes_of(context->binding, context->binding_size);
}

/* ---- session ---- */

static struct tls_session *session_new(struct tls_context *context)
{
    struct tls_session *session = MEM_NEW(struct tls_session);
    session->ssl = SSL_new(context->ssl);
    session->in = BIO_new(BIO_s_mem());
    session->out = BIO_new(BIO_s_mem());
    ASSERT(session->ssl != NULL && session->in != NULL && session->out != NULL); /* memory only */
    BIO_set_mem_eof_return(session->in, -1);
    SSL_set_bio(session->ssl, session->in, session->out);
    return session;
}

struct tls_session *tls_session_create(struct tls_context *context)
{
    struct tls_session *session = session_new(context);
    SSL_set_accept_state(session->ssl);
    return session;
}

struct tls_session *tls_client_session_create(struct tls_context *context, const char *host)
{
    struct tls_session *session = session_new(context);
    X509_VERIFY_PARAM *param = SSL_get0_param(session->ssl);
    bool is_address = X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1;
    bool is_set = true;
    SSL_set_connect_state(session->ssl);
    if (!is_address) {
        is_set = SSL_set_tlsext_host_name(session->ssl, host) == 1 &&
                 X509_VERIFY_PARAM_set1_host(param, host, 0) == 1;
    }
    ASSERT(is_set); /* memory only */
    if (!context->check_name) {
        is_set = X509_VERIFY_PARAM_set1_host(param, NULL, 0) == 1 &&
                 X509_VERIFY_PARAM_set1_ip(param, NULL, 0) == 1;
        ASSERT(is_set);
    }
    ERR_clear_error(); /* a name is no address */
    return session;
}

void tls_session_destroy(struct tls_session *session)
{
    if (session != NULL) {
        SSL_free(session->ssl);
        mem_free(session);
    }
}

static void take_output(struct tls_session *session, struct buf *wire)
{
    size_t size = BIO_ctrl_pending(session->out);
    if (size > 0) {
        int got = BIO_read(session->out, buf_extend(wire, size), (int)size);
        ASSERT(got == (int)size);
    }
}

static err_t failed_verification(struct tls_session *session, struct errmsg *msg, const char *what)
{
    long result = SSL_get_verify_result(session->ssl);
    if (result == X509_V_OK || SSL_get_verify_mode(session->ssl) == SSL_VERIFY_NONE) {
        return failed(msg, ERR_CORRUPT, what);
    }
    ERR_clear_error();
    return err_set(
        msg, ERR_CORRUPT, "%s: the certificate is not trusted: %s", what,
        X509_verify_cert_error_string(result));
}

/* After a call that did not do what it should: does it wait for more, or has the session ended? */
static err_t check(struct tls_session *session, int rc, const char *what, struct errmsg *msg)
{
    switch (SSL_get_error(session->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: ERR_clear_error(); return ERR_OK;
    case SSL_ERROR_ZERO_RETURN: return err_set(msg, ERR_IO, "the peer has closed the TLS session");
    default: return failed_verification(session, msg, what);
    }
}

static err_t shake_hands(struct tls_session *session, struct errmsg *msg)
{
    int rc = SSL_do_handshake(session->ssl);
    if (rc != 1) {
        return check(session, rc, "TLS handshake", msg);
    }
    const char *name = SSL_get_servername(session->ssl, TLSEXT_NAMETYPE_host_name);
    if (name != NULL && strlen(name) < sizeof session->server_name) {
        (void)snprintf(session->server_name, sizeof session->server_name, "%s", name);
    }
    return ERR_OK;
}

static err_t read_plain(struct tls_session *session, struct buf *plain, struct errmsg *msg)
{
    for (;;) {
        buf_reserve(plain, READ_PIECE);
        int got = SSL_read(
            session->ssl, plain->data + plain->size,
            (int)MIN_OF(plain->capacity - plain->size, MIB));
        if (got <= 0) {
            return check(session, got, "TLS", msg);
        }
        plain->size += (size_t)got;
    }
}

err_t tls_session_receive(
    struct tls_session *session,
    struct bytes ciphertext,
    struct buf *plain,
    struct buf *wire,
    struct errmsg *msg)
{
    err_t err = ERR_OK;
    if (ciphertext.size > 0) {
        int taken = BIO_write(session->in, ciphertext.data, (int)ciphertext.size);
        ASSERT(taken == (int)ciphertext.size);
    }
    if (!tls_session_is_secure(session)) {
        err = shake_hands(session, msg);
    }
    if (err == ERR_OK && tls_session_is_secure(session)) {
        err = read_plain(session, plain, msg);
    }
    take_output(session, wire);
    return err;
}

err_t tls_session_send(
    struct tls_session *session, struct bytes plain, struct buf *wire, struct errmsg *msg)
{
    ASSERT(tls_session_is_secure(session));
    while (plain.size > 0) {
        int piece = (int)MIN_OF(plain.size, MIB);
        int taken = SSL_write(session->ssl, plain.data, piece);
        if (taken <= 0) {
            return failed(msg, ERR_CORRUPT, "TLS");
        }
        plain = bytes_of(plain.data + taken, plain.size - (size_t)taken);
    }
    take_output(session, wire);
    return ERR_OK;
}

void tls_session_close(struct tls_session *session, struct buf *wire)
{
    if (tls_session_is_secure(session)) {
        (void)SSL_shutdown(session->ssl);
        ERR_clear_error();
        take_output(session, wire);
    }
}

bool tls_session_is_secure(const struct tls_session *session)
{
    return SSL_is_init_finished(session->ssl) == 1;
}

const char *tls_session_server_name(const struct tls_session *session)
{
    return session->server_name;
}

bool tls_session_has_protocol(const struct tls_session *session)
{
    const unsigned char *name = NULL;
    unsigned size = 0;
    SSL_get0_alpn_selected(session->ssl, &name, &size);
    return size > 0;
}
