/*
 * kv_full - a store on a lossyfs whose disk is full for a while: `kv_full MOUNTPOINT`.
 *
 * Whatever of RocksDB's finds no room first, the store refuses writes, is read meanwhile, and goes
 * on in place when there is room again; nothing that it acknowledged is missing, then and after it
 * was opened again. Exit code 0 when all is as it should.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/prng.h"
#include "common/base/str.h"
#include "common/kv/kv.h"

#define RECOVERY_NS (150 * NS_PER_S) /* of a busy machine */
#define ROW_BYTES   2000

static const char *mountpoint;
static struct kv *kv;
static struct errmsg msg;
static atomic_bool is_right = true, is_over;
static atomic_uint row_count; /* acknowledged: keys 0 .. row_count - 1 */
static unsigned ingested;     /* the value of the keys "a" and "z" */
static unsigned long read_count;

static void expect(const char *what, err_t found, err_t expected)
{
    if (found != expected) {
        printf("%s: %s, not %s: %s\n", what, err_code(found), err_code(expected), msg.text);
        is_right = false;
    }
}

static void tell_disk(const char *line)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/.lossyfs", mountpoint);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    is_right &= fd >= 0 && write(fd, line, strlen(line)) == (ssize_t)strlen(line);
    (void)close(fd);
}

static uint64_t bytes_used(void)
{
    char path[PATH_SIZE], text[4096];
    uint64_t used = 0;
    (void)snprintf(path, sizeof(path), "%s/.lossyfs", mountpoint);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    text[size < 0 ? 0 : size] = '\0';
    const char *at = strstr(text, "\"bytes\":");
    is_right &= at != NULL && sscanf(at + strlen("\"bytes\":"), "%" SCNu64, &used) == 1;
    (void)close(fd);
    return used;
}

static err_t open_store(void)
{
    char path[PATH_SIZE];
    struct kv_options options = {.write_buffer_bytes = 64 * KIB};
    (void)snprintf(path, sizeof(path), "%s/kv", mountpoint);
    return kv_open(path, &options, &kv, &msg);
}

static void row_of(unsigned number, char key[16], uint8_t value[ROW_BYTES])
{
    struct prng prng;
    prng_init(&prng, number);
    (void)snprintf(key, 16, "m%06u", number);
    for (size_t i = 0; i < ROW_BYTES; i++) {
        value[i] = (uint8_t)prng_next(&prng);
    }
}

static err_t put_row(void)
{
    char key[16];
    uint8_t value[ROW_BYTES];
    row_of(row_count, key, value);
    TRY(kv_put(kv, bytes_of_str(key), bytes_of(value, sizeof(value)), &msg));
    row_count++;
    return ERR_OK;
}

/* A file whose range covers the rows: it can be taken in only when the memtable is flushed. */
static err_t ingest(void)
{
    static unsigned number;
    char path[PATH_SIZE], value[16];
    const char *paths[] = {path};
    struct kv_file *file = NULL;
    (void)snprintf(path, sizeof(path), "%s/%u.sst", mountpoint, number++);
    (void)snprintf(value, sizeof(value), "%u", ingested + 1);
    TRY(kv_file_create(kv, path, &file, &msg));
    err_t err = kv_file_put(file, bytes_of_str("a"), bytes_of_str(value), &msg);
    if (err == ERR_OK) {
        err = kv_file_put(file, bytes_of_str("z"), bytes_of_str(value), &msg);
    }
    if (err == ERR_OK) {
        err = kv_file_finish(file, &msg);
    }
    kv_file_destroy(file);
    if (err == ERR_OK) {
        err = kv_ingest(kv, paths, 1, &msg);
    }
    if (err != ERR_OK) {
        (void)unlink(path);
        return err;
    }
    ingested++;
    return ERR_OK;
}

/* What was refused may be there all the same: only what was acknowledged must be. */
static void check_rows(const char *when)
{
    char key[16];
    uint8_t value[ROW_BYTES];
    struct buf found = {0};
    struct kv_iter *iter = kv_iter_create(kv, false);
    kv_iter_seek(iter, bytes_of_str("m"));
    for (unsigned i = 0; i < row_count; i++, kv_iter_next(iter)) {
        row_of(i, key, value);
        if (!kv_iter_valid(iter) || !bytes_equal(kv_iter_key(iter), bytes_of_str(key)) ||
            !bytes_equal(kv_iter_value(iter), bytes_of(value, sizeof(value)))) {
            printf("%s: row %u of %u is missing or another one\n", when, i, row_count);
            is_right = false;
            break;
        }
    }
    kv_iter_destroy(iter);
    err_t err = kv_get(kv, bytes_of_str("z"), &found, &msg);
    unsigned newest = 0;
    if (err != ERR_OK || sscanf(buf_cstr(&found), "%u", &newest) != 1 || newest < ingested) {
        printf("%s: file %u was ingested, %u found: %s\n", when, ingested, newest, msg.text);
        is_right = false;
    }
    buf_deinit(&found);
}

/* Reads all the time, with an iterator inside and a second one: none of it may fail or wait for
 * ever. */
