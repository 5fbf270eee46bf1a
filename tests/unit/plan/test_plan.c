#include "control/plan/plan.h"

#include "tests/unit/unit.h"

static struct plan plan;

static bool has(enum plan_step_kind kind)
{
    for (size_t i = 0; i < plan.count; i++) {
        if (plan.steps[i].kind == kind) {
            return true;
        }
    }
    return false;
}

static size_t count_of(enum plan_step_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < plan.count; i++) {
        count += plan.steps[i].kind == kind;
    }
    return count;
}

/* A branch of which nothing is there yet, but everything that it stands on. */
static struct plan_branch_view new_branch(bool is_root)
{
    return (struct plan_branch_view){
        .state = BRANCH_INIT,
        .is_root = is_root,
        .start_known = true,
        .tenant = SEEN_PRESENT,
        .parent = SEEN_PRESENT,
        .on_pageserver = SEEN_ABSENT,
        .on_safekeeper = {SEEN_ABSENT, SEEN_ABSENT, SEEN_ABSENT},
        .safekeeper_count = 3};
}

static struct plan_branch_view ready_branch(void)
{
    struct plan_branch_view view = new_branch(false);
    view.state = BRANCH_READY;
    view.on_pageserver = SEEN_PRESENT;
    for (size_t i = 0; i < 3; i++) {
        view.on_safekeeper[i] = SEEN_PRESENT;
        view.confirmed[i] = true;
    }
    return view;
}

/* ---- branches ---- */

START_TEST(test_root_waits_for_the_bootstrap_image)
{
    struct plan_branch_view view = new_branch(true);
    view.start_known = false;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    ck_assert_ptr_nonnull(plan.waits_for);
}
END_TEST

START_TEST(test_root_gets_a_majority_of_safekeepers_before_the_pageserver)
{
    struct plan_branch_view view = new_branch(true);
    plan_branch(&view, &plan);
    ck_assert_uint_eq(count_of(PLAN_CREATE_ON_SAFEKEEPER), 3);
    ck_assert(!has(PLAN_CREATE_ON_PAGESERVER));
    view.on_safekeeper[0] = SEEN_PRESENT;
    plan_branch(&view, &plan);
    ck_assert(!has(PLAN_CREATE_ON_PAGESERVER));
    view.on_safekeeper[2] = SEEN_PRESENT;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_CREATE_ON_PAGESERVER));
    ck_assert_uint_eq(count_of(PLAN_CREATE_ON_SAFEKEEPER), 1);
}
END_TEST

START_TEST(test_branch_that_was_found_is_made_nowhere)
{
    struct plan_branch_view view = new_branch(false);
    view.is_found = true;
    view.tenant = view.parent = SEEN_PRESENT;
    view.on_pageserver = SEEN_ABSENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    ck_assert(!plan.reached);
    view.on_pageserver = SEEN_PRESENT;
    view.on_safekeeper[0] = SEEN_PRESENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    view.on_safekeeper[2] = SEEN_PRESENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 1);
    ck_assert_int_eq(plan.steps[0].kind, PLAN_COMMIT);
}
END_TEST

START_TEST(test_branch_gets_its_pageserver_row_before_its_safekeepers)
{
    struct plan_branch_view view = new_branch(false);
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_CREATE_ON_PAGESERVER));
    ck_assert(!has(PLAN_CREATE_ON_SAFEKEEPER));
    view.on_pageserver = SEEN_PRESENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(count_of(PLAN_CREATE_ON_SAFEKEEPER), 3);
    ck_assert(!plan.reached);
}
END_TEST

START_TEST(test_branch_is_ready_with_pageserver_and_majority)
{
    struct plan_branch_view view = new_branch(false);
    view.on_pageserver = SEEN_PRESENT;
    view.on_safekeeper[0] = view.on_safekeeper[1] = SEEN_PRESENT;
    plan_branch(&view, &plan);
    ck_assert(plan.reached);
    ck_assert(has(PLAN_COMMIT));
    ck_assert_uint_eq(count_of(PLAN_CREATE_ON_SAFEKEEPER), 1); /* the third is still wanted */
}
END_TEST

