/* The main() that all daemons share, as a daemon of its own in a child process. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/app/app.h"
#include "common/io/file.h"
#include "tests/unit/unit.h"

#define TEST_SETTINGS(X)                                                                           \
    APP_SETTINGS(X, "0")                                                                           \
    X(u64, answer, "41", RELOAD, "may change while it runs")                                       \
    X(u64, question, "1", RESTART, "may not")

struct test_conf {
    TEST_SETTINGS(CONF_FIELD)
};
#define CONF_OWNER struct test_conf
static const struct conf_setting settings[] = {TEST_SETTINGS(CONF_ROW)};
static struct test_conf conf;
static struct http_context context;
static struct errmsg msg;
static char folder[UNIT_FOLDER_SIZE];
static char config_path[PATH_SIZE];
static char output_path[PATH_SIZE];
static bool reloaded;

/* -- the daemon -- */

static void get_answer(struct http_context *given, struct http_request *request)
{
    (void)given;
    struct doc *body = doc_object();
    (void)doc_set_int(body, "answer", (int64_t)conf.answer);
    (void)doc_set_int(body, "question", (int64_t)conf.question);
    (void)doc_set_bool(body, "reloaded", reloaded);
    http_respond_json(request, 200, body);
}

static const struct http_route routes[] = {
    HTTP_ROUTE("GET", "/answer", get_answer, "Answer.", true)};

static err_t start_daemon(struct app *app, struct errmsg *why)
{
    if (conf.answer == 13) {
        return err_set(why, ERR_INVALID, "13 brings bad luck");
    }
    http_server_add_routes(app_http(app), routes, ARRAY_LEN(routes), &context);
    app_set_listen_port(app, 4711);
    return ERR_OK;
}

static void stop_daemon(struct app *app)
{
    app_stopped(app);
}

static void not_ready(struct app *app, struct buf *reasons)
{
    (void)app;
    if (conf.answer != 42) {
        buf_printf(reasons, "the answer is %d\nit should be 42\n", (int)conf.answer);
    }
}

static void on_reload(struct app *app)
{
    (void)app;
    reloaded = true;
}

static const struct app_spec spec = {
    .name = "testd",
    .help = "a daemon for tests.",
    .conf = &conf,
    .settings = settings,
    .settings_count = ARRAY_LEN(settings),
    .start = start_daemon,
    .stop = stop_daemon,
    .not_ready = not_ready,
    .reload = on_reload,
};

/* -- running it -- */

static void open_folder(void)
{
    if (folder[0] == '\0') {
        unit_folder(folder, sizeof(folder), "anabranch-app");
        ck_assert_ok(str_format(config_path, PATH_SIZE, &msg, "%s/conf", folder), &msg);
        ck_assert_ok(str_format(output_path, PATH_SIZE, &msg, "%s/output", folder), &msg);
    }
}

static void write_config(const char *text)
{
    ck_assert_ok(file_write_atomically(config_path, bytes_of_str(text), &msg), &msg);
}

/* One flag besides --data_dir and --config; NULL: none. */
static pid_t spawn(const char *flag, const char *second)
{
    char data_dir[PATH_SIZE];
    ck_assert_ok(str_format(data_dir, PATH_SIZE, &msg, "--data_dir=%s/data", folder), &msg);
    (void)signal(SIGTERM, SIG_DFL); /* the test library's handler would end the whole group */
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        char name[] = "testd";
        char config[] = "--config";
        char *argv[8] = {name, data_dir};
        int argc = 2;
        if (file_exists(config_path)) {
            argv[argc++] = config;
            argv[argc++] = config_path;
        }
        if (flag != NULL) {
            argv[argc++] = (char *)flag;
        }
        if (second != NULL) {
            argv[argc++] = (char *)second;
        }
        int fd = open(output_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        (void)dup2(fd, STDERR_FILENO);
        (void)dup2(fd, STDOUT_FILENO);
        exit(app_main(argc, argv, &spec));
    }
    return pid;
}

