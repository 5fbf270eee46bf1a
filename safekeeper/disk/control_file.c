#include "safekeeper/disk/control_file.h"

#include "common/base/checksum.h"
#include "common/base/fault.h"
#include "common/base/mark.h"
#include "common/io/file.h"
#include "safekeeper/disk/settle.h"

#define SLOT_MAGIC       0x43424E41u /* "ANBC" */
#define SLOT_VERSION     4           /* 3: all WAL is kept; 2: a membership is one set */
#define SLOT_VERSION_MIN 1           /* without a suspicion */
#define SLOT_HEADER_SIZE 16
#define SLOT_SIZE        (16 * KIB) /* of the file; the image is shorter */

#define MEMBER_FIELDS(X)                                                                           \
    X(u64, id)                                                                                     \
    X(bytes, host)                                                                                 \
    X(u16, port)                                                                                   \
    X(bytes, http_host)                                                                            \
    X(u16, http_port)

#define SLOT_FIELDS(X)                                                                             \
    X(u64, slot_sequence)                                                                          \
    X(tenant, tenant)                                                                              \
    X(timeline, timeline)                                                                          \
    X(u64, system_id)                                                                              \
    X(u32, pg_version)                                                                             \
    X(u32, segment_size)                                                                           \
    X(u64, sequence)                                                                               \
    X(u32, generation)                                                                             \
    X(u64, term)                                                                                   \
    X(u64, start_lsn)                                                                              \
    X(u64, commit_lsn)                                                                             \
    X(term_history, history)                                                                       \
    X(u32, membership_generation)                                                                  \
    X(u32, member_count)                                                                           \
    X(bytes, members)                                                                              \
    X(u64, suspect_lsn)                                                                            \
    X(u64, suspect_term)                                                                           \
    X(u32, old_set)                                                                                \
    X(u32, new_set)                                                                                \
    X(u64, begin_lsn)                                                                              \
    X(u8, is_begun_anew)

struct member_row {
    MEMBER_FIELDS(WIRE_FIELD)
};
WIRE_DECLARE(control_slot, SLOT_FIELDS);
WIRE_DEFINE(control_slot, SLOT_FIELDS)

static void put_members(const struct control_state *state, struct buf *to)
{
    for (uint32_t i = 0; i < state->membership.count; i++) {
        const struct member_address *address = &state->addresses[i];
        struct member_row row = {
            .id = state->membership.members[i],
            .host = bytes_of_str(address->host),
            .port = address->port,
            .http_host = bytes_of_str(address->http_host),
            .http_port = address->http_port,
        };
        struct member_row *msg = &row;
        size_t size = 0;
        MEMBER_FIELDS(WIRE_SIZE)
        struct writer writer = {.next = buf_extend(to, size), .left = size};
        struct writer *out = &writer;
        MEMBER_FIELDS(WIRE_PUT)
    }
}

static bool take_host(struct bytes from, char *to)
{
    if (from.size >= CONTROL_HOST_SIZE) {
        return false;
    }
    if (from.size > 0) {
        memcpy(to, from.data, from.size);
    }
    to[from.size] = '\0';
    return true;
}

static bool take_members(const struct control_slot *slot, struct control_state *state)
{
    struct reader reader = reader_of(slot->members);
    struct reader *in = &reader;
    if (slot->member_count > MEMBERS_MAX) {
        return false;
    }
    state->membership.generation = slot->membership_generation;
    state->membership.count = slot->member_count;
    for (uint32_t i = 0; i < slot->member_count; i++) {
        struct member_row row;
        struct member_row *msg = &row;
        MEMBER_FIELDS(WIRE_GET)
        struct member_address *address = &state->addresses[i];
        state->membership.members[i] = row.id;
        address->port = row.port;
        address->http_port = row.http_port;
        if (!take_host(row.host, address->host) || !take_host(row.http_host, address->http_host)) {
            return false;
        }
    }
    return !reader.bad && reader.left == 0;
}

