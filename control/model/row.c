#include "control/model/row.h"

#include "common/base/assert.h"
#include "common/base/parse.h"
#include "common/base/str.h"

const char *const project_state_names[] = {"active", "deleting", "deleted", NULL};
const char *const branch_state_names[] = {"init", "ready", "deleting", "deleted", NULL};
const char *const endpoint_type_names[] = {"read_write", "read_only", NULL};
const char *const endpoint_wanted_names[] = {"active", "idle", "deleting", "restarting", NULL};
const char *const operation_action_names[] = {
    "create_timeline", "create_branch",      "start_compute",
    "suspend_compute", "delete_timeline",    "tenant_detach",
    "apply_config",    "change_safekeepers", NULL};
const char *const operation_status_names[] = {"running", "finished", "failed", "cancelled", NULL};

const char *const usage_granularity_names[] = {"hourly", "daily", "monthly", NULL};

const char *const stored_names[] = {"root", "child", "restore", "snapshot", "synthetic", "logical"};
static_assert(ARRAY_LEN(stored_names) == STORED_KINDS, "a name each");

enum field_type {
    FIELD_id,
    FIELD_text,
    FIELD_long,
    FIELD_u64,
    FIELD_bool,
    FIELD_lsn,
    FIELD_time,
    FIELD_tenant,
    FIELD_timeline,
    FIELD_choice,
    FIELD_doc,
    FIELD_nodes,
    FIELD_stored,
};

struct field {
    const char *name;
    enum field_type type;
    size_t offset, size;
    const char *const *names;
};

struct row_spec {
    const char *name;
    size_t size;
    const struct field *fields;
    size_t count;
};