static int wait_for(pid_t pid)
{
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void look_again_soon(void)
{
    struct timespec pause = {.tv_nsec = 1000000};
    (void)nanosleep(&pause, NULL);
}

/* Waits until ports.json is there: then everything listens. */
static unsigned port_of(pid_t pid)
{
    char path[PATH_SIZE];
    struct buf text = {0};
    ck_assert_ok(str_format(path, PATH_SIZE, &msg, "%s/data/ports.json", folder), &msg);
    while (file_read_all(path, KIB, &text, &msg) != ERR_OK) {
        ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0);
        look_again_soon();
    }
    struct doc *ports = NULL;
    uint64_t port = 0;
    uint64_t listen_port = 0;
    ck_assert_ok(doc_parse(buf_view(&text), &ports, &msg), &msg);
    ck_assert_ok(doc_get_u64(ports, "http_port", &port, &msg), &msg);
    ck_assert_ok(doc_get_u64(ports, "listen_port", &listen_port, &msg), &msg);
    ck_assert_uint_eq(listen_port, 4711);
    doc_unref(ports);
    buf_deinit(&text);
    return (unsigned)port;
}

/* The body of the answer, valid until the next call. */
static const char *call(unsigned port, const char *method, const char *path, const char *body)
{
    static struct buf answer;
    char url[100];
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", port, path);
    struct http_call http = {.method = method, .url = url, .timeout_ms = 5000};
    http.body = body != NULL ? bytes_of_str(body) : (struct bytes){0};
    ck_assert_ok(http_call_blocking(&http, &msg), &msg);
    buf_clear(&answer);
    buf_printf(&answer, "%u ", http.status);
    buf_append(&answer, http.response.data, http.response.size);
    http_call_deinit(&http);
    return buf_cstr(&answer);
}

static void expect(const char *text, const char *part)
{
    ck_assert_msg(strstr(text, part) != NULL, "\"%s\" is not in \"%s\"", part, text);
}

static void expect_output(const char *part)
{
    struct buf text = {0};
    ck_assert_ok(file_read_all(output_path, MIB, &text, &msg), &msg);
    expect(buf_cstr(&text), part);
    buf_deinit(&text);
}

