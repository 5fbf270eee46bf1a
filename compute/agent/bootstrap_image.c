#include "compute/agent/bootstrap_image.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/checksum.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/child.h"
#include "common/io/file.h"
#include "common/objstore/objstore.h"
#include "common/pg/pg_control.h"

#define WAITERS_MAX        32
#define LOCALE_SIZE        64
#define IMAGE_SIZE_MAX     (1 * GIB)
#define WAL_PAGE_SIZE      8192
#define WAL_SEGMENT_SIZE   (16 * MIB)
#define WAL_PAGE_HEADER    24
#define WAL_SEGMENT_HEADER 40
#define CHECKPOINT_RECORD  (24 + 2 + PG_CHECKPOINT_SIZE) /* header, block id and length, data */
#define PG_MAJOR           17

struct bootstrap_maker {
    const struct compute_host *host;
    struct objstore *store; /* opened by the first request; NULL before */
    char data_dir[PATH_SIZE];
    char work_dir[PATH_SIZE];    /* of initdb; removed afterwards */
    char record_path[PATH_SIZE]; /* bootstrap.json */
    bool busy, stopping;
    void (*on_stopped)(void);
    bool version_known;
    char version[32]; /* "17.11" */
    char locale[LOCALE_SIZE];
    struct http_request *waiters[WAITERS_MAX];
    size_t waiter_count;
    struct child_user child;
    struct job job;
    struct doc *result; /* of the job */
};

lsn_t bootstrap_record_end(lsn_t begin, uint64_t size)
{
    lsn_t at = begin;
    for (;;) {
        uint64_t room = WAL_PAGE_SIZE - at % WAL_PAGE_SIZE;
        if (size <= room) {
            break;
        }
        size -= room;
        at += room;
        at += at % WAL_SEGMENT_SIZE == 0 ? WAL_SEGMENT_HEADER : WAL_PAGE_HEADER;
    }
    return (at + size + 7) / 8 * 8; /* pages are multiples of 8: this never leaves the page */
}

static void answer_all(struct bootstrap_maker *maker, err_t err, const struct errmsg *msg)
{
    for (size_t i = 0; i < maker->waiter_count; i++) {
        if (err != ERR_OK) {
            http_respond_error(maker->waiters[i], err, msg);
        } else {
            http_respond_json(maker->waiters[i], 200, doc_copy(maker->result));
        }
    }
    maker->waiter_count = 0;
    maker->busy = false;
    if (err != ERR_OK && !maker->stopping) {
        log_error(NULL, "bootstrap image: %s", msg->text);
    }
    if (maker->stopping) {
        maker->on_stopped();
    }
}

static void submit(
    struct bootstrap_maker *maker, err_t (*run)(struct job *job), void (*done)(struct job *job))
{
    maker->job.run = run;
    maker->job.done = done;
    executor_submit(maker->host->files, &maker->job);
}

/* -- 1. was it made before? -- */

/* Leaves maker->result NULL when there is nothing to use. */
static err_t use_record(struct bootstrap_maker *maker, struct errmsg *msg)
{
    struct buf text = {0};
    struct doc *record = NULL;
    const char *object = NULL;
    const char *locale = NULL;
    bool there = false;
    err_t err = file_read_all(maker->record_path, 64 * KIB, &text, NULL);
    if (err == ERR_OK) {
        err = doc_parse(buf_view(&text), &record, NULL);
    }
    buf_deinit(&text);
    if (err != ERR_OK || doc_get_str(record, "object", &object, NULL) != ERR_OK ||
        doc_get_str(record, "locale", &locale, NULL) != ERR_OK ||
        strcmp(locale, maker->locale) != 0) {
        doc_unref(record);
        return ERR_OK; /* missing or of no use: a new image is made */
    }
    err = objstore_exists(maker->store, object, &there, msg);
    if (err == ERR_OK && there) {
        maker->result = record;
        return ERR_OK;
    }
    doc_unref(record);
    return err;
}

static err_t make_work_dir(struct bootstrap_maker *maker, struct errmsg *msg)
{
    TRY(dir_remove(maker->work_dir, msg));
    TRY(dir_create(maker->work_dir, msg));
    if (maker->host->user.name[0] != '\0' &&
        chown(maker->work_dir, maker->host->user.uid, maker->host->user.gid) != 0) {
        return err_set(msg, err_from_errno(errno), "chown %s: %m", maker->work_dir);
    }
    return ERR_OK;
}

