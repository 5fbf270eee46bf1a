#include "pageserver/timeline/tenant.h"

#include <semaphore.h>
#include <stdatomic.h>

#include "common/base/fault.h"
#include "common/base/metric.h"
#include "common/io/file.h"
#include "tests/unit/timeline/tenant_fixture.h"

START_TEST(test_attaching_again_is_the_same_and_older_generations_are_stale)
{
    fixture_begin();
    ck_assert_int_eq(attach(1, 5), ERR_OK);
    ck_assert_int_eq(attach(1, 5), ERR_OK);
    ck_assert_int_eq(attach(1, 4), ERR_STALE);
    ck_assert_int_eq(attach(1, 6), ERR_OK);
    fixture_reopen();
    ck_assert_uint_eq(tenant_generation(the_tenant()), 6);
    fixture_end();
}
END_TEST

/* Links to files that the store has deleted since would keep their space for ever. */
START_TEST(test_what_an_upload_or_restore_left_half_done_goes_at_the_start)
{
    static const char *const suffixes[] = {".downloading", ".checkpoint", ".checkpoint.tmp"};
    char paths[ARRAY_LEN(suffixes)][PATH_SIZE];
    fixture_begin();
    ck_assert_int_eq(attach(1, 1), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        (void)snprintf(
            paths[i], sizeof(paths[i]), "%s/tenants/%s%s", fixture.folder,
            tenant_id_text(tenant_id(the_tenant())).text, suffixes[i]);
        ck_assert_ok(dir_create(paths[i], &msg), &msg);
    }
    fixture_reopen();
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        ck_assert_msg(!file_exists(paths[i]), "%s is still there", paths[i]);
    }
    ck_assert_uint_eq(tenant_generation(the_tenant()), 1);
    fixture_end();
}
END_TEST

START_TEST(test_timelines_are_there_after_a_restart)
{
    fixture_begin_with_root();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    fixture_reopen();
    ck_assert_ptr_nonnull(find(1));
    ck_assert(timeline_is_ready(find(1)));
    ck_assert_uint_eq(timeline_last_lsn(find(1)), START_LSN);
    ck_assert_ptr_eq(timeline_parent(find(2)), find(1));
    fixture_end();
}
END_TEST

START_TEST(test_root_that_was_not_imported_is_still_importing_after_a_restart)
{
    fixture_begin();
    ck_assert_int_eq(attach(1, 1), ERR_OK);
    ck_assert_int_eq(put_timeline_(1, 0, START_LSN), ERR_OK);
    fixture_reopen();
    ck_assert_int_eq(timeline_info(find(1))->state, TIMELINE_IMPORTING);
    ck_assert(!timeline_is_ready(find(1)));
    fixture_end();
}
END_TEST

START_TEST(test_putting_a_timeline_again_is_the_same)
{
    fixture_begin_with_root();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 8), ERR_EXISTS);
    ck_assert_int_eq(put_timeline_(2, 0, START_LSN), ERR_EXISTS);
    fixture_end();
}
END_TEST

/* Ingest pieces and compactions take as long as they take. */
struct busy_job {
    struct job job;
    sem_t *begun, *end;
};

static err_t be_busy(struct job *job)
{
    struct busy_job *busy = CONTAINER_OF(job, struct busy_job, job);
    (void)sem_post(busy->begun);
    while (sem_wait(busy->end) != 0) {
    }
    return ERR_OK;
}

static void on_busy_done(struct job *job)
{
    (void)job;
}

START_TEST(test_a_branch_waits_for_no_other_work)
{
    fixture_begin_with_root();
    struct busy_job busy[2]; /* as many as there are threads */
    sem_t begun, end;
    ck_assert_int_eq(sem_init(&begun, 0, 0), 0);
    ck_assert_int_eq(sem_init(&end, 0, 0), 0);
    for (unsigned i = 0; i < 2; i++) {
        busy[i] = (struct busy_job){
            .job = {.run = be_busy, .done = on_busy_done}, .begun = &begun, .end = &end};
        executor_submit(fixture.executor, &busy[i].job);
    }
    for (unsigned i = 0; i < 2; i++) {
        while (sem_wait(&begun) != 0) {
        }
    }
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    (void)sem_post(&end);
    (void)sem_post(&end);
    fixture_end();
    (void)sem_destroy(&begun);
    (void)sem_destroy(&end);
}
END_TEST

