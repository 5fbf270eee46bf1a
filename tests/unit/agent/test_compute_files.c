/* The folder of a compute: base backups good and bad, and settings that the storage needs. */
#include "compute/agent/compute_files.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/io/file.h"
#include "tests/unit/unit.h"

#define SEGMENT "pg_wal/000000010000000000000001"

static struct errmsg msg;
static char folder[UNIT_FOLDER_SIZE];
static char dir[PATH_SIZE];
static struct agent_conf conf;
static struct run_as user;
static struct compute_spec *spec;
static struct compute_wal_need need;
static lsn_t lsn;
static struct compute_files files;
static struct archive *tar;

static void open_folder(const char *settings)
{
    struct doc *body = NULL;
    struct buf text = {0};
    buf_printf(
        &text,
        "{\"tenant\":\"000102030405060708090a0b0c0d0e0f\",\"timeline\":"
        "\"101112131415161718191a1b1c1d1e1f\",\"system_id\":\"77\",\"pg_version\":17,"
        "\"membership_generation\":2,\"generation\":3,\"safekeepers\":[{\"id\":1,\"host\":"
        "\"127.0.0.1\",\"port\":7411},{\"id\":2,\"host\":\"h2\",\"port\":7412}],\"pageserver\":"
        "{\"host\":\"ps\",\"port\":6400,\"http_url\":\"http://ps:6401\"},\"settings\":%s}",
        settings);
    ck_assert_ok(doc_parse(buf_view(&text), &body, &msg), &msg);
    ck_assert_ok(compute_spec_parse(body, &spec, &msg), &msg);
    doc_unref(body);
    buf_deinit(&text);
    unit_folder(folder, sizeof(folder), "anabranch-files");
    ck_assert_ok(str_format(dir, sizeof(dir), &msg, "%s/computes/ep-1", folder), &msg);
    files = (struct compute_files){
        .spec = spec,
        .conf = &conf,
        .user = &user,
        .dir = dir,
        .start_lsn = 0x2000100,
        .port = 5433};
    ck_assert_ok(compute_files_prepare(&files, &msg), &msg);
    char path[PATH_SIZE];
    ck_assert_ok(compute_files_tar_path(dir, path, &msg), &msg);
    tar = archive_write_new();
    ck_assert_int_eq(archive_write_set_format_ustar(tar), ARCHIVE_OK);
    ck_assert_int_eq(archive_write_open_filename(tar, path), ARCHIVE_OK);
}

static void add(const char *name, int type, const char *text)
{
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, (unsigned)type);
    archive_entry_set_perm(entry, 0700);
    if (type == AE_IFLNK) {
        archive_entry_set_symlink(entry, text);
    } else {
        archive_entry_set_size(entry, (la_int64_t)strlen(text));
    }
    ck_assert_int_eq(archive_write_header(tar, entry), ARCHIVE_OK);
    if (type == AE_IFREG) {
        ck_assert_int_eq(archive_write_data(tar, text, strlen(text)), (la_ssize_t)strlen(text));
    }
    archive_entry_free(entry);
}

static void add_good_members(void)
{
    add("PG_VERSION", AE_IFREG, "17\n");
    add("base", AE_IFDIR, "");
    add("base/1", AE_IFDIR, "");
    add("base/1/PG_VERSION", AE_IFREG, "17\n");
    add("pg_wal", AE_IFDIR, "");
    add(SEGMENT, AE_IFREG, "the record");
}

static err_t unpack(void)
{
    ck_assert_int_eq(archive_write_free(tar), ARCHIVE_OK);
    return compute_files_unpack(&files, &lsn, &need, &msg);
}

static void clean_up(void)
{
    compute_spec_destroy(spec);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}

static void expect_refused(const char *why)
{
    ck_assert_int_eq(unpack(), ERR_CORRUPT);
    ck_assert_msg(strstr(msg.text, why) != NULL, "\"%s\" is not in \"%s\"", why, msg.text);
    clean_up();
}

