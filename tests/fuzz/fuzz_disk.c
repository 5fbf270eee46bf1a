/*
 * A safekeeper's own files, as a disk may give them back: a slot of the control file or a sidecar;
 * the first byte says which. What is read as valid must be consistent: a node votes by it.
 *
 * A sidecar is a script, so that records with a good checksum are many: a byte for each slot says
 * whether it is the header, a record, zeros, or what stands there.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/wire/codec.h"
#include "safekeeper/disk/control_file.h"
#include "safekeeper/disk/wal_sidecar.h"
#include "tests/fuzz/fuzz.h"

#define SEGMENT      3u
#define SEGMENT_SIZE ((uint32_t)(1 * MIB))
#define SLOTS_MAX    64
#define STEP         4096 /* positions are few, so that records follow each other */

static const struct sidecar_identity identity = {.segment_size = SEGMENT_SIZE};

/* ---- control file ---- */

#define CONTROL_HEADER 16 /* magic, version, size, checksum of the first 12 bytes and the rest */

static void try_control(uint8_t *image, size_t size)
{
    static struct control_state state, again; /* large */
    uint64_t sequence = 0;
    uint64_t sequence_again = 0;
    struct errmsg msg;
    struct buf printed = {0};
    if (size > CONTROL_HEADER) {
        uint32_t rest = htole32((uint32_t)(size - CONTROL_HEADER));
        memcpy(image + 8, &rest, sizeof(rest));
        uint32_t crc = crc32c(crc32c(0, image, 12), image + CONTROL_HEADER, size - CONTROL_HEADER);
        crc = htole32(crc);
        memcpy(image + 12, &crc, sizeof(crc));
    }
    state = again = (struct control_state){0};
    if (control_state_decode(bytes_of(image, size), "control", &state, &sequence, &msg) != ERR_OK) {
        return;
    }
    ASSERT(state.membership.count <= MEMBERS_MAX);
    control_state_encode(&state, sequence, &printed);
    err_t err = control_state_decode(buf_view(&printed), "again", &again, &sequence_again, &msg);
    ASSERT(err == ERR_OK);
    ASSERT(sequence_again == sequence && again.acceptor.term == state.acceptor.term);
    ASSERT(again.acceptor.begin_lsn == state.acceptor.begin_lsn);
    ASSERT(again.membership.generation == state.membership.generation);
    buf_deinit(&printed);
}

/* ---- sidecar ---- */

static struct sidecar_record record_of(struct reader *in, uint32_t slot)
{
    lsn_t base = (lsn_t)SEGMENT * SEGMENT_SIZE;
    struct sidecar_record record = {
        .kind = get_u8(in),
        .slot = slot + get_u8(in) % 2,
        .sequence = 1 + (uint64_t)slot + get_u8(in) % 4,
    };
    record.begin_lsn = base + (lsn_t)get_u8(in) * STEP;
    record.end_lsn = record.begin_lsn + (lsn_t)get_u8(in) * STEP;
    record.record_lsn = record.end_lsn - get_u8(in);
    record.commit_lsn = base + (lsn_t)get_u8(in) * STEP;
    record.wal_crc = get_u8(in);
    return record;
}

static void make_slot(struct reader *in, uint32_t slot, uint8_t to[SIDECAR_SLOT_SIZE])
{
    uint8_t how = get_u8(in);
    memset(to, 0, SIDECAR_SLOT_SIZE);
    if (how % 8 == 0) {
        sidecar_header_encode(&identity, SEGMENT, to);
    } else if (how % 8 < 6) {
        struct sidecar_record record = record_of(in, slot);
        sidecar_record_encode(&identity, SEGMENT, &record, to);
        to[how / 8] ^= how % 8 == 5; /* a bit of it has flipped */
    } else if (how % 8 == 6) {
        for (size_t i = 0; i < SIDECAR_SLOT_SIZE; i++) {
            to[i] = get_u8(in);
        }
    }
}

static void check_log(const struct sidecar_log *log)
{
    lsn_t base = (lsn_t)SEGMENT * SEGMENT_SIZE;
    ASSERT(log->slots <= SLOTS_MAX && log->count <= log->slots);
    ASSERT(log->first_sequence <= log->last_sequence);
    for (size_t i = 0; i < log->count; i++) {
        const struct sidecar_group *group = &log->groups[i];
        ASSERT(group->begin_lsn >= base && group->end_lsn <= base + SEGMENT_SIZE);
        ASSERT(group->begin_lsn < group->end_lsn);
        ASSERT(i == 0 || log->groups[i - 1].end_lsn == group->begin_lsn);
        ASSERT(i + 1 == log->count || group->is_certified);
    }
}

/* A file that is only in memory. */
static int memory_file(struct bytes content, char path[PATH_SIZE])
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    ASSERT(fd >= 0);
    ssize_t written = content.size == 0 ? 0 : write(fd, content.data, content.size);
    ASSERT(written == (ssize_t)content.size);
    (void)snprintf(path, PATH_SIZE, "/proc/self/fd/%d", fd);
    return fd;
}

static void try_sidecar(struct bytes script)
{
    struct reader in = reader_of(script);
    struct sidecar_log log = {0};
    struct errmsg msg;
    struct buf file = {0};
    char path[PATH_SIZE];
    for (uint32_t slot = 0; slot < SLOTS_MAX && in.left > 0 && !in.bad; slot++) {
        make_slot(&in, slot, buf_extend(&file, SIDECAR_SLOT_SIZE));
    }
    int fd = memory_file(buf_view(&file), path);
    if (sidecar_log_read(path, &identity, SEGMENT, UINT64_MAX, &log, &msg) == ERR_OK) {
        check_log(&log);
        sidecar_log_deinit(&log);
    }
    (void)close(fd);
    buf_deinit(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    uint8_t *copy = mem_dup(data + 1, size - 1);
    if (data[0] % 2 == 0) {
        try_control(copy, size - 1);
    } else {
        try_sidecar(bytes_of(copy, size - 1));
    }
    mem_free(copy);
    return 0;
}