static int64_t row_writes(void)
{
    struct buf text = {0};
    metric_print_all(&text);
    const char *at = strstr(buf_cstr(&text), "\npageserver_store_row_writes_total ");
    ck_assert_ptr_nonnull(at);
    int64_t value = strtoll(strchr(at + 1, ' '), NULL, 10);
    buf_deinit(&text);
    return value;
}

#define TOGETHER 50u

static struct {
    struct tenant_request requests[TOGETHER];
    unsigned done, failed;
} together;

static void on_one_of_many(struct tenant_request *request, err_t result)
{
    ck_assert(result != ERR_OK || request->timeline != NULL);
    together.failed += result == ERR_OK ? 0 : 1;
    if (++together.done == TOGETHER) {
        loop_stop(fixture.loop);
    }
}

static void put_many(uint8_t first)
{
    together.done = together.failed = 0;
    for (uint8_t i = 0; i < TOGETHER; i++) {
        struct timeline_info info = info_of((uint8_t)(first + i), 1, START_LSN);
        together.requests[i] = (struct tenant_request){.done = on_one_of_many};
        tenant_put_timeline(the_tenant(), &together.requests[i], &info);
    }
    loop_run(fixture.loop);
    ck_assert_uint_eq(together.done, TOGETHER);
}

/* The first begins at once, those that come while it is written are one group. */
START_TEST(test_branches_that_are_created_at_once_share_a_sync)
{
    fixture_begin_with_root();
    int64_t before = row_writes();
    put_many(2);
    ck_assert_uint_eq(together.failed, 0);
    ck_assert_int_eq(row_writes() - before, 2);
    fixture_reopen();
    for (uint8_t i = 0; i < TOGETHER; i++) {
        ck_assert_ptr_nonnull(find((uint8_t)(2 + i)));
    }
    ck_assert_int_eq(put_timeline_(100, 1, START_LSN), ERR_OK);
    ck_assert_uint_eq(timeline_number(find(100)), TOGETHER + 2);
    fixture_end();
}
END_TEST

START_TEST(test_group_that_cannot_be_written_creates_no_branch_and_uses_up_its_numbers)
{
    fixture_begin_with_root();
    fault_enable();
    ck_assert_ok(fault_arm("page_store.rows=full*2", &msg), &msg);
    put_many(2);
    ck_assert_uint_eq(together.failed, TOGETHER);
    for (uint8_t i = 0; i < TOGETHER; i++) {
        ck_assert_ptr_null(find((uint8_t)(2 + i)));
    }
    put_many(2);
    ck_assert_uint_eq(together.failed, 0);
    ck_assert_uint_eq(timeline_number(find(2)), TOGETHER + 2);
    fixture_end();
}
END_TEST

START_TEST(test_newer_membership_replaces_the_safekeepers)
{
    fixture_begin_with_root();
    struct timeline_info info = info_of(1, 0, START_LSN);
    info.safekeepers = "2@127.0.0.1:2";
    ck_assert_int_eq(put_info(&info), ERR_EXISTS);
    info.membership_generation = 2;
    ck_assert_int_eq(put_info(&info), ERR_OK);
    ck_assert_str_eq(timeline_info(find(1))->safekeepers, "2@127.0.0.1:2");
    info.membership_generation = 1;
    ck_assert_int_eq(put_info(&info), ERR_STALE);
    fixture_reopen();
    ck_assert_str_eq(timeline_info(find(1))->safekeepers, "2@127.0.0.1:2");
    fixture_end();
}
END_TEST

START_TEST(test_branch_needs_a_parent_and_an_lsn_of_its_history)
{
    fixture_begin_with_root();
    ck_assert_int_eq(put_timeline_(2, 9, START_LSN), ERR_NOT_FOUND);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN - 8), ERR_RANGE);
    ck_assert_ptr_null(find(2));
    fixture_end();
}
END_TEST