START_TEST(test_daemon_answers_until_sigterm)
{
    char path[PATH_SIZE];
    open_folder();
    pid_t pid = spawn("--http-token=river", NULL);
    unsigned port = port_of(pid);
    expect(call(port, "GET", "/healthz", NULL), "200 {\"status\":\"alive\",\"name\":\"testd\"");
    expect(call(port, "GET", "/readyz", NULL), "503 ");
    expect(call(port, "GET", "/readyz", NULL), "[\"the answer is 41\",\"it should be 42\"]");
    expect(call(port, "GET", "/metrics", NULL), "# TYPE http_requests_total counter");
    expect(call(port, "GET", "/answer", NULL), "\"answer\":41");
    expect(call(port, "GET", "/config", NULL), "401 "); /* wants the token */
    ck_assert_int_eq(kill(pid, SIGTERM), 0);
    ck_assert_int_eq(wait_for(pid), 0);
    ck_assert_ok(str_format(path, PATH_SIZE, &msg, "%s/data/ports.json", folder), &msg);
    ck_assert(!file_exists(path));
    expect_output("SIGTERM: stopping");
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_second_start_on_the_same_folder_is_refused)
{
    open_folder();
    pid_t first = spawn(NULL, NULL);
    (void)port_of(first);
    ck_assert_int_eq(wait_for(spawn(NULL, NULL)), 1);
    expect_output("in use by another process");
    ck_assert_int_eq(kill(first, SIGKILL), 0);
    (void)wait_for(first);
    pid_t third = spawn(NULL, NULL); /* a lock does not outlive its process */
    while (waitpid(third, NULL, WNOHANG) == 0 && kill(third, SIGTERM) == 0) {
        look_again_soon();
    }
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_sighup_reads_reloadable_settings_again)
{
    open_folder();
    write_config("answer = 41\nquestion = 1\n");
    pid_t pid = spawn(NULL, NULL);
    unsigned port = port_of(pid);
    write_config("answer = 42\nquestion = 2\n");
    ck_assert_int_eq(kill(pid, SIGHUP), 0);
    while (strstr(call(port, "GET", "/answer", NULL), "\"reloaded\":true") == NULL) {
        look_again_soon();
    }
    expect(call(port, "GET", "/answer", NULL), "\"answer\":42,\"question\":1");
    expect(call(port, "GET", "/readyz", NULL), "200 ");
    write_config("answer = many\n"); /* the old value stays */
    ck_assert_int_eq(kill(pid, SIGHUP), 0);
    expect(call(port, "GET", "/answer", NULL), "\"answer\":42");
    ck_assert_int_eq(kill(pid, SIGTERM), 0);
    ck_assert_int_eq(wait_for(pid), 0);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_flags_win_over_the_file_and_secrets_are_hidden)
{
    open_folder();
    write_config("answer = 7\n");
    pid_t pid = spawn("--answer=8", "--log-level=debug");
    unsigned port = port_of(pid);
    expect(call(port, "GET", "/config", NULL), "answer = 8\n");
    expect(call(port, "GET", "/", NULL), "\"/answer\"");
    ck_assert_int_eq(kill(pid, SIGTERM), 0);
    ck_assert_int_eq(wait_for(pid), 0);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_faults_are_armed_only_when_they_are_allowed)
{
    open_folder();
    pid_t pid = spawn(NULL, NULL);
    expect(call(port_of(pid), "PUT", "/faults", "a=io"), "403 ");
    ck_assert_int_eq(kill(pid, SIGTERM), 0);
    (void)wait_for(pid);
    pid = spawn("--faults", NULL);
    unsigned port = port_of(pid);
    expect(call(port, "PUT", "/faults", "a=io"), "200 ");
    expect(call(port, "PUT", "/faults", "a=nonsense"), "400 ");
    ck_assert_int_eq(kill(pid, SIGTERM), 0);
    (void)wait_for(pid);
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_bad_starts_say_why)
{
    static const char *const bad[][2] = {
        {"--answer=x", "setting answer: \"x\" is not a number"},
        {"--nothing=1", "there is no setting \"nothing\""},
        {"answer", "\"answer\" is not a flag"},
        {"--answer=13", "13 brings bad luck"},
        {"--worker_threads=0", "worker_threads: from 1"},
        {"--http_port=70000", "http_port: at most 65535"},
        {"--log_level=loud", "not a log level"},
        {"--http_host=999.1.1.1", "999.1.1.1"},
    };
    open_folder();
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_int_eq(wait_for(spawn(bad[i][0], NULL)), 1);
        expect_output(bad[i][1]);
    }
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

START_TEST(test_print_config_help_and_version_start_nothing)
{
    char path[PATH_SIZE];
    open_folder();
    ck_assert_int_eq(wait_for(spawn("--print-config", "--answer=9")), 0);
    expect_output("answer = 9\n");
    expect_output("# address of the HTTP port");
    ck_assert_int_eq(wait_for(spawn("--version", NULL)), 0);
    expect_output("testd ");
    ck_assert_int_eq(wait_for(spawn("--help", NULL)), 0);
    expect_output("--question=1");
    ck_assert_ok(str_format(path, PATH_SIZE, &msg, "%s/data", folder), &msg);
    ck_assert(!file_exists(path));
    ck_assert_ok(dir_remove(folder, &msg), &msg);
}
END_TEST

UNIT_MAIN(
    "app",
    test_daemon_answers_until_sigterm,
    test_second_start_on_the_same_folder_is_refused,
    test_sighup_reads_reloadable_settings_again,
    test_flags_win_over_the_file_and_secrets_are_hidden,
    test_faults_are_armed_only_when_they_are_allowed,
    test_bad_starts_say_why,
    test_print_config_help_and_version_start_nothing);
