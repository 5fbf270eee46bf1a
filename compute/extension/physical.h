/*
 * physical.h - nobody copies or follows a compute's files: BASE_BACKUP and
 * START_REPLICATION PHYSICAL are refused, for they would hand out a data
 * directory without relations, and WAL that the quorum has not acknowledged.
 */
#pragma once

extern void physical_install(void);
