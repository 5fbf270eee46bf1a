#include "common/base/mark.h"

#include <string.h>

static struct mark *_Atomic all_marks;

void mark_hit(struct mark *mark)
{
    atomic_fetch_add_explicit(&mark->hits, 1, memory_order_relaxed);
    if (!atomic_exchange(&mark->listed, true)) {
        struct mark *first = atomic_load(&all_marks);
        do {
            mark->next = first;
        } while (!atomic_compare_exchange_weak(&all_marks, &first, mark));
    }
}

uint64_t mark_hits(const char *name)
{
    uint64_t hits = 0; /* one name may stand at several places */
    for (struct mark *mark = atomic_load(&all_marks); mark != NULL; mark = mark->next) {
        if (strcmp(mark->name, name) == 0) {
            hits += atomic_load(&mark->hits);
        }
    }
    return hits;
}

void mark_reset_all(void)
{
    for (struct mark *mark = atomic_load(&all_marks); mark != NULL; mark = mark->next) {
        atomic_store(&mark->hits, 0);
    }
}
