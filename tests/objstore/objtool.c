/*
 * objtool - the object store from a command line, for the tests in tests/objstore.
 *
 *   objtool URL put NAME FILE | get NAME FILE | head NAME | range NAME BEGIN SIZE
 *   objtool URL list PREFIX | delete NAME... | sweep AGE_MS
 *
 * Prints what it found, then the error's code and text, then the marks that it hit; exit code 0
 * for ERR_OK, else 1.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "common/base/mark.h"
#include "common/base/parse.h"
#include "common/objstore/objstore.h"

static err_t print_head(struct objstore *store, const char *name, struct errmsg *msg)
{
    struct objstore_info info;
    char hex[33];
    TRY(objstore_head(store, name, &info, msg));
    format_hex(info.hash.bytes, sizeof(info.hash.bytes), hex);
    printf("%" PRIu64 " %s\n", info.size, hex);
    return ERR_OK;
}

static err_t print_entry(const struct objstore_entry *entry, void *context, struct errmsg *msg)
{
    (void)context;
    (void)msg;
    printf("%s %" PRIu64 "\n", entry->name, entry->size);
    return ERR_OK;
}

static err_t print_range(struct objstore *store, char **args, struct errmsg *msg)
{
    struct buf data = {0};
    uint64_t begin = 0, size = 0;
    TRY(parse_u64(args[1], 0, UINT64_MAX, &begin, msg));
    TRY(parse_u64(args[2], 0, GIB, &size, msg));
    err_t err = objstore_get_range(store, args[0], begin, size, &data, msg);
    printf("%s\n", buf_cstr(&data));
    buf_deinit(&data);
    return err;
}

static err_t sweep(struct objstore *store, const char *age, struct errmsg *msg)
{
    uint64_t age_ms = 0;
    size_t count = 0;
    TRY(parse_u64(age, 0, UINT64_MAX, &age_ms, msg));
    TRY(objstore_sweep(store, age_ms, &count, msg));
    printf("%zu\n", count);
    return ERR_OK;
}

static err_t run(
    struct objstore *store, const char *verb, char **args, size_t count, struct errmsg *msg)
{
    if (strcmp(verb, "put") == 0 && count == 2) {
        return objstore_put_file(store, args[0], args[1], msg);
    }
    if (strcmp(verb, "get") == 0 && count == 2) {
        return objstore_get_file(store, args[0], args[1], msg);
    }
    if (strcmp(verb, "head") == 0 && count == 1) {
        return print_head(store, args[0], msg);
    }
    if (strcmp(verb, "range") == 0 && count == 3) {
        return print_range(store, args, msg);
    }
    if (strcmp(verb, "list") == 0 && count == 1) {
        struct objstore_query query = {.prefix = args[0]};
        return objstore_list(store, &query, print_entry, NULL, msg);
    }
    if (strcmp(verb, "delete") == 0) {
        return objstore_delete_many(store, (const char *const *)args, count, msg);
    }
    if (strcmp(verb, "sweep") == 0 && count == 1) {
        return sweep(store, args[0], msg);
    }
    return err_set(msg, ERR_INVALID, "verb %s with %zu arguments", verb, count);
}

int main(int argc, char **argv)
{
    static const char *const marks[] = {
        "s3_client.retry",       "s3.no_conditional_put",    "s3.put_refused",
        "s3.no_bucket",          "s3.etag_differs",          "s3_upload.abort",
        "s3_list.unsorted",      "s3_upload.source_changed", "s3_upload.joined_wrong",
        "objstore.read.corrupt", "s3_xml.doctype",
    };
    struct objstore *store = NULL;
    struct errmsg msg = {0};
    log_init("objtool", LOG_LEVEL_INFO);
    if (argc < 3) {
        return 2;
    }
    err_t err = objstore_open(argv[1], &store, &msg);
    if (err == ERR_OK) {
        err = run(store, argv[2], argv + 3, (size_t)argc - 3, &msg);
    }
    objstore_close(store);
    printf("%s %s\n", err_code(err), err == ERR_OK ? "" : msg.text);
    for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
        if (mark_hits(marks[i]) > 0) {
            printf("%s=%" PRIu64 " ", marks[i], mark_hits(marks[i]));
        }
    }
    printf("\n");
    return err == ERR_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
