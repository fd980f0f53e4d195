/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked list. A node that is not on a list points at itself. No implementation file. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}
static inline void list_insert_(struct list *n, struct list *prev, struct list *next)
{
	n->prev = prev;
	n->next = next;
	prev->next = n;
	next->prev = n;
}
/* Adds at the end of the list. */
static inline void list_append(struct list *head, struct list *n)
{
	list_insert_(n, head->prev, head);
}
/* Takes a node off whatever list it is on; harmless for one that is on none. */
static inline void list_remove(struct list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	list_init(n);
}
/* Moves all nodes of `from` to the end of `to`; `from` is empty afterwards. */
static inline void list_splice(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}
#define list_entry(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define list_foreach(n, head) for (struct list *n = (head)->next; n != (head); n = n->next)
/* Allows removing (and freeing) n inside the body. */
#define list_foreach_safe(n, tmp, head)                                                                                \
	for (struct list *n = (head)->next, *tmp = n->next; n != (head); n = tmp, tmp = n->next)
