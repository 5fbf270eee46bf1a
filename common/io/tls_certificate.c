/*
 * tls_certificate.c - a self-signed certificate (P-256, SHA-256) for a cluster on one machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/prng.h"
#include "common/io/tls.h"

#define VALID_SECONDS (3650L * 24 * 3600)

static bool add_extension(X509 *certificate, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool good = extension != NULL && X509_add_ext(certificate, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return good;
}

static bool fill(X509 *certificate, EVP_PKEY *key, const char *domain)
{
    char names[2 * TLS_NAME_SIZE + 32];
    int64_t serial = 0;
    prng_secure(&serial, sizeof serial);
    (void)snprintf(names, sizeof names, "DNS:%s,DNS:*.%s", domain, domain);
    X509_NAME *subject = X509_get_subject_name(certificate);
    return X509_set_version(certificate, X509_VERSION_3) == 1 &&
           ASN1_INTEGER_set_int64(X509_get_serialNumber(certificate), serial & INT64_MAX) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL &&
           X509_gmtime_adj(X509_getm_notAfter(certificate), VALID_SECONDS) != NULL &&
           X509_NAME_add_entry_by_txt(
               subject, "CN", MBSTRING_UTF8, (const unsigned char *)domain, -1, -1, 0) == 1 &&
           X509_set_issuer_name(certificate, subject) == 1 &&
           X509_set_pubkey(certificate, key) == 1 &&
           add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE") &&
           add_extension(certificate, NID_subject_alt_name, names) &&
           X509_sign(certificate, key, EVP_sha256()) > 0;
}

static FILE *create(const char *path, mode_t mode)
{
    (void)unlink(path); /* never keep the mode of an older file */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    return fd < 0 ? NULL : fdopen(fd, "w");
}

static err_t write_key(const char *path, EVP_PKEY *key, struct errmsg *msg)
{
    FILE *file = create(path, 0600);
    bool good = file != NULL && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1;
    int number = errno;
    good = (file == NULL || fclose(file) == 0) && good;
    errno = number;
    return good ? ERR_OK : err_set(msg, ERR_IO, "write %s: %m", path);
}

static err_t write_certificate(const char *path, X509 *certificate, struct errmsg *msg)
{
    FILE *file = create(path, 0644);
    bool good = file != NULL && PEM_write_X509(file, certificate) == 1;
    int number = errno;
    good = (file == NULL || fclose(file) == 0) && good;
    errno = number;
    return good ? ERR_OK : err_set(msg, ERR_IO, "write %s: %m", path);
}

err_t tls_certificate_write(
    const char *domain, const char *certificate_path, const char *key_path, struct errmsg *msg)
{
    if (domain[0] == '\0' || strlen(domain) >= 64 || strpbrk(domain, ", \t:*") != NULL) {
        return err_set(msg, ERR_INVALID, "\"%.80s\" is not a domain for a certificate", domain);
    }
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    err_t err = ERR_OK;
    if (key == NULL || certificate == NULL || !fill(certificate, key, domain)) {
        err = err_set(msg, ERR_FAILED, "make a certificate for %s", domain);
    }
    err = err != ERR_OK ? err : write_key(key_path, key, msg);
    err = err != ERR_OK ? err : write_certificate(certificate_path, certificate, msg);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return err;
}
