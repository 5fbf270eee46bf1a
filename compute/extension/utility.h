/*
 * utility.h - commands that storage has to know of, or cannot do.
 */
#pragma once

#include "postgres.h"

extern void utility_install(void);
