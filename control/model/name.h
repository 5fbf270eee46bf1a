/*
 * name.h - new public ids ("br-quiet-delta-4k2m9xq7"), internal ids, operation ids and passwords.
 *
 * All from the system's random numbers. A public id is short, not secret: who makes one checks
 * that it is free.
 */
#pragma once

#include "control/model/row.h"

void name_project(row_id_t ret_id); /* "quiet-delta-40718265" */
void name_branch(row_id_t ret_id);  /* "br-quiet-delta-4k2m9xq7" */
void name_snapshot(row_id_t ret_id);
void name_endpoint(row_id_t ret_id);  /* "ep-quiet-delta-4k2m9xq7" */
void name_operation(row_id_t ret_id); /* a version 4 UUID */
struct tenant_id name_tenant(void);
struct timeline_id name_timeline(void);

#define PASSWORD_SIZE 25
void name_password(char ret_password[PASSWORD_SIZE]); /* 24 letters and digits: 142 bits */