START_TEST(test_branch_waits_for_its_parent_and_tenant)
{
    struct plan_branch_view view = new_branch(false);
    view.parent = SEEN_ABSENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    view.parent = SEEN_PRESENT;
    view.tenant = SEEN_UNKNOWN;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    ck_assert_ptr_nonnull(plan.waits_for);
}
END_TEST

START_TEST(test_safekeeper_that_missed_the_creation_gets_it)
{
    struct plan_branch_view view = ready_branch();
    view.on_safekeeper[1] = SEEN_ABSENT;
    view.confirmed[1] = false;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(count_of(PLAN_CREATE_ON_SAFEKEEPER), 1);
    ck_assert_uint_eq(plan.steps[0].safekeeper, 1);
    view.on_safekeeper[1] = SEEN_PRESENT;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_CONFIRM)); /* from now on its loss is a loss */
    view.held[1] = true;
    view.on_safekeeper[1] = SEEN_ABSENT; /* before the row says so */
    plan_branch(&view, &plan);
    ck_assert_uint_eq(count_of(PLAN_CREATE_ON_SAFEKEEPER), 0);
    ck_assert(has(PLAN_CONFIRM));
    ck_assert_uint_eq(plan.lost, 1);
}
END_TEST

START_TEST(test_first_compute_of_a_branch_is_recorded)
{
    struct plan_branch_view view = ready_branch();
    plan_branch(&view, &plan);
    ck_assert(!has(PLAN_CONFIRM));
    view.cuts_off = true;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_CONFIRM));
}
END_TEST

/* It may have voted for a term and acknowledged WAL that it has forgotten. */
START_TEST(test_safekeeper_that_lost_the_timeline_is_never_refilled)
{
    struct plan_branch_view view = ready_branch();
    view.on_safekeeper[1] = SEEN_ABSENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    ck_assert_uint_eq(plan.lost, 1);
    ck_assert(plan.reached); /* the two others are a majority */
}
END_TEST

START_TEST(test_emptied_pageserver_is_refilled_in_order_of_depth)
{
    struct plan_branch_view view = ready_branch();
    view.on_pageserver = SEEN_ABSENT;
    view.parent = SEEN_ABSENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    view.parent = SEEN_PRESENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 1);
    ck_assert(has(PLAN_CREATE_ON_PAGESERVER));
}
END_TEST

START_TEST(test_deleted_branch_goes_computes_then_pages_then_wal)
{
    struct plan_branch_view view = ready_branch();
    view.state = BRANCH_DELETING;
    view.endpoints_left = 1;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    view.endpoints_left = 0;
    view.children_left = 1;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    view.children_left = 0;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 1);
    ck_assert(has(PLAN_DELETE_ON_PAGESERVER));
    view.on_pageserver = SEEN_ABSENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(count_of(PLAN_DELETE_ON_SAFEKEEPER), 3);
    ck_assert(!plan.reached);
}
END_TEST

START_TEST(test_deletion_is_done_with_a_majority_and_purged_with_all)
{
    struct plan_branch_view view = ready_branch();
    view.state = BRANCH_DELETING;
    view.on_pageserver = view.on_safekeeper[0] = view.on_safekeeper[1] = SEEN_ABSENT;
    view.on_safekeeper[2] = SEEN_UNKNOWN; /* away */
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_COMMIT));
    ck_assert_uint_eq(count_of(PLAN_DELETE_ON_SAFEKEEPER), 1);
    view.state = BRANCH_DELETED;
    plan_branch(&view, &plan);
    ck_assert(!has(PLAN_PURGE));
    view.on_safekeeper[2] = SEEN_ABSENT;
    view.rows_left = 1; /* a child's row still names it */
    plan_branch(&view, &plan);
    ck_assert(!has(PLAN_PURGE));
    view.rows_left = 0;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_PURGE));
}
END_TEST

START_TEST(test_deleted_branch_is_deleted_again_while_a_lost_disk_brings_it_back)
{
    struct plan_branch_view view = ready_branch();
    view.state = BRANCH_DELETED;
    view.on_pageserver = SEEN_ABSENT;
    view.on_safekeeper[0] = view.on_safekeeper[1] = view.on_safekeeper[2] = SEEN_ABSENT;
    view.may_come_back = true;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    ck_assert(plan.reached);
    view.on_pageserver = SEEN_PRESENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 1);
    ck_assert(has(PLAN_DELETE_ON_PAGESERVER));
    view.on_pageserver = SEEN_ABSENT;
    view.may_come_back = false;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_PURGE));
}
END_TEST

