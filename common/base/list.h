/*
 * list.h - intrusive doubly linked list: embed a `struct list_link`, come back with CONTAINER_OF.
 *
 * A zeroed link is "in no list". The head must be initialised.
 */
#pragma once

#include "common/base/assert.h"

struct list_link {
    struct list_link *next, *prev;
};

struct list {
    struct list_link head;
};

static inline void list_init(struct list *list)
{
    list->head.next = list->head.prev = &list->head;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->head.next == &list->head;
}

static inline bool list_link_is_in(const struct list_link *link)
{
    return link->next != NULL;
}

static inline void list_push_back(struct list *list, struct list_link *link)
{
    ASSERT(!list_link_is_in(link));
    link->prev = list->head.prev;
    link->next = &list->head;
    link->prev->next = link;
    list->head.prev = link;
}

static inline void list_push_front(struct list *list, struct list_link *link)
{
    ASSERT(!list_link_is_in(link));
    link->prev = &list->head;
    link->next = list->head.next;
    link->next->prev = link;
    list->head.next = link;
}

/* Removing a link that is in no list is fine. */
static inline void list_remove(struct list_link *link)
{
    if (list_link_is_in(link)) {
        link->prev->next = link->next;
        link->next->prev = link->prev;
        link->next = link->prev = NULL;
    }
}

static inline struct list_link *list_first(const struct list *list)
{
    return list_is_empty(list) ? NULL : list->head.next;
}

static inline struct list_link *list_pop_front(struct list *list)
{
    struct list_link *first = list_first(list);
    if (first != NULL) {
        list_remove(first);
    }
    return first;
}

/* All of `from`, in their order, behind what `to` has. */
static inline void list_move_all(struct list *from, struct list *to)
{
    for (struct list_link *link; (link = list_pop_front(from)) != NULL;) {
        list_push_back(to, link);
    }
}

/* The body may remove `item` itself. */
#define LIST_FOR_EACH(list, item)                                                                  \
    for (struct list_link *item = (list)->head.next, *item##_next = item->next;                    \
         item != &(list)->head; item = item##_next, item##_next = item->next)
