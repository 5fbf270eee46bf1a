#include "control/catalog/leftovers.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/id.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/wire/codec.h"

#define TENANTS_PREFIX "tenants/"
#define INDEX_MAX      ((size_t)256 << 20)
#define INDEX_MAGIC    0x58494241u
#define INDEX_BARE     1 /* its positions have no lineage */
#define INDEX_FORMAT   2
#define POSITION_SIZE  (16 + 4 + 8)

struct left_tenant {
    struct tenant_id id;
    uint64_t generation; /* the highest that has written */
    char index[160];     /* name of the newest */
    bool claimed;
    struct left_timeline *timelines;
    size_t timeline_count;
};

struct leftovers {
    struct left_tenant *tenants; /* in the order of their names */
    size_t count;
};

static struct left_tenant *tenant_of(struct leftovers *leftovers, struct tenant_id id)
{
    if (leftovers->count == 0 ||
        !tenant_id_equal(leftovers->tenants[leftovers->count - 1].id, id)) {
        size_t size = (leftovers->count + 1) * sizeof leftovers->tenants[0];
        leftovers->tenants = mem_realloc(leftovers->tenants, size);
        leftovers->tenants[leftovers->count++] = (struct left_tenant){.id = id};
    }
    return &leftovers->tenants[leftovers->count - 1];
}

/* tenants/TENANT/index/GENERATION-.. and tenants/TENANT/data/GENERATION/..; others are not ours. */
static err_t on_object(const struct objstore_entry *entry, void *context, struct errmsg *msg)
{
    (void)msg;
    char text[33] = "";
    char kind[8] = "";
    unsigned generation = 0;
    struct tenant_id id;
    struct errmsg why;
    int fields = sscanf( // NOLINT: what does not fit is left alone
        entry->name, TENANTS_PREFIX "%32[0-9a-f]/%5[a-z]/%8x", text, kind, &generation);
    if (fields != 3 || tenant_id_parse(text, &id, &why) != ERR_OK) {
        return ERR_OK;
    }
    struct left_tenant *tenant = tenant_of(context, id);
    tenant->generation = MAX_OF(tenant->generation, generation);
    if (strcmp(kind, "index") == 0) { /* names order by generation and sequence */
        (void)snprintf(tenant->index, sizeof tenant->index, "%s", entry->name);
    }
    return ERR_OK;
}

static void take_lineage(struct reader *in, struct left_timeline *timeline)
{
    timeline->has_lineage = true;
    timeline->parent = get_timeline(in);
    timeline->start_lsn = get_u64(in);
    timeline->membership_generation = get_u32(in);
    timeline->is_deleted = get_u8(in) != 0;
    timeline->member_count = get_u8(in);
    in->bad = in->bad || timeline->member_count > LEFT_MEMBERS_MAX;
    for (size_t i = 0; i < timeline->member_count && !in->bad; i++) {
        timeline->members[i] = get_u64(in);
    }
}

static err_t take_index(struct left_tenant *tenant, struct bytes index, struct errmsg *msg)
{
    size_t size = index.size - MIN_OF(index.size, sizeof(uint32_t));
    struct reader in = reader_of(bytes_of(index.data, size));
    struct reader checksum = reader_of(bytes_of(index.data + size, index.size - size));
    if (get_u32(&checksum) != crc32c(0, index.data, size) || checksum.bad) {
        return err_set(msg, ERR_CORRUPT, "its checksum is wrong");
    }
    uint32_t magic = get_u32(&in);
    unsigned format = get_u16(&in);
    if (magic != INDEX_MAGIC || (format != INDEX_FORMAT && format != INDEX_BARE)) {
        return err_set(msg, ERR_UNSUPPORTED, "it is no index of format %d", INDEX_FORMAT);
    }
    (void)reader_take(
        &in, 2 + 16 + 4 + 8 + 8); /* reserved, tenant, generation, sequence, created */
    uint32_t count = get_u32(&in);
    (void)reader_take(&in, 2 * sizeof(uint32_t));
    if (in.bad || (uint64_t)count * POSITION_SIZE > in.left) {
        return err_set(msg, ERR_CORRUPT, "it is shorter than its counts say");
    }
    tenant->timelines = MEM_ARRAY(struct left_timeline, count);
    tenant->timeline_count = count;
    for (uint32_t i = 0; i < count; i++) {
        tenant->timelines[i].id = get_timeline(&in);
        (void)get_u32(&in);
        tenant->timelines[i].lsn = get_u64(&in);
        if (format == INDEX_FORMAT) {
            take_lineage(&in, &tenant->timelines[i]);
        }
    }
    if (in.bad) {
        tenant->timeline_count = 0;
        return err_set(msg, ERR_CORRUPT, "what it says of its timelines cannot be read");
    }
    return ERR_OK;
}

