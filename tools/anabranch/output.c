#include "tools/anabranch/output.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"

static bool yaml;

void output_use_yaml(void)
{
    yaml = true;
}

/* An object or array that has no members, or no container: as in JSON, which is YAML too. */
static bool is_flat(const struct doc *doc)
{
    return doc_count(doc) == 0 && (!doc_is_object(doc) || doc_iter_first(doc) == NULL);
}

/* Texts stay in quotes: none is then taken for a number, a date or a "no". */
static void print_flat(const struct doc *doc, struct buf *to)
{
    doc_print(doc, false, to);
    buf_printf(to, "\n");
}

#define YAML_DEPTH_MAX 32 /* below, it goes on as JSON */

static void print_yaml(const struct doc *doc, unsigned depth, bool in_line, struct buf *to)
{
    int indent = (int)(2 * depth);
    if (is_flat(doc) || depth >= YAML_DEPTH_MAX) {
        print_flat(doc, to);
        return;
    }
    for (size_t i = 0; i < doc_count(doc); i++) {
        buf_printf(to, "%*s- ", in_line && i == 0 ? 0 : indent, "");
        print_yaml(doc_at(doc, i), depth + 1, true, to); // NOLINT(misc-no-recursion): bounded
    }
    DOC_FOR_EACH(doc, key, value)
    {
        buf_printf(to, "%*s%s:", in_line ? 0 : indent, "", key);
        in_line = false;
        buf_printf(to, is_flat(value) ? " " : "\n");
        print_yaml(value, depth + 1, false, to); // NOLINT(misc-no-recursion): bounded
    }
}

void output_json(const struct doc *doc)
{
    struct buf text = {0};
    if (yaml) {
        print_yaml(doc, 0, false, &text);
        printf("%s", buf_cstr(&text));
    } else {
        doc_print(doc, true, &text);
        printf("%s\n", buf_cstr(&text));
    }
    buf_deinit(&text);
}

/* Other people choose names: what a terminal would obey, and the end of a line, is shown as `?`. */
static void print_text(const char *text, struct buf *to)
{
    while (*text != '\0') {
        size_t control = str_control(text);
        buf_append(to, control > 0 ? "?" : text, 1);
        text += control > 0 ? control : 1;
    }
}

/* The member as a text; "" when it is absent. */
static void print_value(const struct doc *value, struct buf *to)
{
    const char *text = doc_value_str(value);
    if (text != NULL) {
        print_text(text, to);
    } else if (value != NULL && !doc_is_null(value)) {
        doc_print(value, false, to);
    }
}

static void print_member(const struct doc *object, const char *path, struct buf *to)
{
    const struct doc *value = object;
    char name[64];
    while (path[0] != '\0' && value != NULL) {
        size_t size = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)size, path);
        value = doc_get(value, name);
        path += size + (path[size] == '.');
    }
    print_value(value, to);
}

void output_table(const struct doc *array, const char *const *columns, size_t count)
{
    ASSERT(count > 0);
    size_t rows = doc_count(array) + 1; /* with the titles */
    struct buf *cells = MEM_ARRAY(struct buf, rows * count);
    size_t *widths = MEM_ARRAY(size_t, count);
    for (size_t i = 0; i < rows * count; i++) {
        const char *column = columns[i % count];
        size_t title_size = strcspn(column, "=");
        if (i < count) {
            buf_append(&cells[i], column, title_size);
        } else {
            print_member(doc_at(array, i / count - 1), column + title_size + 1, &cells[i]);
        }
        widths[i % count] = MAX_OF(widths[i % count], cells[i].size);
    }
    for (size_t i = 0; i < rows * count; i++) {
        bool last = i % count == count - 1;
        if (last) {
            printf("%s\n", buf_cstr(&cells[i]));
        } else {
            printf("%-*s  ", (int)widths[i % count], buf_cstr(&cells[i]));
        }
        buf_deinit(&cells[i]);
    }
    mem_free(cells);
    mem_free(widths);
}

void output_line(const char *title, const char *value)
{
    printf("%-14s  %s\n", title, value);
}

void output_object(const struct doc *object, const char *const *columns, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct buf text = {0};
        char title[32];
        size_t title_size = strcspn(columns[i], "=");
        snprintf(title, sizeof title, "%.*s", (int)title_size, columns[i]);
        print_member(object, columns[i] + title_size + 1, &text);
        if (text.size > 0) {
            output_line(title, buf_cstr(&text));
        }
        buf_deinit(&text);
    }
}

void output_progress(const char *format, ...)
{
    if (isatty(STDERR_FILENO) == 0) {
        return;
    }
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
}
