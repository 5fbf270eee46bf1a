#include "common/objstore/s3_xml.h"

#include <expat.h>

#include "common/base/assert.h"
#include "common/base/mark.h"
#include "common/base/str.h"

struct reader_state {
    XML_Parser parser;
    s3_xml_visit_fn visit;
    void *context;
    char path[S3_XML_PATH_SIZE];
    size_t path_size;
    struct buf text[S3_XML_DEPTH_MAX + 1]; /* of each open element */
    unsigned depth;
    err_t result;
    struct errmsg msg;
};

static void stop(struct reader_state *state, err_t err)
{
    state->result = err;
    (void)XML_StopParser(state->parser, XML_FALSE);
}

static void on_begin(void *context, const XML_Char *name, const XML_Char **attributes)
{
    (void)attributes;
    struct reader_state *state = context;
    size_t size = strlen(name);
    if (state->result != ERR_OK) {
        return; /* expat may still deliver what it has at hand */
    }
    if (state->depth == S3_XML_DEPTH_MAX || state->path_size + size + 2 > sizeof(state->path)) {
        MARK("s3_xml.deep");
        stop(state, err_set(&state->msg, ERR_CORRUPT, "XML is nested too deep"));
        return;
    }
    if (state->depth > 0) {
        state->path[state->path_size++] = '/';
    }
    memcpy(state->path + state->path_size, name, size + 1);
    state->path_size += size;
    buf_clear(&state->text[++state->depth]);
}

static void on_text(void *context, const XML_Char *text, int size)
{
    struct reader_state *state = context;
    if (state->result != ERR_OK) {
        return;
    }
    struct buf *to = &state->text[state->depth];
    if ((size_t)size > S3_XML_TEXT_MAX - to->size) {
        MARK("s3_xml.long_text");
        stop(state, err_set(&state->msg, ERR_CORRUPT, "XML: text of %s is too long", state->path));
        return;
    }
    buf_append(to, text, (size_t)size);
}

static void on_end(void *context, const XML_Char *name)
{
    struct reader_state *state = context;
    if (state->result != ERR_OK) {
        return;
    }
    ASSERT(state->depth > 0); /* expat matches begins and ends */
    err_t err = state->visit(
        state->path, buf_cstr(&state->text[state->depth]), state->context, &state->msg);
    if (err != ERR_OK) {
        stop(state, err);
        return;
    }
    state->depth--;
    state->path_size -= strlen(name) + (state->depth > 0 ? 1 : 0);
    state->path[state->path_size] = '\0';
}

static void on_doctype(
    void *context,
    const XML_Char *name,
    const XML_Char *system_id,
    const XML_Char *public_id,
    int has_internal_subset)
{
    (void)name;
    (void)system_id;
    (void)public_id;
    (void)has_internal_subset;
    struct reader_state *state = context;
    MARK("s3_xml.doctype");
    stop(state, err_set(&state->msg, ERR_CORRUPT, "XML with a DOCTYPE"));
}

err_t s3_xml_read(struct bytes text, s3_xml_visit_fn visit, void *context, struct errmsg *msg)
{
    struct reader_state state = {.visit = visit, .context = context};
    if (text.size > INT32_MAX) {
        return err_set(msg, ERR_CORRUPT, "XML of %zu bytes", text.size);
    }
    state.parser = XML_ParserCreate(NULL);
    if (state.parser == NULL) {
        fatal("out of memory: XML parser");
    }
    XML_SetUserData(state.parser, &state);
    XML_SetElementHandler(state.parser, on_begin, on_end);
    XML_SetCharacterDataHandler(state.parser, on_text);
    XML_SetStartDoctypeDeclHandler(state.parser, on_doctype);
    const char *data = text.size == 0 ? "" : (const char *)text.data;
    enum XML_Status status = XML_Parse(state.parser, data, (int)text.size, 1);
    err_t err = state.result;
    if (err != ERR_OK && msg != NULL) {
        *msg = state.msg;
    }
    if (err == ERR_OK && status != XML_STATUS_OK) {
        err = err_set(
            msg, ERR_CORRUPT, "XML at byte %ld: %s", (long)XML_GetCurrentByteIndex(state.parser),
            XML_ErrorString(XML_GetErrorCode(state.parser)));
    }
    XML_ParserFree(state.parser);
    for (size_t i = 0; i < ARRAY_LEN(state.text); i++) {
        buf_deinit(&state.text[i]);
    }
    return err;
}

void s3_xml_append_text(struct buf *to, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&': buf_printf(to, "&amp;"); break;
        case '<': buf_printf(to, "&lt;"); break;
        case '>': buf_printf(to, "&gt;"); break;
        case '"': buf_printf(to, "&quot;"); break;
        default: buf_append(to, text, 1);
        }
    }
}
