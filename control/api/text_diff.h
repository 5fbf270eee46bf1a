/*
 * text_diff.h - the difference of two texts, line by line, as `diff -u` writes it.
 *
 * Myers' greedy algorithm: the shortest edit script. Texts that differ in more than DIFF_EDITS_MAX
 * lines are shown as one replacement of what lies between their common begin and end, which is
 * right, only longer. Pure.
 */
#pragma once

#include "common/base/bytes.h"

#define DIFF_EDITS_MAX 2000

/* Appends nothing when they are equal. The names stand after "--- " and "+++ ". */
void text_diff(
    const char *old_text,
    const char *new_text,
    const char *old_name,
    const char *new_name,
    struct buf *to);