static err_t run_look(struct job *job)
{
    struct bootstrap_maker *maker = CONTAINER_OF(job, struct bootstrap_maker, job);
    err_t err = use_record(maker, &job->msg);
    return err != ERR_OK || maker->result != NULL ? err : make_work_dir(maker, &job->msg);
}

/* -- 3. pack -- */

struct pack {
    const char *root;
    char **names; /* relative to root; folders end in a slash */
    size_t count, capacity;
    const char *folder; /* that is being listed, with its slash */
    struct archive *archive;
    struct buf image;
};

/* WAL lies before the start of every timeline; settings are written at each start of a compute. */
static bool is_left_out(const char *name)
{
    return str_starts_with(name, "pg_wal/")
               ? name[strlen(name) - 1] != '/'
               : str_ends_with(name, ".conf") || str_ends_with(name, ".pid") ||
                     str_ends_with(name, ".opts");
}

static err_t add_name(const char *name, void *context, struct errmsg *msg)
{
    struct pack *pack = context;
    char path[PATH_SIZE];
    char relative[PATH_SIZE];
    struct stat status;
    TRY(str_format(path, sizeof(path), msg, "%s/%s%s", pack->root, pack->folder, name));
    if (lstat(path, &status) != 0) {
        return err_set(msg, err_from_errno(errno), "stat %s: %m", path);
    }
    bool is_dir = S_ISDIR(status.st_mode);
    if (!is_dir && !S_ISREG(status.st_mode)) {
        return err_set(msg, ERR_UNSUPPORTED, "%s is neither file nor folder", path);
    }
    TRY(str_format(
        relative, sizeof(relative), msg, "%s%s%s", pack->folder, name, is_dir ? "/" : ""));
    if (is_left_out(relative)) {
        return ERR_OK;
    }
    if (pack->count == pack->capacity) {
        pack->capacity = MAX_OF(pack->capacity * 2, 1024);
        pack->names = mem_realloc(pack->names, pack->capacity * sizeof(pack->names[0]));
    }
    pack->names[pack->count++] = mem_strdup(relative);
    return ERR_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static err_t collect_names(struct pack *pack, struct errmsg *msg)
{
    pack->folder = "";
    TRY(dir_list(pack->root, add_name, pack, msg));
    for (size_t i = 0; i < pack->count; i++) { /* the list grows while it is walked */
        if (!str_ends_with(pack->names[i], "/")) {
            continue;
        }
        char path[PATH_SIZE];
        char *folder = mem_strdup(pack->names[i]);
        pack->folder = folder;
        err_t err = str_format(path, sizeof(path), msg, "%s/%s", pack->root, folder);
        if (err == ERR_OK) {
            err = dir_list(path, add_name, pack, msg);
        }
        mem_free(folder);
        TRY(err);
    }
    qsort(pack->names, pack->count, sizeof(pack->names[0]), by_text);
    return ERR_OK;
}

static la_ssize_t on_write(struct archive *archive, void *context, const void *data, size_t size)
{
    struct pack *pack = context;
    if (pack->image.size + size > IMAGE_SIZE_MAX) {
        archive_set_error(archive, ENOSPC, "larger than %zu bytes", IMAGE_SIZE_MAX);
        return -1;
    }
    buf_append(&pack->image, data, size);
    return (la_ssize_t)size;
}

static err_t add_member(struct pack *pack, const char *name, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf data = {0};
    bool is_dir = str_ends_with(name, "/");
    TRY(str_format(path, sizeof(path), msg, "%s/%s", pack->root, name));
    if (!is_dir) {
        TRY(file_read_all(path, IMAGE_SIZE_MAX, &data, msg));
    }
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, is_dir ? AE_IFDIR : AE_IFREG);
    archive_entry_set_perm(entry, is_dir ? 0700 : 0600);
    archive_entry_set_size(entry, (la_int64_t)data.size);
    bool good = archive_write_header(pack->archive, entry) == ARCHIVE_OK &&
                (data.size == 0 ||
                 archive_write_data(pack->archive, data.data, data.size) == (la_ssize_t)data.size);
    archive_entry_free(entry);
    buf_deinit(&data);
    return good ? ERR_OK
                : err_set(msg, ERR_IO, "pack %s: %s", name, archive_error_string(pack->archive));
}

