/*
 * compute_files.c - libarchive unpacks; every name from the archive is checked before it is used.
 */
#include "compute/agent/compute_files.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/file.h"
#include "common/wire/page_proto.h"
#include "compute/agent/statistics.h"

#define SEGMENT_SIZE    (16 * MIB)
#define BACKUP_SIZE_MAX (1 * GIB)
#define LOG_TAIL_MAX    (64 * KIB)
#define LOG_SIZE_MAX    (16 * MIB)
#define LAST_MEMBER     "anabranch.json"
#define LAST_MEMBER_MAX 4096
#define TLS_CERT        "server.crt"
#define TLS_KEY         "server.key"
#define TLS_FILE_MAX    (1 * MIB)

/*
 * Settings that a compute must have, because of where its data lives. fsync and friends: nothing
 * local is durable, a commit is durable when the safekeepers say so. full_page_writes: the
 * pageserver rebuilds pages from history, there are no torn pages. wal_log_hints: a page's LSN must
 * move when its visibility bit does. restart_after_crash: shared state of the extension is gone
 * after a crash, so the agent starts anew from the storage.
 */
static const char forced_text[] = "fsync = off\n"
                                  "full_page_writes = off\n"
                                  "wal_log_hints = on\n"
                                  "restart_after_crash = off\n"
                                  "synchronous_standby_names = 'walproposer'\n"
                                  "max_wal_senders = 16\n"
                                  "max_slot_wal_keep_size = 2GB\n"
                                  "wal_sender_timeout = 60s\n"
                                  "wal_recycle = off\n"
                                  "wal_init_zero = off\n"
                                  "archive_mode = off\n"
                                  "summarize_wal = off\n"
                                  "logging_collector = off\n"
                                  "allow_alter_system = off\n";

/* Defaults that a user may change. */
static const char default_text[] = "wal_level = replica\n"
                                   "synchronous_commit = on\n"
                                   "wal_compression = lz4\n"
                                   "wal_keep_size = 1GB\n"
                                   "max_wal_size = 4GB\n"
                                   "min_wal_size = 32MB\n"
                                   "checkpoint_timeout = 5min\n"
                                   "max_connections = 100\n"
                                   "max_prepared_transactions = 64\n"
                                   "max_worker_processes = 10\n" /* two are the library's */
                                   "max_replication_slots = 16\n"
                                   "effective_io_concurrency = 64\n"
                                   "maintenance_io_concurrency = 64\n"
                                   "io_combine_limit = 32\n"
                                   "password_encryption = scram-sha-256\n"
                                   "log_line_prefix = '%m [%p] %q%u@%d '\n"
                                   "log_timezone = 'UTC'\n"
                                   "timezone = 'UTC'\n";

/* Jobs that the parent scheduled. Every release of pg_cron that Postgres 17 can load knows it. */
static const char cron_text[] = "cron.launch_active_jobs = off\n";

static const char hba_text[] =
    "# Local: only who may enter the socket's folder, which is the agent and its own computes.\n"
    "local all all trust\n"
    "local replication all trust\n";

/* "host" is with and without TLS. Who wants physical replication is let in to be told that there is
 * none. */
static void print_hba(const struct compute_files *files, struct buf *to)
{
    const char *kind = files->conf->tls_required ? "hostssl" : "host";
    buf_printf(to, "%s%s all all 0.0.0.0/0 scram-sha-256\n", hba_text, kind);
    buf_printf(to, "%s all all ::/0 scram-sha-256\n", kind);
    buf_printf(to, "%s replication all all scram-sha-256\n", kind);
}

err_t run_as_find(const struct agent_conf *conf, struct run_as *ret_user, struct errmsg *msg)
{
    struct run_as user = {.uid = geteuid(), .gid = getegid()};
    if (geteuid() == 0) {
        const char *name = conf->run_as_user[0] != '\0' ? conf->run_as_user : "postgres";
        struct passwd entry;
        struct passwd *found = NULL;
        char text[4096];
        (void)getpwnam_r(name, &entry, text, sizeof(text), &found);
        if (found == NULL) {
            return err_set(
                msg, ERR_NOT_FOUND,
                "run_as_user: there is no user \"%s\", and Postgres refuses root", name);
        }
        if (entry.pw_uid == 0) {
            return err_set(msg, ERR_INVALID, "run_as_user: Postgres refuses to run as root");
        }
        TRY(str_copy(user.name, sizeof(user.name), name, msg));
        user.uid = entry.pw_uid;
        user.gid = entry.pw_gid;
    }
    *ret_user = user;
    return ERR_OK;
}