START_TEST(test_branch_of_a_deleted_project_leaves_the_pages_to_its_tenant)
{
    struct plan_branch_view view = ready_branch();
    view.state = BRANCH_DELETING;
    view.tenant_leaves = true;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    ck_assert_ptr_nonnull(plan.waits_for);
}
END_TEST

/* ---- projects ---- */

START_TEST(test_new_disk_gets_a_new_generation_before_it_is_attached)
{
    struct plan_project_view view = {
        .state = PROJECT_ACTIVE,
        .image_known = true,
        .incarnation_known = true,
        .incarnation_matches = false,
        .on_pageserver = SEEN_ABSENT};
    plan_project(&view, &plan);
    ck_assert_uint_eq(plan.count, 1);
    ck_assert(has(PLAN_RENEW_GENERATION));
    view.incarnation_matches = true; /* it is durable now */
    plan_project(&view, &plan);
    ck_assert(has(PLAN_ATTACH_TENANT));
}
END_TEST

START_TEST(test_unknown_pageserver_disk_is_not_attached)
{
    struct plan_project_view view = {.state = PROJECT_ACTIVE, .image_known = true};
    plan_project(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    ck_assert_ptr_nonnull(plan.waits_for);
}
END_TEST

START_TEST(test_project_leaves_in_order_and_its_operations_stay_a_while)
{
    struct plan_project_view view = {
        .state = PROJECT_DELETING,
        .on_pageserver = SEEN_PRESENT,
        .branches_left = 2,
        .branches_on_safekeepers = 2,
        .endpoints_left = 1,
        .kept = true};
    plan_project(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    view.endpoints_left = 0;
    plan_project(&view, &plan);
    ck_assert(has(PLAN_DETACH_TENANT));
    view.on_pageserver = SEEN_ABSENT;
    plan_project(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    view.branches_on_safekeepers = 0;
    plan_project(&view, &plan);
    ck_assert(has(PLAN_COMMIT));
    view.state = PROJECT_DELETED;
    view.branches_left = 0;
    plan_project(&view, &plan);
    ck_assert_uint_eq(plan.count, 1);
    ck_assert(has(PLAN_DETACH_TENANT)); /* of its objects something may be left */
    ck_assert(plan.reached);
    view.is_erased = true;
    plan_project(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
    view.kept = false;
    view.is_erased = false;
    plan_project(&view, &plan);
    ck_assert(!has(PLAN_PURGE));
    view.is_erased = true;
    plan_project(&view, &plan);
    ck_assert(has(PLAN_PURGE));
}
END_TEST

/* ---- endpoints ---- */

static void plan_compute(enum endpoint_wanted wanted, enum compute_seen seen)
{
    struct plan_endpoint_view view = {
        .wanted = wanted, .seen = seen, .branch_ready = true, .told = true, .recorded = true};
    plan_endpoint(&view, &plan);
}

START_TEST(test_compute_waits_for_its_branch)
{
    struct plan_endpoint_view view = {.wanted = ENDPOINT_ACTIVE, .seen = COMPUTE_ABSENT};
    plan_endpoint(&view, &plan);
    ck_assert_uint_eq(plan.count, 0);
}
END_TEST

START_TEST(test_lost_failed_and_stopped_computes_are_started_again)
{
    static const enum compute_seen dead[] = {
        COMPUTE_UNKNOWN, COMPUTE_ABSENT, COMPUTE_STOPPED, COMPUTE_FAILED};
    for (size_t i = 0; i < ARRAY_LEN(dead); i++) {
        plan_compute(ENDPOINT_ACTIVE, dead[i]);
        ck_assert(has(PLAN_START_COMPUTE));
        ck_assert(!plan.reached);
    }
}
END_TEST

/* Its agent's lease is over: nobody can be asked, and what still runs there is fenced by the next.
 */
START_TEST(test_compute_of_a_lost_host_moves_only_when_it_is_wanted)
{
    struct plan_endpoint_view view = {
        .wanted = ENDPOINT_ACTIVE, .seen = COMPUTE_RUNNING, .told = true, .host_is_gone = true};
    plan_endpoint(&view, &plan);
    ck_assert_uint_eq(plan.count, 1);
    ck_assert(has(PLAN_MOVE_COMPUTE));
    ck_assert(!plan.reached);
    view.wanted = ENDPOINT_IDLE;
    plan_endpoint(&view, &plan);
    ck_assert(plan.reached && has(PLAN_COMMIT) && !has(PLAN_STOP_COMPUTE));
    view.wanted = ENDPOINT_RESTARTING;
    for (int recorded = 0; recorded < 2; recorded++) { /* 1: its operations are over, or expired */
        view.recorded = recorded == 1;
        plan_endpoint(&view, &plan);
        ck_assert(!plan.reached && has(PLAN_COMMIT) && !has(PLAN_STOP_COMPUTE));
        ck_assert_uint_eq(plan.count, 1);
    }
    view.recorded = false;
    view.wanted = ENDPOINT_DELETING;
    plan_endpoint(&view, &plan);
    ck_assert(plan.reached && has(PLAN_PURGE) && !has(PLAN_DELETE_COMPUTE));
}
END_TEST

/* Two that each start again when the other has won would fence each other for ever. */
START_TEST(test_fenced_compute_gives_way)
{
    plan_compute(ENDPOINT_ACTIVE, COMPUTE_FENCED);
    ck_assert_uint_eq(plan.count, 1);
    ck_assert(has(PLAN_GIVE_WAY));
}
END_TEST

/* It would be refused again; a start that was asked for since then is tried. */
START_TEST(test_refused_compute_gives_way_until_something_new_is_wanted)
{
    static const enum compute_seen ended[] = {COMPUTE_REFUSED, COMPUTE_FENCED};
    struct plan_endpoint_view view = {
        .wanted = ENDPOINT_ACTIVE, .branch_ready = true, .recorded = true};
    for (size_t i = 0; i < ARRAY_LEN(ended); i++) {
        plan_compute(ENDPOINT_ACTIVE, ended[i]);
        ck_assert_uint_eq(plan.count, 1);
        ck_assert(has(PLAN_GIVE_WAY));
        view.seen = ended[i];
        plan_endpoint(&view, &plan);
        ck_assert_uint_eq(plan.count, 1);
        ck_assert(has(PLAN_START_COMPUTE));
        plan_compute(ENDPOINT_IDLE, ended[i]);
        ck_assert(plan.reached);
    }
}
END_TEST

START_TEST(test_running_compute_is_told_what_changed)
{
    struct plan_endpoint_view view = {
        .wanted = ENDPOINT_ACTIVE, .seen = COMPUTE_RUNNING, .branch_ready = true, .recorded = true};
    plan_endpoint(&view, &plan);
    ck_assert(has(PLAN_START_COMPUTE));
    ck_assert(!plan.reached);
    view.told = true;
    plan_endpoint(&view, &plan);
    ck_assert(plan.reached);
    ck_assert_uint_eq(plan.count, 0);
}
END_TEST

START_TEST(test_compute_with_other_settings_is_deleted_first)
{
    struct plan_endpoint_view view = {
        .wanted = ENDPOINT_ACTIVE, .seen = COMPUTE_STOPPED, .branch_ready = true, .recreate = true};
    plan_endpoint(&view, &plan);
    ck_assert_uint_eq(plan.count, 1);
    ck_assert(has(PLAN_DELETE_COMPUTE));
}
END_TEST

START_TEST(test_suspended_endpoint_is_stopped_and_reached_when_it_is_gone)
{
    plan_compute(ENDPOINT_IDLE, COMPUTE_RUNNING);
    ck_assert(has(PLAN_STOP_COMPUTE));
    plan_compute(ENDPOINT_IDLE, COMPUTE_STOPPED);
    ck_assert(plan.reached);
    ck_assert_uint_eq(plan.count, 0);
}
END_TEST

START_TEST(test_restarted_endpoint_stops_and_then_says_so_before_it_starts)
{
    static const enum compute_seen ended[] = {
        COMPUTE_ABSENT, COMPUTE_STOPPED, COMPUTE_FAILED, COMPUTE_REFUSED, COMPUTE_FENCED};
    plan_compute(ENDPOINT_RESTARTING, COMPUTE_RUNNING);
    ck_assert(has(PLAN_STOP_COMPUTE) && !plan.reached);
    plan_compute(ENDPOINT_RESTARTING, COMPUTE_STOPPING);
    ck_assert(has(PLAN_ASK_COMPUTE) && !plan.reached);
    for (size_t i = 0; i < ARRAY_LEN(ended); i++) {
        plan_compute(ENDPOINT_RESTARTING, ended[i]);
        ck_assert(has(PLAN_COMMIT) && !plan.reached);
        ck_assert_uint_eq(plan.count, 1);
    }
}
END_TEST

START_TEST(test_agent_that_does_not_wait_is_asked_again_after_a_pause)
{
    enum compute_seen seen = COMPUTE_STOPPING;
    ck_assert(plan_asks_in_vain(PLAN_ASK_COMPUTE, seen, seen, false));
    ck_assert(!plan_asks_in_vain(PLAN_ASK_COMPUTE, seen, seen, true));
    ck_assert(!plan_asks_in_vain(PLAN_ASK_COMPUTE, seen, COMPUTE_STOPPED, false));
    ck_assert(plan_asks_in_vain(PLAN_DELETE_COMPUTE, COMPUTE_RUNNING, seen, false));
    ck_assert(plan_asks_in_vain(PLAN_DELETE_COMPUTE, seen, seen, false));
    ck_assert(!plan_asks_in_vain(PLAN_DELETE_COMPUTE, seen, seen, true));
    ck_assert(!plan_asks_in_vain(PLAN_DELETE_COMPUTE, seen, COMPUTE_ABSENT, false));
    ck_assert(!plan_asks_in_vain(PLAN_STOP_COMPUTE, seen, seen, false)); /* asking follows */
}
END_TEST

START_TEST(test_deleted_endpoint_is_purged_only_when_the_agent_has_forgotten_it)
{
    plan_compute(ENDPOINT_DELETING, COMPUTE_STOPPED);
    ck_assert(has(PLAN_DELETE_COMPUTE));
    plan_compute(ENDPOINT_DELETING, COMPUTE_ABSENT);
    ck_assert(has(PLAN_PURGE));
}
END_TEST

START_TEST(test_port_is_the_first_free_one)
{
    static const uint64_t taken[] = {7501, 7500, 7503};
    ck_assert_uint_eq(plan_port(7500, 7599, taken, ARRAY_LEN(taken)), 7502);
    ck_assert_uint_eq(plan_port(7500, 7501, taken, ARRAY_LEN(taken)), 0);
}
END_TEST

/* ---- a change of the safekeepers ---- */

/* From 0 1 2 to 0 1 3, nobody has answered. */
static struct plan_branch_view changing_branch(void)
{
    struct plan_branch_view view = ready_branch();
    view.is_changing = true;
    view.member_count = 4;
    view.is_newcomer[3] = true;
    for (size_t i = 0; i < 4; i++) {
        view.is_due[i] = true;
    }
    return view;
}

/* Who told the others first and died would leave them without a quorum of the new set. */
START_TEST(test_a_change_creates_on_the_newcomer_and_then_tells_the_others)
{
    struct plan_branch_view view = changing_branch();
    plan_branch(&view, &plan);
    ck_assert_uint_eq(count_of(PLAN_TELL_SAFEKEEPER), 0);
    ck_assert_uint_eq(count_of(PLAN_JOIN_SAFEKEEPER), 1);
    ck_assert_uint_eq(plan.steps[0].safekeeper, 3);
    ck_assert(!has(PLAN_END_CHANGE));
    view.is_newcomer[3] = false; /* it is there; now it must copy */
    view.verdict = CHANGE_WAIT_NEW;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(count_of(PLAN_TELL_SAFEKEEPER), 4);
}
END_TEST

START_TEST(test_a_change_ends_when_it_may_or_is_given_up)
{
    struct plan_branch_view view = changing_branch();
    view.verdict = CHANGE_MAY_FINISH;
    view.is_copying = true; /* safe, but there would be a copy less */
    plan_branch(&view, &plan);
    ck_assert(!has(PLAN_END_CHANGE));
    view.is_copying = false;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_END_CHANGE));
    view.verdict = CHANGE_WAIT_OLD;
    view.gives_up = true;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_END_CHANGE));
    view.gives_up = false;
    view.verdict = CHANGE_SUPERSEDED;
    plan_branch(&view, &plan);
    ck_assert(!has(PLAN_END_CHANGE));
    ck_assert_ptr_nonnull(plan.waits_for);
}
END_TEST

