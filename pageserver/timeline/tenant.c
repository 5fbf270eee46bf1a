#include "pageserver/timeline/tenant.h"

#include "common/base/assert.h"
#include "common/base/checksum.h"
#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/metric.h"
#include "pageserver/timeline/shared_text.h"
#include "pageserver/timeline/tenant_private.h"

METRIC_GAUGE(timeline_count, "pageserver_timelines", "timelines, without those being deleted");

/* -- finding things -- */

struct loop *tenant_loop(const struct tenant *tenant)
{
    return tenant->tenants->options.loop;
}

struct tenant_id tenant_id(const struct tenant *tenant)
{
    return tenant->id;
}

generation_t tenant_generation(const struct tenant *tenant)
{
    return tenant->generation;
}

struct page_store *tenant_store(const struct tenant *tenant)
{
    return tenant->store;
}

void tenant_hold(struct tenant *tenant)
{
    tenant->holds++;
}

void tenant_release(struct tenant *tenant)
{
    ASSERT(tenant->holds > 0);
    tenant->holds--;
}

#define READ_WAIT_MS  5000 /* for an erasure, which waits for those who read already */
#define READ_PAUSE_MS 10

static void on_read_timer(struct timer *timer)
{
    struct tenant_read *read = CONTAINER_OF(timer, struct tenant_read, timer);
    struct tenant *tenant = read->tenant;
    if (!tenant_erasure_waits(tenant)) {
        tenant->readers++;
        read->done(read, ERR_OK);
    } else if (clock_mono() < read->deadline) {
        timer_start(tenant_loop(tenant), timer, READ_PAUSE_MS);
    } else {
        tenant_release(tenant);
        read->done(
            read, err_set(
                      &read->msg, ERR_BUSY,
                      "a deleted timeline waits until nobody reads the tenant, ask again"));
    }
}

void tenant_read_begin(struct tenant *tenant, struct tenant_read *read)
{
    tenant_hold(tenant);
    read->tenant = tenant;
    read->deadline = clock_mono() + READ_WAIT_MS * NS_PER_MS;
    read->timer.on_fire = on_read_timer;
    timer_start(tenant_loop(tenant), &read->timer, 0);
}

void tenant_read_end(struct tenant_read *read)
{
    ASSERT(read->tenant->readers > 0);
    read->tenant->readers--;
    tenant_release(read->tenant);
}

void tenant_set_user(struct tenant *tenant, struct tenant_user *user)
{
    tenant->user = user;
}

struct tenant_user *tenant_user(const struct tenant *tenant)
{
    return tenant->user;
}

const char *tenant_failure(const struct tenant *tenant)
{
    return tenant->failure[0] == '\0' ? NULL : tenant->failure;
}

const char *tenant_full(const struct tenant *tenant)
{
    return tenant->full[0] == '\0' ? NULL : tenant->full;
}

struct tenant *tenants_find(struct tenants *tenants, struct tenant_id id)
{
    LIST_FOR_EACH(&tenants->list, link)
    {
        struct tenant *tenant = CONTAINER_OF(link, struct tenant, link);
        if (tenant_id_equal(tenant->id, id) && !tenant->deleting) {
            return tenant;
        }
    }
    return NULL;
}

struct tenant *tenants_first(struct tenants *tenants)
{
    struct list_link *first = list_first(&tenants->list);
    return first == NULL ? NULL : CONTAINER_OF(first, struct tenant, link);
}

struct tenant *tenants_next(struct tenants *tenants, struct tenant *tenant)
{
    struct list_link *next = tenant->link.next;
    return next == &tenants->list.head ? NULL : CONTAINER_OF(next, struct tenant, link);
}

/* Ids are random bits, or what a caller of the API chose: hashed all the same. */
static struct timeline **bucket_of(const struct tenant *tenant, struct timeline_id id)
{
    return &tenant->buckets[hash64(id.bytes, sizeof(id.bytes), 0) & (tenant->bucket_count - 1)];
}

struct timeline *tenant_find_member(struct tenant *tenant, struct timeline_id id)
{
    struct timeline *tl = *bucket_of(tenant, id);
    while (tl != NULL && !timeline_id_equal(tl->info.id, id)) {
        tl = tl->next_in_bucket;
    }
    return tl;
}

struct timeline *tenant_find_timeline(struct tenant *tenant, struct timeline_id id)
{
    struct timeline *tl = tenant_find_member(tenant, id);
    return tl == NULL || tl->info.state == TIMELINE_TOMBSTONE ? NULL : tl;
}

/* From `link` on, the first that is not only there for its children. */
static struct timeline *visible_from(struct tenant *tenant, struct list_link *link)
{
    while (link != &tenant->members.head &&
           timeline_of_member(link)->info.state == TIMELINE_TOMBSTONE) {
        link = link->next;
    }
    return link == &tenant->members.head ? NULL : timeline_of_member(link);
}

