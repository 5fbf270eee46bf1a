/*
 * output.h - what the commands print: JSON or YAML as the API gave it, or tables for people.
 */
#pragma once

#include "common/json/doc.h"

void output_use_yaml(void); /* from now on instead of JSON */
void output_json(const struct doc *doc);

/* "TITLE=member" pairs choose the columns of an array of objects; nested members as "a.b". */
void output_table(const struct doc *array, const char *const *columns, size_t count);
/* One object: the same columns below each other; absent members are left out. */
void output_object(const struct doc *object, const char *const *columns, size_t count);
/* One more line of that kind. */
void output_line(const char *title, const char *value);
/* To stderr, for people who wait; nothing when it is not a terminal. */
void output_progress(const char *format, ...) PRINTF_LIKE(1, 2);
