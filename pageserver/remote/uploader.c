#include "pageserver/remote/uploader.h"

#include <stdlib.h>

#include "common/base/assert.h"
#include "common/base/clock.h"
#include "common/base/fault.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "common/io/file.h"
#include "pageserver/remote/index_store.h"
#include "pageserver/remote/remote_state.h"

METRIC_COUNTER(uploaded_files, "pageserver_remote_uploaded_files_total", "sorted files uploaded");
METRIC_COUNTER(uploaded_bytes, "pageserver_remote_uploaded_bytes_total", "bytes of sorted files");
METRIC_COUNTER(indexes, "pageserver_remote_indexes_total", "indexes put to the object store");
METRIC_COUNTER(deleted, "pageserver_remote_deleted_total", "objects deleted");
METRIC_HISTOGRAM(round_seconds, "pageserver_remote_round_seconds", "time of an upload round");

#define CHECKPOINT_SUFFIX    ".checkpoint"
#define SMALL_FILE_BYTES_MAX (64 * MIB)
#define PIECE_BYTES          (1 * MIB)

struct name_list {
    struct remote_name *items;
    size_t count, capacity;
};

struct uploader {
    struct objstore *objects;
    struct tenant_id tenant;
    struct log log;
    char folder[PATH_SIZE], checkpoint[PATH_SIZE];
    struct remote_index newest, previous; /* generation 0: there is none */
    bool loaded;
    bool trusted; /* the newest index describes this disk: equal names are equal files */
    struct name_list doomed;
    /* Put by rounds that have not come to their index: what no later index needs is doomed. */
    struct remote_file *unlisted;
    size_t unlisted_count, unlisted_capacity;
};

/* -- small parts -- */

static void name_list_add(struct name_list *list, struct remote_name name)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
        list->items = mem_realloc(list->items, list->capacity * sizeof(list->items[0]));
    }
    list->items[list->count++] = name;
}

static bool name_list_has(const struct name_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].text, name) == 0) {
            return true;
        }
    }
    return false;
}

static struct remote_name name_of(const struct uploader *uploader, const struct remote_file *file)
{
    return remote_data_name(uploader->tenant, file->generation, file->name, file->hash);
}

/* The index needs exactly this object, not just one of this file name. */
static bool index_needs(const struct remote_index *index, const struct remote_file *file)
{
    const struct remote_file *own = remote_index_file(index, file->name);
    return own != NULL && own->generation == file->generation &&
           hash128_equal(own->hash, file->hash);
}

static err_t hash_file(
    const char *path, struct hash128 *ret_hash, uint64_t *ret_size, struct errmsg *msg)
{
    int fd = -1;
    uint64_t size = 0;
    TRY(file_open(&fd, path, FILE_READ, msg));
    struct hash128_stream *stream = hash128_start();
    uint8_t *piece = mem_alloc(PIECE_BYTES);
    err_t err = file_size(fd, path, &size, msg);
    for (uint64_t at = 0; at < size && err == ERR_OK; at += PIECE_BYTES) {
        size_t part = (size_t)MIN_OF(size - at, (uint64_t)PIECE_BYTES);
        err = file_read_at(fd, path, piece, part, at, msg);
        hash128_feed(stream, bytes_of(piece, part));
    }
    *ret_hash = hash128_finish(stream);
    *ret_size = size;
    mem_free(piece);
    file_close(&fd);
    return err;
}

struct uploader *uploader_create(const struct uploader_options *options)
{
    struct uploader *uploader = MEM_NEW(struct uploader);
    uploader->objects = options->objects;
    uploader->tenant = options->tenant;
    log_name(&uploader->log, "tenant %s", tenant_id_text(options->tenant).text);
    err_t err = str_copy(uploader->folder, sizeof(uploader->folder), options->folder, NULL);
    if (err == ERR_OK) {
        err = str_format(
            uploader->checkpoint, sizeof(uploader->checkpoint), NULL, "%s" CHECKPOINT_SUFFIX,
            options->folder);
    }
    ASSERT(err == ERR_OK); /* the store was opened under this path */
    return uploader;
}

void uploader_destroy(struct uploader *uploader)
{
    if (uploader != NULL) {
        remote_index_deinit(&uploader->newest);
        remote_index_deinit(&uploader->previous);
        mem_free(uploader->doomed.items);
        mem_free(uploader->unlisted);
        mem_free(uploader);
    }
}

/* -- what is up there -- */

/*
 * Once nobody compares positions any more, only the files count. What an index says of timelines
 * and the small files, with the log of the rows, grows with the number of branches.
 */