static err_t pack_all(struct pack *pack, struct errmsg *msg)
{
    TRY(collect_names(pack, msg));
    pack->archive = archive_write_new();
    if (pack->archive == NULL || archive_write_set_format_ustar(pack->archive) != ARCHIVE_OK ||
        archive_write_open(pack->archive, pack, NULL, on_write, NULL) != ARCHIVE_OK) {
        return err_set(msg, ERR_IO, "libarchive does not start");
    }
    for (size_t i = 0; i < pack->count; i++) {
        TRY(add_member(pack, pack->names[i], msg));
    }
    if (archive_write_close(pack->archive) != ARCHIVE_OK) {
        return err_set(msg, ERR_IO, "pack: %s", archive_error_string(pack->archive));
    }
    return ERR_OK;
}

static void pack_deinit(struct pack *pack)
{
    for (size_t i = 0; i < pack->count; i++) {
        mem_free(pack->names[i]);
    }
    mem_free(pack->names);
    if (pack->archive != NULL) {
        (void)archive_write_free(pack->archive);
    }
    buf_deinit(&pack->image);
}

static err_t read_control(
    const struct bootstrap_maker *maker, struct pg_control *ret, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf file = {0};
    TRY(str_format(path, sizeof(path), msg, "%s/pgdata/global/pg_control", maker->work_dir));
    TRY(file_read_all(path, 64 * KIB, &file, msg));
    err_t err = pg_control_parse(buf_view(&file), ret, msg);
    buf_deinit(&file);
    TRY(err);
    if (ret->state != PG_CONTROL_SHUT_DOWN) {
        return err_set(msg, ERR_CORRUPT, "initdb did not leave a cluster that is shut down");
    }
    if (ret->data_checksum_version != 0) {
        return err_set(msg, ERR_UNSUPPORTED, "initdb turned data checksums on");
    }
    return ERR_OK;
}

static err_t store_image(
    struct bootstrap_maker *maker, struct bytes image, char *object, struct errmsg *msg)
{
    TRY(str_format(
        object, PATH_SIZE, msg, "bootstrap/pg%d/%s-%s-%016" PRIx64 ".tar", PG_MAJOR, maker->version,
        maker->locale, hash64(image.data, image.size, 0)));
    return objstore_put(maker->store, object, image, msg);
}

static err_t write_record(
    struct bootstrap_maker *maker,
    const char *object,
    const struct pg_control *control,
    struct errmsg *msg)
{
    char system_id[24];
    struct buf text = {0};
    struct doc *record = doc_object();
    (void)snprintf(system_id, sizeof(system_id), "%" PRIu64, control->system_id);
    (void)doc_set_str(record, "object", object);
    (void)doc_set_lsn(
        record, "start_lsn", bootstrap_record_end(control->checkpoint_lsn, CHECKPOINT_RECORD));
    (void)doc_set_int(record, "pg_version", PG_MAJOR);
    (void)doc_set_str(record, "system_id", system_id);
    (void)doc_set_str(record, "locale", maker->locale);
    doc_print(record, true, &text);
    err_t err = file_write_durably(maker->record_path, buf_view(&text), msg);
    buf_deinit(&text);
    if (err != ERR_OK) {
        doc_unref(record);
        return err;
    }
    maker->result = record;
    return ERR_OK;
}

static err_t run_pack(struct job *job)
{
    struct bootstrap_maker *maker = CONTAINER_OF(job, struct bootstrap_maker, job);
    struct errmsg *msg = &job->msg;
    struct pg_control control;
    char root[PATH_SIZE];
    char object[PATH_SIZE];
    TRY(str_format(root, sizeof(root), msg, "%s/pgdata", maker->work_dir));
    TRY(read_control(maker, &control, msg));
    struct pack pack = {.root = root};
    err_t err = pack_all(&pack, msg);
    if (err == ERR_OK) {
        err = store_image(maker, buf_view(&pack.image), object, msg);
    }
    pack_deinit(&pack);
    TRY(err);
    TRY(write_record(maker, object, &control, msg));
    err_ignore(dir_remove(maker->work_dir, NULL), "the next initdb removes it first");
    return ERR_OK;
}

