/*
 * explain.h - where a statement's pages came from, in the output of EXPLAIN.
 *
 * With anabranch.explain on, EXPLAIN (ANALYZE) ends with what the execution
 * counted (counters.h): for the statement as a whole, parallel workers and
 * called functions included. Postgres 17 has no hook within a plan's nodes. It
 * is off by default, so that the output is Postgres' own.
 */
#pragma once

#include "postgres.h"

extern void explain_define_setting(void);
extern void explain_install(void);