static err_t read_index(struct objstore *store, struct left_tenant *tenant, struct errmsg *msg)
{
    struct buf index = {0};
    if (tenant->index[0] == '\0') {
        return ERR_OK;
    }
    err_t err = objstore_get(store, tenant->index, INDEX_MAX, &index, msg);
    if (err == ERR_OK) {
        err = take_index(tenant, buf_view(&index), msg);
    }
    buf_deinit(&index);
    return err == ERR_OK ? ERR_OK : err_wrap(msg, err, "object %s", tenant->index);
}

err_t leftovers_find(struct objstore *store, struct leftovers **ret_leftovers, struct errmsg *msg)
{
    struct leftovers *leftovers = MEM_NEW(struct leftovers);
    err_t err = objstore_list(
        store, &(struct objstore_query){.prefix = TENANTS_PREFIX}, on_object, leftovers, msg);
    if (err != ERR_OK) {
        leftovers_destroy(leftovers);
        return err;
    }
    for (size_t i = 0; i < leftovers->count; i++) {
        if (read_index(store, &leftovers->tenants[i], msg) != ERR_OK) {
            log_warn(NULL, "catalog: %s; its timelines are not compared", msg->text);
        }
    }
    *ret_leftovers = leftovers;
    return ERR_OK;
}

void leftovers_destroy(struct leftovers *leftovers)
{
    if (leftovers != NULL) {
        for (size_t i = 0; i < leftovers->count; i++) {
            mem_free(leftovers->tenants[i].timelines);
        }
        mem_free(leftovers->tenants);
        mem_free(leftovers);
    }
}

uint64_t leftovers_claim_tenant(struct leftovers *leftovers, struct tenant_id tenant)
{
    for (size_t i = 0; i < leftovers->count; i++) {
        if (tenant_id_equal(leftovers->tenants[i].id, tenant)) {
            leftovers->tenants[i].claimed = true;
            return leftovers->tenants[i].generation;
        }
    }
    return 0;
}

void leftovers_claim_timeline(struct leftovers *leftovers, struct timeline_id timeline)
{
    for (size_t i = 0; i < leftovers->count; i++) {
        struct left_tenant *tenant = &leftovers->tenants[i];
        for (size_t j = 0; j < tenant->timeline_count; j++) {
            if (timeline_id_equal(tenant->timelines[j].id, timeline)) {
                tenant->timelines[j].claimed = true;
                return;
            }
        }
    }
}

struct left_timeline *leftovers_next_timeline(
    struct leftovers *leftovers, struct tenant_id tenant, const struct left_timeline *after)
{
    for (size_t i = 0; i < leftovers->count; i++) {
        struct left_tenant *found = &leftovers->tenants[i];
        if (!tenant_id_equal(found->id, tenant)) {
            continue;
        }
        size_t next = after == NULL ? 0 : (size_t)(after - found->timelines) + 1;
        while (next < found->timeline_count && found->timelines[next].claimed) {
            next++;
        }
        return next < found->timeline_count ? &found->timelines[next] : NULL;
    }
    return NULL;
}

void leftovers_report(const struct leftovers *leftovers, struct buf *to)
{
    for (size_t i = 0; i < leftovers->count; i++) {
        const struct left_tenant *tenant = &leftovers->tenants[i];
        const char *tenant_text = tenant_id_text(tenant->id).text;
        if (!tenant->claimed) {
            buf_printf(
                to, "tenant %s has objects and no project: it was deleted, or its change is lost\n",
                tenant_text);
        }
        for (size_t j = 0; j < tenant->timeline_count; j++) {
            const struct left_timeline *timeline = &tenant->timelines[j];
            if (!timeline->claimed && !timeline->is_deleted) {
                buf_printf(
                    to,
                    "timeline %s of tenant %s has objects up to " LSN_FMT
                    " and no branch: it was deleted, or its change is lost\n",
                    timeline_id_text(timeline->id).text, tenant_text, LSN_ARGS(timeline->lsn));
            }
        }
    }
}
