/*
 * shared_text.h - texts that many objects have in common, each kept once.
 *
 * A hundred thousand branches have the same few lists of safekeepers. Two equal texts are one
 * pointer for as long as somebody holds a reference. Threads: loop only; who holds one may read it
 * on any thread.
 */
#pragma once

/* NULL counts as empty; the empty text takes no memory. */
const char *shared_text_ref(const char *text);
void shared_text_unref(const char *text); /* NULL is fine */
