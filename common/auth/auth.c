/*
 * auth.c - one shared secret, compared without telling how much of it was right.
 */
#include "common/auth/auth.h"

static bool equal_in_constant_time(struct bytes a, struct bytes b)
{
    /* The length of the secret is not secret; its bytes are. */
    uint8_t difference = a.size == b.size ? 0 : 1;
    for (size_t i = 0; i < a.size; i++) {
        difference |= (uint8_t)(a.data[i] ^ (b.size > 0 ? b.data[i % b.size] : 0));
    }
    return difference == 0;
}

err_t auth_check(
    const char *secret,
    struct bytes token,
    enum auth_scope scope,
    struct tenant_id tenant,
    struct errmsg *msg)
{
    static const char *const scopes[] = {"read pages", "write WAL", "read the WAL feed", "manage"};
    if (secret == NULL || secret[0] == '\0' ||
        equal_in_constant_time(bytes_of_str(secret), token)) {
        return ERR_OK;
    }
    const char *what = token.size == 0 ? "no token was given" : "the token is not valid";
    if (tenant_id_is_none(tenant)) {
        return err_set(msg, ERR_DENIED, "not allowed to %s: %s", scopes[scope], what);
    }
    return err_set(
        msg, ERR_DENIED, "not allowed to %s of tenant %s: %s", scopes[scope],
        tenant_id_text(tenant).text, what);
}