START_TEST(test_good_backup_becomes_a_data_directory)
{
    char path[PATH_SIZE];
    struct stat status;
    open_folder("{}");
    add_good_members();
    add("anabranch.json", AE_IFREG,
        "{\"start_lsn\":\"0/2000100\",\"pg_version\":17,\"system_id\":\"77\"}");
    ck_assert_ok(unpack(), &msg);
    (void)snprintf(path, sizeof(path), "%.900s/pgdata/" SEGMENT, dir);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_int_eq(status.st_size, 16 * 1024 * 1024); /* the agent extends it */
    (void)snprintf(path, sizeof(path), "%.900s/pgdata", dir);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_int_eq(status.st_mode & 0777, 0700);
    (void)snprintf(path, sizeof(path), "%.900s/pgdata/anabranch.json", dir);
    ck_assert(!file_exists(path));
    (void)snprintf(path, sizeof(path), "%.900s/pgdata/pg_hba.conf", dir);
    ck_assert(file_exists(path));
    (void)snprintf(path, sizeof(path), "%.900s/base_backup.tar", dir);
    ck_assert(!file_exists(path));
    clean_up();
}
END_TEST

/* What comes second would go into the file that all cold segments share. */
START_TEST(test_name_that_comes_twice_is_refused)
{
    static const struct {
        const char *name, *first, *second;
    } twice[] = {
        {"base/1/1", "a page", "a page"},
        {"pg_xact/0000", "cold\n", "other"},
        {"pg_xact/0000", "cold\n", "cold\n"},
        {"pg_xact/0000", "cold\n", "a segment"},
        {"base/1", "not a folder", ""}};
    for (size_t i = 0; i < ARRAY_LEN(twice); i++) {
        open_folder("{}");
        add_good_members();
        add("pg_xact", AE_IFDIR, "");
        add("pg_xact/0001", AE_IFREG, "cold\n");
        add(twice[i].name, AE_IFREG, twice[i].first);
        if (twice[i].second[0] != '\0') {
            add(twice[i].name, AE_IFREG, twice[i].second);
        }
        add("anabranch.json", AE_IFREG,
            "{\"start_lsn\":\"0/2000100\",\"pg_version\":17,\"system_id\":\"77\"}");
        expect_refused("comes twice");
    }
}
END_TEST

static uint64_t links_of(const char *name)
{
    char path[PATH_SIZE];
    struct stat status;
    ck_assert_ok(str_format(path, sizeof(path), &msg, "%s/pgdata/%s", dir, name), &msg);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_int_eq(status.st_size, 5);
    return (uint64_t)status.st_nlink;
}

START_TEST(test_cold_segments_are_names_of_one_file)
{
    open_folder("{}");
    add_good_members();
    add("pg_xact", AE_IFDIR, "");
    add("pg_multixact", AE_IFDIR, "");
    add("pg_multixact/members", AE_IFDIR, "");
    add("pg_xact/0000", AE_IFREG, "cold\n");
    add("pg_xact/0001", AE_IFREG, "other");
    add("pg_multixact/members/0000", AE_IFREG, "cold\n");
    add("pg_multixact/members/0001", AE_IFREG, "cold\n");
    add("base/1/1", AE_IFREG, "cold\n");
    add("anabranch.json", AE_IFREG,
        "{\"start_lsn\":\"0/2000100\",\"pg_version\":17,\"system_id\":\"77\"}");
    ck_assert_ok(unpack(), &msg);
    ck_assert_uint_eq(links_of("pg_xact/0000"), 3);
    ck_assert_uint_eq(links_of("pg_multixact/members/0001"), 3);
    ck_assert_uint_eq(links_of("pg_xact/0001"), 1);
    ck_assert_uint_eq(links_of("base/1/1"), 1); /* Postgres may write to it */
    clean_up();
}
END_TEST

START_TEST(test_backup_that_was_cut_short_is_refused)
{
    open_folder("{}");
    add_good_members();
    expect_refused("cut short");
}
END_TEST