START_TEST(test_parent_with_children_is_not_deleted)
{
    fixture_begin_with_root();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    ck_assert_int_eq(delete_timeline_(1), ERR_EXISTS);
    ck_assert_int_eq(delete_timeline_(2), ERR_OK);
    ck_assert_int_eq(delete_timeline_(1), ERR_OK);
    ck_assert_ptr_null(find(1));
    ck_assert_uint_eq(fixture.timelines_gone, 2);
    fixture_end();
}
END_TEST

START_TEST(test_numbers_are_never_used_again)
{
    fixture_begin_with_root();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    uint32_t first = timeline_number(find(2));
    ck_assert_int_eq(delete_timeline_(2), ERR_OK);
    fixture_reopen();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    ck_assert_uint_gt(timeline_number(find(2)), first);
    fixture_end();
}
END_TEST

START_TEST(test_versions_are_erased_only_after_the_last_reader)
{
    fixture_begin_with_root();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    struct timeline *tl = timeline_ref(find(2));
    struct page_store *store = timeline_store(tl);
    struct ingest_position position = {.lsn = START_LSN + 8}, found;
    struct page_batch *batch = page_batch_create();
    page_batch_put_position(batch, timeline_number(tl), position);
    ck_assert_ok(page_store_write(store, batch, &msg), &msg);
    page_batch_destroy(batch);

    ck_assert_ok(timeline_read_begin(tl, &msg), &msg);
    ck_assert_int_eq(delete_timeline_(2), ERR_OK);
    ck_assert_int_eq(timeline_read_begin(tl, &msg), ERR_NOT_FOUND);
    fixture_settle();
    ck_assert_ok(page_store_position(store, timeline_number(tl), &found, &msg), &msg);
    timeline_read_end(tl);
    fixture_settle();
    ck_assert_int_eq(page_store_position(store, timeline_number(tl), &found, &msg), ERR_NOT_FOUND);
    timeline_unref(tl);
    fixture_end();
}
END_TEST

struct tree_reader {
    struct tenant_read read;
    bool reads;
};

static void on_may_read(struct tenant_read *read, err_t result)
{
    ck_assert_ok(result, &read->msg);
    CONTAINER_OF(read, struct tree_reader, read)->reads = true;
}

static void begin_reading(struct tree_reader *reader)
{
    reader->read.done = on_may_read;
    tenant_read_begin(the_tenant(), &reader->read);
}

static void until_reading(const struct tree_reader *reader)
{
    while (!reader->reads) {
        fixture_work_for(10);
    }
}

/* Timeline 2 with versions of its own, deleted while `reader` reads all of the tenant. */
static struct page_store *given_deleted_while_read(struct tree_reader *reader, uint32_t *ret_number)
{
    fixture_begin_with_root();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    struct page_store *store = timeline_store(find(2));
    *ret_number = timeline_number(find(2));
    ingest_until(find(2), START_LSN + 100);
    begin_reading(reader);
    until_reading(reader);
    ck_assert_int_eq(delete_timeline_(2), ERR_OK);
    return store;
}

START_TEST(test_versions_are_erased_only_after_who_reads_all_of_the_tenant)
{
    struct tree_reader reader = {0};
    uint32_t number;
    struct page_store *store = given_deleted_while_read(&reader, &number);
    struct ingest_position found;
    fixture_work_for(100); /* an erasure that is free to begin has begun */
    ck_assert_ok(page_store_position(store, number, &found, &msg), &msg);
    tenant_read_end(&reader.read);
    fixture_settle();
    ck_assert_int_eq(page_store_position(store, number, &found, &msg), ERR_NOT_FOUND);
    fixture_end();
}
END_TEST

START_TEST(test_reads_of_the_tenant_that_overlap_put_no_erasure_off)
{
    struct tree_reader first = {0}, second = {0};
    uint32_t number;
    struct page_store *store = given_deleted_while_read(&first, &number);
    struct ingest_position found;
    begin_reading(&second); /* as if there were always one more */
    fixture_work_for(100);
    ck_assert(!second.reads);
    tenant_read_end(&first.read);
    until_reading(&second);
    tenant_read_end(&second.read);
    fixture_settle();
    ck_assert_int_eq(page_store_position(store, number, &found, &msg), ERR_NOT_FOUND);
    fixture_end();
}
END_TEST