static err_t give_away(const struct compute_files *files, const char *path, struct errmsg *msg)
{
    if (files->user->name[0] != '\0' && lchown(path, files->user->uid, files->user->gid) != 0) {
        return err_set(msg, err_from_errno(errno), "give %s to %s: %m", path, files->user->name);
    }
    return ERR_OK;
}

static err_t make_dir(const struct compute_files *files, const char *path, struct errmsg *msg)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return err_set(msg, err_from_errno(errno), "create folder %s: %m", path);
    }
    return give_away(files, path, msg);
}

static err_t write_file(
    const struct compute_files *files, const char *path, struct bytes data, struct errmsg *msg)
{
    int fd = -1;
    err_t err = file_open(&fd, path, FILE_CREATE, msg);
    if (err == ERR_OK) {
        err = file_resize(fd, path, 0, false, msg);
    }
    if (err == ERR_OK) {
        err = file_write_at(fd, path, data, 0, msg);
    }
    file_close(&fd);
    return err != ERR_OK ? err : give_away(files, path, msg);
}

err_t compute_files_tar_path(const char *dir, char *to, struct errmsg *msg)
{
    return str_format(to, PATH_SIZE, msg, "%s/base_backup.tar", dir);
}

/* Before the unpack. */

static void print_walproposer_conf(const struct compute_files *files, struct buf *to)
{
    const struct compute_spec *spec = files->spec;
    buf_printf(to, "tenant = %s\n", tenant_id_text(spec->tenant).text);
    buf_printf(to, "timeline = %s\n", timeline_id_text(spec->timeline).text);
    buf_printf(to, "system_id = %" PRIu64 "\n", spec->system_id);
    buf_printf(to, "pg_version = %" PRIu32 "\n", spec->pg_version);
    buf_printf(to, "generation = %" PRIu32 "\n", spec->membership_generation);
    buf_printf(to, "safekeepers = \"");
    for (size_t i = 0; i < spec->safekeeper_count; i++) {
        const struct compute_safekeeper *keeper = &spec->safekeepers[i];
        buf_printf(
            to, "%s%" PRIu64 "@%s:%u", i > 0 ? "," : "", keeper->id, keeper->host, keeper->port);
    }
    buf_printf(to, "\"\n");
    buf_printf(
        to, "postgres_conninfo = \"host=%s/s port=%u user=postgres dbname=postgres\"\n", files->dir,
        files->port);
    buf_printf(to, "postmaster_pid_file = \"%s/pgdata/postmaster.pid\"\n", files->dir);
    buf_printf(to, "data_dir = \"%s/walproposer\"\n", files->dir);
    buf_printf(to, "http_port = 0\n");
    buf_printf(to, "stale_reads_max = %" PRIu64 "ms\n", files->conf->stale_reads_max_ms);
    if (files->conf->auth_token[0] != '\0') {
        buf_printf(to, "token = \"%s\"\n", files->conf->auth_token);
    }
}

err_t compute_files_remove_old(const char *dir, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(str_format(path, sizeof(path), msg, "%s/pgdata.old", dir));
    return dir_remove(path, msg);
}

static err_t move_aside(const struct compute_files *files, struct errmsg *msg)
{
    char pgdata[PATH_SIZE];
    char old[PATH_SIZE];
    TRY(str_format(pgdata, sizeof(pgdata), msg, "%s/pgdata", files->dir));
    TRY(str_format(old, sizeof(old), msg, "%s/pgdata.old", files->dir));
    if (!file_exists(pgdata)) {
        return ERR_OK;
    }
    TRY(dir_remove(old, msg)); /* there only when an earlier start was cut short */
    if (rename(pgdata, old) != 0) {
        return err_set(msg, err_from_errno(errno), "move %s aside: %m", pgdata);
    }
    return ERR_OK;
}

