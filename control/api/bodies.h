/*
 * bodies.h - what a request may say in its body, route by route: one table for the check and for
 * the OpenAPI file.
 *
 * A handler gets a copy that holds what the table has and nothing else. So a member that it reads
 * is described, or it never arrives; one that is described has the type that is written there; and
 * what we do not know is ignored, as clients expect. Threads: [any].
 */
#pragma once

#include "common/io/http_server.h"

enum body_type {
    BODY_STR,     /* at most `max` bytes, if it is not 0 */
    BODY_INT,     /* min to max, unless both are 0 */
    BODY_REAL,    /* the same */
    BODY_BOOL,    /* true or false */
    BODY_TIME,    /* RFC 3339 */
    BODY_LSN,     /* "0/16B3748" */
    BODY_ANY,     /* an object of people's own members, at most 64 KiB of JSON */
    BODY_OBJECT,  /* of `fields` */
    BODY_OBJECTS, /* an array of them, at most `max` */
    BODY_INTS,    /* an array of positive numbers */
    BODY_LIST,    /* of a query: "a,b", or again for each; at most `max` names, each a choice */
};

struct body_field {
    const char *name; /* NULL: the end of the table */
    enum body_type type;
    bool required; /* others may be null: as if they were not there, or cleared */
    int64_t min, max;
    const char *const *choices; /* of a string, or of each in a list; ends with NULL */
    const struct body_field *fields;
    const char *code; /* of the refusal of a value; NULL: "BAD_REQUEST" */
};

/* What one route may say. */
struct route_fields {
    const char *method, *path; /* as the route has them */
    const struct body_field *fields;
};

/* The fields of a route among `count` rows; an empty table where it has no row. */
const struct body_field *fields_of_route(
    const struct http_route *route, const struct route_fields *rows, size_t count);

/* The body of a route; an empty table: it has none. */
const struct body_field *body_of_route(const struct http_route *route);

/*
 * The known members of `body`. ERR_INVALID names the member that is missing or wrong, and
 * `ret_code` is for the answer; otherwise the copy is the caller's.
 */
NODISCARD err_t body_take(
    const struct body_field *fields,
    const struct doc *body,
    struct doc **ret_known,
    const char **ret_code,
    struct errmsg *msg);

/* As a JSON schema, the fields of what is nested left out, and the whole. */
struct doc *field_schema(const struct body_field *field);
struct doc *body_schema(const struct body_field *fields);
