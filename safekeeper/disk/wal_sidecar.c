#include "safekeeper/disk/wal_sidecar.h"

#include "common/base/checksum.h"
#include "common/base/mem.h"
#include "common/io/file.h"
#include "common/wire/codec.h"

#define HEADER_MAGIC   0x53424E41u /* "ANBS" */
#define RECORD_MAGIC   0x47424E41u /* "ANBG" */
#define FORMAT_VERSION 1
#define CRC_OFFSET     60
#define READ_SIZE      (64 * KIB)

static_assert(CRC_OFFSET + sizeof(uint32_t) == SIDECAR_SLOT_SIZE, "on-disk layout");

static uint32_t seed_of(const struct sidecar_identity *identity, uint64_t segment)
{
    uint64_t number = htole64(segment);
    uint32_t crc = crc32c(0, identity->tenant.bytes, ID_SIZE);
    crc = crc32c(crc, identity->timeline.bytes, ID_SIZE);
    return crc32c(crc, &number, sizeof(number));
}

static void seal(const struct sidecar_identity *identity, uint64_t segment, uint8_t *slot)
{
    uint32_t crc = htole32(crc32c(seed_of(identity, segment), slot, CRC_OFFSET));
    memcpy(slot + CRC_OFFSET, &crc, sizeof(crc));
}

void sidecar_header_encode(
    const struct sidecar_identity *identity, uint64_t segment, uint8_t to[SIDECAR_SLOT_SIZE])
{
    memset(to, 0, SIDECAR_SLOT_SIZE);
    struct writer out = {.next = to, .left = SIDECAR_SLOT_SIZE};
    put_u32(&out, HEADER_MAGIC);
    put_u32(&out, FORMAT_VERSION);
    put_tenant(&out, identity->tenant);
    put_timeline(&out, identity->timeline);
    put_u64(&out, segment);
    put_u32(&out, identity->segment_size);
    seal(identity, segment, to);
}

void sidecar_record_encode(
    const struct sidecar_identity *identity,
    uint64_t segment,
    const struct sidecar_record *record,
    uint8_t to[SIDECAR_SLOT_SIZE])
{
    memset(to, 0, SIDECAR_SLOT_SIZE);
    struct writer out = {.next = to, .left = SIDECAR_SLOT_SIZE};
    put_u32(&out, RECORD_MAGIC);
    put_u8(&out, FORMAT_VERSION);
    put_u8(&out, record->kind);
    put_u16(&out, 0);
    put_u32(&out, record->slot);
    put_u32(&out, record->wal_crc);
    put_u64(&out, record->sequence);
    put_u64(&out, record->begin_lsn);
    put_u64(&out, record->end_lsn);
    put_u64(&out, record->record_lsn);
    put_u64(&out, record->commit_lsn);
    seal(identity, segment, to);
}

/* False: these 64 bytes are not a record of this file and slot. */
static bool record_decode(
    const struct sidecar_identity *identity,
    uint64_t segment,
    uint32_t slot,
    const uint8_t *from,
    struct sidecar_record *record)
{
    uint32_t crc;
    memcpy(&crc, from + CRC_OFFSET, sizeof(crc));
    if (crc32c(seed_of(identity, segment), from, CRC_OFFSET) != le32toh(crc)) {
        return false;
    }
    struct reader in = reader_of(bytes_of(from, SIDECAR_SLOT_SIZE));
    uint32_t magic = get_u32(&in);
    uint8_t version = get_u8(&in);
    record->kind = get_u8(&in);
    (void)get_u16(&in);
    record->slot = get_u32(&in);
    record->wal_crc = get_u32(&in);
    record->sequence = get_u64(&in);
    record->begin_lsn = get_u64(&in);
    record->end_lsn = get_u64(&in);
    record->record_lsn = get_u64(&in);
    record->commit_lsn = get_u64(&in);
    return magic == RECORD_MAGIC && version == FORMAT_VERSION && record->slot == slot &&
           record->kind >= SIDECAR_GROUP && record->kind <= SIDECAR_CERTIFY &&
           record->begin_lsn <= record->end_lsn &&
           record->end_lsn - segment * identity->segment_size <= identity->segment_size &&
           record->begin_lsn >= segment * identity->segment_size;
}