/* One older log is kept, so that a compute that crashes for ever does not fill the disk. */
static err_t turn_log(const char *dir, struct errmsg *msg)
{
    char path[PATH_SIZE];
    char old[PATH_SIZE];
    if (compute_files_log_size(dir) < LOG_SIZE_MAX) {
        return ERR_OK;
    }
    TRY(str_format(path, sizeof(path), msg, "%s/log", dir));
    TRY(str_format(old, sizeof(old), msg, "%s/log.old", dir));
    if (rename(path, old) != 0) {
        return err_set(msg, err_from_errno(errno), "move %s aside: %m", path);
    }
    return ERR_OK;
}

err_t compute_files_prepare(const struct compute_files *files, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(dir_create(files->dir, msg));
    if (chmod(files->dir, 0711) != 0) { /* the run-as user passes through */
        return err_set(msg, err_from_errno(errno), "chmod %s: %m", files->dir);
    }
    TRY(move_aside(files, msg));
    statistics_set_aside(files->dir, files->spec->timeline);
    TRY(turn_log(files->dir, msg));
    TRY(str_format(path, sizeof(path), msg, "%s/s", files->dir));
    TRY(make_dir(files, path, msg));
    TRY(str_format(path, sizeof(path), msg, "%s/cache", files->dir));
    TRY(make_dir(files, path, msg));
    TRY(str_format(path, sizeof(path), msg, "%s/walproposer", files->dir));
    TRY(make_dir(files, path, msg));
    TRY(str_format(path, sizeof(path), msg, "%s/walproposer.conf", files->dir));
    struct buf text = {0};
    print_walproposer_conf(files, &text);
    err_t err = write_file(files, path, buf_view(&text), msg);
    buf_deinit(&text);
    return err;
}

/* Settings. */

static void print_quoted(struct buf *to, const char *name, const char *value)
{
    buf_printf(to, "%s = '", name);
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '\'' || *c == '\\') {
            buf_append(to, c, 1);
        }
        buf_append(to, c, 1);
    }
    buf_printf(to, "'\n");
}

/* Prints the user's settings; libraries to preload are returned, because ours comes first. */
static const char *print_user_settings(const struct doc *settings, struct buf *to)
{
    const char *libraries = NULL;
    DOC_FOR_EACH(settings, name, value)
    {
        const char *text = doc_value_str(value);
        if (strcmp(name, "shared_preload_libraries") == 0) {
            libraries = text;
        } else if (text != NULL) {
            print_quoted(to, name, text);
        } else {
            buf_printf(to, "%s = ", name);
            doc_print(value, false, to);
            buf_append(to, "\n", 1);
        }
    }
    return libraries;
}

static void print_storage_settings(const struct compute_files *files, struct buf *to)
{
    const struct compute_spec *spec = files->spec;
    print_quoted(to, "anabranch.tenant_id", tenant_id_text(spec->tenant).text);
    print_quoted(to, "anabranch.timeline_id", timeline_id_text(spec->timeline).text);
    print_quoted(to, "anabranch.pageserver_host", spec->pageserver_host);
    buf_printf(to, "anabranch.pageserver_port = %u\n", spec->pageserver_port);
    buf_printf(to, "anabranch.generation = %" PRIu32 "\n", spec->generation);
    if (files->conf->auth_token[0] != '\0') {
        print_quoted(to, "anabranch.token", files->conf->auth_token);
    }
    if (spec->quarantine) {
        buf_printf(to, "anabranch.quarantine = on\n");
    }
}

/* What a compute of this size should have, unless its user says otherwise. */
static void print_size_settings(const struct compute_spec *spec, struct buf *to)
{
    uint64_t memory_mb = spec->memory_mb;
    uint64_t cores = (spec->cpu_milli + 999) / 1000;
    if (memory_mb != 0) {
        buf_printf(to, "shared_buffers = %" PRIu64 "MB\n", memory_mb / 4);
        buf_printf(to, "effective_cache_size = %" PRIu64 "MB\n", memory_mb * 3 / 4);
        buf_printf(to, "maintenance_work_mem = %" PRIu64 "MB\n", MIN_OF(memory_mb / 16, 1024));
    }
    if (cores != 0) {
        buf_printf(to, "max_parallel_workers = %" PRIu64 "\n", cores);
        buf_printf(to, "max_parallel_workers_per_gather = %" PRIu64 "\n", MIN_OF(cores, 2));
    }
}

