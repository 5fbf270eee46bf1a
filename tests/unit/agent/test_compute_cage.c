/* Cages: what holds where there is no cgroup, and that one is made and removed where there is. */
#include "compute/agent/compute_cage.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/io/file.h"
#include "tests/unit/unit.h"

static struct errmsg msg;
static struct cage_host host;
static struct cage cage;
static const struct compute_size size = {
    .memory_mb = 512, .cpu_milli = 1500, .processes = 300, .file_size_mb = 7};

START_TEST(test_without_cgroups_each_process_is_limited)
{
    ck_assert_ok(cage_host_find("none", &host, &msg), &msg);
    cage_make(&host, "ep-one", &size, &cage);
    struct child_limits limits = cage_limits(&cage, &size);
    ck_assert_uint_eq(limits.data_size_max, 512 * MIB);
    ck_assert_uint_eq(limits.file_size_max, 7 * MIB);
    ck_assert_ptr_null(limits.cgroup_procs[0]);
    ck_assert_str_eq(cage_holder(&cage, &size, CAGE_MEMORY), "rlimit of each process");
    ck_assert_str_eq(cage_holder(&cage, &size, CAGE_CPU), "none");
    ck_assert_uint_eq(cage_memory_kills(&cage), 0);
    cage_remove(&host, "ep-one");
}
END_TEST

START_TEST(test_no_size_is_no_limit)
{
    static const struct compute_size none = {0};
    ck_assert_ok(cage_host_find("", &host, &msg), &msg);
    char id[64];
    (void)snprintf(id, sizeof(id), "unit-none-%d", (int)getpid());
    cage_make(&host, id, &none, &cage);
    ck_assert_uint_eq(cage_limits(&cage, &none).data_size_max, 0);
    ck_assert_str_eq(cage_holder(&cage, &none, CAGE_MEMORY), "none");
    ck_assert_ptr_null(cage_limits(&cage, &none).cgroup_procs[0]);
    cage_remove(&host, id);
}
END_TEST

START_TEST(test_folder_that_is_no_cgroup_is_refused)
{
    ck_assert_int_ne(cage_host_find("/tmp", &host, &msg), ERR_OK);
    ck_assert_msg(strstr(msg.text, "cgroup_dir") != NULL, "%s", msg.text);
}
END_TEST

/* Without cgroups there is nothing more to see than above. */
START_TEST(test_cgroup_has_the_limits_and_goes_with_its_compute)
{
    char id[64];
    (void)snprintf(id, sizeof(id), "unit-%d", (int)getpid());
    ck_assert_ok(cage_host_find("", &host, &msg), &msg);
    cage_make(&host, id, &size, &cage);
    struct child_limits limits = cage_limits(&cage, &size);
    ck_assert_int_eq(limits.data_size_max == 0, cage.holds[CAGE_MEMORY]);
    ck_assert_int_eq(cage.holds[CAGE_MEMORY], cage.events[0] != '\0');
    for (size_t i = 0; i < ARRAY_LEN(limits.cgroup_procs) && limits.cgroup_procs[i] != NULL; i++) {
        ck_assert_msg(file_exists(limits.cgroup_procs[i]), "%s", limits.cgroup_procs[i]);
    }
    if (cage.holds[CAGE_MEMORY]) {
        char path[PATH_SIZE];
        struct buf text = {0};
        (void)snprintf(
            path, sizeof(path), "%.800s/%s/%s", host.dirs[CAGE_MEMORY], id,
            host.kind == CAGE_CGROUP_V2 ? "memory.max" : "memory.limit_in_bytes");
        ck_assert_ok(file_read_all(path, 100, &text, &msg), &msg);
        ck_assert_str_eq(buf_cstr(&text), "536870912\n");
        buf_deinit(&text);
    }
    cage_remove(&host, id);
    for (size_t i = 0; i < ARRAY_LEN(limits.cgroup_procs) && limits.cgroup_procs[i] != NULL; i++) {
        ck_assert(!file_exists(limits.cgroup_procs[i]));
    }
}
END_TEST

UNIT_MAIN(
    "compute_cage",
    test_without_cgroups_each_process_is_limited,
    test_no_size_is_no_limit,
    test_folder_that_is_no_cgroup_is_refused,
    test_cgroup_has_the_limits_and_goes_with_its_compute);
