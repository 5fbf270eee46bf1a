#include "control/gateway/upstream.h"

#include "common/base/mem.h"
#include "control/gateway/pg_wire.h"

err_t upstream_tls_create(
    const char *mode,
    const char *authorities_path,
    struct upstream_tls **ret_tls,
    struct errmsg *msg)
{
    bool check_name = strcmp(mode, "verify-full") == 0;
    bool verify = check_name || strcmp(mode, "verify-ca") == 0;
    struct tls_context *context = NULL;
    *ret_tls = NULL;
    if (strcmp(mode, "disable") == 0) {
        return ERR_OK;
    }
    if (!verify && strcmp(mode, "require") != 0) {
        return err_set(
            msg, ERR_INVALID,
            "setting compute_sslmode: expected disable, require, verify-ca or verify-full");
    }
    if (verify && authorities_path[0] == '\0') {
        return err_set(msg, ERR_INVALID, "setting compute_tls_authorities: %s needs it", mode);
    }
    TRY(tls_client_context_create(verify ? authorities_path : NULL, check_name, &context, msg));
    *ret_tls = MEM_NEW(struct upstream_tls);
    (*ret_tls)->context = context;
    return ERR_OK;
}

void upstream_tls_destroy(struct upstream_tls *tls)
{
    if (tls != NULL) {
        tls_context_destroy(tls->context);
        mem_free(tls);
    }
}

bool upstream_is_ready(const struct upstream_tls *tls, struct stream *stream)
{
    if (tls != NULL) {
        pg_put_tls_request(stream_send_buffer(stream));
    }
    return tls == NULL;
}

/* Bytes behind the answer would be taken for part of the encrypted session (CVE-2021-23222). */
err_t upstream_take_answer(
    const struct upstream_tls *tls,
    struct stream *stream,
    const char *host,
    struct bytes bytes,
    struct errmsg *msg)
{
    if (bytes.data[0] != 'S') {
        return err_set(
            msg, ERR_UNSUPPORTED, "the compute does not speak TLS, which compute_sslmode asks for");
    }
    if (bytes.size > 1) {
        return err_set(msg, ERR_CORRUPT, "unencrypted data of the compute after its TLS answer");
    }
    stream_start_client_tls(stream, tls->context, host);
    return ERR_OK;
}