void control_state_encode(const struct control_state *state, uint64_t sequence, struct buf *to)
{
    struct buf members = {0};
    put_members(state, &members);
    struct control_slot slot = {
        .slot_sequence = sequence,
        .tenant = state->params.tenant,
        .timeline = state->params.timeline,
        .system_id = state->params.system_id,
        .pg_version = state->params.pg_version,
        .segment_size = state->params.segment_size,
        .sequence = state->acceptor.sequence,
        .generation = state->acceptor.generation,
        .term = state->acceptor.term,
        .start_lsn = state->acceptor.start_lsn,
        .commit_lsn = state->acceptor.commit_lsn,
        .history = state->acceptor.history,
        .membership_generation = state->membership.generation,
        .member_count = state->membership.count,
        .members = buf_view(&members),
        .suspect_lsn = state->acceptor.suspect_lsn,
        .suspect_term = state->acceptor.suspect_term,
        .old_set = state->membership.old_set,
        .new_set = state->membership.new_set,
        .begin_lsn = state->acceptor.begin_lsn,
        .is_begun_anew = state->acceptor.is_begun_anew,
    };
    size_t size = control_slot_size(&slot);
    ASSERT(SLOT_HEADER_SIZE + size <= SLOT_SIZE);
    uint8_t *image = buf_extend(to, SLOT_HEADER_SIZE + size);
    struct writer body = {.next = image + SLOT_HEADER_SIZE, .left = size};
    control_slot_encode(&slot, &body);
    struct writer header = {.next = image, .left = SLOT_HEADER_SIZE};
    put_u32(&header, SLOT_MAGIC);
    put_u32(&header, SLOT_VERSION);
    put_u32(&header, (uint32_t)size);
    put_u32(&header, crc32c(crc32c(0, image, 12), image + SLOT_HEADER_SIZE, size));
    buf_deinit(&members);
}

err_t control_state_decode(
    struct bytes image,
    const char *name,
    struct control_state *state,
    uint64_t *ret_sequence,
    struct errmsg *msg)
{
    struct reader header = reader_of(image);
    uint32_t magic = get_u32(&header);
    uint32_t version = get_u32(&header);
    uint32_t size = get_u32(&header);
    uint32_t crc = get_u32(&header);
    if (header.bad || magic != SLOT_MAGIC || size > header.left) {
        return err_set(msg, ERR_CORRUPT, "%s is not a control file", name);
    }
    if (crc32c(crc32c(0, image.data, 12), header.next, size) != crc) {
        return err_set(msg, ERR_CORRUPT, "%s: checksum does not match", name);
    }
    if (version < SLOT_VERSION_MIN || version > SLOT_VERSION) {
        return err_set(msg, ERR_UNSUPPORTED, "%s has format version %u", name, version);
    }
    struct control_slot slot;
    struct buf fields = {0};
    buf_append(&fields, header.next, size);
    /* What was added later is not there: no suspicion, no joint membership, nothing forgotten. */
    size_t missing = version == 1 ? 2 * sizeof(uint64_t) : 0;
    missing += version <= 2 ? 2 * sizeof(uint32_t) : 0;
    missing += version <= 3 ? sizeof(uint64_t) + sizeof(uint8_t) : 0;
    if (missing > 0) {
        memset(buf_extend(&fields, missing), 0, missing);
    }
    struct reader body = reader_of(buf_view(&fields));
    *state = (struct control_state){0};
    bool fits = control_slot_decode(&slot, &body) == ERR_OK && take_members(&slot, state);
    buf_deinit(&fields);
    if (!fits) {
        return err_set(msg, ERR_CORRUPT, "%s: fields do not fit", name);
    }
    state->params = (struct timeline_params){
        .tenant = slot.tenant,
        .timeline = slot.timeline,
        .system_id = slot.system_id,
        .pg_version = slot.pg_version,
        .segment_size = slot.segment_size,
    };
    state->acceptor.sequence = slot.sequence;
    state->acceptor.generation = slot.generation;
    state->acceptor.term = slot.term;
    state->acceptor.start_lsn = slot.start_lsn;
    state->acceptor.begin_lsn = version <= 3 ? slot.start_lsn : slot.begin_lsn;
    state->acceptor.is_begun_anew = slot.is_begun_anew != 0;
    state->acceptor.commit_lsn = slot.commit_lsn;
    state->acceptor.history = slot.history;
    state->acceptor.suspect_lsn = slot.suspect_lsn;
    state->acceptor.suspect_term = slot.suspect_term;
    state->membership.old_set = slot.old_set;
    state->membership.new_set = slot.new_set;
    *ret_sequence = slot.slot_sequence;
    return ERR_OK;
}

static err_t slot_path(
    const struct control_file *file, unsigned slot, char path[PATH_SIZE], struct errmsg *msg)
{
    return str_format(path, PATH_SIZE, msg, "%s/control.%u", file->dir, slot);
}

