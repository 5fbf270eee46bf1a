/*
 * id.h - identities. Distinct struct types, so that a tenant is never passed as a timeline.
 *
 * Both are 128 random bits, written as 32 lower-case hex digits; all zero is "none".
 */
#pragma once

#include "common/base/err.h"

#define ID_SIZE      16
#define ID_TEXT_SIZE 33

struct tenant_id {
    uint8_t bytes[ID_SIZE];
};

struct timeline_id {
    uint8_t bytes[ID_SIZE];
};

struct id_text {
    char text[ID_TEXT_SIZE];
};

NODISCARD err_t tenant_id_parse(const char *text, struct tenant_id *ret_id, struct errmsg *msg);
NODISCARD err_t timeline_id_parse(const char *text, struct timeline_id *ret_id, struct errmsg *msg);

/* log_info("tenant %s", tenant_id_text(id).text) */
struct id_text tenant_id_text(struct tenant_id id);
struct id_text timeline_id_text(struct timeline_id id);

bool tenant_id_equal(struct tenant_id a, struct tenant_id b);
bool timeline_id_equal(struct timeline_id a, struct timeline_id b);
bool tenant_id_is_none(struct tenant_id id);
bool timeline_id_is_none(struct timeline_id id);