START_TEST(test_backup_of_another_lsn_is_refused)
{
    open_folder("{}");
    add("anabranch.json", AE_IFREG, "{\"start_lsn\":\"0/2000200\",\"system_id\":\"77\"}");
    expect_refused("for 0/2000200, not for 0/2000100");
}
END_TEST

START_TEST(test_backup_of_any_lsn_is_taken_when_none_was_asked_for)
{
    open_folder("{}");
    files.start_lsn = LSN_NONE;
    add_good_members();
    add("anabranch.json", AE_IFREG,
        "{\"start_lsn\":\"0/2000200\",\"pg_version\":17,\"system_id\":\"77\"}");
    ck_assert_ok(unpack(), &msg);
    ck_assert_uint_eq(lsn, 0x2000200);
    clean_up();
}
END_TEST

START_TEST(test_backup_of_another_cluster_is_refused)
{
    open_folder("{}");
    add("anabranch.json", AE_IFREG, "{\"start_lsn\":\"0/2000100\",\"system_id\":\"78\"}");
    expect_refused("of system 78");
}
END_TEST

START_TEST(test_names_that_leave_the_folder_are_refused)
{
    static const char *const bad[] = {"../evil", "/tmp/evil", "base/../../evil", "base/.."};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        open_folder("{}");
        add(bad[i], AE_IFREG, "x");
        expect_refused("is not allowed");
    }
}
END_TEST

START_TEST(test_links_are_refused)
{
    open_folder("{}");
    add("base", AE_IFLNK, "/etc");
    expect_refused("neither file nor folder");
}
END_TEST

START_TEST(test_garbage_is_refused)
{
    char path[PATH_SIZE];
    open_folder("{}");
    ck_assert_int_eq(archive_write_free(tar), ARCHIVE_OK);
    ck_assert_ok(compute_files_tar_path(dir, path, &msg), &msg);
    char noise[3000];
    memset(noise, 'x', sizeof(noise));
    ck_assert_ok(file_write_atomically(path, bytes_of(noise, sizeof(noise)), &msg), &msg);
    ck_assert_int_eq(compute_files_unpack(&files, &lsn, &need, &msg), ERR_CORRUPT);
    clean_up();
}
END_TEST

static int position(const char *text, const char *line)
{
    const char *found = strstr(text, line);
    ck_assert_msg(found != NULL, "\"%s\" is missing in:\n%s", line, text);
    return (int)(found - text);
}

START_TEST(test_settings_of_the_storage_come_last_and_libraries_are_joined)
{
    struct buf text = {0};
    (void)strcpy(conf.extension_dir, "/opt/it's");
    (void)strcpy(conf.auth_token, "river");
    open_folder("{\"work_mem\":\"8MB\",\"jit\":false,\"max_connections\":20,"
                "\"shared_preload_libraries\":\"pg_stat_statements\",\"x.y\":\"a'b\\\\c\"}");
    (void)archive_write_free(tar);
    compute_files_print_settings(&files, &text);
    const char *all = buf_cstr(&text);
    ck_assert_int_lt(
        position(all, "max_connections = 100\n"), position(all, "max_connections = 20\n"));
    ck_assert_int_lt(position(all, "work_mem = '8MB'\n"), position(all, "fsync = off\n"));
    (void)position(all, "jit = false\n");
    (void)position(all, "x.y = 'a''b\\\\c'\n");
    (void)position(all, "shared_preload_libraries = 'anabranch,pg_stat_statements'\n");
    (void)position(all, "dynamic_library_path = '/opt/it''s:$libdir'\n");
    (void)position(all, "anabranch.timeline_id = '101112131415161718191a1b1c1d1e1f'\n");
    (void)position(all, "anabranch.token = 'river'\n");
    ck_assert_ptr_nonnull(strstr(all, "/cache'\n"));
    (void)position(all, "anabranch.local_cache_mb = 0\n");
    (void)position(all, "port = 5433\n");
    buf_deinit(&text);
    clean_up();
}
END_TEST

