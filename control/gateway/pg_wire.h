/*
 * pg_wire.h - Postgres' frontend/backend protocol 3, as far as a gateway reads and writes it
 * ("Message Formats" in Postgres' manual; src/include/libpq/pqcomm.h).
 *
 * Pure. Integers on this wire are big-endian. A message after the start-up is a type byte and a u32
 * size that counts itself and what follows.
 */
#pragma once

#include "common/base/bytes.h"

#define PG_STARTUP_MAX     10000 /* bytes, as in Postgres */
#define PG_AUTH_MAX        65535 /* bytes of a message before the log-in, as in Postgres */
#define PG_HEADER_SIZE     5
#define PG_NAME_SIZE       64 /* of a role or database, with its NUL */
#define PG_CANCEL_KEY_SIZE 4

/* Types of messages; the direction tells equal letters apart. */
enum pg_message_type {
    /* of the backend */
    PG_AUTHENTICATION = 'R',
    PG_BACKEND_KEY_DATA = 'K',
    PG_ERROR_RESPONSE = 'E',
    PG_NOTICE_RESPONSE = 'N',
    PG_PARAMETER_STATUS = 'S',
    PG_READY_FOR_QUERY = 'Z',
    PG_NEGOTIATE_PROTOCOL = 'v',
    PG_PARSE_COMPLETE = '1',
    PG_BIND_COMPLETE = '2',
    PG_CLOSE_COMPLETE = '3',
    PG_ROW_DESCRIPTION = 'T',
    PG_NO_DATA = 'n',
    PG_COMMAND_COMPLETE = 'C',
    PG_EMPTY_QUERY = 'I',
    PG_SUSPENDED = 's',
    PG_COPY_IN = 'G',

    /* of the frontend */
    PG_PASSWORD = 'p', /* also SASLInitialResponse and SASLResponse */
    PG_QUERY = 'Q',
    PG_FUNCTION_CALL = 'F',
    PG_PARSE = 'P',
    PG_BIND = 'B',
    PG_DESCRIBE = 'D',
    PG_EXECUTE = 'E',
    PG_CLOSE = 'C',
    PG_SYNC = 'S',
    PG_FLUSH = 'H',
    PG_TERMINATE = 'X',
    PG_COPY_DONE = 'c',
    PG_COPY_FAIL = 'f',
};

/* Codes of an authentication message. */
enum pg_authentication {
    PG_AUTH_OK = 0,
    PG_AUTH_SASL = 10,
    PG_AUTH_SASL_CONTINUE = 11,
    PG_AUTH_SASL_FINAL = 12,
};

/* ---- the first packet of a connection, which has no type byte ---- */

enum pg_startup_kind { PG_STARTUP_TLS, PG_STARTUP_GSS, PG_STARTUP_CANCEL, PG_STARTUP_SESSION };

struct pg_startup {
    enum pg_startup_kind kind;
    uint16_t minor;          /* session: of protocol 3 */
    struct bytes parameters; /* session: NAME NUL VALUE NUL ..., a view into the packet */
    uint32_t cancel_pid, cancel_key;
};

/*
 * `*ret_taken` 0: more bytes are needed. ERR_UNSUPPORTED: another major version; ERR_INVALID: not
 * such a packet.
 */
NODISCARD err_t pg_startup_parse(
    struct bytes bytes, struct pg_startup *ret_startup, size_t *ret_taken, struct errmsg *msg);

/* NULL: it is not there. */
const char *pg_startup_parameter(const struct pg_startup *startup, const char *name);

/* Iterate: `at` begins at 0; false after the last. */
bool pg_startup_next(
    const struct pg_startup *startup, size_t *at, const char **ret_name, const char **ret_value);

/* ---- messages ---- */

struct pg_message {
    uint8_t type;
    struct bytes body; /* a view */
    size_t size;       /* of all of it */
};

/*
 * `ret_message->size` 0: more bytes are needed. ERR_INVALID: a size that cannot be, or above `max`.
 */
NODISCARD err_t pg_message_parse(
    struct bytes bytes, size_t max, struct pg_message *ret_message, struct errmsg *msg);

/* The front of a message of which the rest may not be here. */
struct pg_head {
    uint8_t type;
    size_t size;       /* of all of the message */
    struct bytes seen; /* what is here of it, its header included */
};

/* False: more bytes are needed. The size may be one that cannot be. */
bool pg_head_see(struct bytes bytes, struct pg_head *head);
bool pg_head_is_whole(const struct pg_head *head);
/*
 * The text that begins `at` bytes into it; NULL: its end is not here. `ret_next`: behind its NUL.
 */
const char *pg_head_text(const struct pg_head *head, size_t at, size_t *ret_next);

/* The body of a ParameterStatus: name, value, and nothing else. False: malformed. */
bool pg_parameter_parse(struct bytes body, const char **ret_name, const char **ret_value);

void pg_put(struct buf *to, uint8_t type, struct bytes body);
void pg_put_u32(struct buf *to, uint32_t value);
uint32_t pg_get_u32(const uint8_t *at);

/* ErrorResponse with severity FATAL. `code` is an SQLSTATE; `hint` may be NULL. */
void pg_put_fatal(struct buf *to, const char *code, const char *message, const char *hint);
/* The same with severity ERROR. */
void pg_put_error(struct buf *to, const char *code, const char *message);
void pg_put_parameter(struct buf *to, const char *name, const char *value);
void pg_put_authentication(struct buf *to, enum pg_authentication code, struct bytes rest);
void pg_put_key_data(struct buf *to, uint32_t pid, uint32_t key);
void pg_put_tls_request(struct buf *to);
void pg_put_cancel(struct buf *to, uint32_t pid, uint32_t key);
/*
 * "We speak 3.0, and these options are not known": answers a newer minor version or _pq_. options.
 */
void pg_put_negotiation(struct buf *to, const struct pg_startup *startup);
bool pg_startup_wants_negotiation(const struct pg_startup *startup);

/* The SQLSTATE and text of an ErrorResponse's body; "" when they are not there. */
void pg_error_fields(struct bytes body, char code[6], char *text, size_t text_size);
