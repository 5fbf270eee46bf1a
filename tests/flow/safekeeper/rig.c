#include "tests/flow/safekeeper/rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/io/http_client.h"

#define ANSWER_S 20

const struct tenant_id rig_tenant = {.bytes = {0x11, 0x12}};
const struct timeline_id rig_timeline = {.bytes = {0x21, 0x22}};
static struct errmsg msg;

/* ---- the process ---- */

#define RIGS_MAX 4
static struct rig *running[RIGS_MAX]; /* killed when the test ends however it ends */

static void clean_up(void)
{
    for (int i = 0; i < RIGS_MAX; i++) {
        if (running[i] != NULL && running[i]->pid > 0) {
            (void)kill(running[i]->pid, SIGKILL);
        }
        if (running[i] != NULL) {
            err_ignore(dir_remove(running[i]->dir, NULL), "left behind for a look");
        }
    }
}

static void remember(struct rig *rig)
{
    int i = 0;
    while (running[i] != NULL && running[i] != rig) {
        i++;
        ck_assert_int_lt(i, RIGS_MAX);
    }
    running[i] = rig;
}

void rig_init(struct rig *rig)
{
    const char *base = getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp";
    *rig = (struct rig){.output_fd = -1};
    (void)snprintf(rig->dir, sizeof(rig->dir), "%s/safekeeper-XXXXXX", base);
    ck_assert_ptr_nonnull(mkdtemp(rig->dir));
    remember(rig);
    (void)atexit(clean_up);
}

static void exec_safekeeper(const struct rig *rig, int output_fd)
{
    char data_dir[600];
    const char *argv[16] = {getenv("SAFEKEEPER")};
    size_t count = 1;
    (void)snprintf(data_dir, sizeof(data_dir), "--data_dir=%s", rig->dir);
    argv[count++] = data_dir;
    argv[count++] = "--listen_port=0";
    argv[count++] = "--http_port=0";
    argv[count++] = "--faults";
    for (size_t i = 0; rig->extra[i] != NULL; i++) {
        argv[count++] = rig->extra[i];
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)dup2(output_fd, STDERR_FILENO);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* The log says when it listens; reading it is how we wait. */
static void wait_until_it_listens(struct rig *rig)
{
    struct buf output = {0};
    while (strstr(buf_cstr(&output), "listens: HTTP") == NULL) {
        char piece[512];
        ssize_t got = read(rig->output_fd, piece, sizeof(piece));
        ck_assert_msg(got > 0, "the safekeeper did not start: %s", buf_cstr(&output));
        buf_append(&output, piece, (size_t)got);
    }
    buf_deinit(&output);
}

void rig_start(struct rig *rig)
{
    int ends[2];
    ck_assert_ptr_nonnull(getenv("SAFEKEEPER"));
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    (void)fcntl(ends[1], F_SETPIPE_SZ, 1 << 20); /* nobody reads the rest */
    rig->pid = fork();
    if (rig->pid == 0) {
        exec_safekeeper(rig, ends[1]);
    }
    (void)close(ends[1]);
    rig->output_fd = ends[0];
    wait_until_it_listens(rig);

    char path[600];
    struct buf text = {0};
    struct doc *ports = NULL;
    uint64_t port = 0, http_port = 0;
    (void)snprintf(path, sizeof(path), "%s/ports.json", rig->dir);
    ck_assert_ok(file_read_all(path, 4096, &text, &msg), &msg);
    ck_assert_ok(doc_parse(buf_view(&text), &ports, &msg), &msg);
    ck_assert_ok(doc_get_u64(ports, "listen_port", &port, &msg), &msg);
    ck_assert_ok(doc_get_u64(ports, "http_port", &http_port, &msg), &msg);
    rig->port = (uint16_t)port;
    rig->http_port = (uint16_t)http_port;
    doc_unref(ports);
    buf_deinit(&text);
}

static int reap(struct rig *rig)
{
    int status = 0;
    ck_assert_int_eq(waitpid(rig->pid, &status, 0), rig->pid);
    rig->pid = 0;
    (void)close(rig->output_fd);
    rig->output_fd = -1;
    return status;
}

void rig_kill(struct rig *rig)
{
    (void)kill(rig->pid, SIGKILL);
    (void)reap(rig);
}

void rig_stop(struct rig *rig)
{
    (void)kill(rig->pid, SIGTERM);
    int status = reap(rig);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "stopped with %d", status);
}

void rig_wait_crash(struct rig *rig)
{
    int status = reap(rig);
    ck_assert_msg(WIFSIGNALED(status), "ended with %d", status);
}