/* A member that lost the timeline is told, and answers 404; it is never created there again. */
START_TEST(test_a_change_creates_nothing_on_a_member)
{
    struct plan_branch_view view = changing_branch();
    view.on_safekeeper[1] = SEEN_ABSENT;
    view.confirmed[2] = false;
    view.on_safekeeper[2] = SEEN_ABSENT;
    plan_branch(&view, &plan);
    ck_assert(!has(PLAN_CREATE_ON_SAFEKEEPER));
}
END_TEST

START_TEST(test_a_former_member_forgets_after_the_pageserver_has_moved)
{
    struct plan_branch_view view = ready_branch();
    view.left_count = 1;
    view.on_left[0] = SEEN_UNKNOWN;
    view.pageserver_is_behind = true;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_CREATE_ON_PAGESERVER) && !has(PLAN_DELETE_LEFT));
    view.pageserver_is_behind = false;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_DELETE_LEFT) && !has(PLAN_FORGET_LEFT));
    view.on_left[0] = SEEN_ABSENT;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_FORGET_LEFT) && !has(PLAN_DELETE_LEFT));
}
END_TEST

START_TEST(test_a_branch_that_goes_leaves_nothing_on_former_members)
{
    struct plan_branch_view view = ready_branch();
    view.state = BRANCH_DELETED;
    view.on_pageserver = SEEN_ABSENT;
    for (size_t i = 0; i < 3; i++) {
        view.on_safekeeper[i] = SEEN_ABSENT;
    }
    view.left_count = 2;
    view.on_left[0] = SEEN_ABSENT;
    plan_branch(&view, &plan);
    ck_assert_uint_eq(count_of(PLAN_DELETE_LEFT), 1);
    ck_assert(!has(PLAN_PURGE));
    view.on_left[1] = SEEN_ABSENT;
    plan_branch(&view, &plan);
    ck_assert(has(PLAN_PURGE));
}
END_TEST

