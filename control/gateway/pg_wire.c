#include "control/gateway/pg_wire.h"

#include <stdio.h>

#include "common/base/str.h"

#define CODE_CANCEL    80877102u
#define CODE_TLS       80877103u
#define CODE_GSS       80877104u
#define MAJOR          3u
#define EXTENSION      "_pq_."
#define MESSAGE_MIN    4u
#define STARTUP_HEADER 8u

uint32_t pg_get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void store_u32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

void pg_put_u32(struct buf *to, uint32_t value)
{
    store_u32(buf_extend(to, sizeof value), value);
}

/* ---- start-up ---- */

/* Behind the text that begins at `at`; 0: it has no end. */
static size_t text_end(struct bytes bytes, size_t at)
{
    const uint8_t *end = at < bytes.size ? memchr(bytes.data + at, '\0', bytes.size - at) : NULL;
    return end == NULL ? 0 : (size_t)(end - bytes.data) + 1;
}

/* Pairs of texts, then one NUL, and nothing behind it. */
static err_t check_parameters(struct bytes parameters, struct errmsg *msg)
{
    size_t at = 0;
    bool good = true;
    while (good && at < parameters.size && parameters.data[at] != '\0') {
        size_t value_at = text_end(parameters, at);
        at = value_at == 0 ? 0 : text_end(parameters, value_at);
        good = at != 0;
    }
    if (!good || at + 1 != parameters.size) {
        return err_set(
            msg, ERR_INVALID, "invalid start-up packet: its parameters are not pairs of texts");
    }
    return ERR_OK;
}

static err_t parse_session(struct bytes packet, struct pg_startup *startup, struct errmsg *msg)
{
    uint32_t version = pg_get_u32(packet.data + 4);
    if (version >> 16 != MAJOR) {
        return err_set(
            msg, ERR_UNSUPPORTED, "unsupported frontend protocol %u.%u: this server speaks 3.0",
            version >> 16, version & 0xFFFF);
    }
    startup->kind = PG_STARTUP_SESSION;
    startup->minor = (uint16_t)version;
    startup->parameters = bytes_of(packet.data + STARTUP_HEADER, packet.size - STARTUP_HEADER);
    return check_parameters(startup->parameters, msg);
}

err_t pg_startup_parse(
    struct bytes bytes, struct pg_startup *ret_startup, size_t *ret_taken, struct errmsg *msg)
{
    struct pg_startup startup = {0};
    *ret_taken = 0;
    if (bytes.size < STARTUP_HEADER) {
        return ERR_OK;
    }
    uint32_t size = pg_get_u32(bytes.data);
    uint32_t code = pg_get_u32(bytes.data + 4);
    if (size < STARTUP_HEADER || size > PG_STARTUP_MAX) {
        return err_set(msg, ERR_INVALID, "invalid start-up packet: a size of %u bytes", size);
    }
    if (bytes.size < size) {
        return ERR_OK;
    }
    if (code == CODE_TLS || code == CODE_GSS) {
        startup.kind = code == CODE_TLS ? PG_STARTUP_TLS : PG_STARTUP_GSS;
        if (size != STARTUP_HEADER) {
            return err_set(
                msg, ERR_INVALID, "invalid start-up packet: a request for encryption of %u bytes",
                size);
        }
    } else if (code == CODE_CANCEL) {
        startup.kind = PG_STARTUP_CANCEL;
        if (size != STARTUP_HEADER + 8) {
            return err_set(
                msg, ERR_INVALID, "invalid start-up packet: a cancel request of %u bytes", size);
        }
        startup.cancel_pid = pg_get_u32(bytes.data + 8);
        startup.cancel_key = pg_get_u32(bytes.data + 12);
    } else {
        TRY(parse_session(bytes_of(bytes.data, size), &startup, msg));
    }
    *ret_startup = startup;
    *ret_taken = size;
    return ERR_OK;
}

bool pg_startup_next(
    const struct pg_startup *startup, size_t *at, const char **ret_name, const char **ret_value)
{
    const char *text = (const char *)startup->parameters.data;
    if (startup->parameters.size == 0 || text[*at] == '\0') {
        return false;
    }
    *ret_name = text + *at;
    *at += strlen(text + *at) + 1;
    *ret_value = text + *at;
    *at += strlen(text + *at) + 1;
    return true;
}

const char *pg_startup_parameter(const struct pg_startup *startup, const char *name)
{
    size_t at = 0;
    const char *found = NULL;
    const char *key = NULL;
    const char *value = NULL;
    while (pg_startup_next(startup, &at, &key, &value)) {
        if (strcmp(key, name) == 0) {
            found = value; /* the last one counts, as in Postgres */
        }
    }
    return found;
}

/* ---- messages ---- */

err_t pg_message_parse(
    struct bytes bytes, size_t max, struct pg_message *ret_message, struct errmsg *msg)
{
    *ret_message = (struct pg_message){0};
    if (bytes.size < PG_HEADER_SIZE) {
        return ERR_OK;
    }
    uint32_t size = pg_get_u32(bytes.data + 1);
    if (size < MESSAGE_MIN || size > max) {
        return err_set(
            msg, ERR_INVALID, "a message of type 0x%02x and %u bytes", bytes.data[0], size);
    }
    if (bytes.size - 1 < size) {
        return ERR_OK;
    }
    ret_message->type = bytes.data[0];
    ret_message->body = bytes_of(bytes.data + PG_HEADER_SIZE, size - MESSAGE_MIN);
    ret_message->size = 1 + (size_t)size;
    return ERR_OK;
}