static bool header_is_valid(
    const struct sidecar_identity *identity, uint64_t segment, const uint8_t *from)
{
    uint8_t expected[SIDECAR_SLOT_SIZE];
    sidecar_header_encode(identity, segment, expected);
    return memcmp(expected, from, sizeof(expected)) == 0;
}

static void push_group(struct sidecar_log *log, const struct sidecar_record *record)
{
    if (log->count == log->capacity) {
        log->capacity = MAX_OF((size_t)64, 2 * log->capacity);
        log->groups = mem_realloc(log->groups, log->capacity * sizeof(*log->groups));
    }
    log->groups[log->count++] = (struct sidecar_group){
        .begin_lsn = record->begin_lsn,
        .end_lsn = record->end_lsn,
        .record_lsn = record->record_lsn,
        .wal_crc = record->wal_crc,
        .is_certified = record->kind == SIDECAR_TRUNCATE,
    };
}

static err_t add_record(
    struct sidecar_log *log,
    const struct sidecar_record *record,
    const char *path,
    struct errmsg *msg)
{
    bool is_truncate = record->kind == SIDECAR_TRUNCATE;
    if (log->first_sequence == 0) {
        log->first_sequence = record->sequence;
    } else if (
        is_truncate ? record->sequence <= log->last_sequence
                    : record->sequence != log->last_sequence + 1) {
        return err_set(
            msg, ERR_CORRUPT, "%s: slot %u has sequence %" PRIu64 " after %" PRIu64, path,
            record->slot, record->sequence, log->last_sequence);
    }
    if (log->count > 0) {
        log->groups[log->count - 1].is_certified = true;
    }
    while (is_truncate && log->count > 0 &&
           log->groups[log->count - 1].begin_lsn >= record->begin_lsn) {
        log->count--;
    }
    if (log->count > 0 && log->groups[log->count - 1].end_lsn != record->begin_lsn) {
        return err_set(
            msg, ERR_CORRUPT, "%s: slot %u begins at " LSN_FMT ", the log ends at " LSN_FMT, path,
            record->slot, LSN_ARGS(record->begin_lsn),
            LSN_ARGS(log->groups[log->count - 1].end_lsn));
    }
    if (record->begin_lsn < record->end_lsn) {
        push_group(log, record);
    } else if (is_truncate && log->count > 0) {
        log->groups[log->count - 1].record_lsn = record->record_lsn;
    } else if (is_truncate) {
        log->truncated_record_lsn = record->record_lsn;
    }
    if (is_truncate) {
        log->truncate_sequence = record->sequence;
    }
    log->last_sequence = record->sequence;
    log->commit_lsn = MAX_OF(log->commit_lsn, record->commit_lsn);
    return ERR_OK;
}