static void on_deleted_alone(struct tenant_request *request, err_t result)
{
    ck_assert_ok(result, &request->msg);
}

START_TEST(test_no_branch_is_made_of_what_is_being_deleted)
{
    fixture_begin_with_root();
    struct tenant_request deletion = {.done = on_deleted_alone};
    tenant_delete_timeline(the_tenant(), &deletion, find(1), false);
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_BUSY); /* its row is being written */
    fixture_settle();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_NOT_FOUND);
    fixture_reopen();
    ck_assert_int_eq(put_timeline_(1, 0, START_LSN), ERR_OK);
    fixture_end();
}
END_TEST

/* Neither is due by itself: the memory of both together is what decides. */
START_TEST(test_largest_tenant_is_flushed_when_layers_take_too_much)
{
    fixture_flush_bytes = GIB;
    fixture_layers_bytes = 8 * MIB;
    fixture_begin();
    ck_assert_int_eq(attach(1, 1), ERR_OK);
    ck_assert_int_eq(attach(2, 1), ERR_OK);
    struct tenant *small = tenants_find(fixture.tenants, tenant_number(1));
    struct tenant *large = tenants_find(fixture.tenants, tenant_number(2));
    for (uint8_t i = 0; i < 2; i++) {
        struct tenant_request request = {.done = fixture_on_request};
        struct timeline_info info = info_of(1, 0, START_LSN);
        tenant_put_timeline(i == 0 ? small : large, &request, &info);
        ck_assert_int_eq(fixture_run(), ERR_OK);
    }
    fill_layer(small, 1 * MIB);
    fixture_settle();
    ck_assert_uint_gt(open_bytes(small), 0);
    ck_assert(tenant_has_room(small));

    fill_layer(large, 8 * MIB);
    ck_assert(!tenant_has_room(small)); /* the limit is everybody's, until the flush has ended */
    fixture_settle();
    ck_assert_uint_eq(open_bytes(large), 0);
    ck_assert_uint_gt(open_bytes(small), 0);
    ck_assert(tenant_has_room(small));
    fixture_end();
}
END_TEST

#define DELETED_TOGETHER 100 /* more than are erased at once */

static unsigned deletions_ended;

static void on_deletion(struct tenant_request *request, err_t result)
{
    ck_assert_ok(result, &request->msg);
    deletions_ended++;
    if (deletions_ended == DELETED_TOGETHER) {
        fixture_done(result);
    }
}

START_TEST(test_many_that_are_deleted_at_once_are_all_erased)
{
    static struct tenant_request requests[DELETED_TOGETHER];
    uint32_t numbers[DELETED_TOGETHER];
    struct ingest_position position = {.lsn = START_LSN + 8};
    fixture_begin_with_root();
    struct page_store *store = timeline_store(find(1));
    for (uint8_t i = 0; i < DELETED_TOGETHER; i++) {
        ck_assert_int_eq(put_timeline_(2 + i, 1, START_LSN), ERR_OK);
        numbers[i] = timeline_number(find(2 + i));
        struct page_batch *batch = page_batch_create();
        page_batch_put_position(batch, numbers[i], position);
        ck_assert_ok(page_store_write(store, batch, &msg), &msg);
        page_batch_destroy(batch);
    }
    deletions_ended = 0;
    for (uint8_t i = 0; i < DELETED_TOGETHER; i++) {
        requests[i] = (struct tenant_request){.done = on_deletion};
        tenant_delete_timeline(the_tenant(), &requests[i], find(2 + i), false);
    }
    ck_assert_int_eq(fixture_run(), ERR_OK);
    fixture_reopen();
    store = timeline_store(find(1));
    for (uint8_t i = 0; i < DELETED_TOGETHER; i++) {
        ck_assert_int_eq(page_store_position(store, numbers[i], &position, &msg), ERR_NOT_FOUND);
        ck_assert_int_eq(put_timeline_(2 + i, 1, START_LSN), ERR_OK); /* the name is free again */
    }
    fixture_end();
}
END_TEST