bool pg_head_see(struct bytes bytes, struct pg_head *head)
{
    if (bytes.size < PG_HEADER_SIZE) {
        return false;
    }
    head->type = bytes.data[0];
    head->size = 1 + (size_t)pg_get_u32(bytes.data + 1);
    head->seen = bytes_of(bytes.data, MIN_OF(bytes.size, head->size));
    return true;
}

bool pg_head_is_whole(const struct pg_head *head)
{
    return head->seen.size == head->size;
}

const char *pg_head_text(const struct pg_head *head, size_t at, size_t *ret_next)
{
    const uint8_t *end =
        at >= head->seen.size ? NULL : memchr(head->seen.data + at, '\0', head->seen.size - at);
    if (end == NULL) {
        return NULL;
    }
    *ret_next = (size_t)(end - head->seen.data) + 1;
    return (const char *)head->seen.data + at;
}

void pg_put(struct buf *to, uint8_t type, struct bytes body)
{
    *buf_extend(to, 1) = type;
    pg_put_u32(to, (uint32_t)(MESSAGE_MIN + body.size));
    buf_append(to, body.data, body.size);
}

static size_t begin(struct buf *to, uint8_t type)
{
    size_t at = to->size;
    pg_put(to, type, bytes_of(NULL, 0));
    return at;
}

static void end(struct buf *to, size_t at)
{
    store_u32(to->data + at + 1, (uint32_t)(to->size - at - 1));
}

static void put_text(struct buf *to, const char *text)
{
    buf_append(to, text, strlen(text) + 1);
}

static void put_field(struct buf *to, char field, const char *text)
{
    *buf_extend(to, 1) = (uint8_t)field;
    put_text(to, text);
}

static void put_error(
    struct buf *to, const char *severity, const char *code, const char *message, const char *hint)
{
    size_t at = begin(to, PG_ERROR_RESPONSE);
    put_field(to, 'S', severity);
    put_field(to, 'V', severity);
    put_field(to, 'C', code);
    put_field(to, 'M', message);
    if (hint != NULL) {
        put_field(to, 'H', hint);
    }
    *buf_extend(to, 1) = 0;
    end(to, at);
}

void pg_put_fatal(struct buf *to, const char *code, const char *message, const char *hint)
{
    put_error(to, "FATAL", code, message, hint);
}

void pg_put_error(struct buf *to, const char *code, const char *message)
{
    put_error(to, "ERROR", code, message, NULL);
}

bool pg_parameter_parse(struct bytes body, const char **ret_name, const char **ret_value)
{
    const char *name = (const char *)body.data;
    size_t value_at = body.size == 0 ? 1 : strnlen(name, body.size) + 1;
    if (value_at >= body.size ||
        value_at + strnlen(name + value_at, body.size - value_at) + 1 != body.size) {
        return false;
    }
    *ret_name = name;
    *ret_value = name + value_at;
    return true;
}

void pg_put_parameter(struct buf *to, const char *name, const char *value)
{
    size_t at = begin(to, PG_PARAMETER_STATUS);
    put_text(to, name);
    put_text(to, value);
    end(to, at);
}

void pg_put_authentication(struct buf *to, enum pg_authentication code, struct bytes rest)
{
    size_t at = begin(to, PG_AUTHENTICATION);
    pg_put_u32(to, code);
    buf_append(to, rest.data, rest.size);
    end(to, at);
}

void pg_put_key_data(struct buf *to, uint32_t pid, uint32_t key)
{
    size_t at = begin(to, PG_BACKEND_KEY_DATA);
    pg_put_u32(to, pid);
    pg_put_u32(to, key);
    end(to, at);
}

void pg_put_tls_request(struct buf *to)
{
    pg_put_u32(to, STARTUP_HEADER);
    pg_put_u32(to, CODE_TLS);
}

void pg_put_cancel(struct buf *to, uint32_t pid, uint32_t key)
{
    pg_put_u32(to, 16);
    pg_put_u32(to, CODE_CANCEL);
    pg_put_u32(to, pid);
    pg_put_u32(to, key);
}

bool pg_startup_wants_negotiation(const struct pg_startup *startup)
{
    size_t at = 0;
    const char *name = NULL;
    const char *value = NULL;
    bool wants = startup->minor > 0;
    while (pg_startup_next(startup, &at, &name, &value)) {
        wants = wants || str_starts_with(name, EXTENSION);
    }
    return wants;
}

void pg_put_negotiation(struct buf *to, const struct pg_startup *startup)
{
    size_t message_at = begin(to, PG_NEGOTIATE_PROTOCOL);
    const char *name = NULL;
    const char *value = NULL;
    uint32_t count = 0;
    pg_put_u32(to, MAJOR << 16);
    size_t count_at = to->size;
    pg_put_u32(to, 0);
    for (size_t at = 0; pg_startup_next(startup, &at, &name, &value);) {
        if (str_starts_with(name, EXTENSION)) {
            put_text(to, name);
            count++;
        }
    }
    store_u32(to->data + count_at, count);
    end(to, message_at);
}

void pg_error_fields(struct bytes body, char code[6], char *text, size_t text_size)
{
    size_t at = 0;
    code[0] = text[0] = '\0';
    while (at < body.size && body.data[at] != '\0') {
        const char *value = (const char *)body.data + at + 1;
        size_t size = strnlen(value, body.size - at - 1);
        if (body.data[at] == 'C') {
            (void)snprintf(code, 6, "%.*s", (int)size, value);
        } else if (body.data[at] == 'M') {
            (void)snprintf(text, text_size, "%.*s", (int)size, value);
        }
        at += size + 2;
    }
}