static void keep_files_only(struct remote_index *index)
{
    mem_free(index->positions);
    index->positions = NULL;
    index->position_count = 0;
    mem_free(index->small_files);
    index->small_files = NULL;
    index->small_file_count = 0;
    buf_deinit(&index->bytes);
}

static bool is_needed_object(const struct uploader *uploader, const struct remote_file *file)
{
    return index_needs(&uploader->newest, file) || index_needs(&uploader->previous, file);
}

/*
 * An index that a process left whose deletions did not come to their end, and what only it needs.
 * Deleting goes from the back: the index after its files, so that whoever dies in between finds
 * them again. Files of an index that cannot be read are left to a scrub.
 */
static err_t doom_index(struct uploader *uploader, struct index_id id, struct errmsg *msg)
{
    struct remote_index index;
    name_list_add(
        &uploader->doomed, remote_index_name(uploader->tenant, id.generation, id.sequence));
    err_t err = index_load(uploader->objects, uploader->tenant, id, &index, msg);
    if (err == ERR_CORRUPT || err == ERR_NOT_FOUND) {
        return ERR_OK;
    }
    if (err != ERR_OK) {
        return err;
    }
    for (size_t i = 0; i < index.file_count; i++) {
        struct remote_name name = name_of(uploader, &index.files[i]);
        if (!is_needed_object(uploader, &index.files[i]) &&
            !name_list_has(&uploader->doomed, name.text)) {
            name_list_add(&uploader->doomed, name);
        }
    }
    remote_index_deinit(&index);
    return ERR_OK;
}

/* The newest index that can be read, and the one before it; older ones are doomed. */
static err_t load_indexes(
    struct uploader *uploader, const struct index_id *ids, size_t count, struct errmsg *msg)
{
    size_t left = count;
    struct remote_index *const slots[] = {&uploader->newest, &uploader->previous};
    for (size_t slot = 0; slot < ARRAY_LEN(slots) && left > 0;) {
        struct index_id id = ids[--left];
        err_t err = index_load(uploader->objects, uploader->tenant, id, slots[slot], msg);
        if (err == ERR_CORRUPT || err == ERR_NOT_FOUND) {
            log_warn(&uploader->log, "passed over: %s", msg->text);
            continue;
        }
        if (err != ERR_OK) {
            return err;
        }
        slot++;
    }
    while (left > 0) {
        TRY(doom_index(uploader, ids[--left], msg));
    }
    return ERR_OK;
}

static err_t load(struct uploader *uploader, generation_t generation, struct errmsg *msg)
{
    struct index_id *ids = NULL;
    size_t count = 0;
    struct remote_state state;
    TRY(index_list(uploader->objects, uploader->tenant, UINT32_MAX, &ids, &count, msg));
    err_t err = ERR_OK;
    if (count > 0 && ids[count - 1].generation > generation) {
        err = err_set(
            msg, ERR_STALE, "generation %" PRIu32 " of this tenant has been replaced by %" PRIu32,
            generation, ids[count - 1].generation);
    }
    if (err == ERR_OK) {
        err = load_indexes(uploader, ids, count, msg);
    }
    mem_free(ids);
    if (err == ERR_OK) {
        err = remote_state_read(uploader->folder, &state, msg);
    }
    if (err != ERR_OK) {
        remote_index_deinit(&uploader->newest);
        remote_index_deinit(&uploader->previous);
        uploader->doomed.count = 0;
        return err;
    }
    uploader->trusted = uploader->newest.generation == state.generation &&
                        uploader->newest.sequence == state.sequence;
    uploader->loaded = true;
    keep_files_only(&uploader->previous);
    if (uploader->trusted) {
        keep_files_only(&uploader->newest);
    }
    return ERR_OK;
}

static int compare_positions(const void *left, const void *right)
{
    const struct remote_position *a = left, *b = right;
    return memcmp(a->timeline.bytes, b->timeline.bytes, sizeof(a->timeline.bytes));
}

/* What another owner has put is never taken back to an earlier position. */
static err_t check_positions(
    struct uploader *uploader, const struct upload_round *round, struct errmsg *msg)
{
    struct remote_index *newest = &uploader->newest;
    if (uploader->trusted || newest->position_count == 0) {
        return ERR_OK;
    }
    qsort(
        newest->positions, newest->position_count, sizeof(newest->positions[0]), compare_positions);
    for (size_t i = 0; i < round->position_count; i++) {
        const struct remote_position *theirs = bsearch(
            &round->positions[i], newest->positions, newest->position_count,
            sizeof(newest->positions[0]), compare_positions);
        if (theirs != NULL && theirs->lsn > round->positions[i].lsn) {
            return err_set(
                msg, ERR_BUSY,
                "timeline %s is at " LSN_FMT " here, and at " LSN_FMT " in the newest index",
                timeline_id_text(round->positions[i].timeline).text,
                LSN_ARGS(round->positions[i].lsn), LSN_ARGS(theirs->lsn));
        }
    }
    return ERR_OK;
}

