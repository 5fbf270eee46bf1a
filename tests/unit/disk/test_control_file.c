/* The control file: a promise survives any single damaged slot. */
#include <stdio.h>

#include "common/base/checksum.h"
#include "common/base/fault.h"
#include "common/io/file.h"
#include "safekeeper/disk/control_file.h"
#include "safekeeper/disk/tombstone.h"
#include "tests/unit/disk/disk_lab.h"

static struct errmsg msg;
static struct control_state state, loaded;
static struct control_file file;
static const struct tenant_id tenant = {.bytes = {1}};
static const struct timeline_id timeline = {.bytes = {2}};

static void given_control_file(void)
{
    lab_make_dir();
    state = (struct control_state){
        .params =
            {
                .tenant = tenant,
                .timeline = timeline,
                .system_id = 7123456789012345678ull,
                .pg_version = 170011,
                .segment_size = 16 * MIB,
            },
        .membership = {.generation = 4, .count = 3, .members = {1, 2, 9}},
        .addresses = {{"10.0.0.1", "a.example", 7411, 7421}, {"h2", "h2", 1, 2}, {"h3", "", 3, 4}},
    };
    acceptor_state_init(&state.acceptor, 4, 0x16B3748);
    ck_assert_ok(control_file_create(&file, lab_dir, &state, &msg), &msg);
}

static void load(void)
{
    ck_assert_ok(control_file_load(&file, lab_dir, tenant, timeline, &loaded, &msg), &msg);
}

static const char *slot(unsigned number)
{
    static char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%.900s/control.%u", lab_dir, number);
    return path;
}

static void promise_term(term_t term)
{
    state.acceptor.term = term;
    state.acceptor.sequence++;
    state.acceptor.history.items[state.acceptor.history.count++] =
        (struct term_start){.term = term, .lsn = 0x16B3748 + term * 8};
    ck_assert_ok(control_file_save(&file, &state, true, &msg), &msg);
}

START_TEST(test_everything_comes_back)
{
    given_control_file();
    promise_term(7);
    load();
    ck_assert_uint_eq(loaded.acceptor.term, 7);
    ck_assert_uint_eq(loaded.acceptor.history.count, 2);
    ck_assert_uint_eq(loaded.acceptor.history.items[1].lsn, 0x16B3748 + 56);
    ck_assert_uint_eq(loaded.acceptor.start_lsn, 0x16B3748);
    ck_assert_uint_eq(loaded.acceptor.sequence, 2);
    ck_assert_uint_eq(loaded.params.system_id, 7123456789012345678ull);
    ck_assert_uint_eq(loaded.membership.generation, 4);
    ck_assert_uint_eq(loaded.membership.members[2], 9);
    ck_assert_str_eq(loaded.addresses[0].http_host, "a.example");
    ck_assert_uint_eq(loaded.addresses[2].http_port, 4);
}
END_TEST

START_TEST(test_promise_survives_either_slot)
{
    given_control_file();
    promise_term(7);
    promise_term(8);
    lab_flip(slot((unsigned)_i % 2), 40 + (unsigned)_i * 3);
    load();
    ck_assert_uint_eq(loaded.acceptor.term, 8);
    /* and the next save heals the slot */
    state = loaded;
    promise_term(9);
    lab_flip(slot(((unsigned)_i + 1) % 2), 50);
    load();
    ck_assert_uint_eq(loaded.acceptor.term, 9);
}
END_TEST

START_TEST(test_commit_lsn_alone_writes_one_slot)
{
    given_control_file();
    promise_term(7);
    state.acceptor.commit_lsn = 0x2000000;
    uint64_t before = file.sequence;
    ck_assert_ok(control_file_save(&file, &state, false, &msg), &msg);
    ck_assert_uint_eq(file.sequence, before + 1);
    load();
    ck_assert_uint_eq(loaded.acceptor.commit_lsn, 0x2000000);
    lab_flip(slot((unsigned)(file.sequence % 2)), 40);
    load();
    ck_assert_uint_eq(loaded.acceptor.term, 7);
}
END_TEST

START_TEST(test_two_bad_slots_are_refused)
{
    given_control_file();
    lab_flip(slot(0), 40);
    lab_flip(slot(1), 40);
    ck_assert_int_eq(
        control_file_load(&file, lab_dir, tenant, timeline, &loaded, &msg), ERR_CORRUPT);
}
END_TEST

START_TEST(test_file_of_another_timeline_is_refused)
{
    given_control_file();
    struct timeline_id other = {.bytes = {3}};
    ck_assert_int_eq(control_file_load(&file, lab_dir, tenant, other, &loaded, &msg), ERR_CORRUPT);
}
END_TEST

START_TEST(test_no_file_is_not_found)
{
    lab_make_dir();
    ck_assert_int_eq(
        control_file_load(&file, lab_dir, tenant, timeline, &loaded, &msg), ERR_NOT_FOUND);
}
END_TEST

START_TEST(test_save_that_found_no_space_is_repeated)
{
    given_control_file();
    fault_enable();
    ck_assert_ok(fault_arm("control_file.before_write=full*1", &msg), &msg);
    state.acceptor.term = 5;
    ck_assert_int_eq(control_file_save(&file, &state, true, &msg), ERR_FULL);
    load();
    ck_assert_uint_eq(loaded.acceptor.term, 0);
    ck_assert_ok(control_file_save(&file, &state, true, &msg), &msg);
    load();
    ck_assert_uint_eq(loaded.acceptor.term, 5);
}
END_TEST