START_TEST(test_size_gives_defaults_that_a_user_may_change)
{
    struct buf text = {0};
    open_folder("{\"shared_buffers\":\"64MB\"}");
    (void)archive_write_free(tar);
    compute_files_print_settings(&files, &text);
    ck_assert_ptr_null(strstr(buf_cstr(&text), "effective_cache_size"));
    buf_clear(&text);
    spec->memory_mb = 8192;
    spec->cpu_milli = 1250;
    compute_files_print_settings(&files, &text);
    ck_assert_int_lt(
        position(buf_cstr(&text), "shared_buffers = 2048MB\n"),
        position(buf_cstr(&text), "shared_buffers = '64MB'\n"));
    (void)position(buf_cstr(&text), "effective_cache_size = 6144MB\n");
    (void)position(buf_cstr(&text), "maintenance_work_mem = 512MB\n");
    (void)position(buf_cstr(&text), "max_parallel_workers = 2\n");
    buf_deinit(&text);
    clean_up();
}
END_TEST

/* What a parent has scheduled does not run in a branch, whichever settings name the scheduler. */
START_TEST(test_scheduler_of_a_branch_is_off_unless_asked)
{
    struct buf text = {0};
    open_folder("{\"shared_preload_libraries\":\"pg_cron\"}");
    (void)archive_write_free(tar);
    compute_files_print_settings(&files, &text);
    ck_assert_ptr_null(strstr(buf_cstr(&text), "cron.launch_active_jobs"));
    buf_clear(&text);
    spec->is_branch = true;
    compute_files_print_settings(&files, &text);
    (void)position(buf_cstr(&text), "cron.launch_active_jobs = off\n");
    ck_assert_ptr_null(strstr(buf_cstr(&text), "anabranch.quarantine"));
    buf_clear(&text);
    spec->quarantine = true;
    compute_files_print_settings(&files, &text);
    (void)position(buf_cstr(&text), "anabranch.quarantine = on\n");
    buf_deinit(&text);
    clean_up();
}
END_TEST

START_TEST(test_scheduler_of_a_branch_runs_when_asked)
{
    struct buf text = {0};
    open_folder("{\"cron.launch_active_jobs\":true}");
    (void)archive_write_free(tar);
    spec->is_branch = true;
    compute_files_print_settings(&files, &text);
    (void)position(buf_cstr(&text), "cron.launch_active_jobs = true\n");
    ck_assert_ptr_null(strstr(buf_cstr(&text), "cron.launch_active_jobs = off"));
    buf_deinit(&text);
    clean_up();
}
END_TEST

START_TEST(test_tls_files_are_copied_for_postgres_alone)
{
    char path[PATH_SIZE];
    char cert[PATH_SIZE];
    struct stat status;
    struct buf text = {0};
    open_folder("{}");
    add_good_members();
    add("anabranch.json", AE_IFREG,
        "{\"start_lsn\":\"0/2000100\",\"pg_version\":17,\"system_id\":\"77\"}");
    (void)snprintf(cert, sizeof(cert), "%.900s/cert.pem", folder);
    ck_assert_ok(file_write_atomically(cert, bytes_of_str("PEM"), &msg), &msg);
    ck_assert_ok(str_copy(conf.tls_cert_file, sizeof(conf.tls_cert_file), cert, &msg), &msg);
    ck_assert_ok(str_copy(conf.tls_key_file, sizeof(conf.tls_key_file), cert, &msg), &msg);
    conf.tls_required = true;
    ck_assert_ok(unpack(), &msg);
    (void)snprintf(path, sizeof(path), "%.900s/pgdata/server.key", dir);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_int_eq(status.st_mode & 0777, 0600);
    (void)snprintf(path, sizeof(path), "%.900s/pgdata/pg_hba.conf", dir);
    ck_assert_ok(file_read_all(path, MIB, &text, &msg), &msg);
    (void)position(buf_cstr(&text), "hostssl all all 0.0.0.0/0 scram-sha-256\n");
    ck_assert_ptr_null(strstr(buf_cstr(&text), "\nhost all"));
    buf_clear(&text);
    compute_files_print_settings(&files, &text);
    (void)position(buf_cstr(&text), "ssl = on\n");
    (void)position(buf_cstr(&text), "ssl_key_file = 'server.key'\n");
    buf_deinit(&text);
    clean_up();
}
END_TEST