void rig_deinit(struct rig *rig)
{
    if (rig->pid > 0) {
        rig_stop(rig);
    }
    err_ignore(dir_remove(rig->dir, NULL), "left behind for a look");
    for (int i = 0; i < RIGS_MAX; i++) {
        running[i] = running[i] == rig ? NULL : running[i];
    }
}

/* ---- HTTP ---- */

unsigned rig_http(
    struct rig *rig, const char *method, const char *path, const char *body, struct doc **ret_body)
{
    char url[400];
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", rig->http_port, path);
    struct http_call call = {
        .method = method,
        .url = url,
        .body = body == NULL ? bytes_of(NULL, 0) : bytes_of_str(body),
        .timeout_ms = ANSWER_S * 1000,
    };
    ck_assert_ok(http_call_blocking(&call, &msg), &msg);
    ck_assert_ok(call.result, &call.msg);
    if (ret_body != NULL) {
        *ret_body = NULL;
        err_ignore(doc_parse(buf_view(&call.response), ret_body, NULL), "not JSON");
    }
    unsigned status = call.status;
    http_call_deinit(&call);
    return status;
}

static void timeline_path(struct timeline_id id, const char *suffix, char *to, size_t size)
{
    (void)snprintf(
        to, size, "/v1/tenants/%s/timelines/%s%s", tenant_id_text(rig_tenant).text,
        timeline_id_text(id).text, suffix);
}

unsigned rig_create_timeline(struct rig *rig, struct timeline_id id, lsn_t start_lsn)
{
    char path[200], body[600];
    timeline_path(id, "", path, sizeof(path));
    (void)snprintf(
        body, sizeof(body),
        "{\"start_lsn\":\"" LSN_FMT "\",\"pg_version\":170011,\"system_id\":\"%" PRIu64
        "\",\"segment_size\":%u,\"membership\":{\"generation\":%d,\"members\":[{\"id\":1,"
        "\"host\":\"127.0.0.1\",\"port\":1,\"http_host\":\"127.0.0.1\",\"http_port\":2}]}}",
        LSN_ARGS(start_lsn), (uint64_t)RIG_SYSTEM_ID,
        rig->segment_size != 0 ? rig->segment_size : (uint32_t)(1 * MIB), RIG_GENERATION);
    return rig_http(rig, "PUT", path, body, NULL);
}

struct doc *rig_status(struct rig *rig, struct timeline_id id)
{
    char path[200];
    struct doc *body = NULL;
    timeline_path(id, "", path, sizeof(path));
    ck_assert_uint_eq(rig_http(rig, "GET", path, NULL, &body), 200);
    return body;
}

lsn_t rig_lsn(struct rig *rig, const char *name)
{
    struct doc *status = rig_status(rig, rig_timeline);
    lsn_t lsn = LSN_NONE;
    ck_assert_ok(doc_get_lsn(status, name, &lsn, &msg), &msg);
    doc_unref(status);
    return lsn;
}

void rig_arm(struct rig *rig, const char *faults)
{
    ck_assert_uint_lt(rig_http(rig, "PUT", "/faults", faults, NULL), 300);
}

void rig_wait_storage(struct rig *rig, const char *text)
{
    const char *storage = "";
    struct doc *status = NULL;
    do {
        doc_unref(status);
        status = rig_status(rig, rig_timeline);
        ck_assert_ok(doc_get_str(status, "storage", &storage, &msg), &msg);
    } while (strncmp(storage, text, strlen(text)) != 0);
    doc_unref(status);
}

const char *rig_path(const struct rig *rig, const char *name)
{
    static char path[800];
    (void)snprintf(
        path, sizeof(path), "%s/%s/%s/%s", rig->dir, tenant_id_text(rig_tenant).text,
        timeline_id_text(rig_timeline).text, name);
    return path;
}

void rig_flip(const char *path, uint64_t at)
{
    uint8_t byte;
    int fd = -1;
    ck_assert_ok(file_open(&fd, path, FILE_WRITE, &msg), &msg);
    ck_assert_ok(file_read_at(fd, path, &byte, 1, at, &msg), &msg);
    byte ^= 1;
    ck_assert_ok(file_write_at(fd, path, bytes_of(&byte, 1), at, &msg), &msg);
    file_close(&fd);
}

/* ---- connections ---- */

