#include "common/rpc/rpc.h"

#include "common/base/assert.h"
#include "common/json/shape.h"

#define ROW(server_, handler_, verb_, path_, query_, body_, repeat_, help_, answer_)               \
    {.server = (server_),                                                                          \
     .name = #handler_,                                                                            \
     .verb = (verb_),                                                                              \
     .path = (path_),                                                                              \
     .query = (query_),                                                                            \
     .body = (body_),                                                                              \
     .repeat = RPC_##repeat_,                                                                      \
     .help = (help_),                                                                              \
     .answer = (answer_)},
#define SAFEKEEPER_ROW(id, ...) [RPC_##id] = ROW(RPC_SERVER_SAFEKEEPER, __VA_ARGS__)
#define PAGESERVER_ROW(id, ...) [RPC_##id] = ROW(RPC_SERVER_PAGESERVER, __VA_ARGS__)
#define AGENT_ROW(id, ...)      [RPC_##id] = ROW(RPC_SERVER_AGENT, __VA_ARGS__)
#define CONTROL_ROW(id, ...)    [RPC_##id] = ROW(RPC_SERVER_CONTROL, __VA_ARGS__)

static const struct rpc_method methods[RPC_COUNT] = {RPC_SAFEKEEPER(SAFEKEEPER_ROW) RPC_PAGESERVER(
    PAGESERVER_ROW) RPC_AGENT(AGENT_ROW) RPC_CONTROL(CONTROL_ROW)};

const struct rpc_method *rpc_method(enum rpc_id id)
{
    ASSERT(id < RPC_COUNT);
    return &methods[id];
}

void rpc_path_of(struct buf *to, enum rpc_id id, const char *const *params)
{
    const char *rest = rpc_method(id)->path;
    while (*rest != '\0') {
        size_t literal = strcspn(rest, "{");
        buf_append(to, rest, literal);
        rest += literal;
        if (*rest == '{') {
            ASSERT(*params != NULL);
            buf_printf(to, "%s", *params++);
            rest += strcspn(rest, "}") + 1;
        }
    }
    ASSERT(*params == NULL);
}

/* ---- the page ---- */

static void print_fields(struct buf *to, const char *what, const char *shape)
{
    struct shape_field field;
    const char *between = "";
    if (shape[0] == '\0') {
        return;
    }
    buf_printf(to, "- %s: ", what);
    while (shape_next(&shape, &field)) {
        buf_printf(
            to, "%s`%s`%s%s%s", between, field.name, field.type[0] == '\0' ? "" : " ", field.type,
            field.is_required ? "" : " (optional)");
        between = ", ";
    }
    buf_printf(to, "\n");
}

static void print_method(struct buf *to, const struct rpc_method *method)
{
    buf_printf(
        to, "\n**%s** `%s %s`  \n%s.\n", method->name, method->verb, method->path, method->help);
    print_fields(to, "query", method->query);
    print_fields(to, "body", method->body);
    buf_printf(to, "- answer: %s\n", method->answer);
    buf_printf(
        to, "- again: %s\n", method->repeat == RPC_READ ? "it only reads" : "the same result");
}

void rpc_print(struct buf *to)
{
    static const char *const servers[] = {"safekeeper", "pageserver", "compute-agent", "control"};
    buf_printf(
        to,
        "# Calls between the parts\n\n"
        "Written by `rpcdoc` from `common/rpc/methods.h`; a test compares the two.\n\n"
        "A call is HTTP/1.1 with JSON: the verb and path of its method, ids as 32 hex digits, LSNs "
        "as "
        "`0/16B3748`. The servers\ndispatch by this table and check query and body against it "
        "before "
        "a handler runs; callers take verb and path from it.\n\n"
        "- **Version**: the first part of the path. Fields that one side does not know are left "
        "alone, new ones are optional;\n  anything else is a new path.\n"
        "- **Deadline**: `X-Timeout-Ms` says how long the caller waits. Who waits for an LSN waits "
        "no "
        "longer than that.\n"
        "- **Errors**: problem+json; `code` is one of `ERR_NOT_FOUND`, `ERR_EXISTS`, "
        "`ERR_INVALID`, "
        "`ERR_STALE`, `ERR_BUSY`, .. (`common/base/err.h`)\n  and says what to do, `message` says "
        "what "
        "happened.\n"
        "- **Again**: every call may be sent again when its answer was lost. What changes "
        "something "
        "names what it is about (tenant,\n  timeline, generation, compute, lease), and that is its "
        "idempotency key: a second one finds the deed done. A create with\n  another body is 409.\n"
        "- **Token**: `Authorization: Bearer TOKEN`, the `http_token` of who is called.\n");
    for (size_t i = 0; i < RPC_COUNT; i++) {
        if (i == 0 || methods[i].server != methods[i - 1].server) {
            buf_printf(to, "\n## %s\n", servers[methods[i].server]);
        }
        print_method(to, &methods[i]);
    }
}
