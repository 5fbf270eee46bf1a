#include "control/api/text_diff.h"

#include <string.h>

#include "common/base/assert.h"
#include "common/base/mem.h"

#define CONTEXT_LINES 3

struct line {
    const char *text;
    size_t size;
};

struct lines {
    struct line *line;
    size_t count;
};

/* What becomes of the lines: from both sides in order. */
struct edits {
    bool *removed, *added; /* by line of the old and of the new text */
};

static struct lines cut(const char *text)
{
    struct lines lines = {0};
    size_t capacity = 0;
    while (*text != '\0') {
        size_t size = strcspn(text, "\n");
        if (lines.count == capacity) {
            capacity = capacity == 0 ? 256 : 2 * capacity;
            lines.line = mem_realloc(lines.line, capacity * sizeof(struct line));
        }
        lines.line[lines.count++] = (struct line){.text = text, .size = size};
        text += size + (text[size] == '\n');
    }
    return lines;
}

static bool same(const struct line *a, const struct line *b)
{
    return a->size == b->size && memcmp(a->text, b->text, a->size) == 0;
}

/*
 * furthest[k] after d edits: how far one gets in the old text on the diagonal k = old - new. The
 * rounds are kept, so that the way can be walked back from the end.
 */
struct search {
    const struct line *old_lines, *new_lines;
    int old_count, new_count;
    int *rounds[DIFF_EDITS_MAX + 1]; /* round d has 2d + 1 entries, for k = -d..d */
};

static int reach(const struct search *search, int d, int k)
{
    return search->rounds[d][k + d];
}

/* Where the d-th edit leads to on diagonal k, and whether it removes a line of the old text. */
static int step(const struct search *search, int d, int k, bool *ret_removes)
{
    const int *before = search->rounds[d - 1] + (d - 1);
    bool from_below = k == -d || (k != d && before[k - 1] < before[k + 1]);
    *ret_removes = !from_below;
    return from_below ? before[k + 1] : before[k - 1] + 1;
}

static int slide(const struct search *search, int old, int k)
{
    while (old < search->old_count && old - k < search->new_count &&
           same(&search->old_lines[old], &search->new_lines[old - k])) {
        old++;
    }
    return old;
}

/* The number of edits; -1: more than the limit. */
static int find(struct search *search)
{
    for (int d = 0; d <= DIFF_EDITS_MAX; d++) {
        search->rounds[d] = mem_zalloc((size_t)(2 * d + 1) * sizeof(int));
        for (int k = -d; k <= d; k += 2) {
            bool removes = false;
            int old = d == 0 ? 0 : step(search, d, k, &removes);
            if (old > search->old_count || old - k > search->new_count) {
                search->rounds[d][k + d] = old; /* outside: no way from here */
                continue;
            }
            old = slide(search, old, k);
            search->rounds[d][k + d] = old;
            if (old == search->old_count && old - k == search->new_count) {
                return d;
            }
        }
    }
    return -1;
}

static void walk_back(const struct search *search, int d, const struct edits *edits)
{
    int k = search->old_count - search->new_count;
    for (; d > 0; d--) {
        bool removes = false;
        int old = step(search, d, k, &removes);
        ASSERT(old <= reach(search, d, k));
        if (removes) {
            edits->removed[old - 1] = true;
            k--;
        } else {
            edits->added[old - k - 1] = true;
            k++;
        }
    }
}

static void decide(const struct lines *from, const struct lines *into, const struct edits *edits)
{
    size_t head = 0, tail = 0, least = from->count < into->count ? from->count : into->count;
    while (head < least && same(&from->line[head], &into->line[head])) {
        head++;
    }
    while (tail < least - head &&
           same(&from->line[from->count - 1 - tail], &into->line[into->count - 1 - tail])) {
        tail++;
    }
    struct search *search = MEM_NEW(struct search);
    struct edits rest = {.removed = edits->removed + head, .added = edits->added + head};
    search->old_lines = from->line + head;
    search->new_lines = into->line + head;
    search->old_count = (int)(from->count - head - tail);
    search->new_count = (int)(into->count - head - tail);
    int d = find(search);
    if (d >= 0) {
        walk_back(search, d, &rest);
    } else {
        memset(rest.removed, true, (size_t)search->old_count);
        memset(rest.added, true, (size_t)search->new_count);
    }
    for (int i = 0; i <= DIFF_EDITS_MAX; i++) {
        mem_free(search->rounds[i]);
    }
    mem_free(search);
}

