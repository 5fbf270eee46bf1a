#include "safekeeper/serve/node_file.h"

#include "common/base/parse.h"
#include "common/base/prng.h"
#include "common/io/file.h"
#include "common/json/doc.h"

#define NODE_FILE_MAX 4096

static err_t create(
    const char *path,
    node_id_t node_id,
    char incarnation[INCARNATION_TEXT_SIZE],
    struct errmsg *msg)
{
    uint8_t random[ID_SIZE];
    struct buf text = {0};
    struct doc *doc = doc_object();
    prng_secure(random, sizeof(random));
    format_hex(random, sizeof(random), incarnation);
    (void)doc_set_int(doc, "node_id", (int64_t)node_id);
    (void)doc_set_str(doc, "incarnation", incarnation);
    doc_print(doc, /* pretty */ true, &text);
    err_t err = file_write_durably(path, buf_view(&text), msg);
    doc_unref(doc);
    buf_deinit(&text);
    return err;
}

static err_t check(
    const struct doc *doc,
    const char *path,
    node_id_t node_id,
    char incarnation[INCARNATION_TEXT_SIZE],
    struct errmsg *msg)
{
    uint64_t owner = 0;
    const char *text = NULL;
    TRY(doc_get_u64(doc, "node_id", &owner, msg));
    TRY(doc_get_str(doc, "incarnation", &text, msg));
    if (owner != node_id) {
        return err_set(
            msg, ERR_INVALID, "%s says that this folder is node %" PRIu64 "'s, not %" PRIu64 "'s",
            path, owner, node_id);
    }
    return str_copy(incarnation, INCARNATION_TEXT_SIZE, text, msg);
}

err_t node_file_load(
    const char *data_dir,
    node_id_t node_id,
    char ret_incarnation[INCARNATION_TEXT_SIZE],
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    struct doc *doc = NULL;
    TRY(str_format(path, sizeof(path), msg, "%s/node.json", data_dir));
    err_t err = file_read_all(path, NODE_FILE_MAX, &text, msg);
    if (err == ERR_NOT_FOUND) {
        return create(path, node_id, ret_incarnation, msg);
    }
    if (err == ERR_OK) {
        err = doc_parse(buf_view(&text), &doc, msg);
    }
    if (err == ERR_OK) {
        err = check(doc, path, node_id, ret_incarnation, msg);
    }
    doc_unref(doc);
    buf_deinit(&text);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "%s", path);
}