START_TEST(test_suspicion_comes_back)
{
    given_control_file();
    acceptor_state_suspect(&state.acceptor, 0x16B3748, 0x16B4000);
    state.acceptor.sequence++;
    ck_assert_ok(control_file_save(&file, &state, true, &msg), &msg);
    load();
    ck_assert_uint_eq(loaded.acceptor.suspect_lsn, 0x16B4000);
    ck_assert_uint_eq(loaded.acceptor.suspect_term, 0);
    ck_assert_int_eq(loaded.membership.count, 3);
}
END_TEST

/*
 * Version 3 is version 4 without the begin of the log, version 2 without the sets of a joint
 * membership too, version 1 without suspicion too.
 */
START_TEST(test_older_versions_are_read)
{
    uint32_t older = (uint32_t)_i + 1;
    uint32_t without = 9 + (older <= 2 ? 8 : 0) + (older <= 1 ? 16 : 0);
    given_control_file();
    state.acceptor.suspect_lsn = 0x16B4000;
    state.membership.old_set = 3;
    state.membership.new_set = 6;
    promise_term(7);
    load();
    ck_assert(membership_equal(&loaded.membership, &state.membership));
    for (unsigned i = 0; i < 2; i++) {
        struct buf image = {0};
        ck_assert_ok(file_read_all(slot(i), 16 * KIB, &image, &msg), &msg);
        uint32_t size, version = htole32(older);
        memcpy(&size, image.data + 8, sizeof(size));
        size = htole32(le32toh(size) - without);
        memcpy(image.data + 4, &version, sizeof(version));
        memcpy(image.data + 8, &size, sizeof(size));
        uint32_t crc = htole32(crc32c(crc32c(0, image.data, 12), image.data + 16, le32toh(size)));
        memcpy(image.data + 12, &crc, sizeof(crc));
        ck_assert_ok(file_write_durably(slot(i), buf_view(&image), &msg), &msg);
        buf_deinit(&image);
    }
    load();
    ck_assert_uint_eq(loaded.acceptor.term, 7);
    ck_assert_uint_eq(loaded.membership.members[2], 9);
    ck_assert_uint_eq(loaded.acceptor.suspect_lsn, older == 1 ? LSN_NONE : 0x16B4000);
    ck_assert(membership_is_joint(&loaded.membership) == (older > 2));
    ck_assert_uint_eq(loaded.acceptor.begin_lsn, loaded.acceptor.start_lsn);
    ck_assert(!loaded.acceptor.is_begun_anew);
}
END_TEST

START_TEST(test_the_begin_of_the_log_comes_back)
{
    given_control_file();
    state.acceptor.begin_lsn = state.acceptor.start_lsn + 0x4000000;
    state.acceptor.is_begun_anew = true;
    ck_assert_ok(control_file_save(&file, &state, true, &msg), &msg);
    load();
    ck_assert_uint_eq(loaded.acceptor.begin_lsn, state.acceptor.begin_lsn);
    ck_assert_uint_eq(loaded.acceptor.start_lsn, state.acceptor.start_lsn);
    ck_assert(loaded.acceptor.is_begun_anew);
}
END_TEST

START_TEST(test_tombstone_remembers_its_generation)
{
    lab_make_dir();
    generation_t generation = 0;
    ck_assert_int_eq(tombstone_read(lab_dir, tenant, timeline, &generation, &msg), ERR_NOT_FOUND);
    ck_assert_ok(tombstone_write(lab_dir, tenant, timeline, 12, &msg), &msg);
    ck_assert_ok(tombstone_read(lab_dir, tenant, timeline, &generation, &msg), &msg);
    ck_assert_uint_eq(generation, 12);
    char path[PATH_SIZE];
    (void)snprintf(
        path, sizeof(path), "%.900s/%s.deleted", lab_dir, timeline_id_text(timeline).text);
    lab_flip(path, 41);
    ck_assert_int_eq(tombstone_read(lab_dir, tenant, timeline, &generation, &msg), ERR_CORRUPT);
    ck_assert_ok(tombstone_remove(lab_dir, timeline, &msg), &msg);
    ck_assert_int_eq(tombstone_read(lab_dir, tenant, timeline, &generation, &msg), ERR_NOT_FOUND);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("control_file");
    TCase *tcase = tcase_create("control_file");
    tcase_set_timeout(tcase, UNIT_TIMEOUT_S);
    tcase_add_test(tcase, test_everything_comes_back);
    tcase_add_loop_test(tcase, test_promise_survives_either_slot, 0, 24);
    tcase_add_test(tcase, test_commit_lsn_alone_writes_one_slot);
    tcase_add_test(tcase, test_two_bad_slots_are_refused);
    tcase_add_test(tcase, test_file_of_another_timeline_is_refused);
    tcase_add_test(tcase, test_no_file_is_not_found);
    tcase_add_test(tcase, test_save_that_found_no_space_is_repeated);
    tcase_add_test(tcase, test_suspicion_comes_back);
    tcase_add_loop_test(tcase, test_older_versions_are_read, 0, 3);
    tcase_add_test(tcase, test_the_begin_of_the_log_comes_back);
    tcase_add_test(tcase, test_tombstone_remembers_its_generation);
    suite_add_tcase(suite, tcase);
    return unit_run_suite(suite);
}