#define FIELD(type_, name_, names_)                                                                \
    {.name = #name_,                                                                               \
     .type = FIELD_##type_,                                                                        \
     .offset = offsetof(struct FIELD_OWNER, name_),                                                \
     .size = sizeof(row_##type_##_t),                                                              \
     .names = (names_)},

#define FIELD_OWNER project_row
static const struct field project_fields[] = {PROJECT_FIELDS(FIELD)};
#undef FIELD_OWNER
#define FIELD_OWNER branch_row
static const struct field branch_fields[] = {BRANCH_FIELDS(FIELD)};
#undef FIELD_OWNER
#define FIELD_OWNER endpoint_row
static const struct field endpoint_fields[] = {ENDPOINT_FIELDS(FIELD)};
#undef FIELD_OWNER
#define FIELD_OWNER operation_row
static const struct field operation_fields[] = {OPERATION_FIELDS(FIELD)};
#undef FIELD_OWNER
#define FIELD_OWNER image_row
static const struct field image_fields[] = {IMAGE_FIELDS(FIELD)};
#undef FIELD_OWNER
#define FIELD_OWNER key_row
static const struct field key_fields[] = {KEY_FIELDS(FIELD)};
#undef FIELD_OWNER
#define FIELD_OWNER usage_row
static const struct field usage_fields[] = {USAGE_FIELDS(FIELD)};
#undef FIELD_OWNER
#define FIELD_OWNER reply_row
static const struct field reply_fields[] = {REPLY_FIELDS(FIELD)};
#undef FIELD_OWNER
#define FIELD_OWNER host_row
static const struct field host_fields[] = {HOST_FIELDS(FIELD)};
#undef FIELD_OWNER

#define SPEC(kind)                                                                                 \
    {                                                                                              \
#kind, sizeof(struct kind##_row), kind##_fields, ARRAY_LEN(kind##_fields)                  \
    }
static const struct row_spec specs[ROW_KIND_COUNT] = {
    [ROW_IMAGE] = SPEC(image),       [ROW_PROJECT] = SPEC(project),     [ROW_BRANCH] = SPEC(branch),
    [ROW_ENDPOINT] = SPEC(endpoint), [ROW_OPERATION] = SPEC(operation), [ROW_KEY] = SPEC(key),
    [ROW_REPLY] = SPEC(reply),       [ROW_USAGE] = SPEC(usage),         [ROW_HOST] = SPEC(host),
};

bool stored_is_nothing(const struct stored *stored)
{
    for (size_t i = 0; i < STORED_KINDS; i++) {
        if (stored->of[i] != 0) {
            return false;
        }
    }
    return true;
}

bool node_set_has(const struct node_set *set, uint64_t id)
{
    for (size_t i = 0; i < set->count; i++) {
        if (set->ids[i] == id) {
            return true;
        }
    }
    return false;
}

const char *row_kind_name(enum row_kind kind)
{
    ASSERT(kind < ROW_KIND_COUNT);
    return specs[kind].name;
}

size_t row_size(enum row_kind kind)
{
    ASSERT(kind < ROW_KIND_COUNT);
    return specs[kind].size;
}

static struct doc *encode_nodes(const struct node_set *set)
{
    struct doc *array = doc_array();
    for (size_t i = 0; i < set->count; i++) {
        doc_push(array, doc_int((int64_t)set->ids[i]));
    }
    return array;
}

static struct doc *encode_stored(const struct stored *stored)
{
    struct doc *object = doc_object();
    for (size_t i = 0; i < STORED_KINDS; i++) {
        if (stored->of[i] != 0) {
            doc_set_int(object, stored_names[i], (int64_t)stored->of[i]);
        }
    }
    return object;
}

/* Empty texts, zero numbers and NULL docs are left out: a missing field is zero. */
static void encode_field(const struct field *field, const void *at, struct doc *to)
{
    switch (field->type) {
    case FIELD_id:
    case FIELD_text:
    case FIELD_long:
        if (((const char *)at)[0] != '\0') {
            doc_set_str(to, field->name, at);
        }
        break;
    case FIELD_u64: doc_set_int(to, field->name, (int64_t) * (const uint64_t *)at); break;
    case FIELD_bool: doc_set_bool(to, field->name, *(const bool *)at); break;
    case FIELD_lsn: doc_set_lsn(to, field->name, *(const lsn_t *)at); break;
    case FIELD_time:
        if (*(const wall_us_t *)at != 0) {
            doc_set_time(to, field->name, *(const wall_us_t *)at);
        }
        break;
    case FIELD_tenant: doc_set_tenant(to, field->name, *(const struct tenant_id *)at); break;
    case FIELD_timeline: doc_set_timeline(to, field->name, *(const struct timeline_id *)at); break;
    case FIELD_choice: doc_set_str(to, field->name, field->names[*(const row_choice_t *)at]); break;
    case FIELD_doc:
        if (*(struct doc *const *)at != NULL) {
            doc_set(to, field->name, doc_ref(*(struct doc *const *)at));
        }
        break;
    case FIELD_nodes: doc_set(to, field->name, encode_nodes(at)); break;
    case FIELD_stored:
        if (!stored_is_nothing(at)) {
            doc_set(to, field->name, encode_stored(at));
        }
        break;
    }
}

struct doc *row_encode(enum row_kind kind, const void *row)
{
    ASSERT(kind < ROW_KIND_COUNT);
    struct doc *to = doc_object();
    for (size_t i = 0; i < specs[kind].count; i++) {
        const struct field *field = &specs[kind].fields[i];
        encode_field(field, (const char *)row + field->offset, to);
    }
    return to;
}

static err_t decode_choice(
    const struct field *field, const char *text, row_choice_t *ret_choice, struct errmsg *msg)
{
    for (row_choice_t i = 0; field->names[i] != NULL; i++) {
        if (strcmp(field->names[i], text) == 0) {
            *ret_choice = i;
            return ERR_OK;
        }
    }
    return err_set(msg, ERR_CORRUPT, "%s: \"%s\" is none of its values", field->name, text);
}

static err_t decode_text(const struct field *field, const char *text, void *at, struct errmsg *msg)
{
    switch (field->type) {
    case FIELD_id:
    case FIELD_text:
    case FIELD_long: return str_copy(at, field->size, text, msg);
    case FIELD_lsn: return parse_lsn(text, at, msg);
    case FIELD_time: return parse_time(text, at, msg);
    case FIELD_tenant: return tenant_id_parse(text, at, msg);
    case FIELD_timeline: return timeline_id_parse(text, at, msg);
    case FIELD_choice: return decode_choice(field, text, at, msg);
    case FIELD_u64:
    case FIELD_bool:
    case FIELD_doc:
    case FIELD_nodes:
    case FIELD_stored: break;
    }
    return err_set(msg, ERR_CORRUPT, "%s: a text where something else belongs", field->name);
}

static err_t decode_nodes(const struct doc *value, struct node_set *set, struct errmsg *msg)
{
    if (doc_count(value) > SAFEKEEPERS_MAX) {
        return err_set(msg, ERR_CORRUPT, "more than %d safekeepers", SAFEKEEPERS_MAX);
    }
    struct doc *holder = doc_object();
    err_t err = ERR_OK;
    for (size_t i = 0; i < doc_count(value) && err == ERR_OK; i++) {
        doc_set(holder, "node", doc_ref(doc_at(value, i)));
        err = doc_get_u64(holder, "node", &set->ids[i], msg);
        set->count = i + 1;
    }
    doc_unref(holder);
    return err;
}

static err_t decode_stored(const struct doc *value, struct stored *stored, struct errmsg *msg)
{
    if (!doc_is_object(value)) {
        return err_set(msg, ERR_CORRUPT, "sizes: expected an object");
    }
    for (size_t i = 0; i < STORED_KINDS; i++) {
        TRY(doc_opt_u64(value, stored_names[i], &stored->of[i], msg));
    }
    return ERR_OK;
}

static err_t decode_field(
    const struct field *field, const struct doc *from, void *at, struct errmsg *msg)
{
    struct doc *value = doc_get(from, field->name);
    if (value == NULL || doc_is_null(value)) {
        return ERR_OK;
    }
    switch (field->type) {
    case FIELD_u64: return doc_opt_u64(from, field->name, at, msg);
    case FIELD_bool: return doc_opt_bool(from, field->name, at, msg);
    case FIELD_nodes: return decode_nodes(value, at, msg);
    case FIELD_stored: return decode_stored(value, at, msg);
    case FIELD_doc: *(struct doc **)at = doc_ref(value); return ERR_OK;
    case FIELD_id:
    case FIELD_text:
    case FIELD_long:
    case FIELD_lsn:
    case FIELD_time:
    case FIELD_tenant:
    case FIELD_timeline:
    case FIELD_choice: break;
    }
    const char *text = doc_value_str(value);
    if (text == NULL) {
        return err_set(msg, ERR_CORRUPT, "%s: expected a text", field->name);
    }
    return decode_text(field, text, at, msg);
}

err_t row_decode(
    enum row_kind kind, const struct doc *doc, union any_row *ret_row, struct errmsg *msg)
{
    ASSERT(kind < ROW_KIND_COUNT);
    union any_row row = {0};
    for (size_t i = 0; i < specs[kind].count; i++) {
        const struct field *field = &specs[kind].fields[i];
        err_t err = decode_field(field, doc, (char *)&row + field->offset, msg);
        if (err != ERR_OK) {
            row_unref(kind, &row);
            return err_wrap(msg, ERR_CORRUPT, "row of a %s", specs[kind].name);
        }
    }
    *ret_row = row;
    return ERR_OK;
}

void row_ref(enum row_kind kind, void *row)
{
    for (size_t i = 0; i < specs[kind].count; i++) {
        const struct field *field = &specs[kind].fields[i];
        if (field->type == FIELD_doc) {
            struct doc **at = (struct doc **)(void *)((char *)row + field->offset);
            *at = *at == NULL ? NULL : doc_ref(*at);
        }
    }
}

void row_unref(enum row_kind kind, void *row)
{
    for (size_t i = 0; i < specs[kind].count; i++) {
        const struct field *field = &specs[kind].fields[i];
        if (field->type == FIELD_doc) {
            struct doc **at = (struct doc **)(void *)((char *)row + field->offset);
            doc_unref(*at);
            *at = NULL;
        }
    }
}
