#include "common/base/id.h"

#include <string.h>

#include "common/base/parse.h"

static const uint8_t none[ID_SIZE];

err_t tenant_id_parse(const char *text, struct tenant_id *ret_id, struct errmsg *msg)
{
    err_t err = parse_hex(text, ret_id->bytes, ID_SIZE, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "tenant id");
}

err_t timeline_id_parse(const char *text, struct timeline_id *ret_id, struct errmsg *msg)
{
    err_t err = parse_hex(text, ret_id->bytes, ID_SIZE, msg);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "timeline id");
}

struct id_text tenant_id_text(struct tenant_id id)
{
    struct id_text text;
    format_hex(id.bytes, ID_SIZE, text.text);
    return text;
}

struct id_text timeline_id_text(struct timeline_id id)
{
    struct id_text text;
    format_hex(id.bytes, ID_SIZE, text.text);
    return text;
}

bool tenant_id_equal(struct tenant_id a, struct tenant_id b)
{
    return memcmp(a.bytes, b.bytes, ID_SIZE) == 0;
}

bool timeline_id_equal(struct timeline_id a, struct timeline_id b)
{
    return memcmp(a.bytes, b.bytes, ID_SIZE) == 0;
}

bool tenant_id_is_none(struct tenant_id id)
{
    return memcmp(id.bytes, none, ID_SIZE) == 0;
}

bool timeline_id_is_none(struct timeline_id id)
{
    return memcmp(id.bytes, none, ID_SIZE) == 0;
}