/* The flush sleeps for longer than rows take; when they are written it has not begun to write. */
START_TEST(test_row_does_not_wait_for_a_flush)
{
    fixture_begin_with_root();
    fixture_settle();
    fault_enable();
    ck_assert_ok(fault_arm("page_store.flush=pause:4000*1", &msg), &msg);
    fill_layer(the_tenant(), 2 * MIB); /* due at once */
    ck_assert(!tenants_are_idle(fixture.tenants));
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    ck_assert_int_eq(delete_timeline_(2), ERR_OK); /* erasing it has to wait */
    ck_assert_uint_gt(open_bytes(the_tenant()), 0);
    fixture_settle();
    ck_assert_uint_eq(open_bytes(the_tenant()), 0);
    fixture_end();
}
END_TEST

static sem_t workers_may_go;

static err_t wait_for_leave(struct job *job)
{
    (void)job;
    while (sem_wait(&workers_may_go) != 0) {
    }
    return ERR_OK;
}

static void on_leave(struct job *job)
{
    (void)job;
}

/* The flush is asked for at the first position, and runs when the second is in the layer too. */
START_TEST(test_what_came_before_a_flush_ran_is_known_to_be_durable)
{
    static struct job blockers[2];
    fixture_flush_bytes = 1;
    fixture_begin_with_root();
    fixture_settle();
    ck_assert_int_eq(sem_init(&workers_may_go, 0, 0), 0);
    ck_assert_uint_eq(executor_threads(fixture.executor), ARRAY_LEN(blockers));
    for (size_t i = 0; i < ARRAY_LEN(blockers); i++) {
        blockers[i] = (struct job){.run = wait_for_leave, .done = on_leave};
        executor_submit(fixture.executor, &blockers[i]);
    }
    ingest_until(find(1), START_LSN + 100);
    ingest_until(find(1), START_LSN + 200);
    for (size_t i = 0; i < ARRAY_LEN(blockers); i++) {
        (void)sem_post(&workers_may_go);
    }
    fixture_settle();
    ck_assert_uint_eq(open_bytes(the_tenant()), 0);
    ck_assert_uint_eq(timeline_durable_lsn(find(1)), START_LSN + 200);
    fixture_end();
}
END_TEST

/* The file that says which manifest is the newest, of a tenant that is not open. */
static void write_current(uint8_t tenant, struct bytes content)
{
    char path[PATH_SIZE];
    (void)snprintf(
        path, sizeof(path), "%s/tenants/%s/CURRENT", fixture.folder,
        tenant_id_text(tenant_number(tenant)).text);
    ck_assert_ok(file_write_durably(path, content, &msg), &msg);
}

START_TEST(test_damaged_tenant_is_out_of_service_until_it_can_be_opened_and_others_are_not)
{
    struct buf whole = {0}, reasons = {0};
    char path[PATH_SIZE];
    fixture_begin_with_root();
    ck_assert_int_eq(attach(2, 5), ERR_OK);
    fixture_settle();
    tenants_close(fixture.tenants);
    (void)snprintf(
        path, sizeof(path), "%s/tenants/%s/CURRENT", fixture.folder,
        tenant_id_text(tenant_number(2)).text);
    ck_assert_ok(file_read_all(path, 100, &whole, &msg), &msg);
    write_current(2, bytes_of_str("MANIFEST-999999\n"));
    fixture_open_tenants();
    ck_assert_ptr_nonnull(find(1));
    ck_assert_ptr_null(tenants_find(fixture.tenants, tenant_number(2)));
    ck_assert_int_eq(tenants_why_missing(fixture.tenants, tenant_number(2), &msg), ERR_FAILED);
    ck_assert_int_eq(tenants_why_missing(fixture.tenants, tenant_number(3), &msg), ERR_NOT_FOUND);
    tenants_describe_shut(fixture.tenants, &reasons);
    ck_assert_ptr_nonnull(strstr(buf_cstr(&reasons), "MANIFEST-999999"));
    ck_assert_int_ne(attach(2, 6), ERR_OK);
    write_current(2, buf_view(&whole));
    ck_assert_int_eq(attach(2, 4), ERR_STALE);
    ck_assert_int_eq(attach(2, 6), ERR_OK);
    ck_assert_ptr_nonnull(tenants_find(fixture.tenants, tenant_number(2)));
    buf_clear(&reasons);
    tenants_describe_shut(fixture.tenants, &reasons);
    ck_assert_uint_eq(reasons.size, 0);
    buf_deinit(&reasons);
    buf_deinit(&whole);
    fixture_end();
}
END_TEST

