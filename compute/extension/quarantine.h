/*
 * quarantine.h - a new branch does nothing to the outside before the agent has
 * cut what it inherited.
 *
 * With anabranch.quarantine = on at the start, nobody is let in but over the
 * socket, whose folder is the agent's, and no subscription is started. It ends
 * for good when the agent's session, which has disabled the subscriptions of
 * the parent, says SET anabranch.quarantine = off.
 */
#pragma once

#include "postgres.h"

extern void quarantine_define_setting(void);
extern void quarantine_install(void);
extern Size quarantine_shmem_size(void);
extern void quarantine_shmem_init(void);

/*
 * Called where relations are read, with no lock held that readers wait for:
 * the launcher of logical replication waits here for the end.
 */
extern void quarantine_hold_launcher(void);