void client_connect(struct client *client, const struct rig *rig)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(rig->port),
        .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)},
    };
    struct timeval limit = {.tv_sec = ANSWER_S};
    int one = 1;
    *client = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    ck_assert_int_ge(client->fd, 0);
    (void)setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    (void)setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    ck_assert_int_eq(connect(client->fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

void client_close(struct client *client)
{
    (void)close(client->fd);
    buf_deinit(&client->in);
    buf_deinit(&client->out);
}

void client_send_bytes(struct client *client, struct bytes bytes)
{
    while (bytes.size > 0) {
        ssize_t sent = send(client->fd, bytes.data, bytes.size, MSG_NOSIGNAL);
        if (sent <= 0) {
            return; /* the answer tells */
        }
        bytes = bytes_of(bytes.data + sent, bytes.size - (size_t)sent);
    }
}

void client_flush(struct client *client)
{
    client_send_bytes(client, buf_view(&client->out));
    buf_clear(&client->out);
}

bool client_receive(struct client *client, struct frame *ret_frame)
{
    client_flush(client);
    for (;;) {
        size_t size = 0;
        buf_consume(&client->in, client->taken);
        client->taken = 0;
        ck_assert_ok(frame_parse(buf_view(&client->in), ret_frame, &size, &msg), &msg);
        if (size > 0) {
            client->taken = size;
            return true;
        }
        buf_reserve(&client->in, 64 * KIB);
        ssize_t got = recv(client->fd, client->in.data + client->in.size, 64 * KIB, 0);
        ck_assert_msg(got >= 0 || errno == ECONNRESET, "no answer: %s", strerror(errno));
        if (got <= 0) {
            return false;
        }
        client->in.size += (size_t)got;
    }
}

void client_expect(struct client *client, uint16_t type, struct frame *ret_frame)
{
    ck_assert_msg(client_receive(client, ret_frame), "closed instead of %s", frame_type_name(type));
    if (ret_frame->type == FRAME_ERROR && type != FRAME_ERROR) {
        struct error_reply error = {0};
        struct reader in = reader_of(ret_frame->payload);
        err_ignore(error_reply_decode(&error, &in), "printed as it is");
        ck_abort_msg(
            "FRAME_ERROR %u instead of %s: %.*s", error.code, frame_type_name(type),
            (int)error.message.size, (const char *)error.message.data);
    }
    ck_assert_str_eq(frame_type_name(ret_frame->type), frame_type_name(type));
}

err_t client_expect_error(struct client *client)
{
    struct frame frame;
    struct error_reply error;
    client_expect(client, FRAME_ERROR, &frame);
    struct reader in = reader_of(frame.payload);
    ck_assert_int_eq(error_reply_decode(&error, &in), ERR_OK);
    ck_assert_uint_gt(error.message.size, 0);
    return (err_t)error.code;
}

void client_expect_end(struct client *client)
{
    struct frame frame;
    ck_assert_msg(!client_receive(client, &frame), "got %s", frame_type_name(frame.type));
}

struct hello client_hello(enum hello_role role)
{
    return (struct hello){
        .protocol_min = 1,
        .protocol_max = 1,
        .role = (uint8_t)role,
        .tenant = rig_tenant,
        .timeline = rig_timeline,
        .shard_count = 1,
        .pg_version = 170011,
        .system_id = RIG_SYSTEM_ID,
        .generation = role == HELLO_ROLE_FEED ? 1 : RIG_GENERATION,
        .node_id = 77,
    };
}

err_t client_say_hello(struct client *client, const struct hello *hello)
{
    struct frame frame;
    client->channel = 0;
    CLIENT_SEND(client, hello, hello, FRAME_HELLO);
    ck_assert(client_receive(client, &frame));
    if (frame.type == FRAME_MEMBERSHIP) { /* the reason follows */
        ck_assert(client_receive(client, &frame));
        ck_assert_int_eq(frame.type, FRAME_ERROR);
    }
    struct reader in = reader_of(frame.payload);
    if (frame.type == FRAME_ERROR) {
        struct error_reply error;
        ck_assert_int_eq(error_reply_decode(&error, &in), ERR_OK);
        return (err_t)error.code;
    }
    struct hello_reply reply;
    ck_assert_int_eq(frame.type, FRAME_HELLO_REPLY);
    ck_assert_uint_eq(frame.request_id, client->request_id);
    ck_assert_int_eq(hello_reply_decode(&reply, &in), ERR_OK);
    client->channel = reply.channel;
    return ERR_OK;
}

void client_open(struct client *client, const struct rig *rig, enum hello_role role)
{
    struct hello hello = client_hello(role);
    client_connect(client, rig);
    ck_assert_int_eq(client_say_hello(client, &hello), ERR_OK);
}

/* ---- a proposer ---- */

void fill_wal(uint8_t *to, lsn_t begin_lsn, size_t size, term_t term)
{
    for (size_t i = 0; i < size; i++) {
        uint64_t at = (begin_lsn + i) / 8 * 0x9E3779B97F4A7C15ull + term * 0x632BE59Bull;
        to[i] = (uint8_t)(at >> 8 * ((begin_lsn + i) % 8));
    }
}

static void vote_on(
    struct leader *leader, const struct rig *rig, struct timeline_id timeline, term_t term)
{
    struct frame frame;
    struct hello hello = client_hello(HELLO_ROLE_PROPOSER);
    *leader = (struct leader){.term = term};
    hello.timeline = timeline;
    client_connect(&leader->client, rig);
    ck_assert_int_eq(client_say_hello(&leader->client, &hello), ERR_OK);
    struct vote_request request = {.generation = RIG_GENERATION, .term = term, .proposer_id = 77};
    CLIENT_SEND(&leader->client, vote_request, &request, FRAME_VOTE_REQUEST);
    client_expect(&leader->client, FRAME_VOTE_REPLY, &frame);
    struct reader in = reader_of(frame.payload);
    ck_assert_int_eq(vote_reply_decode(&leader->vote, &in), ERR_OK);
}

void leader_vote(struct leader *leader, const struct rig *rig, term_t term)
{
    vote_on(leader, rig, rig_timeline, term);
}

void leader_elect(struct leader *leader, lsn_t stream_lsn)
{
    struct frame frame;
    struct elected elected = {
        .generation = RIG_GENERATION,
        .term = leader->term,
        .stream_lsn = stream_lsn,
        .history = leader->vote.history,
    };
    struct term_history *history = &elected.history;
    if (history->count == TERM_HISTORY_MAX) {
        history->count--;
        memmove(&history->items[0], &history->items[1], history->count * sizeof(history->items[0]));
    }
    history->items[history->count++] = (struct term_start){.term = leader->term, .lsn = stream_lsn};
    CLIENT_SEND(&leader->client, elected, &elected, FRAME_ELECTED);
    client_expect(&leader->client, FRAME_APPEND_REPLY, &frame);
    struct reader in = reader_of(frame.payload);
    ck_assert_int_eq(append_reply_decode(&leader->last, &in), ERR_OK);
    ck_assert_uint_eq(leader->last.flush_lsn, stream_lsn);
    leader->lsn = stream_lsn;
}

void leader_begin(struct leader *leader, const struct rig *rig, term_t term)
{
    leader_begin_on(leader, rig, rig_timeline, term);
}

void leader_begin_on(
    struct leader *leader, const struct rig *rig, struct timeline_id timeline, term_t term)
{
    vote_on(leader, rig, timeline, term);
    ck_assert_uint_eq(leader->vote.granted, 1);
    leader_elect(leader, leader->vote.record_lsn);
}

void leader_queue(struct leader *leader, size_t size, lsn_t commit_lsn)
{
    uint8_t *wal = mem_alloc(size + 1);
    if (leader->use_fixed_bytes) {
        memset(wal, 7, size);
    } else {
        fill_wal(wal, leader->lsn, size, leader->term);
    }
    struct append append = {
        .generation = RIG_GENERATION,
        .term = leader->term,
        .begin_lsn = leader->lsn,
        .record_lsn = (leader->lsn + size) / 8 * 8,
        .commit_lsn = commit_lsn,
        .wal = bytes_of(wal, size),
    };
    CLIENT_SEND(&leader->client, append, &append, FRAME_APPEND);
    leader->lsn += size;
    mem_free(wal);
}

void leader_send(struct leader *leader, size_t size, lsn_t commit_lsn)
{
    leader_queue(leader, size, commit_lsn);
    client_flush(&leader->client);
}

static bool next_reply(struct leader *leader)
{
    struct frame frame;
    if (!client_receive(&leader->client, &frame) || frame.type != FRAME_APPEND_REPLY) {
        return false;
    }
    struct reader in = reader_of(frame.payload);
    ck_assert_int_eq(append_reply_decode(&leader->last, &in), ERR_OK);
    return true;
}

bool leader_wait(struct leader *leader, lsn_t lsn)
{
    while (leader->last.flush_lsn < lsn) {
        if (!next_reply(leader)) {
            return false;
        }
    }
    return true;
}

void leader_commit(struct leader *leader, size_t size)
{
    leader_send(leader, size, LSN_NONE);
    ck_assert(leader_wait(leader, leader->lsn));
    lsn_t commit_lsn = leader->last.record_lsn;
    leader_send(leader, 0, commit_lsn);
    leader_send(leader, 0, commit_lsn); /* news of a commit is not answered, a heartbeat is */
    while (leader->last.commit_lsn < commit_lsn) {
        ck_assert(next_reply(leader));
    }
}

void leader_commit_much(struct leader *leader, unsigned appends, size_t size)
{
    for (unsigned i = 0; i < appends; i++) {
        leader_send(leader, WAL_APPEND_MAX, LSN_NONE);
    }
    ck_assert(leader_wait(leader, leader->lsn));
    leader_commit(leader, size);
}