static void done_pack(struct job *job)
{
    struct bootstrap_maker *maker = CONTAINER_OF(job, struct bootstrap_maker, job);
    if (job->result == ERR_OK) {
        const char *object = doc_value_str(doc_get(maker->result, "object"));
        log_info(NULL, "bootstrap image %s", object != NULL ? object : "");
    }
    answer_all(maker, job->result, &job->msg);
    doc_unref(maker->result);
    maker->result = NULL;
}

/* -- 2. initdb, twice: for its version, then for the cluster -- */

static err_t start_initdb(struct bootstrap_maker *maker, struct errmsg *msg)
{
    char initdb[PATH_SIZE];
    char pgdata[PATH_SIZE];
    char output[PATH_SIZE];
    char version[PATH_SIZE];
    char locale[LOCALE_SIZE + 16];
    char builtin[LOCALE_SIZE + 24];
    TRY(str_format(initdb, sizeof(initdb), msg, "%s/bin/initdb", maker->host->conf->postgres_dir));
    TRY(str_format(pgdata, sizeof(pgdata), msg, "%s/pgdata", maker->work_dir));
    TRY(str_format(output, sizeof(output), msg, "%s/initdb.log", maker->data_dir));
    TRY(str_format(version, sizeof(version), msg, "%s/initdb.version", maker->data_dir));
    TRY(str_format(locale, sizeof(locale), msg, "--locale=%s", maker->locale));
    TRY(str_format(builtin, sizeof(builtin), msg, "--builtin-locale=%s", maker->locale));
    /* The builtin provider sorts the same for ever, whatever the C library of a host becomes. */
    bool is_builtin = strcmp(maker->locale, "C.UTF-8") == 0;
    const char *const ask[] = {initdb, "--version", NULL};
    const char *const make[] = {
        initdb,
        "-D",
        pgdata,
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--no-sync",
        "--no-instructions",
        "--wal-segsize=16",
        locale,
        is_builtin ? "--locale-provider=builtin" : "--locale-provider=libc",
        is_builtin ? builtin : NULL,
        NULL};
    struct child_options options = {
        .argv = maker->version_known ? make : ask,
        .output_path = output,
        .stdout_path = maker->version_known ? NULL : version,
        .working_dir = maker->work_dir,
        .user_name = maker->host->user.name,
        .dies_with_us = true,
    };
    return child_start(maker->host->loop, &options, &maker->child, msg);
}

/* "initdb (PostgreSQL) 17.11 (Debian ...)": the first word that begins with a digit. */
static err_t read_version(struct bootstrap_maker *maker, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    TRY(str_format(path, sizeof(path), msg, "%s/initdb.version", maker->data_dir));
    TRY(file_read_all(path, KIB, &text, msg));
    const char *begin = strpbrk(buf_cstr(&text), "0123456789");
    size_t size = begin == NULL ? 0 : strspn(begin, "0123456789.");
    err_t err = ERR_OK;
    if (size < 2 || size >= sizeof(maker->version) || strncmp(begin, "17", 2) != 0) {
        err = err_set(msg, ERR_UNSUPPORTED, "initdb is not of Postgres 17: %.60s", buf_cstr(&text));
    } else {
        memcpy(maker->version, begin, size);
        maker->version[size] = '\0';
        maker->version_known = true;
    }
    buf_deinit(&text);
    return err;
}

static void on_initdb_exit(struct child_user *user, int exit_status, int number)
{
    struct bootstrap_maker *maker = CONTAINER_OF(user, struct bootstrap_maker, child);
    struct errmsg msg;
    err_t err = ERR_OK;
    if (exit_status != 0) {
        err = err_set(
            &msg, ERR_IO, "initdb %s %d, see %s/initdb.log",
            exit_status >= 0 ? "ended with status" : "was ended by signal",
            exit_status >= 0 ? exit_status : number, maker->data_dir);
    } else if (!maker->version_known) {
        err = read_version(maker, &msg);
        err = err != ERR_OK ? err : start_initdb(maker, &msg);
    } else {
        submit(maker, run_pack, done_pack);
    }
    if (err != ERR_OK) {
        answer_all(maker, err, &msg);
    }
}