void compute_files_print_settings(const struct compute_files *files, struct buf *to)
{
    const char *libraries = NULL;
    struct buf text = {0};
    buf_printf(to, "# Written at every start of the compute: changes here are lost.\n");
    buf_printf(to, "%s", default_text);
    buf_printf(to, "anabranch.local_cache_mb = %" PRIu64 "\n", files->conf->local_cache_mb);
    print_size_settings(files->spec, to);
    if (files->spec->is_branch &&
        doc_get(files->spec->settings, "cron.launch_active_jobs") == NULL) {
        buf_printf(to, "%s", cron_text);
    }
    buf_printf(to, "\n# Wanted by the user\n");
    if (files->spec->settings != NULL) {
        libraries = print_user_settings(files->spec->settings, to);
    }
    buf_printf(to, "\n# Needed by the storage\n%s", forced_text);
    bool more = libraries != NULL && libraries[0] != '\0';
    buf_printf(&text, "anabranch%s%s", more ? "," : "", more ? libraries : "");
    print_quoted(to, "shared_preload_libraries", buf_cstr(&text));
    buf_clear(&text);
    if (files->conf->extension_dir[0] != '\0') {
        buf_printf(&text, "%s:", files->conf->extension_dir);
    }
    buf_printf(&text, "$libdir");
    print_quoted(to, "dynamic_library_path", buf_cstr(&text));
    print_quoted(to, "listen_addresses", files->spec->listen_host);
    buf_printf(to, "port = %u\n", files->port);
    buf_clear(&text);
    buf_printf(&text, "%s/s", files->dir);
    print_quoted(to, "unix_socket_directories", buf_cstr(&text));
    buf_printf(to, "unix_socket_permissions = 0700\n");
    bool with_tls = files->conf->tls_cert_file[0] != '\0';
    buf_printf(to, "ssl = %s\n", with_tls ? "on" : "off");
    if (with_tls) {
        print_quoted(to, "ssl_cert_file", TLS_CERT);
        print_quoted(to, "ssl_key_file", TLS_KEY);
    }
    buf_clear(&text);
    buf_printf(&text, "%s/cache", files->dir);
    print_quoted(to, "anabranch.local_cache_dir", buf_cstr(&text));
    print_storage_settings(files, to);
    buf_deinit(&text);
}

static err_t write_in(
    const struct compute_files *files, const char *name, struct bytes data, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(str_format(path, sizeof(path), msg, "%s/pgdata/%s", files->dir, name));
    return write_file(files, path, data, msg);
}

/* A copy that its Postgres may read and nobody else, as it insists for the key. */
static err_t copy_in(
    const struct compute_files *files, const char *from, const char *name, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    err_t err = file_read_all(from, TLS_FILE_MAX, &text, msg);
    if (err == ERR_OK) {
        err = str_format(path, sizeof(path), msg, "%s/pgdata/%s", files->dir, name);
    }
    if (err == ERR_OK) {
        err = write_file(files, path, buf_view(&text), msg);
    }
    buf_deinit(&text);
    if (err == ERR_OK && chmod(path, 0600) != 0) {
        err = err_set(msg, err_from_errno(errno), "chmod %s: %m", path);
    }
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "TLS of the compute's port");
}

static err_t write_tls(const struct compute_files *files, struct errmsg *msg)
{
    if (files->conf->tls_cert_file[0] == '\0') {
        return ERR_OK;
    }
    TRY(copy_in(files, files->conf->tls_cert_file, TLS_CERT, msg));
    return copy_in(files, files->conf->tls_key_file, TLS_KEY, msg);
}

static err_t write_settings(const struct compute_files *files, struct errmsg *msg)
{
    struct buf text = {0};
    compute_files_print_settings(files, &text);
    err_t err = write_in(files, "postgresql.conf", buf_view(&text), msg);
    buf_clear(&text);
    print_hba(files, &text);
    err = err != ERR_OK ? err : write_in(files, "pg_hba.conf", buf_view(&text), msg);
    buf_deinit(&text);
    TRY(err);
    TRY(write_tls(files, msg));
    TRY(write_in(files, "pg_ident.conf", bytes_of_str("# none\n"), msg));
    return write_in(files, "postgresql.auto.conf", bytes_of_str(""), msg);
}

/* The archive. */

struct unpack {
    const struct compute_files *files;
    struct archive *archive;
    uint64_t size;
    char cold_path[PATH_SIZE]; /* of the newest file of a cold segment; "": none yet */
    char last_name[64];
    char last_text[LAST_MEMBER_MAX + 1]; /* of anabranch.json */
};

