#include <stdio.h>
#include <sys/stat.h>

#include "common/base/str.h"
#include "common/io/file.h"
#include "common/objstore/s3_settings.h"
#include "tests/unit/unit.h"

static struct s3_place place;
static struct s3_keys keys;
static struct errmsg msg;

START_TEST(test_url_names_the_place_and_its_settings)
{
    ck_assert_ok(
        s3_place_parse(
            "s3://my-bucket/a/b/?endpoint=http://localhost:9000&region=eu-1&part_size=32MB"
            "&deadline_ms=90s&conditional_put=no",
            &place, &msg),
        &msg);
    ck_assert_str_eq(place.bucket, "my-bucket");
    ck_assert_str_eq(place.prefix, "a/b/");
    ck_assert_str_eq(place.settings.endpoint, "http://localhost:9000");
    ck_assert_str_eq(place.settings.region, "eu-1");
    ck_assert_str_eq(place.settings.conditional_put, "no");
    ck_assert_uint_eq(place.settings.part_size, 32 * MIB);
    ck_assert_uint_eq(place.settings.deadline_ms, 90000);
    ck_assert_uint_eq(place.settings.attempts_max, 10);
}
END_TEST

START_TEST(test_bucket_alone_is_amazons)
{
    ck_assert_ok(s3_place_parse("s3://bucket", &place, &msg), &msg);
    ck_assert_str_eq(place.prefix, "");
    ck_assert_str_eq(place.settings.endpoint, "https://s3.us-east-1.amazonaws.com");
    ck_assert_ok(s3_place_parse("s3://bucket/?region=eu-west-3", &place, &msg), &msg);
    ck_assert_str_eq(place.prefix, "");
    ck_assert_str_eq(place.settings.endpoint, "https://s3.eu-west-3.amazonaws.com");
}
END_TEST

START_TEST(test_bad_urls_are_refused)
{
    const char *urls[] = {
        "",
        "s3:/bucket",
        "s3://",
        "s3://ab",
        "s3://Bucket",
        "s3://bucket..x",
        "s3://.bucket",
        "s3://bucket//x",
        "s3://bucket/../x",
        "s3://bucket/.x",
        "s3://bucket/a b",
        "s3://bucket/a%20b",
        "s3://bucket?",
        "s3://bucket?region",
        "s3://bucket?region=",
        "s3://bucket?region=A",
        "s3://bucket?password=x",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=http://",
        "s3://bucket?endpoint=http://user:password@host",
        "s3://bucket?endpoint=http://host/path",
        "s3://bucket?endpoint=http://host\nx",
        "s3://bucket?conditional_put=maybe",
        "s3://bucket?part_size=1",
        "s3://bucket?part_size=2GB",
        "s3://bucket?attempts_max=0",
        "s3://bucket?backoff_ms=5s&backoff_max_ms=1s",
        "s3://bucket?list_page_count=1001",
        "s3://bucket?delete_batch_count=0",
        "s3://bucket?deadline_ms=0",
        "s3://bucket?stall_timeout_ms=999",
    };
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        ck_assert_msg(s3_place_parse(urls[i], &place, &msg) == ERR_INVALID, "\"%s\"", urls[i]);
    }
}
END_TEST

START_TEST(test_prefix_that_is_too_long_is_refused)
{
    char url[400] = "s3://bucket/";
    memset(url + strlen(url), 'x', 300);
    ck_assert_int_eq(s3_place_parse(url, &place, &msg), ERR_INVALID);
}
END_TEST

START_TEST(test_keys_come_from_the_environment)
{
    ck_assert_int_eq(unsetenv("AWS_SESSION_TOKEN"), 0);
    ck_assert_int_eq(setenv("AWS_ACCESS_KEY_ID", "access", 1), 0);
    ck_assert_int_eq(setenv("AWS_SECRET_ACCESS_KEY", "secret", 1), 0);
    ck_assert_ok(s3_keys_load("", &keys, &msg), &msg);
    ck_assert_str_eq(keys.access, "access");
    ck_assert_str_eq(keys.secret, "secret");
    ck_assert_ptr_null(keys.session_token);
    s3_keys_deinit(&keys);
}
END_TEST

START_TEST(test_missing_keys_are_denied)
{
    ck_assert_int_eq(unsetenv("AWS_ACCESS_KEY_ID"), 0);
    ck_assert_int_eq(setenv("AWS_SECRET_ACCESS_KEY", "secret", 1), 0);
    ck_assert_int_eq(s3_keys_load("", &keys, &msg), ERR_DENIED);
    ck_assert_int_eq(setenv("AWS_ACCESS_KEY_ID", "two\r\nlines", 1), 0);
    ck_assert_int_eq(s3_keys_load("", &keys, &msg), ERR_DENIED);
    ck_assert_ptr_null(strstr(msg.text, "secret"));
}
END_TEST

static err_t load_text(const char *text, mode_t mode)
{
    char path[UNIT_FOLDER_SIZE];
    int fd = unit_file(path, sizeof(path), "test_s3_settings");
    ck_assert_ok(file_write_at(fd, path, bytes_of_str(text), 0, &msg), &msg);
    ck_assert_int_eq(fchmod(fd, mode), 0);
    err_t err = s3_keys_load(path, &keys, &msg);
    file_close(&fd);
    ck_assert_ok(file_remove(path, &msg), &msg);
    return err;
}

START_TEST(test_keys_come_from_the_default_section_of_a_file)
{
    const char *text = "[work]\naws_access_key_id = no\n\n[default]\n# a comment = x\n"
                       "aws_access_key_id=access\r\n  aws_secret_access_key =  s/e+c=ret  \n"
                       "aws_session_token = token\nregion = x\n[z]\naws_access_key_id = no\n";
    ck_assert_ok(load_text(text, 0640), &msg);
    ck_assert_str_eq(keys.access, "access");
    ck_assert_str_eq(keys.secret, "s/e+c=ret");
    ck_assert_str_eq(keys.session_token, "token");
    s3_keys_deinit(&keys);
}
END_TEST

START_TEST(test_file_that_others_may_read_is_refused)
{
    const char *text = "aws_access_key_id = access\naws_secret_access_key = secret\n";
    ck_assert_int_eq(load_text(text, 0644), ERR_DENIED);
    ck_assert_ok(load_text(text, 0600), &msg);
    s3_keys_deinit(&keys);
}
END_TEST

START_TEST(test_missing_and_empty_files_are_refused)
{
    ck_assert_int_eq(s3_keys_load("/nonexistent/keys", &keys, &msg), ERR_NOT_FOUND);
    ck_assert_int_eq(load_text("", 0600), ERR_DENIED);
    ck_assert_int_eq(load_text("aws_access_key_id = access\n", 0600), ERR_DENIED);
}
END_TEST

UNIT_MAIN(
    "s3_settings",
    test_url_names_the_place_and_its_settings,
    test_bucket_alone_is_amazons,
    test_bad_urls_are_refused,
    test_prefix_that_is_too_long_is_refused,
    test_keys_come_from_the_environment,
    test_missing_keys_are_denied,
    test_keys_come_from_the_default_section_of_a_file,
    test_file_that_others_may_read_is_refused,
    test_missing_and_empty_files_are_refused);