/* -- a round -- */

struct gathering {
    struct uploader *uploader;
    struct upload_round *round;
    struct remote_index index;
    size_t file_capacity, small_capacity;
    struct buf contents[REMOTE_SMALL_FILES_MAX];
};

static void gathering_deinit(struct gathering *gathering)
{
    for (size_t i = 0; i < ARRAY_LEN(gathering->contents); i++) {
        buf_deinit(&gathering->contents[i]);
    }
    gathering->index.positions = NULL; /* the round's */
    remote_index_deinit(&gathering->index);
}

/* Whether the newest index has this very file; *file is filled in when it does. */
static err_t find_uploaded(
    const struct uploader *uploader,
    const char *path,
    struct remote_file *file,
    bool *ret_found,
    struct errmsg *msg)
{
    const struct remote_file *known = remote_index_file(&uploader->newest, file->name);
    if (known != NULL && uploader->trusted) {
        *file = *known;
        *ret_found = true;
        return ERR_OK;
    }
    TRY(hash_file(path, &file->hash, &file->size, msg));
    *ret_found =
        known != NULL && known->size == file->size && hash128_equal(known->hash, file->hash);
    if (*ret_found) {
        *file = *known;
    }
    return ERR_OK;
}

/* From here on the object may be there. */
static void note_unlisted(struct uploader *uploader, const struct remote_file *file)
{
    if (uploader->unlisted_count == uploader->unlisted_capacity) {
        uploader->unlisted_capacity =
            uploader->unlisted_capacity == 0 ? 16 : 2 * uploader->unlisted_capacity;
        uploader->unlisted = mem_realloc(
            uploader->unlisted, uploader->unlisted_capacity * sizeof(uploader->unlisted[0]));
    }
    uploader->unlisted[uploader->unlisted_count++] = *file;
}

static err_t gather_file(
    struct gathering *gathering, const char *path, const char *name, struct errmsg *msg)
{
    struct uploader *uploader = gathering->uploader;
    struct upload_round *round = gathering->round;
    struct remote_index *index = &gathering->index;
    struct remote_file file = {.generation = round->generation};
    bool found = false;
    TRY(str_copy(file.name, sizeof(file.name), name, msg));
    TRY(find_uploaded(uploader, path, &file, &found, msg));
    if (!found) {
        TRY(FAULT("uploader.before_file"));
        note_unlisted(uploader, &file);
        TRY(objstore_put_file(uploader->objects, name_of(uploader, &file).text, path, msg));
        round->files++;
        round->bytes += file.size;
        metric_add(&uploaded_files, 1);
        metric_add(&uploaded_bytes, (int64_t)file.size);
    }
    if (index->file_count == gathering->file_capacity) {
        gathering->file_capacity =
            gathering->file_capacity == 0 ? 64 : 2 * gathering->file_capacity;
        index->files =
            mem_realloc(index->files, gathering->file_capacity * sizeof(index->files[0]));
    }
    index->files[index->file_count++] = file;
    return ERR_OK;
}

static err_t gather_small_file(
    struct gathering *gathering, const char *path, const char *name, struct errmsg *msg)
{
    struct remote_index *index = &gathering->index;
    if (index->small_file_count == REMOTE_SMALL_FILES_MAX) {
        return err_set(msg, ERR_FULL, "more than %d small files", REMOTE_SMALL_FILES_MAX);
    }
    struct buf *content = &gathering->contents[index->small_file_count];
    TRY(file_read_all(path, SMALL_FILE_BYTES_MAX, content, msg));
    if (index->small_files == NULL) {
        index->small_files = MEM_ARRAY(struct remote_small_file, REMOTE_SMALL_FILES_MAX);
    }
    struct remote_small_file *file = &index->small_files[index->small_file_count++];
    file->content = buf_view(content);
    return str_copy(file->name, sizeof(file->name), name, msg);
}

/* Options are written anew when a store is opened, locks and texts are of no use elsewhere. */
static bool is_needed(const char *name)
{
    return strcmp(name, "CURRENT") == 0 || str_starts_with(name, "MANIFEST-") ||
           str_ends_with(name, ".log");
}