static bool is_safe_name(const char *name)
{
    size_t size = strlen(name);
    if (size == 0 || size > 300 || name[0] == '/') {
        return false;
    }
    for (const char *part = name; part != NULL; part = strchr(part, '/')) {
        part += part != name ? 1 : 0;
        if (strncmp(part, "..", 2) == 0 && (part[2] == '/' || part[2] == '\0')) {
            return false;
        }
    }
    return true;
}

static err_t read_failed(struct unpack *unpack, struct errmsg *msg)
{
    return err_set(
        msg, ERR_CORRUPT, "base backup: %s",
        archive_error_string(unpack->archive) != NULL ? archive_error_string(unpack->archive)
                                                      : "cannot be read");
}

static err_t too_large(struct errmsg *msg)
{
    return err_set(msg, ERR_FULL, "base backup is larger than %zu bytes", BACKUP_SIZE_MAX);
}

/* Zeros that the archive leaves out become holes. */
static err_t copy_data(struct unpack *unpack, int fd, const char *path, struct errmsg *msg)
{
    for (;;) {
        const void *piece = NULL;
        size_t size = 0;
        la_int64_t at = 0;
        int rc = archive_read_data_block(unpack->archive, &piece, &size, &at);
        if (rc == ARCHIVE_EOF) {
            return ERR_OK;
        }
        if (rc != ARCHIVE_OK || at < 0) {
            return read_failed(unpack, msg);
        }
        unpack->size += size;
        if (unpack->size > BACKUP_SIZE_MAX || (uint64_t)at > BACKUP_SIZE_MAX) {
            return too_large(msg);
        }
        TRY(file_write_at(fd, path, bytes_of(piece, size), (uint64_t)at, msg));
    }
}

/* The WAL segment is cut behind its record; Postgres wants it whole. A hole costs nothing. */
static bool is_wal_segment(const char *name)
{
    return str_starts_with(name, "pg_wal/") && strlen(name) == 7 + 24;
}

/* A segment of an SLRU that the compute fetches when it needs it, by its size. */
static bool may_be_cold(const char *name, int64_t size)
{
    bool is_segment = str_starts_with(name, "pg_xact/") || str_starts_with(name, "pg_multixact/") ||
                      str_starts_with(name, "pg_commit_ts/");
    return is_segment && size == (int64_t)strlen(SLRU_COLD_TEXT);
}

/* The folder was empty, so what is there has come before: it may be one file with many names. */
static err_t create_file(
    int *ret_fd, const struct unpack *unpack, const char *path, struct errmsg *msg)
{
    err_t err = file_open(ret_fd, path, FILE_CREATE_NEW, msg);
    if (err == ERR_EXISTS) {
        const char *name = path + strlen(unpack->files->dir) + strlen("/pgdata/");
        return err_set(msg, ERR_CORRUPT, "base backup: the name \"%.60s\" comes twice", name);
    }
    return err;
}

static err_t write_new(
    const struct unpack *unpack, const char *path, struct bytes data, struct errmsg *msg)
{
    int fd = -1;
    TRY(create_file(&fd, unpack, path, msg));
    err_t err = file_write_at(fd, path, data, 0, msg);
    file_close(&fd);
    return err != ERR_OK ? err : give_away(unpack->files, path, msg);
}

/*
 * A database that was not frozen for long has thousands of cold segments. They are names of one
 * file: who fetches a segment puts another file in its place. A file of its own for each costs most
 * where one start follows another: ext4 gives no inode of what was deleted a moment ago, and looks
 * at all of these for every file that is made.
 */
static err_t unpack_cold(struct unpack *unpack, const char *path, size_t size, struct errmsg *msg)
{
    char text[sizeof(SLRU_COLD_TEXT)] = "";
    la_ssize_t got = archive_read_data(unpack->archive, text, size);
    if (got != (la_ssize_t)size) {
        return read_failed(unpack, msg);
    }
    bool is_cold = strcmp(text, SLRU_COLD_TEXT) == 0;
    if (is_cold && unpack->cold_path[0] != '\0' && link(unpack->cold_path, path) == 0) {
        return ERR_OK;
    }
    TRY(write_new(unpack, path, bytes_of(text, size), msg)); /* also: too many links */
    return is_cold ? str_copy(unpack->cold_path, sizeof(unpack->cold_path), path, msg) : ERR_OK;
}

