#include "safekeeper/disk/tombstone.h"

#include "common/base/checksum.h"
#include "common/base/fault.h"
#include "common/io/file.h"
#include "common/wire/codec.h"

#define TOMBSTONE_MAGIC   0x54424E41u /* "ANBT" */
#define TOMBSTONE_VERSION 1
#define TOMBSTONE_SIZE    48
#define CRC_OFFSET        44

static err_t path_of(
    const char *dir, struct timeline_id timeline, char path[PATH_SIZE], struct errmsg *msg)
{
    return str_format(
        path, PATH_SIZE, msg, "%s/%s" TOMBSTONE_SUFFIX, dir, timeline_id_text(timeline).text);
}

err_t tombstone_write(
    const char *dir,
    struct tenant_id tenant,
    struct timeline_id timeline,
    generation_t generation,
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(path_of(dir, timeline, path, msg));
    TRY(FAULT("tombstone.before_write"));
    uint8_t image[TOMBSTONE_SIZE];
    struct writer out = {.next = image, .left = sizeof(image)};
    put_u32(&out, TOMBSTONE_MAGIC);
    put_u32(&out, TOMBSTONE_VERSION);
    put_tenant(&out, tenant);
    put_timeline(&out, timeline);
    put_u32(&out, generation);
    put_u32(&out, crc32c(0, image, CRC_OFFSET));
    return file_write_durably(path, bytes_of(image, sizeof(image)), msg);
}

err_t tombstone_remove(const char *dir, struct timeline_id timeline, struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(path_of(dir, timeline, path, msg));
    TRY(file_remove(path, msg));
    return file_sync_dir(dir, msg);
}

err_t tombstone_read(
    const char *dir,
    struct tenant_id tenant,
    struct timeline_id timeline,
    generation_t *ret_generation,
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf image = {0};
    TRY(path_of(dir, timeline, path, msg));
    TRY(file_read_all(path, TOMBSTONE_SIZE, &image, msg));
    struct reader in = reader_of(buf_view(&image));
    uint32_t magic = get_u32(&in);
    uint32_t version = get_u32(&in);
    struct tenant_id of_tenant = get_tenant(&in);
    struct timeline_id of_timeline = get_timeline(&in);
    generation_t generation = get_u32(&in);
    uint32_t crc = get_u32(&in);
    bool good = !in.bad && magic == TOMBSTONE_MAGIC && version == TOMBSTONE_VERSION &&
                tenant_id_equal(of_tenant, tenant) && timeline_id_equal(of_timeline, timeline) &&
                crc32c(0, image.data, CRC_OFFSET) == crc;
    buf_deinit(&image);
    if (!good) {
        return err_set(msg, ERR_CORRUPT, "%s is damaged", path);
    }
    *ret_generation = generation;
    return ERR_OK;
}