static struct timeline *member_at(struct tenant *tenant, struct list_link *link)
{
    return link == &tenant->members.head ? NULL : timeline_of_member(link);
}

struct timeline *tenant_first_member(struct tenant *tenant)
{
    return member_at(tenant, tenant->members.head.next);
}

struct timeline *tenant_next_member(struct tenant *tenant, struct timeline *tl)
{
    ASSERT(tl->member_link.next != NULL);
    return member_at(tenant, tl->member_link.next);
}

struct timeline *tenant_first_timeline(struct tenant *tenant)
{
    return visible_from(tenant, tenant->members.head.next);
}

struct timeline *tenant_next_timeline(struct tenant *tenant, struct timeline *tl)
{
    ASSERT(tl->member_link.next != NULL); /* it is a member */
    return visible_from(tenant, tl->member_link.next);
}

static void grow_buckets(struct tenant *tenant)
{
    size_t old_count = tenant->bucket_count;
    struct timeline **old = tenant->buckets;
    tenant->bucket_count *= 2;
    tenant->buckets = MEM_ARRAY(struct timeline *, tenant->bucket_count);
    for (size_t i = 0; i < old_count; i++) {
        for (struct timeline *tl = old[i], *next; tl != NULL; tl = next) {
            struct timeline **bucket = bucket_of(tenant, tl->info.id);
            next = tl->next_in_bucket;
            tl->next_in_bucket = *bucket;
            *bucket = tl;
        }
    }
    mem_free(old);
}

void tenant_add_member(struct tenant *tenant, struct timeline *tl)
{
    if (tenant->member_count == tenant->bucket_count) {
        grow_buckets(tenant);
    }
    struct timeline **bucket = bucket_of(tenant, tl->info.id);
    tl->next_in_bucket = *bucket;
    *bucket = tl;
    list_push_back(&tenant->members, &tl->member_link);
    tenant->member_count++;
    if (tl->parent != NULL) {
        tl->parent->child_count++;
    }
    metric_add(&timeline_count, 1);
}

/* The reference of the list is the caller's now. */
void tenant_remove_member(struct tenant *tenant, struct timeline *tl)
{
    struct timeline **link = bucket_of(tenant, tl->info.id);
    while (*link != tl) {
        link = &(*link)->next_in_bucket;
    }
    *link = tl->next_in_bucket;
    list_remove(&tl->member_link);
    list_remove(&tl->advanced_link);
    tenant->member_count--;
    if (tl->parent != NULL) {
        tl->parent->child_count--;
    }
    metric_add(&timeline_count, -1);
}

void tenant_drop_members(struct tenant *tenant)
{
    /* Children come after their parents: from the back. */
    while (!list_is_empty(&tenant->members)) {
        struct timeline *tl = timeline_of_member(tenant->members.head.prev);
        tenant_remove_member(tenant, tl);
        timeline_unref(tl);
    }
}

void tenant_note_advanced(struct tenant *tenant, struct timeline *tl)
{
    bool is_member = list_link_is_in(&tl->member_link);
    if (is_member && !list_link_is_in(&tl->advanced_link)) {
        list_push_back(&tenant->advanced, &tl->advanced_link);
    }
}

/* -- requests -- */

void tenant_request_finish(struct tenant_request *request, err_t result)
{
    list_remove(&request->link);
    buf_deinit(&request->row);
    if (request->holds_texts) {
        shared_text_unref(request->info.bootstrap_object);
        shared_text_unref(request->info.safekeepers);
    }
    if (request->tenant != NULL && list_link_is_in(&request->hold.link)) {
        history_release(request->tenant->history, &request->hold);
    }
    request->done(request, result); /* the request is the caller's again */
}

static void on_answer_timer(struct timer *timer)
{
    struct tenant_request *request = CONTAINER_OF(timer, struct tenant_request, timer);
    tenant_request_finish(request, request->result);
}

/* An answer that needs no work still comes from the loop, never from inside start. */
void tenant_request_answer(struct tenant_request *request, err_t result)
{
    request->result = result;
    request->timer = (struct timer){.on_fire = on_answer_timer};
    timer_start(request->tenants->options.loop, &request->timer, 0);
}

void tenant_request_begin(
    struct tenant_request *request, struct tenants *tenants, struct tenant *tenant)
{
    request->tenants = tenants;
    request->tenant = tenant;
    request->msg.text[0] = '\0';
    request->created = false;
    request->holds_texts = false;
    request->timeline = NULL;
    request->loaded = NULL;
    request->row = (struct buf){0};
    request->hold = (struct history_hold){0};
    request->link = request->new_link = (struct list_link){0};
    list_push_back(tenant == NULL ? &tenants->requests : &tenant->requests, &request->link);
}