static bool is_zero(const uint8_t *bytes, size_t size)
{
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static err_t add_slot(
    struct sidecar_log *log,
    const struct sidecar_identity *identity,
    uint64_t segment,
    uint32_t slot,
    const uint8_t *from,
    const char *path,
    struct errmsg *msg)
{
    if (is_zero(from, SIDECAR_SLOT_SIZE)) {
        return ERR_OK;
    }
    struct sidecar_record record;
    bool is_valid = slot == 0 ? header_is_valid(identity, segment, from)
                              : record_decode(identity, segment, slot, from, &record);
    if (!is_valid && log->has_trailing_bytes && slot > 1) {
        /* A crash tears one write: that of a record, or of the header with the first one. */
        return err_set(msg, ERR_CORRUPT, "%s: slot %u is damaged, and one before it", path, slot);
    }
    if (!is_valid) {
        log->has_trailing_bytes = true;
        return ERR_OK;
    }
    if (slot > 0 && record.sequence > log->sequence_max) {
        return ERR_OK;
    }
    if (slot != log->slots) {
        return err_set(
            msg, ERR_CORRUPT, "%s: slot %u is damaged, slot %u behind it is not", path, log->slots,
            slot);
    }
    log->slots++;
    return slot == 0 ? ERR_OK : add_record(log, &record, path, msg);
}

void sidecar_log_deinit(struct sidecar_log *log)
{
    mem_free(log->groups);
    *log = (struct sidecar_log){0};
}

/* ---- the file ---- */

typedef err_t (*slot_fn)(void *context, uint32_t slot, const uint8_t *from, struct errmsg *msg);

/* ERR_NOT_FOUND: there is no such file. */
static err_t read_slots(const char *path, slot_fn take, void *context, struct errmsg *msg)
{
    uint8_t *buffer = NULL;
    uint64_t size = 0;
    int fd = -1;
    err_t err = file_open(&fd, path, FILE_READ, msg);
    if (err != ERR_OK) {
        return err;
    }
    err = file_size(fd, path, &size, msg);
    buffer = mem_alloc(READ_SIZE);
    for (uint64_t at = 0; err == ERR_OK && at + SIDECAR_SLOT_SIZE <= size; at += READ_SIZE) {
        size_t piece = (size_t)MIN_OF(size - at, (uint64_t)READ_SIZE);
        err = file_read_at(fd, path, buffer, piece, at, msg);
        for (size_t i = 0; err == ERR_OK && i + SIDECAR_SLOT_SIZE <= piece;
             i += SIDECAR_SLOT_SIZE) {
            err = take(context, (uint32_t)((at + i) / SIDECAR_SLOT_SIZE), buffer + i, msg);
        }
    }
    file_close(&fd);
    mem_free(buffer);
    return err;
}

struct log_context {
    struct sidecar_log *log;
    const struct sidecar_identity *identity;
    uint64_t segment;
    const char *path;
};

static err_t add_to_log(void *context, uint32_t slot, const uint8_t *from, struct errmsg *msg)
{
    const struct log_context *in = context;
    return add_slot(in->log, in->identity, in->segment, slot, from, in->path, msg);
}

err_t sidecar_log_read(
    const char *path,
    const struct sidecar_identity *identity,
    uint64_t segment,
    uint64_t sequence_max,
    struct sidecar_log *ret_log,
    struct errmsg *msg)
{
    struct sidecar_log log = {.sequence_max = sequence_max};
    struct log_context context = {&log, identity, segment, path};
    err_t err = read_slots(path, add_to_log, &context, msg);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        sidecar_log_deinit(&log);
        return err;
    }
    *ret_log = log;
    return ERR_OK;
}

/* ---- survey ---- */

struct survey_context {
    const struct sidecar_identity *identity;
    uint64_t segment;
    lsn_t commit_lsn, end_lsn;
};

static err_t look_at_slot(void *context, uint32_t slot, const uint8_t *from, struct errmsg *msg)
{
    struct survey_context *survey = context;
    struct sidecar_record record;
    (void)msg;
    if (slot == 0 || is_zero(from, SIDECAR_SLOT_SIZE)) {
        return ERR_OK;
    }
    if (record_decode(survey->identity, survey->segment, slot, from, &record)) {
        survey->commit_lsn = MAX_OF(survey->commit_lsn, record.commit_lsn);
        survey->end_lsn = record.end_lsn;
    } else {
        survey->end_lsn = (survey->segment + 1) * survey->identity->segment_size;
    }
    return ERR_OK;
}

err_t sidecar_survey(
    const char *path,
    const struct sidecar_identity *identity,
    uint64_t segment,
    lsn_t *ret_commit_lsn,
    lsn_t *ret_end_lsn,
    struct errmsg *msg)
{
    struct survey_context survey = {
        .identity = identity,
        .segment = segment,
        .end_lsn = (segment + 1) * identity->segment_size, /* unless a record says better */
    };
    err_t err = read_slots(path, look_at_slot, &survey, msg);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        return err;
    }
    *ret_commit_lsn = survey.commit_lsn;
    *ret_end_lsn = survey.end_lsn;
    return ERR_OK;
}
