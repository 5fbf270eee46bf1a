/*
 * test_mirror.c - upload rounds of a tenant against a directory and a control that says what the
 * test wants: what is deleted when, and what is known to be up there.
 */
#include "pageserver/remote/mirror.h"

#include "common/base/mem.h"
#include "common/io/http_server.h"
#include "pageserver/remote/index_store.h"
#include "tests/unit/timeline/tenant_fixture.h"

static struct objstore *objects;
static struct http_client *client;
static struct http_server *control;
static struct http_context context;
static struct http_request *question;           /* of the mirror, not answered yet */
static bool confirms_at_once, confirms_nothing; /* neither: what dooms nothing, at once */
static struct mirrors *mirrors;
static struct mirrors_user user;
static struct timer watch;
static bool (*awaited)(void);
static char objects_folder[96], control_url[64];

/* -- until something is true -- */

static void on_watch(struct timer *timer)
{
    if (awaited()) {
        loop_stop(fixture.loop);
    } else {
        timer_start(fixture.loop, timer, 1);
    }
}

static void run_until(bool (*condition)(void))
{
    awaited = condition;
    watch.on_fire = on_watch;
    timer_start(fixture.loop, &watch, 0);
    loop_run(fixture.loop);
}

static struct mirror_status status_now(void)
{
    struct mirror_status status;
    mirror_status(mirror_find(the_tenant()), &status);
    return status;
}

static bool is_at_rest(void)
{
    struct mirror_status status = status_now();
    return !status.uploading && !status.waiting;
}

static bool is_asked_or_at_rest(void)
{
    return question != NULL || is_at_rest();
}

/* -- the tenant and its mirror -- */

static void answer(bool valid)
{
    struct doc *verdict = doc_set_bool(doc_object(), "valid", valid);
    struct doc *verdicts = doc_push(doc_array(), verdict);
    struct http_request *request = question;
    question = NULL;
    http_respond_json(request, 200, doc_set(doc_object(), "tenants", verdicts));
}

static void on_question(struct http_context *given, struct http_request *request)
{
    ck_assert_ptr_eq(given, &context);
    ck_assert_ptr_null(question);
    question = request;
    if (confirms_at_once || (!confirms_nothing && status_now().doomed == 0)) {
        answer(true);
    }
}

static void on_flush(struct tenants_user *given, struct tenant *tenant)
{
    (void)given;
    if (mirror_find(tenant) != NULL) {
        mirror_flushed(mirror_find(tenant));
    }
}

static void on_deleted(struct tenants_user *given, struct tenant *tenant, struct timeline_id id)
{
    (void)given;
    if (mirror_find(tenant) != NULL) {
        mirror_deleted(mirror_find(tenant), id);
    }
}

static void on_timeline_uploaded(struct mirrors_user *given, struct timeline *tl)
{
    ck_assert_ptr_eq(given, &user);
    ck_assert_ptr_eq(timeline_tenant(tl), the_tenant());
}

static void begin(void)
{
    static const struct http_route routes[] = {
        {.method = "POST", .path = "/v1/generations/validate", .handler = on_question}};
    fixture_flush_bytes = 1;
    fixture_begin_with_root();
    tenant_written(the_tenant());
    fixture_settle(); /* what was imported is flushed: no round comes that the test did not cause */
    fixture.user.on_flushed = on_flush;
    fixture.user.on_promise = on_flush;
    fixture.user.on_timeline_deleted = on_deleted;
    (void)snprintf(objects_folder, sizeof(objects_folder), "%s/objects", fixture.folder);
    ck_assert_ok(objstore_open(objects_folder, &objects, &msg), &msg);
    ck_assert_ok(http_client_create(fixture.loop, &client, &msg), &msg);
    ck_assert_ok(http_server_open(fixture.loop, "127.0.0.1", 0, NULL, &control, &msg), &msg);
    http_server_add_routes(control, routes, ARRAY_LEN(routes), &context);
    (void)snprintf(
        control_url, sizeof(control_url), "http://127.0.0.1:%u", http_server_port(control));
    user = (struct mirrors_user){.on_timeline_uploaded = on_timeline_uploaded};
    mirrors = mirrors_create(&(struct mirrors_options){
        .loop = fixture.loop,
        .executor = fixture.executor,
        .objects = objects,
        .http = client,
        .control_url = control_url,
        .control_token = "",
        .node_id = 1,
        .interval_ms = 1,
        .user = &user,
    });
    mirror_start(mirrors, the_tenant());
    run_until(is_at_rest);
}