static err_t gather_entry(const char *name, void *context, struct errmsg *msg)
{
    struct gathering *gathering = context;
    char path[PATH_SIZE];
    TRY(str_format(path, sizeof(path), msg, "%s/%s", gathering->uploader->checkpoint, name));
    if (remote_is_data_file(name)) {
        return gather_file(gathering, path, name, msg);
    }
    return is_needed(name) ? gather_small_file(gathering, path, name, msg) : ERR_OK;
}

/* The new index is durable: what only the one before the last needed is doomed. */
static void shift(struct uploader *uploader, struct gathering *gathering)
{
    struct remote_index old = uploader->previous;
    uploader->previous = uploader->newest;
    uploader->newest = gathering->index;
    uploader->newest.positions = NULL; /* the round's */
    keep_files_only(&uploader->newest);
    keep_files_only(&uploader->previous);
    gathering->index = (struct remote_index){.generation = 0};
    if (old.generation != 0) { /* before its files: see doom_index() */
        name_list_add(
            &uploader->doomed, remote_index_name(uploader->tenant, old.generation, old.sequence));
    }
    for (size_t i = 0; i < old.file_count; i++) {
        if (!is_needed_object(uploader, &old.files[i])) {
            name_list_add(&uploader->doomed, name_of(uploader, &old.files[i]));
        }
    }
    remote_index_deinit(&old);
    for (size_t i = 0; i < uploader->unlisted_count; i++) {
        struct remote_name name = name_of(uploader, &uploader->unlisted[i]);
        if (!is_needed_object(uploader, &uploader->unlisted[i]) &&
            !name_list_has(&uploader->doomed, name.text)) {
            name_list_add(&uploader->doomed, name);
        }
    }
    uploader->unlisted_count = 0;
}

static err_t upload_checkpoint(
    struct uploader *uploader, struct gathering *gathering, struct errmsg *msg)
{
    struct upload_round *round = gathering->round;
    struct remote_index *index = &gathering->index;
    TRY(dir_remove(uploader->checkpoint, msg));
    TRY(page_store_checkpoint(round->store, uploader->checkpoint, msg));
    TRY(dir_list(uploader->checkpoint, gather_entry, gathering, msg));
    TRY(FAULT("uploader.before_index"));
    TRY(index_put(uploader->objects, index, msg));
    metric_add(&indexes, 1);
    TRY(FAULT("uploader.after_index"));
    round->sequence = index->sequence;
    struct remote_state state = {.generation = index->generation, .sequence = index->sequence};
    shift(uploader, gathering);
    uploader->trusted = true;
    return remote_state_write(uploader->folder, state, msg);
}

err_t uploader_run(struct uploader *uploader, struct upload_round *round, struct errmsg *msg)
{
    mono_ns_t begin = clock_mono();
    round->files = 0;
    round->bytes = 0;
    if (!uploader->loaded) {
        TRY(load(uploader, round->generation, msg));
    }
    TRY(check_positions(uploader, round, msg));
    struct gathering *gathering = MEM_NEW(struct gathering);
    bool goes_on = uploader->newest.generation == round->generation;
    *gathering = (struct gathering){
        .uploader = uploader,
        .round = round,
        .index =
            {
                .tenant = uploader->tenant,
                .generation = round->generation,
                .sequence = goes_on ? uploader->newest.sequence + 1 : 1,
                .created = clock_wall(),
                .has_lineage = true,
                .positions = (struct remote_position *)round->positions,
                .position_count = round->position_count,
            },
    };
    err_t err = upload_checkpoint(uploader, gathering, msg);
    gathering_deinit(gathering);
    mem_free(gathering);
    err_ignore(dir_remove(uploader->checkpoint, NULL), "the next round removes it, too");
    if (err != ERR_OK) {
        uploader->loaded = false; /* an index may be up there that we did not hear of */
        remote_index_deinit(&uploader->newest);
        remote_index_deinit(&uploader->previous);
        return err;
    }
    metric_observe_ns(&round_seconds, clock_mono() - begin);
    return ERR_OK;
}

/* -- deleting -- */

size_t uploader_doomed(const struct uploader *uploader)
{
    return uploader->doomed.count;
}

err_t uploader_delete(struct uploader *uploader, struct errmsg *msg)
{
    struct name_list *doomed = &uploader->doomed;
    while (doomed->count > 0) {
        TRY(objstore_delete(uploader->objects, doomed->items[doomed->count - 1].text, msg));
        doomed->count--;
        metric_add(&deleted, 1);
        TRY(FAULT("uploader.after_delete"));
    }
    return ERR_OK;
}

