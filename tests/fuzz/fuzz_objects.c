/*
 * What comes out of the object store and into a pageserver or a compute: the index of a tenant, the
 * names of objects, the archive of a first import, Postgres' control file; and a settings file. The
 * first byte says which.
 */
#include <endian.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/conf/conf.h"
#include "common/pg/pg_control.h"
#include "pageserver/remote/index.h"
#include "pageserver/remote/tar_reader.h"
#include "tests/fuzz/fuzz.h"

#define FUZZ_SETTINGS(X)                                                                           \
    X(str, listen, "127.0.0.1", RESTART, "where")                                                  \
    X(u64, count, "1", RESTART, "how many")                                                        \
    X(bool, quick, "false", RELOAD, "or not")                                                      \
    X(size, room, "1MB", RELOAD, "bytes")                                                          \
    X(ms, delay, "1s", RELOAD, "how long")

struct fuzz_conf {
    FUZZ_SETTINGS(CONF_FIELD)
};

#define CONF_OWNER struct fuzz_conf
static const struct conf_setting settings[] = {FUZZ_SETTINGS(CONF_ROW)};
#undef CONF_OWNER
#define SETTINGS_COUNT (sizeof(settings) / sizeof(settings[0]))

/* Its checksum is made right, or nothing behind it would ever be reached. */
static void try_index(struct bytes in)
{
    struct remote_index index;
    struct errmsg msg;
    struct buf image = {0};
    struct buf again = {0};
    if (in.size < 8) {
        return;
    }
    buf_append(&image, in.data, in.size);
    memset(image.data + 6, 0, 2); /* reserved: read, and not kept */
    uint32_t crc = htole32(crc32c(0, image.data, in.size));
    buf_append(&image, &crc, sizeof(crc));
    if (remote_index_decode(&image, &index, &msg) != ERR_OK) {
        return;
    }
    for (size_t i = 1; i < index.file_count; i++) {
        ASSERT(strcmp(index.files[i - 1].name, index.files[i].name) < 0);
    }
    remote_index_encode(&index, &again);
    ASSERT(again.size == in.size + sizeof(crc));
    ASSERT(memcmp(again.data + 8, in.data + 8, in.size - 8) == 0);
    buf_deinit(&again);
    remote_index_deinit(&index);
}

static void try_archive(struct bytes in)
{
    struct tar_reader reader = {.left = in};
    struct tar_member member;
    struct errmsg msg;
    while (tar_reader_next(&reader, &member, &msg) == ERR_OK) {
        ASSERT(memchr(member.name, '\0', sizeof(member.name)) != NULL);
        ASSERT(member.data.size <= in.size && reader.left.size < in.size);
    }
}

static void try_control(struct bytes in)
{
    uint8_t file[PG_CONTROL_FILE_SIZE] = {0};
    struct pg_control control;
    struct pg_checkpoint checkpoint;
    struct errmsg msg;
    memcpy(file, in.data, MIN_OF(in.size, sizeof(file)));
    uint32_t crc = htole32(crc32c(0, file, offsetof(struct pg_control, crc)));
    memcpy(file + offsetof(struct pg_control, crc), &crc, sizeof(crc));
    struct bytes whole = bytes_of(file, in.size % 16 == 0 ? in.size % 400 : sizeof(file));
    if (pg_control_parse(whole, &control, &msg) == ERR_OK) {
        uint8_t again[PG_CONTROL_FILE_SIZE];
        pg_control_write(&control, again);
        ASSERT(memcmp(again, file, sizeof(control)) == 0);
    }
    err_ignore(pg_checkpoint_parse(in, &checkpoint, &msg), "only that it returns");
}

static void try_settings(struct bytes in)
{
    struct fuzz_conf conf;
    struct fuzz_conf again;
    struct errmsg msg;
    struct buf printed = {0};
    char path[PATH_SIZE];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    ASSERT(fd >= 0);
    ssize_t written = in.size == 0 ? 0 : write(fd, in.data, in.size);
    ASSERT(written == (ssize_t)in.size);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    err_t err = conf_set_defaults(&conf, settings, SETTINGS_COUNT, &msg);
    ASSERT(err == ERR_OK);
    again = conf;
    if (conf_load_file(&conf, settings, SETTINGS_COUNT, path, &msg) == ERR_OK) {
        conf_print(&conf, settings, SETTINGS_COUNT, &printed);
        buf_clear(&printed);
    }
    (void)close(fd);
    buf_append(&printed, in.data, in.size);
    err_ignore(
        conf_set(&again, settings, SETTINGS_COUNT, "room", buf_cstr(&printed), &msg),
        "only that it returns");
    buf_deinit(&printed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    uint8_t *copy = mem_dup(data + 1, size - 1); /* of exactly this size: sanitizers see its end */
    struct bytes in = bytes_of(copy, size - 1);
    switch (data[0] % 4) {
    case 0: try_index(in); break;
    case 1: try_archive(in); break;
    case 2: try_control(in); break;
    default: try_settings(in);
    }
    mem_free(copy);
    return 0;
}
