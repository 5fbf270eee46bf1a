#include "pageserver/remote/downloader.h"

#include "common/base/assert.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/file.h"
#include "pageserver/remote/index_store.h"
#include "pageserver/remote/remote_state.h"

METRIC_COUNTER(
    downloaded_files, "pageserver_remote_downloaded_files_total", "sorted files fetched");
METRIC_COUNTER(downloaded_bytes, "pageserver_remote_downloaded_bytes_total", "bytes of them");

#define PART_SUFFIX ".downloading"

static err_t fetch_file(
    struct objstore *objects,
    const struct remote_index *index,
    const struct remote_file *file,
    const char *folder,
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct objstore_info info;
    struct remote_name name =
        remote_data_name(index->tenant, file->generation, file->name, file->hash);
    TRY(str_format(path, sizeof(path), msg, "%s/%s", folder, file->name));
    TRY(objstore_head(objects, name.text, &info, msg));
    if (info.size != file->size || !hash128_equal(info.hash, file->hash)) {
        return err_set(
            msg, ERR_CORRUPT, "object %s is not the one that the index means", name.text);
    }
    TRY(objstore_get_file(objects, name.text, path, msg)); /* checks the content against both */
    metric_add(&downloaded_files, 1);
    metric_add(&downloaded_bytes, (int64_t)file->size);
    return FAULT("downloader.after_file");
}

static err_t fetch_all(
    struct objstore *objects,
    const struct remote_index *index,
    const char *folder,
    struct download_result *result,
    struct errmsg *msg)
{
    for (size_t i = 0; i < index->file_count; i++) {
        TRY(fetch_file(objects, index, &index->files[i], folder, msg));
        result->files++;
        result->bytes += index->files[i].size;
    }
    for (size_t i = 0; i < index->small_file_count; i++) {
        char path[PATH_SIZE];
        TRY(str_format(path, sizeof(path), msg, "%s/%s", folder, index->small_files[i].name));
        TRY(file_write_durably(path, index->small_files[i].content, msg));
    }
    struct remote_state state = {.generation = index->generation, .sequence = index->sequence};
    return remote_state_write(folder, state, msg);
}

static err_t restore_one(
    struct objstore *objects,
    struct tenant_id tenant,
    struct index_id id,
    const char *folder,
    struct download_result *ret_result,
    struct errmsg *msg)
{
    char part[PATH_SIZE];
    struct remote_index index;
    struct download_result result = {
        .found = true, .generation = id.generation, .sequence = id.sequence};
    TRY(str_format(part, sizeof(part), msg, "%s" PART_SUFFIX, folder));
    TRY(index_load(objects, tenant, id, &index, msg));
    err_t err = dir_remove(part, msg);
    if (err == ERR_OK) {
        err = dir_create(part, msg);
    }
    if (err == ERR_OK) {
        err = fetch_all(objects, &index, part, &result, msg);
    }
    remote_index_deinit(&index);
    if (err == ERR_OK) {
        err = file_rename_durably(part, folder, msg);
    }
    if (err != ERR_OK) {
        err_ignore(dir_remove(part, NULL), "the next attempt removes it, too");
        return err;
    }
    *ret_result = result;
    return ERR_OK;
}

err_t downloader_restore(
    struct objstore *objects,
    struct tenant_id tenant,
    generation_t generation,
    const char *folder,
    struct download_result *ret_result,
    struct errmsg *msg)
{
    struct index_id *ids = NULL;
    size_t count = 0;
    TRY(index_list(objects, tenant, generation, &ids, &count, msg));
    struct download_result result = {.found = false};
    err_t err = ERR_OK;
    for (size_t left = count; left > 0; left--) {
        err = restore_one(objects, tenant, ids[left - 1], folder, &result, msg);
        if (err != ERR_CORRUPT && err != ERR_NOT_FOUND) {
            break;
        }
        log_error(
            NULL, "tenant %s: index %08" PRIx32 "-%016" PRIx64 " cannot be used: %s",
            tenant_id_text(tenant).text, ids[left - 1].generation, ids[left - 1].sequence,
            msg->text);
        err = err_wrap(msg, ERR_CORRUPT, "none of %zu indexes can be used", count);
    }
    mem_free(ids);
    if (err == ERR_OK) {
        *ret_result = result;
    }
    return err;
}