START_TEST(test_flush_leaves_the_reserve_of_the_disk_alone)
{
    fixture_disk_reserve_bytes = UINT64_MAX / 4;
    fixture_begin_with_root();
    fill_layer(the_tenant(), 2 * MIB); /* due at once */
    while (tenant_full(the_tenant()) == NULL) {
        fixture_settle();
    }
    ck_assert_ptr_nonnull(strstr(tenant_full(the_tenant()), "disk_reserve"));
    ck_assert_ptr_null(tenant_failure(the_tenant()));
    ck_assert_uint_gt(open_bytes(the_tenant()), 0);
    ck_assert(!tenant_has_room(the_tenant()));
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK); /* a row still finds room */
    fixture_disk_reserve_bytes = 0;
    fixture_reopen();
    ck_assert_ptr_null(tenant_full(the_tenant()));
    fixture_end();
}
END_TEST

static err_t delete_tenant(uint8_t number)
{
    struct tenant_request request = {.done = fixture_on_request};
    tenant_delete(fixture.tenants, &request, tenant_number(number));
    return fixture_run();
}

/* What is left elsewhere of tenant 3, and whether it can be erased now. */
static atomic_bool is_left, can_erase;

static err_t is_elsewhere(
    struct tenants_user *user, struct tenant_id id, bool *ret_is, struct errmsg *why)
{
    (void)user;
    (void)why;
    *ret_is = is_left && tenant_id_equal(id, tenant_number(3));
    return ERR_OK;
}

static err_t erase_elsewhere(struct tenants_user *user, struct tenant_id id, struct errmsg *why)
{
    (void)user;
    if (!can_erase) {
        return err_set(why, ERR_IO, "not yet");
    }
    is_left = is_left && !tenant_id_equal(id, tenant_number(3));
    return ERR_OK;
}

static void open_tenants_with_something_elsewhere(void)
{
    fixture.user.is_elsewhere = is_elsewhere;
    fixture.user.erase = erase_elsewhere;
}

/* The disk that knew it is lost: whoever deletes it deletes what is left of it elsewhere. */
START_TEST(test_deleting_a_tenant_that_is_only_elsewhere_erases_it_there)
{
    is_left = true;
    fixture_begin();
    open_tenants_with_something_elsewhere();
    ck_assert_int_eq(delete_tenant(2), ERR_NOT_FOUND);
    ck_assert_int_eq(delete_tenant(3), ERR_OK);
    fixture_settle();
    ck_assert_int_eq(delete_tenant(3), ERR_OK); /* it is still going */
    ck_assert_int_eq(attach(3, 1), ERR_BUSY);
    ck_assert(is_left);
    fixture_settle();
    tenants_close(fixture.tenants); /* the next process goes on with it */
    can_erase = true;
    fixture_open_tenants();
    open_tenants_with_something_elsewhere();
    do {
        fixture_work_for(10);
    } while (is_left);
    fixture_settle();
    ck_assert_int_eq(delete_tenant(3), ERR_NOT_FOUND);
    ck_assert_int_eq(attach(3, 1), ERR_OK);
    fixture_end();
}
END_TEST

START_TEST(test_damaged_tenant_can_be_deleted)
{
    struct buf reasons = {0};
    fixture_begin();
    ck_assert_int_eq(attach(2, 5), ERR_OK);
    fixture_settle();
    tenants_close(fixture.tenants);
    write_current(2, bytes_of_str("MANIFEST-999999\n"));
    fixture_open_tenants();
    ck_assert_int_eq(tenants_why_missing(fixture.tenants, tenant_number(2), &msg), ERR_FAILED);
    ck_assert_int_eq(delete_tenant(2), ERR_OK);
    ck_assert_int_eq(tenants_why_missing(fixture.tenants, tenant_number(2), &msg), ERR_NOT_FOUND);
    tenants_describe_shut(fixture.tenants, &reasons);
    ck_assert_uint_eq(reasons.size, 0);
    buf_deinit(&reasons);
    fixture_end();
}
END_TEST