/* The whole slot is written, so that a shorter image leaves nothing of an older one. */
static err_t write_slot(
    const struct control_file *file,
    uint64_t sequence,
    const struct control_state *state,
    struct errmsg *msg)
{
    char path[PATH_SIZE];
    TRY(slot_path(file, (unsigned)(sequence % 2), path, msg));
    struct buf image = {0};
    int fd = -1;
    control_state_encode(state, sequence, &image);
    size_t padding = SLOT_SIZE - image.size;
    memset(buf_extend(&image, padding), 0, padding);
    err_t err = FAULT("control_file.before_write");
    if (err == ERR_OK) {
        err = file_open(&fd, path, FILE_CREATE, msg);
    }
    if (err == ERR_OK) {
        err = file_write_at(fd, path, buf_view(&image), 0, msg);
    }
    if (err == ERR_OK) {
        err = FAULT("control_file.before_sync");
    }
    if (err == ERR_OK) {
        err = file_sync(fd, path, msg);
    }
    if (err == ERR_OK) {
        err = FAULT("control_file.after_sync");
    }
    file_close(&fd);
    buf_deinit(&image);
    return err;
}

err_t control_file_save(
    struct control_file *file,
    const struct control_state *state,
    bool is_promise,
    struct errmsg *msg)
{
    for (unsigned copy = 0; copy < (is_promise ? 2 : 1); copy++) {
        TRY(write_slot(file, file->sequence + 1, state, msg));
        file->sequence++;
        file->is_slot_bad = false;
    }
    return ERR_OK;
}

err_t control_file_create(
    struct control_file *file,
    const char *dir,
    const struct control_state *state,
    struct errmsg *msg)
{
    *file = (struct control_file){0};
    TRY(str_copy(file->dir, sizeof(file->dir), dir, msg));
    TRY(control_file_save(file, state, /* is_promise */ true, msg));
    return file_sync_dir(dir, msg);
}

struct loaded_slot {
    bool exists, valid;
    uint64_t sequence;
    struct control_state state;
};

static err_t load_slot(
    const struct control_file *file, unsigned slot, struct loaded_slot *loaded, struct errmsg *msg)
{
    char path[PATH_SIZE];
    struct buf image = {0};
    *loaded = (struct loaded_slot){0};
    TRY(slot_path(file, slot, path, msg));
    TRY(file_settle(path, msg));
    err_t err = file_read_all(path, SLOT_SIZE, &image, msg);
    if (err == ERR_NOT_FOUND) {
        return ERR_OK;
    }
    loaded->exists = true;
    if (err == ERR_OK) {
        err = control_state_decode(buf_view(&image), path, &loaded->state, &loaded->sequence, msg);
        loaded->valid = err == ERR_OK;
    }
    buf_deinit(&image);
    return err == ERR_CORRUPT ? ERR_OK : err;
}

err_t control_file_load(
    struct control_file *file,
    const char *dir,
    struct tenant_id tenant,
    struct timeline_id timeline,
    struct control_state *ret_state,
    struct errmsg *msg)
{
    struct loaded_slot slots[2];
    *file = (struct control_file){0};
    TRY(str_copy(file->dir, sizeof(file->dir), dir, msg));
    TRY(load_slot(file, 0, &slots[0], msg));
    TRY(load_slot(file, 1, &slots[1], msg));
    if (!slots[0].exists && !slots[1].exists) {
        return err_set(msg, ERR_NOT_FOUND, "%s holds no control file", dir);
    }
    if (!slots[0].valid && !slots[1].valid) {
        return err_wrap(msg, ERR_CORRUPT, "no valid control file");
    }
    if (!slots[0].valid || !slots[1].valid) {
        MARK("control_file.load.one_slot_bad");
        file->is_slot_bad = true;
    }
    const struct loaded_slot *newest = &slots[0];
    if (!slots[0].valid || (slots[1].valid && slots[1].sequence > slots[0].sequence)) {
        newest = &slots[1];
    }
    const struct timeline_params *params = &newest->state.params;
    if (!tenant_id_equal(params->tenant, tenant) ||
        !timeline_id_equal(params->timeline, timeline)) {
        return err_set(
            msg, ERR_CORRUPT, "%s belongs to timeline %s of tenant %s", dir,
            timeline_id_text(params->timeline).text, tenant_id_text(params->tenant).text);
    }
    file->sequence = newest->sequence;
    *ret_state = newest->state;
    return ERR_OK;
}
