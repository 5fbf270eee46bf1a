/*
 * http_tls.c - certificate and key of an HTTP server, and its libmicrohttpd started with them.
 */
#include <errno.h>

#include "common/io/file.h"
#include "common/io/http_private.h"

#define PEM_SIZE_MAX (1 * MIB)
#define PRIORITIES   "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" /* as GnuTLS says it */

bool http_options_have_tls(const struct http_options *options)
{
    return (options->tls_certificate != NULL && options->tls_certificate[0] != '\0') ||
           (options->tls_key != NULL && options->tls_key[0] != '\0');
}

static err_t read_pem(
    const char *what, const char *path, const char *label, struct buf *to, struct errmsg *msg)
{
    if (path == NULL || path[0] == '\0') {
        return err_set(msg, ERR_INVALID, "TLS needs certificate and key: the %s is missing", what);
    }
    TRY(file_read_all(path, PEM_SIZE_MAX, to, msg));
    if (strstr(buf_cstr(to), label) == NULL) {
        return err_set(msg, ERR_INVALID, "%s: no %s in PEM", path, what);
    }
    return ERR_OK;
}

err_t http_tls_load(const struct http_options *options, struct http_tls *tls, struct errmsg *msg)
{
    if (!http_options_have_tls(options)) {
        return ERR_OK;
    }
    if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES) {
        return err_set(msg, ERR_UNSUPPORTED, "this system's libmicrohttpd has no TLS");
    }
    TRY(read_pem(
        "certificate", options->tls_certificate, "BEGIN CERTIFICATE", &tls->certificate, msg));
    TRY(read_pem("key", options->tls_key, "PRIVATE KEY", &tls->key, msg));
    tls->options[0] = (struct MHD_OptionItem){
        MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)buf_cstr(&tls->certificate)};
    tls->options[1] = (struct MHD_OptionItem){
        MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)buf_cstr(&tls->key)};
    tls->options[2] =
        (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)PRIORITIES};
    return ERR_OK;
}

void http_tls_deinit(struct http_tls *tls)
{
    buf_deinit(&tls->certificate);
    if (tls->key.size > 0) {
        explicit_bzero(tls->key.data, tls->key.size);
    }
    buf_deinit(&tls->key);
}