static err_t unpack_file(
    struct unpack *unpack, const char *name, int64_t real_size, struct errmsg *msg)
{
    char path[PATH_SIZE];
    int fd = -1;
    if (real_size < 0 || (uint64_t)real_size > BACKUP_SIZE_MAX) {
        return too_large(msg);
    }
    TRY(str_format(path, sizeof(path), msg, "%s/pgdata/%s", unpack->files->dir, name));
    if (may_be_cold(name, real_size)) {
        return unpack_cold(unpack, path, (size_t)real_size, msg);
    }
    TRY(create_file(&fd, unpack, path, msg));
    uint64_t size = is_wal_segment(name) ? SEGMENT_SIZE : (uint64_t)real_size;
    err_t err = file_resize(fd, path, size, false, msg);
    if (err == ERR_OK) {
        err = copy_data(unpack, fd, path, msg);
    }
    file_close(&fd);
    return err != ERR_OK ? err : give_away(unpack->files, path, msg);
}

static err_t read_last_member(struct unpack *unpack, struct errmsg *msg)
{
    la_ssize_t got = archive_read_data(unpack->archive, unpack->last_text, LAST_MEMBER_MAX);
    if (got < 0) {
        return read_failed(unpack, msg);
    }
    unpack->last_text[got] = '\0';
    return ERR_OK;
}

static err_t unpack_member(struct unpack *unpack, struct archive_entry *entry, struct errmsg *msg)
{
    const char *name = archive_entry_pathname(entry);
    char path[PATH_SIZE];
    if (name == NULL || !is_safe_name(name)) {
        return err_set(
            msg, ERR_CORRUPT, "base backup: the name \"%.60s\" is not allowed",
            name == NULL ? "?" : name);
    }
    if (strcmp(name, LAST_MEMBER) == 0) {
        return read_last_member(unpack, msg);
    }
    if (unpack->last_text[0] != '\0') {
        return err_set(msg, ERR_CORRUPT, "base backup: \"%.60s\" behind the last member", name);
    }
    if (archive_entry_filetype(entry) == AE_IFDIR) {
        TRY(str_format(path, sizeof(path), msg, "%s/pgdata/%s", unpack->files->dir, name));
        return make_dir(unpack->files, path, msg);
    }
    if (archive_entry_filetype(entry) != AE_IFREG) {
        return err_set(msg, ERR_CORRUPT, "base backup: \"%.60s\" is neither file nor folder", name);
    }
    return unpack_file(unpack, name, archive_entry_size(entry), msg);
}

static err_t unpack_members(struct unpack *unpack, const char *tar_path, struct errmsg *msg)
{
    (void)archive_read_support_format_tar(unpack->archive);
    if (archive_read_open_filename(unpack->archive, tar_path, 1 * MIB) != ARCHIVE_OK) {
        return read_failed(unpack, msg);
    }
    for (;;) {
        struct archive_entry *entry = NULL;
        int rc = archive_read_next_header(unpack->archive, &entry);
        if (rc == ARCHIVE_EOF) {
            return ERR_OK;
        }
        if (rc != ARCHIVE_OK) {
            return read_failed(unpack, msg);
        }
        TRY(unpack_member(unpack, entry, msg));
    }
}

/* The last member proves that the archive is whole and of the right cluster and LSN. */
static err_t check_last_member(
    const struct unpack *unpack,
    lsn_t *ret_lsn,
    struct compute_wal_need *ret_need,
    struct errmsg *msg)
{
    const struct compute_files *files = unpack->files;
    struct doc *doc = NULL;
    lsn_t lsn = 0;
    struct compute_wal_need need = {.from_lsn = LSN_NONE};
    const char *system_id = NULL;
    char expected[24];
    if (unpack->last_text[0] == '\0') {
        return err_set(msg, ERR_CORRUPT, "base backup was cut short: there is no %s", LAST_MEMBER);
    }
    err_t err = doc_parse(bytes_of_str(unpack->last_text), &doc, msg);
    err = err != ERR_OK ? err : doc_get_lsn(doc, "start_lsn", &lsn, msg);
    err = err != ERR_OK ? err : doc_get_str(doc, "system_id", &system_id, msg);
    if (err == ERR_OK && doc_get(doc, "wal_from") != NULL) {
        err = doc_get_lsn(doc, "wal_from", &need.from_lsn, msg);
        err = err != ERR_OK ? err
                            : doc_get_lsn(doc, "timeline_start_lsn", &need.timeline_start_lsn, msg);
    }
    (void)snprintf(expected, sizeof(expected), "%" PRIu64, files->spec->system_id);
    if (err == ERR_OK && files->start_lsn != LSN_NONE && lsn != files->start_lsn) {
        err = err_set(
            msg, ERR_CORRUPT, "it is for " LSN_FMT ", not for " LSN_FMT, LSN_ARGS(lsn),
            LSN_ARGS(files->start_lsn));
    }
    if (err == ERR_OK && strcmp(system_id, expected) != 0) {
        err = err_set(msg, ERR_CORRUPT, "it is of system %.24s, not %s", system_id, expected);
    }
    doc_unref(doc);
    *ret_lsn = lsn;
    *ret_need = need;
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "base backup");
}

