/*
 * pg_version.h - constants of the Postgres version that we speak: 17, 8 KiB pages, 64-bit.
 *
 * Sources: catalog/pg_control.h, catalog/catversion.h, access/transam.h, catalog/pg_tablespace.dat,
 * access/transam/{clog,multixact,commit_ts}.c, access/slru.h of Postgres 17.
 */
#pragma once

#define PG_MAJOR_VERSION   17
#define PG_VERSION_FILE    "17\n" /* content of every PG_VERSION */
#define PG_CONTROL_VERSION 1700
#define PG_CATALOG_VERSION 202406281
#define PG_TABLESPACE_DIR  "PG_17_202406281" /* inside pg_tblspc/OID */

#define PG_SPC_DEFAULT 1663u
#define PG_SPC_GLOBAL  1664u

#define PG_XID_FIRST_NORMAL 3u
#define PG_MULTI_FIRST      1u
#define PG_OID_FIRST_NORMAL 16384u

/* How much fits on one page of an SLRU, and how many pages are one file. */
#define PG_CLOG_XIDS_PER_PAGE      32768u /* two bits each */
#define PG_MULTI_OFFSETS_PER_PAGE  2048u  /* u32 each */
#define PG_MULTI_MEMBERS_PER_GROUP 4u     /* four bytes of flags, four xids */
#define PG_MULTI_MEMBERS_PER_PAGE  1636u  /* 409 groups of 20 bytes */
#define PG_COMMIT_TS_XIDS_PER_PAGE 819u   /* i64 time, u16 origin */
#define PG_SLRU_PAGES_PER_SEGMENT  32u

/* Microseconds between 1970-01-01 and 2000-01-01, where Postgres' timestamps begin. */
#define PG_EPOCH_US 946684800000000ll