static bool mirrors_rest(void)
{
    return mirrors_are_stopped(mirrors);
}

static void end(void)
{
    mirrors_stop_all(mirrors);
    run_until(mirrors_rest);
    fixture_settle();
    mirrors_destroy(mirrors);
    http_server_close(control);
    http_client_destroy(client);
    fixture_end(); /* the objects go with the folder */
    objstore_close(objects);
}

/* The timeline goes on to `lsn`, and that is flushed. */
static struct timeline *flushing;
static lsn_t flushing_to;

static bool is_durable(void)
{
    return timeline_durable_lsn(flushing) >= flushing_to;
}

static void write_and_flush(struct timeline *tl, lsn_t lsn)
{
    ingest_until(tl, lsn);
    flushing = tl;
    flushing_to = lsn;
    run_until(is_durable);
}

static bool has_index(uint64_t sequence)
{
    bool exists = false;
    struct remote_name name = remote_index_name(tenant_number(1), 1, sequence);
    ck_assert_ok(objstore_exists(objects, name.text, &exists, &msg), &msg);
    return exists;
}

static bool is_refused(void)
{
    return status_now().error != NULL;
}

/* A third index makes the first one superfluous: control is asked. */
static void upload_until_asked(void)
{
    for (lsn_t lsn = START_LSN + 100; question == NULL; lsn += 100) {
        ck_assert_uint_le(status_now().sequence, 3);
        write_and_flush(find(1), lsn);
        run_until(is_asked_or_at_rest);
    }
}

/* -- deletions -- */

START_TEST(test_what_is_superfluous_goes_once_control_has_confirmed_the_generation)
{
    begin();
    ck_assert(has_index(1));
    upload_until_asked();
    ck_assert_uint_gt(status_now().doomed, 0);
    ck_assert(has_index(1)); /* not before the answer */
    answer(true);
    run_until(is_at_rest);
    ck_assert(!has_index(1));
    ck_assert(has_index(2));
    ck_assert(has_index(3));
    ck_assert_uint_eq(status_now().doomed, 0);
    end();
}
END_TEST

/* The tenant was deleted, or has another owner, while this disk was away. */
START_TEST(test_a_disk_that_comes_back_uploads_nothing_before_control_says_that_it_may)
{
    begin();
    mirror_stop(mirror_find(the_tenant()));
    run_until(mirrors_rest);
    uint64_t last = 1;
    while (has_index(last + 1)) {
        last++;
    }
    confirms_nothing = true;
    mirror_start(mirrors, the_tenant());
    run_until(is_asked_or_at_rest);
    ck_assert_ptr_nonnull(question);
    ck_assert(!has_index(last + 1));
    answer(false);
    run_until(is_at_rest);
    ck_assert(!has_index(last + 1));
    ck_assert_ptr_nonnull(status_now().error);
    end();
}
END_TEST

static err_t attach_again(generation_t generation)
{
    struct tenant_request request = {.done = fixture_on_request};
    tenant_attach(fixture.tenants, &request, tenant_number(1), generation);
    return fixture_run();
}

START_TEST(test_who_is_attached_anew_while_its_old_generation_is_refused_goes_on)
{
    begin();
    mirror_stop(mirror_find(the_tenant()));
    run_until(mirrors_rest);
    confirms_nothing = true;
    mirror_start(mirrors, the_tenant());
    run_until(is_asked_or_at_rest);
    ck_assert_int_eq(attach_again(tenant_generation(the_tenant()) + 1), ERR_OK);
    mirror_start(mirrors, the_tenant());
    answer(false);
    run_until(is_refused);
    ck_assert(status_now().waiting); /* to ask again, with the new one */
    end();
}
END_TEST

START_TEST(test_an_owner_that_control_has_replaced_deletes_nothing)
{
    begin();
    upload_until_asked();
    answer(false);
    run_until(is_at_rest);
    ck_assert_ptr_nonnull(status_now().error);
    ck_assert(has_index(1));
    ck_assert_uint_gt(status_now().doomed, 0);
    end();
}
END_TEST