static err_t unpack_archive(
    const struct compute_files *files,
    const char *tar_path,
    lsn_t *ret_lsn,
    struct compute_wal_need *ret_need,
    struct errmsg *msg)
{
    struct unpack unpack = {.files = files, .archive = archive_read_new()};
    if (unpack.archive == NULL) {
        return err_set(msg, ERR_FULL, "libarchive does not start");
    }
    err_t err = unpack_members(&unpack, tar_path, msg);
    if (err == ERR_OK) {
        err = check_last_member(&unpack, ret_lsn, ret_need, msg);
    }
    (void)archive_read_free(unpack.archive);
    return err;
}

err_t compute_files_unpack(
    const struct compute_files *files,
    lsn_t *ret_lsn,
    struct compute_wal_need *ret_need,
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    char tar_path[PATH_SIZE];
    TRY(str_format(path, sizeof(path), msg, "%s/pgdata", files->dir));
    TRY(compute_files_tar_path(files->dir, tar_path, msg));
    TRY(dir_remove(path, msg));
    TRY(make_dir(files, path, msg));
    TRY(unpack_archive(files, tar_path, ret_lsn, ret_need, msg));
    TRY(write_settings(files, msg));
    return file_remove(tar_path, msg);
}

/* The log. */

uint64_t compute_files_log_size(const char *dir)
{
    char path[PATH_SIZE];
    struct stat status;
    if (str_format(path, sizeof(path), NULL, "%s/log", dir) != ERR_OK || stat(path, &status) != 0) {
        return 0;
    }
    return (uint64_t)status.st_size;
}

/* Where the words begin that matter, or NULL. Before it has a log, Postgres says its name first. */
static const char *find_fatal(const char *line)
{
    if (str_starts_with(line, "postgres: ")) {
        return line + strlen("postgres: ");
    }
    static const char *const marks[] = {"FATAL: ", "PANIC: ", " ERROR "}; /* the last: ours */
    for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
        const char *found = strstr(line, marks[i]);
        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

void compute_files_last_fatal(const char *dir, uint64_t from, struct buf *to)
{
    char path[PATH_SIZE];
    int fd = -1;
    uint64_t size = 0;
    struct buf text = {0};
    if (str_format(path, sizeof(path), NULL, "%s/log", dir) != ERR_OK ||
        file_open(&fd, path, FILE_READ, NULL) != ERR_OK) {
        return;
    }
    if (file_size(fd, path, &size, NULL) == ERR_OK && size > from) {
        uint64_t begin = MAX_OF(from, size > LOG_TAIL_MAX ? size - LOG_TAIL_MAX : 0);
        uint8_t *room = buf_extend(&text, (size_t)(size - begin));
        if (file_read_at(fd, path, room, (size_t)(size - begin), begin, NULL) != ERR_OK) {
            buf_clear(&text);
        }
    }
    file_close(&fd);
    char *rest = (char *)buf_cstr(&text);
    const char *reason = NULL;
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        const char *found = find_fatal(line);
        if (found != NULL) {
            /* "contains errors" is the sum of the lines above it, which name the setting. */
            bool is_sum = strstr(found, "contains errors") != NULL && reason != NULL;
            buf_clear(to);
            buf_printf(to, "%.200s", is_sum ? reason + strlen("LOG:  ") : found);
        }
        const char *logged = strstr(line, "LOG:  ");
        reason = logged != NULL ? logged : reason; /* a HINT may follow it */
    }
    buf_deinit(&text);
}
