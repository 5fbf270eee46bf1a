/* The body of a PUT: what is taken, and what every refusal says. */
#include "compute/agent/compute_spec.h"

#include <string.h>

#include "tests/unit/unit.h"

#define GOOD                                                                                       \
    "\"tenant\":\"000102030405060708090a0b0c0d0e0f\","                                             \
    "\"timeline\":\"101112131415161718191a1b1c1d1e1f\",\"system_id\":\"7710989784958610284\","     \
    "\"pg_version\":17,\"membership_generation\":2,\"generation\":3,"                              \
    "\"safekeepers\":[{\"id\":1,\"host\":\"127.0.0.1\",\"port\":7411}],"                           \
    "\"pageserver\":{\"host\":\"::1\",\"port\":6400,\"http_url\":\"http://127.0.0.1:6401\"}"

static struct errmsg msg;

static err_t parse(const char *text, struct compute_spec **ret_spec)
{
    struct doc *body = NULL;
    ck_assert_ok(doc_parse(bytes_of_str(text), &body, &msg), &msg);
    err_t err = compute_spec_parse(body, ret_spec, &msg);
    doc_unref(body);
    return err;
}

/* GOOD with `more` behind it; a member that stands twice is no JSON, so `more` only adds. */
static void expect_refused(const char *text, const char *why)
{
    struct compute_spec *spec = NULL;
    ck_assert_int_ne(parse(text, &spec), ERR_OK);
    ck_assert_msg(strstr(msg.text, why) != NULL, "\"%s\" is not in \"%s\"", why, msg.text);
}

START_TEST(test_good_body_is_taken_with_defaults)
{
    struct compute_spec *spec = NULL;
    ck_assert_ok(parse("{" GOOD "}", &spec), &msg);
    ck_assert_uint_eq(spec->system_id, 7710989784958610284u);
    ck_assert_str_eq(spec->listen_host, "127.0.0.1");
    ck_assert_uint_eq(spec->port, 0);
    ck_assert_uint_eq(spec->safekeepers[0].port, 7411);
    ck_assert_ptr_null(spec->superuser_password);
    compute_spec_destroy(spec);
    compute_spec_destroy(NULL);
}
END_TEST

START_TEST(test_refusals_name_the_member)
{
    expect_refused("{}", "tenant: missing");
    expect_refused("{" GOOD ",\"port\":65536}", "port: at most 65535");
    expect_refused("{" GOOD ",\"port\":\"1\"}", "port: expected");
    expect_refused("{" GOOD ",\"listen_host\":\"a'b\"}", "listen_host");
    expect_refused("{" GOOD ",\"roles\":{}}", "roles: expected an array");
    expect_refused("{" GOOD ",\"roles\":[{}]}", "roles[0]: name: missing");
    expect_refused("{" GOOD ",\"roles\":[{\"name\":\"\"}]}", "roles[0]: name: expected 1 to 63");
    expect_refused(
        "{" GOOD ",\"databases\":[{\"name\":\"a\",\"owner\":1}]}", "databases[0]: owner");
    expect_refused("{" GOOD ",\"settings\":[]}", "settings: expected an object");
    expect_refused("{" GOOD ",\"size\":[]}", "size: expected an object");
    expect_refused("{" GOOD ",\"size\":{\"memory_mb\":255}}", "size: memory_mb: expected 256 to");
    expect_refused("{" GOOD ",\"size\":{\"cpu_milli\":1}}", "size: cpu_milli: expected 50 to");
}
END_TEST

START_TEST(test_settings_of_the_storage_are_refused)
{
    static const char *const bad[] = {
        "fsync",
        "full_page_writes",
        "synchronous_standby_names",
        "anabranch.tenant_id",
        "port",
        "data_directory",
        /* what would reach a source's primary */
        "restore_command",
        "recovery_end_command",
        "primary_conninfo",
        "primary_slot_name",
        "recovery_target_lsn",
        "hba_file",
        /* what reads or shows files of the host */
        "include",
        "include_if_exists",
        "include_dir",
        "log_directory",
        "log_destination",
        "jit_provider",
        "krb_server_keyfile",
        "ssl_dh_params_file",
    };
    struct doc *value = doc_str("on");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_int_eq(compute_setting_check(bad[i], value, &msg), ERR_INVALID);
        ck_assert_ptr_nonnull(strstr(msg.text, "belongs to the storage"));
    }
    static const char *const archive[] = {
        "archive_command", "archive_library", "archive_mode", "archive_timeout",
        "archive_cleanup_command"};
    for (size_t i = 0; i < ARRAY_LEN(archive); i++) {
        ck_assert_int_eq(compute_setting_check(archive[i], value, &msg), ERR_INVALID);
        ck_assert_ptr_nonnull(strstr(msg.text, "a compute archives nothing"));
    }
    ck_assert_ok(compute_setting_check("work_mem", value, &msg), &msg);
    ck_assert_ok(compute_setting_check("pg_stat_statements.max", value, &msg), &msg);
    ck_assert_ok(compute_setting_check("anabranch.local_cache_mb", value, &msg), &msg);
    doc_unref(value);
}
END_TEST

