/*
 * What a client of the gateway sends before anybody knows who it is: start-up packets, messages of
 * the log-in, both halves of SCRAM, verifiers, tokens, host names. The first byte says which.
 */
#include <stdio.h>

#include "common/auth/auth.h"
#include "common/auth/scram.h"
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/wire/codec.h"
#include "control/gateway/address.h"
#include "control/gateway/pg_wire.h"
#include "tests/fuzz/fuzz.h"

#define VERIFIER                                                                                   \
    "SCRAM-SHA-256$1:c2FsdHNhbHRzYWx0c2FsdA==$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=:"       \
    "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="

/* Whatever comes in one piece or byte by byte: no more is taken than is there. */
static void try_startup(struct bytes in)
{
    struct pg_startup startup;
    struct errmsg msg;
    size_t taken = 0;
    if (pg_startup_parse(in, &startup, &taken, &msg) != ERR_OK || taken == 0) {
        return;
    }
    ASSERT(taken <= in.size && taken <= PG_STARTUP_MAX);
    if (startup.kind != PG_STARTUP_SESSION) {
        return;
    }
    const char *name = NULL;
    const char *value = NULL;
    size_t at = 0;
    size_t count = 0;
    struct buf reply = {0};
    while (pg_startup_next(&startup, &at, &name, &value)) {
        ASSERT(at <= startup.parameters.size && name[0] != '\0');
        ASSERT(pg_startup_parameter(&startup, name) != NULL && value != NULL);
        count++;
    }
    ASSERT(count <= PG_STARTUP_MAX / 3);
    if (pg_startup_wants_negotiation(&startup)) {
        pg_put_negotiation(&reply, &startup);
        struct pg_message message;
        err_t err = pg_message_parse(buf_view(&reply), PG_STARTUP_MAX * 2, &message, &msg);
        ASSERT(err == ERR_OK && message.size == reply.size);
    }
    buf_deinit(&reply);
}

static void try_messages(struct bytes in)
{
    struct pg_message message = {0};
    struct errmsg msg;
    char code[6];
    char text[100];
    while (pg_message_parse(in, PG_AUTH_MAX, &message, &msg) == ERR_OK && message.size > 0) {
        ASSERT(message.size <= in.size && message.body.size + PG_HEADER_SIZE == message.size);
        pg_error_fields(message.body, code, text, sizeof(text));
        ASSERT(memchr(code, '\0', sizeof(code)) != NULL);
        ASSERT(memchr(text, '\0', sizeof(text)) != NULL);
        in = bytes_of(in.data + message.size, in.size - message.size);
        message.size = 0;
    }
}

/* The next text of a script: its length in a byte or, when that is 255, everything. */
static struct bytes next_text(struct reader *in)
{
    size_t size = get_u8(in);
    size = size == 255 || size > in->left ? in->left : size;
    struct bytes text = bytes_of(in->next, size);
    in->next += size;
    in->left -= size;
    return text;
}

static void try_server(struct bytes script, bool plus)
{
    static const uint8_t digest[32] = {1};
    struct scram_verifier verifier;
    struct errmsg msg;
    struct buf reply = {0};
    struct reader in = reader_of(script);
    err_t err = scram_verifier_parse(VERIFIER, &verifier, &msg);
    ASSERT(err == ERR_OK);
    struct scram_server server = {
        .verifier = &verifier,
        .binding = bytes_of(digest, sizeof(digest)),
        .plus = plus,
    };
    for (int i = 0; i < 2 && err == ERR_OK; i++) {
        err = scram_server_step(&server, next_text(&in), &reply, &msg);
        ASSERT(reply.size <= (size_t)2 * SCRAM_TEXT_MAX);
    }
    ASSERT(err != ERR_OK); /* nobody knows a password that has these keys */
    buf_deinit(&reply);
}

static void try_client(struct bytes script)
{
    struct scram_verifier verifier;
    struct errmsg msg;
    struct buf first = {0};
    struct buf final = {0};
    struct reader in = reader_of(script);
    err_t err = scram_verifier_parse(VERIFIER, &verifier, &msg);
    ASSERT(err == ERR_OK);
    struct scram_client client = {.verifier = &verifier};
    scram_client_first(&client, &first);
    if (scram_client_final(&client, next_text(&in), &final, &msg) == ERR_OK) {
        err_ignore(scram_client_check(&client, next_text(&in), &msg), "only that it returns");
    }
    buf_deinit(&first);
    buf_deinit(&final);
}

/* A server name and, behind the first blank, the options of a start-up packet. */
static void try_address(const char *line)
{
    struct address address;
    struct errmsg msg;
    struct buf rest = {0};
    char name[300];
    const char *options = strchr(line, ' ');
    size_t size = options != NULL ? (size_t)(options - line) : strlen(line);
    (void)snprintf(name, sizeof(name), "%.*s", (int)MIN_OF(size, sizeof(name) - 1), line);
    if (address_of(name, options != NULL ? options + 1 : NULL, &address, &rest, &msg) == ERR_OK) {
        ASSERT(memchr(address.name, '\0', sizeof(address.name)) != NULL);
        ASSERT(IMPLIES(options == NULL, rest.size == 0));
    }
    buf_deinit(&rest);
}

static void try_texts(struct bytes in)
{
    struct scram_verifier verifier;
    struct errmsg msg;
    struct buf text = {0};
    buf_append(&text, in.data, in.size);
    const char *line = buf_cstr(&text);
    try_address(line);
    if (scram_verifier_parse(line, &verifier, &msg) == ERR_OK) {
        ASSERT(verifier.salt_size <= SCRAM_SALT_MAX && verifier.iterations > 0);
    }
    err_t err = auth_check("secret", in, AUTH_PAGES, (struct tenant_id){0}, &msg);
    ASSERT(IMPLIES(err == ERR_OK, in.size > 0));
    buf_deinit(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    uint8_t *copy = mem_dup(data + 1, size - 1); /* of exactly this size: sanitizers see its end */
    struct bytes in = bytes_of(copy, size - 1);
    switch (data[0] % 6) {
    case 0: try_startup(in); break;
    case 1: try_messages(in); break;
    case 2:
    case 3: try_server(in, data[0] % 2 != 0); break;
    case 4: try_client(in); break;
    default: try_texts(in);
    }
    mem_free(copy);
    return 0;
}
