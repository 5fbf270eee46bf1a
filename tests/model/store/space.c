#include "tests/model/store/space.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/io/file.h"
#include "common/kv/kv.h"

static struct errmsg msg;

static void must(err_t err)
{
    if (err != ERR_OK) {
        (void)fprintf(stderr, "%s: %s\n", err_name(err), msg.text);
        exit(1);
    }
}

static struct kv *open_store(const char *folder)
{
    struct kv_options options = {.prefix_size = PAGE_KEY_PREFIX_SIZE}; /* no filter: nothing goes */
    struct kv *kv = NULL;
    must(kv_open(folder, &options, &kv, &msg));
    return kv;
}

/* False: a meta record. */
static bool read_version(const struct kv_iter *iter, struct least_version *ret_version)
{
    *ret_version = (struct least_version){.lsn = 0};
    must(page_key_decode(
        kv_iter_key(iter), &ret_version->timeline, &ret_version->key, &ret_version->lsn));
    least_version_set_value(ret_version, kv_iter_value(iter));
    return ret_version->timeline != 0;
}

void space_read(const char *folder, struct least_version **versions, size_t *count)
{
    struct kv *kv = open_store(folder);
    struct kv_iter *iter = kv_iter_create(kv, false);
    size_t capacity = *count;
    for (kv_iter_seek(iter, bytes_of("", 0)); kv_iter_valid(iter); kv_iter_next(iter)) {
        struct least_version version;
        if (!read_version(iter, &version)) {
            continue;
        }
        if (*count == capacity) {
            capacity = MAX_OF(2 * capacity, (size_t)4096);
            *versions = mem_realloc(*versions, capacity * sizeof(**versions));
        }
        (*versions)[(*count)++] = version;
    }
    must(kv_iter_error(iter, &msg));
    kv_iter_destroy(iter);
    kv_close(kv);
}

/* -- comparing -- */

static void count_superfluous(struct space *space, const struct least_version *version)
{
    bool is_state = version->key.spc == KEY_SPC_STATE && version->key.db < STATE_CLOG;
    *(version->key.block == KEY_BLOCK_SIZE ? &space->superfluous_size
      : is_state                           ? &space->superfluous_state
                                           : &space->superfluous_page) += version->bytes;
}

static void count_missing(struct space *space, const struct least_version *version)
{
    if (!version->is_needed) {
        return;
    }
    space->missing++;
    space->missing_bytes += version->bytes;
    if (space->missing < 10) {
        printf(
            "missing: timeline %" PRIu32 " %s at %" PRIx64 "\n", version->timeline,
            page_key_text(version->key).text, version->lsn);
    }
}

/* Both in the order of keys. What is needed goes into `copy` as well. */
static void compare(
    struct kv *kv,
    struct kv_file *copy,
    const struct least_version *versions,
    size_t count,
    struct space *space)
{
    struct kv_iter *iter = kv_iter_create(kv, false);
    size_t at = 0;
    for (kv_iter_seek(iter, bytes_of("", 0)); kv_iter_valid(iter); kv_iter_next(iter)) {
        struct least_version found;
        if (!read_version(iter, &found)) {
            continue;
        }
        space->found += found.bytes;
        while (at < count && least_version_order(&versions[at], &found) < 0) {
            count_missing(space, &versions[at++]);
        }
        bool is_known = at < count && least_version_order(&versions[at], &found) == 0;
        if (is_known && versions[at].is_needed) {
            ASSERT(versions[at].bytes == found.bytes);
            space->least += found.bytes;
            must(kv_file_put(copy, kv_iter_key(iter), kv_iter_value(iter), &msg));
        } else {
            count_superfluous(space, &found);
        }
        at += is_known ? 1 : 0;
    }
    must(kv_iter_error(iter, &msg));
    while (at < count) {
        count_missing(space, &versions[at++]);
    }
    kv_iter_destroy(iter);
}

struct folder_size {
    const char *folder;
    uint64_t bytes;
};

static err_t add_file(const char *name, void *context, struct errmsg *ret_msg)
{
    struct folder_size *size = context;
    char path[PATH_SIZE];
    struct stat info;
    TRY(str_format(path, sizeof(path), ret_msg, "%s/%s", size->folder, name));
    if (str_ends_with(name, ".sst") && stat(path, &info) == 0) {
        size->bytes += (uint64_t)info.st_size;
    }
    return ERR_OK;
}

static uint64_t disk_bytes(const char *folder)
{
    struct folder_size size = {.folder = folder};
    must(dir_list(folder, add_file, &size, &msg));
    return size.bytes;
}

static void take_in(struct kv *kv, struct kv_file *file, const char *path)
{
    must(kv_file_finish(file, &msg));
    kv_file_destroy(file);
    must(kv_ingest(kv, &path, 1, &msg));
    must(kv_compact(kv, &msg));
}

void space_measure(
    const char *folder, struct least_version *versions, size_t count, struct space *ret_space)
{
    char least_folder[PATH_SIZE], path[PATH_SIZE];
    struct kv_file *file = NULL;
    *ret_space = (struct space){.disk = disk_bytes(folder)};
    must(str_format(least_folder, sizeof(least_folder), &msg, "%s.least", folder));
    must(str_format(path, sizeof(path), &msg, "%s.least.file", folder));
    struct kv *kv = open_store(folder), *least = open_store(least_folder);
    must(kv_file_create(least, path, &file, &msg));
    compare(kv, file, versions, count, ret_space);
    take_in(least, file, path);
    kv_close(kv);
    kv_close(least);
    ret_space->disk_least = disk_bytes(least_folder);
    must(dir_remove(least_folder, &msg));
}

void space_print(const struct space *space)
{
    printf(
        "kept %" PRIu64 ", least %" PRIu64 "; superfluous: pages %" PRIu64 ", sizes %" PRIu64
        ", states %" PRIu64 "; on disk %" PRIu64 ", least %" PRIu64 "; missing: %zu\n",
        space->found, space->least, space->superfluous_page, space->superfluous_size,
        space->superfluous_state, space->disk, space->disk_least, space->missing);
}