static err_t count_object(const struct objstore_entry *entry, void *count, struct errmsg *why)
{
    (void)entry;
    (void)why;
    ++*(size_t *)count;
    return ERR_OK;
}

START_TEST(test_the_object_store_holds_no_more_than_the_disk_once_files_were_rewritten)
{
    struct index_id id = {.generation = 1};
    struct remote_index index;
    struct remote_name prefix = remote_data_prefix(tenant_number(1));
    size_t objects_found = 0;
    confirms_at_once = true;
    begin();
    for (lsn_t lsn = START_LSN + 100; lsn < START_LSN + 400; lsn += 100) {
        write_and_flush(find(1), lsn);
        run_until(is_at_rest);
    }
    ck_assert_ok(page_store_compact(tenant_store(the_tenant()), &msg), &msg);
    mirror_rewritten(mirror_find(the_tenant()));
    run_until(is_at_rest);
    id.sequence = status_now().sequence;
    ck_assert_ok(index_load(objects, tenant_number(1), id, &index, &msg), &msg);
    struct objstore_query query = {.prefix = prefix.text};
    ck_assert_ok(objstore_list(objects, &query, count_object, &objects_found, &msg), &msg);
    ck_assert_uint_gt(index.file_count, 0);
    ck_assert_uint_eq(objects_found, index.file_count);
    remote_index_deinit(&index);
    end();
}
END_TEST

/* -- positions -- */

static void upload_unconfirmed(lsn_t lsn)
{
    confirms_nothing = true;
    write_and_flush(find(1), lsn);
    run_until(is_asked_or_at_rest);
}

START_TEST(test_a_position_counts_once_control_has_confirmed_the_generation)
{
    begin();
    upload_unconfirmed(START_LSN + 100);
    ck_assert_uint_lt(timeline_remote_lsn(find(1)), START_LSN + 100); /* not before the answer */
    ck_assert_ptr_nonnull(question);
    answer(true);
    run_until(is_at_rest);
    ck_assert_uint_eq(timeline_remote_lsn(find(1)), START_LSN + 100);
    end();
}
END_TEST

/* Its successor may have restored from the index before, and needs the WAL from there on. */
START_TEST(test_the_position_of_an_owner_that_control_has_replaced_does_not_count)
{
    begin();
    lsn_t before_lsn = timeline_remote_lsn(find(1));
    upload_unconfirmed(START_LSN + 100);
    ck_assert_ptr_nonnull(question);
    answer(false);
    run_until(is_at_rest);
    ck_assert_uint_eq(timeline_remote_lsn(find(1)), before_lsn);
    end();
}
END_TEST

/* -- tombstones, and what is deleted -- */

static lsn_t uploaded_lsn(uint64_t sequence, uint8_t id)
{
    struct remote_index index;
    lsn_t lsn = 0;
    struct index_id index_id = {.generation = 1, .sequence = sequence};
    ck_assert_ok(index_load(objects, tenant_number(1), index_id, &index, &msg), &msg);
    for (size_t i = 0; i < index.position_count; i++) {
        if (timeline_id_equal(index.positions[i].timeline, timeline_number_id(id))) {
            lsn = index.positions[i].lsn;
        }
    }
    remote_index_deinit(&index);
    return lsn;
}

static void bury(uint8_t id)
{
    struct tenant_request request = {.done = fixture_on_request};
    tenant_delete_timeline(the_tenant(), &request, find(id), true);
    ck_assert_ok(fixture_run(), &request.msg);
}

START_TEST(test_a_deleted_parent_takes_wal_until_its_childs_begin_is_uploaded)
{
    confirms_at_once = true;
    begin();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN + 400), ERR_OK);
    struct timeline *parent = find(1);
    timeline_set_user(parent, &(struct timeline_user){0}); /* somebody feeds it */
    bury(1);
    write_and_flush(parent, START_LSN + 300);
    run_until(is_at_rest);
    ck_assert_uint_eq(fixture.timelines_gone, 0);
    write_and_flush(parent, START_LSN + 400);
    run_until(is_at_rest);
    ck_assert_uint_eq(fixture.timelines_gone, 1);
    ck_assert_uint_eq(uploaded_lsn(status_now().sequence, 1), START_LSN + 400);
    timeline_set_user(parent, NULL);
    end();
}
END_TEST