START_TEST(test_walproposer_settings_are_secret)
{
    char path[PATH_SIZE];
    struct stat status;
    struct buf text = {0};
    (void)strcpy(conf.auth_token, "river");
    open_folder("{}");
    (void)archive_write_free(tar);
    (void)snprintf(path, sizeof(path), "%.900s/walproposer.conf", dir);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_int_eq(status.st_mode & 0777, 0600);
    ck_assert_ok(file_read_all(path, 64 * KIB, &text, &msg), &msg);
    (void)position(buf_cstr(&text), "safekeepers = \"1@127.0.0.1:7411,2@h2:7412\"\n");
    (void)position(buf_cstr(&text), "token = \"river\"\n");
    buf_deinit(&text);
    clean_up();
}
END_TEST

START_TEST(test_last_fatal_line_of_this_try_is_found)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    open_folder("{}");
    (void)archive_write_free(tar);
    (void)snprintf(path, sizeof(path), "%.900s/log", dir);
    compute_files_last_fatal(dir, 0, &text); /* no log yet */
    ck_assert_uint_eq(text.size, 0);
    static const char old[] = "x FATAL:  of an earlier try\n";
    static const char both[] = "x FATAL:  of an earlier try\nx LOG:  a\nx FATAL:  port in use\ny";
    ck_assert_ok(file_write_atomically(path, bytes_of_str(both), &msg), &msg);
    compute_files_last_fatal(dir, strlen(old), &text);
    ck_assert_str_eq(buf_cstr(&text), "FATAL:  port in use");
    buf_clear(&text);
    compute_files_last_fatal(dir, compute_files_log_size(dir), &text);
    ck_assert_uint_eq(text.size, 0);
    static const char sum[] = "x LOG:  invalid value for parameter \"work_mem\": \"lots\"\n"
                              "x HINT:  Valid units for this parameter are\n"
                              "x FATAL:  configuration file \"y\" contains errors\n";
    ck_assert_ok(file_write_atomically(path, bytes_of_str(sum), &msg), &msg);
    compute_files_last_fatal(dir, 0, &text);
    ck_assert_str_eq(buf_cstr(&text), "invalid value for parameter \"work_mem\": \"lots\"");
    buf_clear(&text);
    static const char early[] = "postgres: reserved_connections must be less\n";
    ck_assert_ok(file_write_atomically(path, bytes_of_str(early), &msg), &msg);
    compute_files_last_fatal(dir, 0, &text);
    ck_assert_str_eq(buf_cstr(&text), "reserved_connections must be less");
    buf_deinit(&text);
    clean_up();
}
END_TEST

UNIT_MAIN(
    "compute_files",
    test_good_backup_becomes_a_data_directory,
    test_cold_segments_are_names_of_one_file,
    test_name_that_comes_twice_is_refused,
    test_backup_that_was_cut_short_is_refused,
    test_backup_of_another_lsn_is_refused,
    test_backup_of_any_lsn_is_taken_when_none_was_asked_for,
    test_backup_of_another_cluster_is_refused,
    test_names_that_leave_the_folder_are_refused,
    test_links_are_refused,
    test_garbage_is_refused,
    test_settings_of_the_storage_come_last_and_libraries_are_joined,
    test_size_gives_defaults_that_a_user_may_change,
    test_scheduler_of_a_branch_is_off_unless_asked,
    test_scheduler_of_a_branch_runs_when_asked,
    test_tls_files_are_copied_for_postgres_alone,
    test_walproposer_settings_are_secret,
    test_last_fatal_line_of_this_try_is_found);
