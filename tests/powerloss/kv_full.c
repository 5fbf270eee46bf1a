/*
 * kv_full - a store on a lossyfs whose disk is full for a moment: `kv_full MOUNTPOINT`.
 *
 * A memtable's flush finds no room, which stops RocksDB until it has found out that there is room
 * again. What it answers meanwhile and afterwards is checked; exit code 0 when all is as it should.
 */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/str.h"
#include "common/kv/kv.h"

#define RECOVERY_NS (60 * NS_PER_S)

static const char *mountpoint;
static struct kv *kv;
static struct errmsg msg;
static bool is_right = true;

static void expect(const char *what, err_t found, err_t expected)
{
    printf("%s: %s %s\n", what, err_code(found), found == ERR_OK ? "" : msg.text);
    is_right &= found == expected;
}

static void tell_disk(const char *line)
{
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/.lossyfs", mountpoint);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    is_right &= fd >= 0 && write(fd, line, strlen(line)) == (ssize_t)strlen(line);
    (void)close(fd);
}

static err_t open_store(void)
{
    char path[PATH_SIZE];
    struct kv_options options = {0};
    (void)snprintf(path, sizeof(path), "%s/kv", mountpoint);
    return kv_open(path, &options, &kv, &msg);
}

static err_t put_row(void)
{
    return kv_put(kv, bytes_of_str("m"), bytes_of_str("row"), &msg);
}

/* A file whose range covers the row: it can be taken in only when the memtable is flushed. */
static err_t ingest(void)
{
    static unsigned number;
    char path[PATH_SIZE];
    const char *paths[] = {path};
    struct kv_file *file = NULL;
    (void)snprintf(path, sizeof(path), "%s/%u.sst", mountpoint, number++);
    TRY(kv_file_create(kv, path, &file, &msg));
    err_t err = kv_file_put(file, bytes_of_str("a"), bytes_of_str("file"), &msg);
    if (err == ERR_OK) {
        err = kv_file_put(file, bytes_of_str("z"), bytes_of_str("file"), &msg);
    }
    if (err == ERR_OK) {
        err = kv_file_finish(file, &msg);
    }
    kv_file_destroy(file);
    return err != ERR_OK ? err : kv_ingest(kv, paths, 1, &msg);
}

static err_t wait_until_writes_go_on(void)
{
    mono_ns_t begin = clock_mono();
    err_t err = put_row();
    while (err == ERR_FULL && clock_mono() - begin < RECOVERY_NS) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        err = put_row();
    }
    return err;
}

static void play(void)
{
    expect("open", open_store(), ERR_OK);
    expect("row", put_row(), ERR_OK);
    expect("ingest", ingest(), ERR_OK);
    expect("row", put_row(), ERR_OK);
    tell_disk("fail write ENOSPC 1 /kv/*.sst");
    expect("ingest on a full disk", ingest(), ERR_FULL);
    expect("row while RocksDB stands still", put_row(), ERR_FULL);
    expect("row when it goes on", wait_until_writes_go_on(), ERR_OK);
    expect("ingest when it goes on", ingest(), ERR_FAILED);
    expect("ingest again", ingest(), ERR_FAILED);
    expect("compaction, which has nothing to do with it", kv_compact(kv, &msg), ERR_OK);
    kv_close(kv);
    expect("open again", open_store(), ERR_OK);
    expect("ingest", ingest(), ERR_OK);
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
    return is_right ? 0 : 1;
}