static size_t deletions_that_are_not_up_there(void)
{
    const struct timeline_id *ids = NULL;
    size_t count = 0;
    ck_assert(mirror_deletions(mirror_find(the_tenant()), &ids, &count));
    for (size_t i = 0; i < count; i++) {
        ck_assert(!timeline_id_equal(ids[i], timeline_number_id(1)));
    }
    return count;
}

/* Somebody else's disk would bring it back until then; an index that was on its way counts not. */
START_TEST(test_a_deletion_is_told_until_an_index_without_it_is_confirmed)
{
    begin();
    ck_assert_int_eq(put_timeline_(2, 1, START_LSN), ERR_OK);
    ck_assert_int_eq(put_timeline_(3, 1, START_LSN), ERR_OK);
    upload_unconfirmed(START_LSN + 100);
    answer(true);
    run_until(is_at_rest);
    ck_assert_uint_ne(uploaded_lsn(status_now().sequence, 2), 0);
    ck_assert_uint_eq(deletions_that_are_not_up_there(), 0);
    bury(2);
    ck_assert_uint_eq(deletions_that_are_not_up_there(), 1);
    run_until(is_asked_or_at_rest); /* nothing else has to happen for a round to begin */
    ck_assert_ptr_nonnull(question);
    ck_assert_uint_eq(uploaded_lsn(status_now().sequence, 2), 0);
    bury(3);
    ck_assert_uint_eq(deletions_that_are_not_up_there(), 2);
    confirms_nothing = false;
    confirms_at_once = true;
    answer(true);
    run_until(is_at_rest);
    ck_assert_uint_eq(deletions_that_are_not_up_there(), 0);
    ck_assert_uint_eq(uploaded_lsn(status_now().sequence, 3), 0);
    end();
}
END_TEST

START_TEST(test_nobody_knows_what_an_earlier_process_deleted_before_the_first_index)
{
    const struct timeline_id *ids = NULL;
    size_t count = 0;
    begin();
    mirror_stop(mirror_find(the_tenant()));
    run_until(mirrors_rest);
    confirms_nothing = true;
    mirror_start(mirrors, the_tenant());
    run_until(is_asked_or_at_rest);
    ck_assert(!mirror_deletions(mirror_find(the_tenant()), &ids, &count));
    confirms_at_once = true;
    answer(true);
    run_until(is_at_rest);
    ck_assert(mirror_deletions(mirror_find(the_tenant()), &ids, &count));
    end();
}
END_TEST

/* Nothing is written: a disk that is lost an hour later has it all the same, or has it no more. */
START_TEST(test_a_lease_that_is_taken_or_dropped_begins_a_round)
{
    confirms_at_once = true;
    begin();
    uint64_t before = status_now().sequence;
    struct tenant_request request = {
        .done = fixture_on_request, .lease = {.name = "report", .lsn = START_LSN}};
    tenant_put_lease(the_tenant(), &request, find(1));
    ck_assert_ok(fixture_run(), &request.msg);
    ck_assert(!is_at_rest());
    run_until(is_at_rest);
    ck_assert_uint_eq(status_now().sequence, before + 1);
    request = (struct tenant_request){.done = fixture_on_request, .lease = {.name = "report"}};
    tenant_drop_lease(the_tenant(), &request, find(1));
    ck_assert_ok(fixture_run(), &request.msg);
    ck_assert(!is_at_rest());
    run_until(is_at_rest);
    ck_assert_uint_eq(status_now().sequence, before + 2);
    end();
}
END_TEST

UNIT_MAIN(
    "mirror",
    test_a_lease_that_is_taken_or_dropped_begins_a_round,
    test_who_is_attached_anew_while_its_old_generation_is_refused_goes_on,
    test_a_disk_that_comes_back_uploads_nothing_before_control_says_that_it_may,
    test_a_deletion_is_told_until_an_index_without_it_is_confirmed,
    test_nobody_knows_what_an_earlier_process_deleted_before_the_first_index,
    test_what_is_superfluous_goes_once_control_has_confirmed_the_generation,
    test_an_owner_that_control_has_replaced_deletes_nothing,
    test_the_object_store_holds_no_more_than_the_disk_once_files_were_rewritten,
    test_a_position_counts_once_control_has_confirmed_the_generation,
    test_the_position_of_an_owner_that_control_has_replaced_does_not_count,
    test_a_deleted_parent_takes_wal_until_its_childs_begin_is_uploaded);
