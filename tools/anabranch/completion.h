/*
 * completion.h - `anabranch completion bash|zsh|fish`: a script for the shell that knows the words.
 */
#pragma once

#include "common/base/err.h"

NODISCARD err_t completion_print(const char *shell, struct errmsg *msg);