/* ---- printing ---- */

struct printer {
    const struct lines *from, *into;
    const struct edits *edits;
    struct buf *to;
};

static bool is_removed(const struct printer *printer, size_t old)
{
    return old < printer->from->count && printer->edits->removed[old];
}

static bool is_added(const struct printer *printer, size_t new)
{
    return new < printer->into->count && printer->edits->added[new];
}

static void print_line(const struct printer *printer, char sign, const struct line *line)
{
    buf_printf(printer->to, "%c%.*s\n", sign, (int)line->size, line->text);
}

/* Lines until as many are the same on both sides that the hunk ends. Prints when `print`. */
static void hunk(const struct printer *printer, size_t *old, size_t *new, bool print)
{
    size_t same_lines = 0;
    while (*old < printer->from->count || *new < printer->into->count) {
        if (is_removed(printer, *old)) {
            same_lines = 0;
            if (print) {
                print_line(printer, '-', &printer->from->line[*old]);
            }
            (*old)++;
        } else if (is_added(printer, *new)) {
            same_lines = 0;
            if (print) {
                print_line(printer, '+', &printer->into->line[*new]);
            }
            (*new)++;
        } else {
            size_t ahead = 0; /* is there another change within reach? */
            while (ahead + same_lines < 2 * CONTEXT_LINES && *old + ahead < printer->from->count &&
                   !is_removed(printer, *old + ahead) && !is_added(printer, *new + ahead)) {
                ahead++;
            }
            bool goes_on = is_removed(printer, *old + ahead) || is_added(printer, *new + ahead);
            if (!goes_on && same_lines == CONTEXT_LINES) {
                return;
            }
            if (print) {
                print_line(printer, ' ', &printer->from->line[*old]);
            }
            same_lines++;
            (*old)++;
            (*new)++;
            if (!goes_on && same_lines == CONTEXT_LINES) {
                return;
            }
        }
    }
}

static void print_range(struct buf *to, char sign, size_t begin, size_t count)
{
    buf_printf(to, "%c%zu", sign, count == 0 ? begin : begin + 1);
    if (count != 1) {
        buf_printf(to, ",%zu", count);
    }
}

static void print_hunks(const struct printer *printer)
{
    size_t old = 0, new = 0;
    while (old < printer->from->count || new < printer->into->count) {
        if (!is_removed(printer, old) && !is_added(printer, new)) {
            old++;
            new ++;
            continue;
        }
        size_t lead = old < new ? old : new;
        lead = lead < CONTEXT_LINES ? lead : CONTEXT_LINES;
        size_t old_begin = old - lead, new_begin = new - lead, old_end = old_begin,
               new_end = new_begin;
        old_end = old, new_end = new;
        hunk(printer, &old_end, &new_end, false);
        buf_printf(printer->to, "@@ ");
        print_range(printer->to, '-', old_begin, old_end - old_begin);
        buf_printf(printer->to, " ");
        print_range(printer->to, '+', new_begin, new_end - new_begin);
        buf_printf(printer->to, " @@\n");
        for (size_t i = 0; i < lead; i++) {
            print_line(printer, ' ', &printer->from->line[old_begin + i]);
        }
        hunk(printer, &old, &new, true);
    }
}

void text_diff(
    const char *old_text,
    const char *new_text,
    const char *old_name,
    const char *new_name,
    struct buf *to)
{
    if (strcmp(old_text, new_text) == 0) {
        return;
    }
    struct lines from = cut(old_text), into = cut(new_text);
    struct edits edits = {
        .removed = mem_zalloc(from.count + 1), .added = mem_zalloc(into.count + 1)};
    struct printer printer = {.from = &from, .into = &into, .edits = &edits, .to = to};
    decide(&from, &into, &edits);
    buf_printf(to, "--- %s\n+++ %s\n", old_name, new_name);
    print_hunks(&printer);
    mem_free(edits.removed);
    mem_free(edits.added);
    mem_free(from.line);
    mem_free(into.line);
}
