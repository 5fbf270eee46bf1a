/* Settings: every source, every type, and errors that name file, line and setting. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/auth/auth.h"
#include "common/conf/conf.h"
#include "tests/unit/unit.h"

#define KEEPER_SETTINGS(X)                                                                         \
    X(str, listen_host, "127.0.0.1", RESTART, "address of the framed port")                        \
    X(u64, listen_port, "7411", RESTART, "port")                                                   \
    X(bool, wait_for_sync, "true", RELOAD, "wait")                                                 \
    X(size, cache, "64MB", RELOAD, "cache")                                                        \
    X(ms, election_timeout_ms, "1s", RELOAD, "patience")

struct keeper_conf {
    KEEPER_SETTINGS(CONF_FIELD)
};
#define CONF_OWNER struct keeper_conf
static const struct conf_setting settings[] = {KEEPER_SETTINGS(CONF_ROW)};
#define COUNT ARRAY_LEN(settings)

static struct keeper_conf conf;
static struct errmsg msg;

START_TEST(test_defaults_come_from_the_list)
{
    ck_assert_ok(conf_set_defaults(&conf, settings, COUNT, &msg), &msg);
    ck_assert_str_eq(conf.listen_host, "127.0.0.1");
    ck_assert_uint_eq(conf.listen_port, 7411);
    ck_assert(conf.wait_for_sync);
    ck_assert_uint_eq(conf.cache, 64 * MIB);
    ck_assert_uint_eq(conf.election_timeout_ms, 1000);
}
END_TEST

START_TEST(test_bad_values_are_refused_and_keep_the_old)
{
    ck_assert_ok(conf_set_defaults(&conf, settings, COUNT, &msg), &msg);
    ck_assert_int_eq(conf_set(&conf, settings, COUNT, "listen_port", "x", &msg), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(msg.text, "setting listen_port: \"x\" is not a number"));
    ck_assert_int_eq(conf_set(&conf, settings, COUNT, "listen_port", "-1", &msg), ERR_INVALID);
    ck_assert_int_eq(conf_set(&conf, settings, COUNT, "cache", "10XB", &msg), ERR_INVALID);
    ck_assert_int_eq(conf_set(&conf, settings, COUNT, "wait_for_sync", "maybe", &msg), ERR_INVALID);
    ck_assert_int_eq(conf_set(&conf, settings, COUNT, "nothing", "1", &msg), ERR_INVALID);
    ck_assert_str_eq(msg.text, "there is no setting \"nothing\"");
    char longest[CONF_STR_SIZE + 1];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    ck_assert_int_eq(conf_set(&conf, settings, COUNT, "listen_host", longest, &msg), ERR_INVALID);
    ck_assert_str_eq(conf.listen_host, "127.0.0.1");
    ck_assert_uint_eq(conf.listen_port, 7411);
}
END_TEST

static err_t load(const char *text)
{
    char path[UNIT_FOLDER_SIZE];
    int fd = unit_file(path, sizeof(path), "anabranch-conf");
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
    err_t err = conf_load_file(&conf, settings, COUNT, path, &msg);
    (void)unlink(path);
    return err;
}

START_TEST(test_file_with_comments_and_quotes)
{
    ck_assert_ok(
        load("# a comment\n\n listen_host = \"a # b\"  # said\nlisten_port=1 # one\r\n"
             "cache = 3GB\nelection_timeout_ms=2min\nwait_for_sync = off"),
        &msg);
    ck_assert_str_eq(conf.listen_host, "a # b");
    ck_assert_uint_eq(conf.listen_port, 1);
    ck_assert_uint_eq(conf.cache, 3 * GIB);
    ck_assert_uint_eq(conf.election_timeout_ms, 120000);
    ck_assert(!conf.wait_for_sync);
}
END_TEST

START_TEST(test_errors_of_a_file_name_the_line)
{
    ck_assert_int_eq(load("listen_port = 1\nlisten_prot = 2\n"), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(msg.text, "line 2: there is no setting \"listen_prot\""));
    ck_assert_int_eq(load("listen_port\n"), ERR_INVALID);
    ck_assert_ptr_nonnull(strstr(msg.text, "line 1: expected name = value"));
    ck_assert_int_eq(load("= 3\n"), ERR_INVALID);
    ck_assert_int_eq(load("listen_host = \"open\n"), ERR_INVALID);
    ck_assert_int_eq(load("listen_host = \"a\" b\n"), ERR_INVALID);
    ck_assert_int_eq(
        conf_load_file(&conf, settings, COUNT, "/nowhere/a.conf", &msg), ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(msg.text, "/nowhere/a.conf"));
}
END_TEST

START_TEST(test_printed_settings_load_again)
{
    ck_assert_ok(conf_set_defaults(&conf, settings, COUNT, &msg), &msg);
    ck_assert_ok(conf_set(&conf, settings, COUNT, "cache", "1537kB", &msg), &msg);
    ck_assert_ok(conf_set(&conf, settings, COUNT, "listen_host", "a b#c", &msg), &msg);
    struct buf text = {0};
    conf_print(&conf, settings, COUNT, &text);
    struct keeper_conf before = conf;
    memset(&conf, 0, sizeof(conf));
    ck_assert_ok(load(buf_cstr(&text)), &msg);
    ck_assert_str_eq(conf.listen_host, before.listen_host);
    ck_assert_uint_eq(conf.cache, before.cache);
    ck_assert_uint_eq(conf.election_timeout_ms, before.election_timeout_ms);
    ck_assert_ptr_nonnull(strstr(buf_cstr(&text), "# address of the framed port"));
    buf_deinit(&text);
}
END_TEST

START_TEST(test_token_must_match_exactly_when_a_secret_is_set)
{
    struct tenant_id none = {0};
    ck_assert_int_eq(auth_check("", bytes_of_str(""), AUTH_WAL, none, &msg), ERR_OK);
    ck_assert_int_eq(auth_check("river", bytes_of_str("river"), AUTH_WAL, none, &msg), ERR_OK);
    static const char *const wrong[] = {"", "rive", "rivers", "River", "riverriver"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        ck_assert_int_eq(
            auth_check("river", bytes_of_str(wrong[i]), AUTH_WAL, none, &msg), ERR_DENIED);
        ck_assert_ptr_null(strstr(msg.text, "river"));
    }
}
END_TEST

UNIT_MAIN(
    "conf",
    test_defaults_come_from_the_list,
    test_bad_values_are_refused_and_keep_the_old,
    test_file_with_comments_and_quotes,
    test_errors_of_a_file_name_the_line,
    test_printed_settings_load_again,
    test_token_must_match_exactly_when_a_secret_is_set);