static void done_look(struct job *job)
{
    struct bootstrap_maker *maker = CONTAINER_OF(job, struct bootstrap_maker, job);
    struct errmsg msg = job->msg;
    err_t err = job->result;
    if (err == ERR_OK && maker->result != NULL) {
        answer_all(maker, ERR_OK, NULL);
        doc_unref(maker->result);
        maker->result = NULL;
        return;
    }
    if (err == ERR_OK && maker->stopping) {
        err = err_set(&msg, ERR_CANCELED, "the process is stopping");
    }
    err = err != ERR_OK ? err : start_initdb(maker, &msg);
    if (err != ERR_OK) {
        answer_all(maker, err, &msg);
    }
}

/* -- requests -- */

static err_t parse_request(struct http_request *request, char *locale, struct errmsg *msg)
{
    struct doc *body = NULL;
    uint64_t version = PG_MAJOR;
    const char *text = "C.UTF-8";
    TRY(http_request_json(request, &body, msg));
    TRY(doc_opt_u64(body, "pg_version", &version, msg));
    TRY(doc_opt_str(body, "locale", &text, msg));
    if (version != PG_MAJOR && version / 10000 != PG_MAJOR) {
        return err_set(
            msg, ERR_UNSUPPORTED, "pg_version: %" PRIu64 " is not supported, only %d", version,
            PG_MAJOR);
    }
    size_t good = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (good == 0 || text[good] != '\0' || text[0] == '-' || text[0] == '.') {
        return err_set(msg, ERR_INVALID, "locale: \"%.40s\" is not the name of a locale", text);
    }
    return str_copy(locale, LOCALE_SIZE, text, msg);
}

void bootstrap_maker_handle(struct bootstrap_maker *maker, struct http_request *request)
{
    struct errmsg msg;
    char locale[LOCALE_SIZE];
    err_t err = parse_request(request, locale, &msg);
    if (err == ERR_OK && maker->host->conf->object_store[0] == '\0') {
        err = err_set(&msg, ERR_UNSUPPORTED, "setting object_store of this agent is empty");
    }
    if (err == ERR_OK && maker->stopping) {
        err = err_set(&msg, ERR_CANCELED, "the process is stopping");
    }
    if (err == ERR_OK && maker->store == NULL) {
        err = objstore_open(maker->host->conf->object_store, &maker->store, &msg);
    }
    if (err == ERR_OK && maker->busy &&
        (strcmp(locale, maker->locale) != 0 || maker->waiter_count == WAITERS_MAX)) {
        err = err_set(&msg, ERR_BUSY, "an image is being made: try again");
    }
    if (err != ERR_OK) {
        http_respond_error(request, err, &msg);
        return;
    }
    maker->waiters[maker->waiter_count++] = request;
    if (!maker->busy) {
        maker->busy = true;
        memcpy(maker->locale, locale, sizeof(locale));
        submit(maker, run_look, done_look);
    }
}

struct bootstrap_maker *bootstrap_maker_create(
    const struct compute_host *host, const char *data_dir)
{
    struct bootstrap_maker *maker = MEM_NEW(struct bootstrap_maker);
    maker->host = host;
    maker->child.on_exit = on_initdb_exit;
    (void)snprintf(maker->data_dir, sizeof(maker->data_dir), "%s", data_dir);
    (void)snprintf(maker->work_dir, sizeof(maker->work_dir), "%.1000s/bootstrap", data_dir);
    (void)snprintf(
        maker->record_path, sizeof(maker->record_path), "%.1000s/bootstrap.json", data_dir);
    return maker;
}

void bootstrap_maker_stop(struct bootstrap_maker *maker, void (*on_stopped)(void))
{
    maker->stopping = true;
    maker->on_stopped = on_stopped;
    if (maker->store != NULL) {
        objstore_cancel(maker->store);
    }
    if (maker->child.child != NULL) {
        child_signal_group(maker->child.child, SIGKILL); /* on_exit answers who waits */
    }
}

bool bootstrap_maker_is_busy(const struct bootstrap_maker *maker)
{
    return maker->busy;
}

void bootstrap_maker_destroy(struct bootstrap_maker *maker)
{
    if (maker != NULL) {
        objstore_close(maker->store);
        mem_free(maker);
    }
}
