#include "control/gateway/server_login.h"

#include "common/base/prng.h"

static void put_sasl(bool initial, struct bytes data, struct buf *reply)
{
    struct buf body = {0};
    if (initial) {
        buf_append(&body, SCRAM_SHA_256, sizeof SCRAM_SHA_256);
        pg_put_u32(&body, (uint32_t)data.size);
    }
    buf_append(&body, data.data, data.size);
    pg_put(reply, PG_PASSWORD, buf_view(&body));
    buf_deinit(&body);
}

static void begin(struct server_login *login, struct buf *reply)
{
    struct buf data = {0};
    struct scram_client *scram = &login->scram;
    *scram = (struct scram_client){.verifier = &login->verifier};
    memcpy(scram->client_key, login->client_key, sizeof scram->client_key);
    prng_secure(scram->nonce, sizeof scram->nonce);
    scram_client_first(scram, &data);
    put_sasl(true, buf_view(&data), reply);
    buf_deinit(&data);
}

static err_t prove(
    struct server_login *login, struct bytes challenge, struct buf *reply, struct errmsg *msg)
{
    struct buf data = {0};
    if (login->scram.verifier == NULL) {
        return err_set(msg, ERR_CORRUPT, "the compute sent a challenge that nobody asked for");
    }
    err_t err = scram_client_final(&login->scram, challenge, &data, msg);
    if (err == ERR_OK) {
        put_sasl(false, buf_view(&data), reply);
    }
    buf_deinit(&data);
    return err;
}

err_t server_login_step(
    struct server_login *login,
    struct bytes body,
    struct buf *reply,
    bool *ret_done,
    struct errmsg *msg)
{
    *ret_done = false;
    if (body.size < 4) {
        return err_set(msg, ERR_CORRUPT, "the compute sent a malformed authentication request");
    }
    uint32_t code = pg_get_u32(body.data);
    struct bytes rest = bytes_of(body.data + 4, body.size - 4);
    switch (code) {
    case PG_AUTH_OK: *ret_done = true; return ERR_OK;
    case PG_AUTH_SASL: begin(login, reply); return ERR_OK;
    case PG_AUTH_SASL_CONTINUE: return prove(login, rest, reply, msg);
    case PG_AUTH_SASL_FINAL: return scram_client_check(&login->scram, rest, msg);
    default:
        return err_set(msg, ERR_UNSUPPORTED, "the compute asks for authentication method %u", code);
    }
}
