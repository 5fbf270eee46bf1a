/*
 * scram.h - does a stored SCRAM-SHA-256 verifier (pg_authid.rolpassword) belong to a password?
 * Pure.
 *
 * Saves the write, and the login, of setting the same password at every start of a compute.
 */
#pragma once

#include "common/base/types.h"

/*
 * False as well when it cannot be told: another kind of verifier, a damaged one, or a password
 * beyond ASCII, which Postgres normalises first. Setting the password again is right then.
 */
bool scram_matches(const char *verifier, const char *password);