UNIT_MAIN(
    "plan",
    test_branch_that_was_found_is_made_nowhere,
    test_root_waits_for_the_bootstrap_image,
    test_root_gets_a_majority_of_safekeepers_before_the_pageserver,
    test_branch_gets_its_pageserver_row_before_its_safekeepers,
    test_branch_is_ready_with_pageserver_and_majority,
    test_branch_waits_for_its_parent_and_tenant,
    test_safekeeper_that_missed_the_creation_gets_it,
    test_first_compute_of_a_branch_is_recorded,
    test_safekeeper_that_lost_the_timeline_is_never_refilled,
    test_emptied_pageserver_is_refilled_in_order_of_depth,
    test_deleted_branch_goes_computes_then_pages_then_wal,
    test_deletion_is_done_with_a_majority_and_purged_with_all,
    test_deleted_branch_is_deleted_again_while_a_lost_disk_brings_it_back,
    test_branch_of_a_deleted_project_leaves_the_pages_to_its_tenant,
    test_new_disk_gets_a_new_generation_before_it_is_attached,
    test_unknown_pageserver_disk_is_not_attached,
    test_project_leaves_in_order_and_its_operations_stay_a_while,
    test_compute_waits_for_its_branch,
    test_lost_failed_and_stopped_computes_are_started_again,
    test_compute_of_a_lost_host_moves_only_when_it_is_wanted,
    test_fenced_compute_gives_way,
    test_refused_compute_gives_way_until_something_new_is_wanted,
    test_running_compute_is_told_what_changed,
    test_compute_with_other_settings_is_deleted_first,
    test_suspended_endpoint_is_stopped_and_reached_when_it_is_gone,
    test_restarted_endpoint_stops_and_then_says_so_before_it_starts,
    test_agent_that_does_not_wait_is_asked_again_after_a_pause,
    test_deleted_endpoint_is_purged_only_when_the_agent_has_forgotten_it,
    test_port_is_the_first_free_one,
    test_a_change_creates_on_the_newcomer_and_then_tells_the_others,
    test_a_change_ends_when_it_may_or_is_given_up,
    test_a_change_creates_nothing_on_a_member,
    test_a_former_member_forgets_after_the_pageserver_has_moved,
    test_a_branch_that_goes_leaves_nothing_on_former_members);
