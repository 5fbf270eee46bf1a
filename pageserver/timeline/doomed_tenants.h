/*
 * doomed_tenants.h - what deleted tenants leave behind: the folder TENANT.deleted, and whatever the
 * user keeps of them elsewhere. Both go in the background, again and again until they are gone, in
 * this process or in the next; the folder goes last, so that it remembers.
 *
 * Threads: loop only; the work is done on the executor.
 */
#pragma once

#include "common/base/id.h"
#include "common/base/str.h"
#include "common/io/executor.h"
#include "common/io/timer.h"

struct tenants_user;

#define DOOMED_SUFFIX ".deleted"

struct doomed_tenants {
    struct loop *loop;
    struct executor *executor;
    struct tenants_user *user; /* its `erase`; NULL there: there is nothing elsewhere */
    const char *folder;        /* of all tenants */
    struct list list;
    bool stopping;
};

void doomed_tenants_init(
    struct doomed_tenants *doomed,
    struct loop *loop,
    struct executor *executor,
    struct tenants_user *user,
    const char *folder);
/* Its folder has the suffix already. */
void doomed_tenants_add(struct doomed_tenants *doomed, struct tenant_id id);
bool doomed_tenants_has(const struct doomed_tenants *doomed, struct tenant_id id);
/* No new attempt begins; idle once those under way have ended. The next process goes on. */
void doomed_tenants_stop(struct doomed_tenants *doomed);
bool doomed_tenants_are_idle(const struct doomed_tenants *doomed);
void doomed_tenants_deinit(struct doomed_tenants *doomed); /* when they are idle */