/* -- scrubbing -- */

/* Objects that the newest index names and the store does not hold as named leave the index. */
static err_t find_dangling(
    struct uploader *uploader, struct name_list *ret_dangling, struct errmsg *msg)
{
    struct remote_index *newest = &uploader->newest;
    size_t kept = 0;
    for (size_t i = 0; i < newest->file_count; i++) {
        struct remote_file *file = &newest->files[i];
        struct remote_name name = name_of(uploader, file);
        struct objstore_info info;
        err_t err = objstore_head(uploader->objects, name.text, &info, msg);
        if (err == ERR_OK && info.size == file->size && hash128_equal(info.hash, file->hash)) {
            newest->files[kept++] = *file;
            continue;
        }
        if (err != ERR_OK && err != ERR_NOT_FOUND && err != ERR_CORRUPT) {
            return err; /* the store cannot tell: nothing was decided yet */
        }
        log_error(
            &uploader->log, "object %s is %s", name.text,
            err == ERR_NOT_FOUND ? "missing" : "damaged");
        name_list_add(ret_dangling, name);
        if (err != ERR_NOT_FOUND) { /* its name is needed for what it should be */
            TRY(objstore_delete(uploader->objects, name.text, msg));
        }
    }
    newest->file_count = kept;
    return ERR_OK;
}

struct leak_search {
    struct uploader *uploader;
    const struct name_list *needed;
    generation_t generation;
    wall_us_t before;
    struct scrub_result *result;
};

static err_t look_at_object(const struct objstore_entry *entry, void *context, struct errmsg *msg)
{
    struct leak_search *search = context;
    struct uploader *uploader = search->uploader;
    generation_t generation = 0;
    (void)msg;
    search->result->objects++;
    if (remote_data_name_parse(entry->name, uploader->tenant, &generation, NULL) != ERR_OK ||
        generation > search->generation || entry->modified > search->before ||
        name_list_has(search->needed, entry->name) ||
        name_list_has(&uploader->doomed, entry->name)) {
        return ERR_OK;
    }
    struct remote_name name;
    TRY(str_copy(name.text, sizeof(name.text), entry->name, msg));
    name_list_add(&uploader->doomed, name);
    search->result->leaked++;
    return ERR_OK;
}

static err_t find_leaked(
    struct uploader *uploader,
    const struct upload_round *round,
    uint64_t leaked_after_ms,
    struct scrub_result *result,
    struct errmsg *msg)
{
    struct name_list needed = {0};
    const struct remote_index *const both[] = {&uploader->newest, &uploader->previous};
    for (size_t i = 0; i < ARRAY_LEN(both); i++) {
        for (size_t k = 0; k < both[i]->file_count; k++) {
            name_list_add(&needed, name_of(uploader, &both[i]->files[k]));
        }
    }
    struct leak_search search = {
        .uploader = uploader,
        .needed = &needed,
        .generation = round->generation,
        .before = clock_wall() - (wall_us_t)(leaked_after_ms * 1000),
        .result = result,
    };
    struct remote_name prefix = remote_data_prefix(uploader->tenant);
    struct objstore_query query = {.prefix = prefix.text};
    err_t err = objstore_list(uploader->objects, &query, look_at_object, &search, msg);
    mem_free(needed.items);
    return err;
}

err_t uploader_scrub(
    struct uploader *uploader,
    struct upload_round *round,
    uint64_t leaked_after_ms,
    struct scrub_result *ret_result,
    struct errmsg *msg)
{
    struct scrub_result result = {.objects = 0};
    struct name_list dangling = {0};
    if (!uploader->loaded) {
        TRY(load(uploader, round->generation, msg));
    }
    err_t err = find_dangling(uploader, &dangling, msg);
    if (err == ERR_OK) {
        err = uploader_run(uploader, round, msg); /* what is still here is uploaded again */
    }
    for (size_t i = 0; i < dangling.count && err == ERR_OK; i++) {
        for (size_t k = 0; k < uploader->newest.file_count; k++) {
            struct remote_name name = name_of(uploader, &uploader->newest.files[k]);
            /* The file's own name comes after the last slash, before the hash. */
            result.repaired +=
                strcmp(strrchr(name.text, '/'), strrchr(dangling.items[i].text, '/')) == 0;
        }
    }
    result.dangling = dangling.count;
    mem_free(dangling.items);
    if (err == ERR_OK) {
        err = find_leaked(uploader, round, leaked_after_ms, &result, msg);
    }
    if (err == ERR_OK) {
        *ret_result = result;
    }
    return err;
}
