/*
 * slots.h - logical replication on a compute: slots are put into the WAL
 * whenever Postgres saves one (common/pg/slot_message.h), and nothing is shown
 * to a subscriber or confirmed to a publisher before the quorum has it.
 */
#pragma once

extern void slots_define_setting(void);
extern void slots_install(void);