static atomic_bool is_erased_elsewhere;

static err_t note_erasure(struct tenants_user *user, struct tenant_id id, struct errmsg *why)
{
    (void)user;
    (void)id;
    (void)why;
    is_erased_elsewhere = true;
    return ERR_OK;
}

/* On this disk, and nowhere else. */
START_TEST(test_damaged_tenant_can_be_given_up)
{
    struct tenant_request request = {.done = fixture_on_request};
    fixture_begin();
    tenant_give_up(fixture.tenants, &request, tenant_number(2));
    ck_assert_int_eq(fixture_run(), ERR_NOT_FOUND);
    ck_assert_int_eq(attach(2, 5), ERR_OK);
    fixture_settle();
    tenants_close(fixture.tenants);
    write_current(2, bytes_of_str("MANIFEST-999999\n"));
    fixture_open_tenants();
    fixture.user.erase = note_erasure;
    request = (struct tenant_request){.done = fixture_on_request};
    tenant_give_up(fixture.tenants, &request, tenant_number(2));
    ck_assert_int_eq(fixture_run(), ERR_OK);
    fixture_settle();
    ck_assert(!is_erased_elsewhere);
    ck_assert_int_eq(tenants_why_missing(fixture.tenants, tenant_number(2), &msg), ERR_NOT_FOUND);
    ck_assert_int_eq(attach(2, 4), ERR_OK); /* nothing is left that knows of generation 5 */
    fixture_end();
}
END_TEST

START_TEST(test_deleted_tenant_leaves_nothing)
{
    fixture_begin_with_root();
    ck_assert_int_eq(delete_tenant(1), ERR_OK);
    ck_assert_ptr_null(tenants_find(fixture.tenants, tenant_number(1)));
    fixture_reopen();
    ck_assert_ptr_null(tenants_first(fixture.tenants));
    ck_assert_int_eq(attach(1, 1), ERR_OK);
    ck_assert_ptr_null(tenant_first_timeline(the_tenant()));
    fixture_end();
}
END_TEST

UNIT_MAIN(
    "tenant",
    test_deleting_a_tenant_that_is_only_elsewhere_erases_it_there,
    test_damaged_tenant_can_be_deleted,
    test_damaged_tenant_can_be_given_up,
    test_many_that_are_deleted_at_once_are_all_erased,
    test_row_does_not_wait_for_a_flush,
    test_what_came_before_a_flush_ran_is_known_to_be_durable,
    test_largest_tenant_is_flushed_when_layers_take_too_much,
    test_attaching_again_is_the_same_and_older_generations_are_stale,
    test_what_an_upload_or_restore_left_half_done_goes_at_the_start,
    test_timelines_are_there_after_a_restart,
    test_root_that_was_not_imported_is_still_importing_after_a_restart,
    test_putting_a_timeline_again_is_the_same,
    test_a_branch_waits_for_no_other_work,
    test_branches_that_are_created_at_once_share_a_sync,
    test_group_that_cannot_be_written_creates_no_branch_and_uses_up_its_numbers,
    test_newer_membership_replaces_the_safekeepers,
    test_branch_needs_a_parent_and_an_lsn_of_its_history,
    test_parent_with_children_is_not_deleted,
    test_no_branch_is_made_of_what_is_being_deleted,
    test_numbers_are_never_used_again,
    test_versions_are_erased_only_after_the_last_reader,
    test_versions_are_erased_only_after_who_reads_all_of_the_tenant,
    test_reads_of_the_tenant_that_overlap_put_no_erasure_off,
    test_damaged_tenant_is_out_of_service_until_it_can_be_opened_and_others_are_not,
    test_flush_leaves_the_reserve_of_the_disk_alone,
    test_deleted_tenant_leaves_nothing);
