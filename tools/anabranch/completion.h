/*
 * completion.h - `anabranch completion bash|zsh|fish`: a script for the shell that knows the words.
 */
#pragma once

#include "common/base/err.h"

NODISCARD err_t completion_print(const char *shell, struct errmsg *msg);
/* The verbs of a word, with blanks between; NULL: there is no such word. */
const char *completion_verbs(const char *word);
bool completion_has_verb(const char *word, const char *verb);
