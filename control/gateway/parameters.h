/*
 * parameters.h - the settings of a session that Postgres reports when they change: what a client
 * wants them to be, and what they are on a server connection. Pure.
 *
 * When another client gets the connection, those that differ are set before its first message. A
 * setting that the server does not report (search_path before Postgres 18) is not followed.
 */
#pragma once

#include "common/base/bytes.h"

#define PARAMETERS(X)                                                                              \
    X(application_name)                                                                            \
    X(client_encoding)                                                                             \
    X(DateStyle)                                                                                   \
    X(default_transaction_read_only)                                                               \
    X(IntervalStyle)                                                                               \
    X(search_path)                                                                                 \
    X(standard_conforming_strings)                                                                 \
    X(TimeZone)

enum parameter {
#define PARAMETER_INDEX(name) PARAMETER_##name,
    PARAMETERS(PARAMETER_INDEX)
#undef PARAMETER_INDEX
        PARAMETER_COUNT
};

struct parameters {
    char *values[PARAMETER_COUNT]; /* NULL: not known */
};

void parameters_deinit(struct parameters *parameters);
const char *parameter_name(enum parameter parameter);
/* PARAMETER_COUNT: not one that is followed. Postgres does not mind the case of names. */
enum parameter parameter_find(const char *name);

void parameters_set(struct parameters *parameters, enum parameter parameter, const char *value);
/* Everything that `parameters` does not know yet, from `defaults`. */
void parameters_complete(struct parameters *parameters, const struct parameters *defaults);

/*
 * Append the SQL that turns what `server` has into what `client` wants; nothing when they agree.
 * Values are quoted so that they stay values whatever the other settings are.
 */
void parameters_put_changes(
    const struct parameters *client, const struct parameters *server, struct buf *sql);

/*
 * Append, in a form that is only compared, those that decide what a statement means when it is
 * prepared: two texts with others are two statements.
 */
void parameters_put_key(const struct parameters *parameters, struct buf *key);

/* May a client choose this value in its start-up packet? Printable ASCII of at most 1,000 bytes. */
bool parameter_value_is_sane(const char *value);