START_TEST(test_libraries_come_from_the_installation)
{
    static const char *const names[] = {
        "shared_preload_libraries", "session_preload_libraries", "local_preload_libraries",
        "output_plugin_libraries"};
    struct doc *good = doc_str("auto_explain, \"pg_stat_statements\"");
    struct doc *elsewhere = doc_str("auto_explain,/tmp/x.so");
    struct doc *above = doc_str("../x");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        ck_assert_ok(compute_setting_check(names[i], good, &msg), &msg);
        ck_assert_int_eq(compute_setting_check(names[i], elsewhere, &msg), ERR_INVALID);
        ck_assert_int_eq(compute_setting_check(names[i], above, &msg), ERR_INVALID);
        ck_assert_ptr_nonnull(strstr(msg.text, "without a folder"));
    }
    doc_unref(good);
    doc_unref(elsewhere);
    doc_unref(above);
}
END_TEST

START_TEST(test_settings_cannot_smuggle_lines)
{
    struct doc *lines = doc_str("1\nfsync = on");
    struct doc *object = doc_object();
    ck_assert_int_eq(compute_setting_check("work_mem", lines, &msg), ERR_INVALID);
    ck_assert_int_eq(compute_setting_check("work_mem", object, &msg), ERR_INVALID);
    ck_assert_int_eq(compute_setting_check("work_mem = 1\nfsync", lines, &msg), ERR_INVALID);
    ck_assert_int_eq(compute_setting_check("", lines, &msg), ERR_INVALID);
    ck_assert_int_eq(compute_setting_check("FSYNC", object, &msg), ERR_INVALID);
    doc_unref(lines);
    doc_unref(object);
}
END_TEST

START_TEST(test_ids_cannot_leave_the_folder)
{
    static const char *const bad[] = {"", ".", "..", "../x", "a/b", "-rf", "a b", "a\nb"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_int_eq(compute_id_check(bad[i], &msg), ERR_INVALID);
    }
    char longest[66];
    memset(longest, 'a', 65);
    longest[65] = '\0';
    ck_assert_int_eq(compute_id_check(longest, &msg), ERR_INVALID);
    longest[64] = '\0';
    ck_assert_ok(compute_id_check(longest, &msg), &msg);
    ck_assert_ok(compute_id_check("ep-calm_river.1", &msg), &msg);
}
END_TEST

START_TEST(test_redacted_spec_has_no_password)
{
    struct compute_spec *spec = NULL;
    ck_assert_ok(
        parse(
            "{" GOOD ",\"superuser_password\":\"secret1\",\"roles\":[{\"name\":\"app\","
            "\"password\":\"secret2\"}]}",
            &spec),
        &msg);
    struct doc *shown = compute_spec_redacted(spec);
    struct buf text = {0};
    doc_print(shown, false, &text);
    ck_assert_ptr_null(strstr(buf_cstr(&text), "secret"));
    ck_assert_ptr_nonnull(strstr(buf_cstr(&text), "\"app\""));
    ck_assert_str_eq(spec->superuser_password, "secret1"); /* the spec itself keeps it */
    struct compute_spec *again = NULL;
    ck_assert_ok(parse(buf_cstr(&text), &again), &msg);
    ck_assert(!compute_spec_equal(spec, again));
    ck_assert(compute_spec_equal(spec, spec));
    compute_spec_destroy(again);
    compute_spec_destroy(spec);
    buf_deinit(&text);
    doc_unref(shown);
}
END_TEST

UNIT_MAIN(
    "compute_spec",
    test_good_body_is_taken_with_defaults,
    test_refusals_name_the_member,
    test_settings_of_the_storage_are_refused,
    test_libraries_come_from_the_installation,
    test_settings_cannot_smuggle_lines,
    test_ids_cannot_leave_the_folder,
    test_redacted_spec_has_no_password);