static void *read_rows(void *unused)
{
    char key[16];
    uint8_t value[ROW_BYTES];
    struct prng prng;
    struct errmsg why = {.text = ""};
    (void)unused;
    prng_init(&prng, 1);
    while (!is_over && is_right) {
        unsigned number = (unsigned)prng_below(&prng, row_count);
        struct buf found = {0};
        row_of(number, key, value);
        struct kv_iter *iter = kv_iter_create(kv, false);
        kv_iter_seek(iter, bytes_of_str(key));
        err_t err = kv_get(kv, bytes_of_str(key), &found, &why);
        if (!kv_iter_valid(iter) || !bytes_equal(kv_iter_key(iter), bytes_of_str(key)) ||
            err != ERR_OK || !bytes_equal(buf_view(&found), bytes_of(value, sizeof(value)))) {
            printf("row %u is missing for a reader: %s\n", number, why.text);
            is_right = false;
        }
        kv_iter_destroy(iter);
        buf_deinit(&found);
        read_count++;
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* others want to run */
    }
    return NULL;
}

static err_t until_it_goes_on(err_t (*write)(void))
{
    mono_ns_t begin = clock_mono();
    err_t err = write();
    while (err == ERR_FULL && clock_mono() - begin < RECOVERY_NS) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        err = write();
    }
    return err;
}

static err_t fill(void)
{
    err_t err = ERR_OK;
    for (unsigned i = 0; err == ERR_OK && i < 600; i++) {
        err = i % 100 == 99 ? ingest() : put_row();
    }
    return err;
}

/* Calls fail for a moment: RocksDB may have recovered before anybody looked. */
static void fail_for_a_moment(const char *what)
{
    char line[128];
    (void)snprintf(line, sizeof(line), "fail write ENOSPC 1 %s", what);
    tell_disk(line);
    err_t err = fill();
    expect(what, err == ERR_OK ? ERR_FULL : err, ERR_FULL);
    check_rows(what);
    tell_disk("heal");
    expect(what, until_it_goes_on(put_row), ERR_OK);
    expect(what, until_it_goes_on(ingest), ERR_OK);
    expect("a compaction", kv_compact(kv, &msg), ERR_OK);
    check_rows(what);
}

/* Somebody else's file takes what room there is, but for `unused` bytes. */
static void take_room(int fd, size_t unused)
{
    static const uint8_t nothing[4 * KIB];
    ssize_t written = sizeof(nothing);
    while (written > 0) {
        written = write(fd, nothing, sizeof(nothing));
    }
    off_t size = lseek(fd, 0, SEEK_END);
    is_right &= ftruncate(fd, size > (off_t)unused ? size - (off_t)unused : 0) == 0;
    (void)lseek(fd, 0, SEEK_END);
}

/* The disk is full for as long as a file of somebody else lies on it. */
static void fill_up(size_t unused)
{
    char path[PATH_SIZE], line[64];
    (void)snprintf(line, sizeof(line), "capacity %" PRIu64, bytes_used() + 64 * MIB);
    tell_disk(line);
    (void)snprintf(path, sizeof(path), "%s/ballast", mountpoint);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    is_right &= fd >= 0;
    err_t err = ERR_OK;
    for (unsigned i = 0; err == ERR_OK && i < 100; i++) {
        take_room(fd, unused); /* also what compactions have given back */
        err = fill();
    }
    expect("rows on a full disk", err, ERR_FULL);
    take_room(fd, 0);
    for (unsigned i = 0; i < 20; i++) {
        expect("a row while it is full", put_row(), ERR_FULL);
        err = ingest();
        expect("an ingest while it is full", err, ERR_FULL);
    }
    is_right &= kv_waits_for_room(kv);
    check_rows("while it is full");
    is_right &= ftruncate(fd, 0) == 0 && fsync(fd) == 0; /* else a power cut could bring it back */
    (void)close(fd);
    expect("a row", until_it_goes_on(put_row), ERR_OK);
    expect("an ingest", until_it_goes_on(ingest), ERR_OK);
    is_right &= !kv_waits_for_room(kv);
    tell_disk("heal");
    expect("more", fill(), ERR_OK);
    check_rows("when it goes on");
}

static void play(void)
{
    static const char *const moments[] = {
        "/kv/*.sst", "/kv/*.log", "/kv/MANIFEST-*", "/kv/*.dbtmp"};
    expect("open", open_store(), ERR_OK);
    expect("fill", fill(), ERR_OK);
    pthread_t reader;
    is_right &= pthread_create(&reader, NULL, read_rows, NULL) == 0;
    for (size_t i = 0; i < ARRAY_LEN(moments); i++) {
        fail_for_a_moment(moments[i]);
    }
    fill_up(4 * KIB);
    fill_up(90 * KIB);
    is_over = true;
    (void)pthread_join(reader, NULL);
    kv_close(kv);
    expect("open again", open_store(), ERR_OK);
    check_rows("opened again");
    kv_close(kv);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fputs("usage: kv_full MOUNTPOINT\n", stderr);
        return 2;
    }
    mountpoint = argv[1];
    play();
    printf("%u rows, %u files, %lu reads\n", row_count, ingested, read_count);
    return is_right ? 0 : 1;
}
