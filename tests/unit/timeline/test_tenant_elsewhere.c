#include "pageserver/timeline/tenant.h"

#include <semaphore.h>

#include "tests/unit/timeline/tenant_fixture.h"

static sem_t waiting, answers;

/* As long as nobody answers: a minute or two of an object store that is away. */
static err_t wait_for_answer(void)
{
    (void)sem_post(&waiting);
    (void)sem_wait(&answers);
    return ERR_OK;
}

static err_t is_elsewhere_slowly(
    struct tenants_user *user, struct tenant_id id, bool *ret_is, struct errmsg *why)
{
    (void)user;
    (void)id;
    (void)why;
    *ret_is = true;
    return wait_for_answer();
}

static err_t erase_slowly(struct tenants_user *user, struct tenant_id id, struct errmsg *why)
{
    (void)user;
    (void)id;
    (void)why;
    return wait_for_answer();
}

static err_t restore_slowly(
    struct tenants_user *user,
    struct tenant_id id,
    generation_t generation,
    const char *folder,
    struct errmsg *why)
{
    (void)user;
    (void)id;
    (void)generation;
    (void)folder;
    (void)why;
    return wait_for_answer();
}

static unsigned answered;

static void on_answered(struct tenant_request *request, err_t result)
{
    ck_assert_ok(result, &request->msg);
    answered++;
}

/* As many as there are workers wait for an answer: what ingests and flushes is none of them. */
static void check_that_flushes_go_on(void)
{
    for (int i = 0; i < 2; i++) {
        while (sem_trywait(&waiting) != 0) {
            fixture_work_for(1);
        }
    }
    fill_layer(the_tenant(), 2 * MIB); /* due at once */
    do {
        fixture_work_for(10);
    } while (open_bytes(the_tenant()) > 0);
    for (int i = 0; i < 2; i++) {
        (void)sem_post(&answers);
    }
}

static void wait_until_answered(unsigned count)
{
    while (answered < count) {
        fixture_work_for(1);
    }
}

START_TEST(test_an_object_store_that_does_not_answer_keeps_no_flush_waiting)
{
    struct tenant_request requests[4];
    fixture_begin_with_root();
    (void)sem_init(&waiting, 0, 0);
    (void)sem_init(&answers, 0, 0);
    fixture.user.is_elsewhere = is_elsewhere_slowly;
    fixture.user.erase = erase_slowly;
    fixture.user.restore = restore_slowly;
    for (uint8_t i = 0; i < 4; i++) {
        requests[i] = (struct tenant_request){.done = on_answered};
    }
    tenant_attach(fixture.tenants, &requests[0], tenant_number(2), 1);
    tenant_attach(fixture.tenants, &requests[1], tenant_number(3), 1);
    check_that_flushes_go_on();
    wait_until_answered(2);
    tenant_delete(fixture.tenants, &requests[2], tenant_number(4));
    tenant_delete(fixture.tenants, &requests[3], tenant_number(5));
    check_that_flushes_go_on();
    wait_until_answered(4);
    check_that_flushes_go_on(); /* they are erased now */
    fixture_end();
    (void)sem_destroy(&waiting);
    (void)sem_destroy(&answers);
}
END_TEST

UNIT_MAIN("tenant_elsewhere", test_an_object_store_that_does_not_answer_keeps_no_flush_waiting);
