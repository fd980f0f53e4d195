/* SPDX-License-Identifier: Apache-2.0 */
/* Which of many values a subject has; see the header. Called by policy_index.c and policy_find.c. */
#include "value_lookup.h"

#include <stdlib.h>
#include <string.h>

static struct value *value_new(struct value_lookup *l, size_t size)
{
	struct value *v = calloc(1, size);

	if (v) {
		v->next = l->all;
		l->all = v;
	}
	return v;
}

static struct value *add_exact(struct value_lookup *l, const void *key, size_t len, size_t size)
{
	struct value *v = table_get(&l->exact, key, len);

	if (v)
		return v;
	v = value_new(l, size);
	return v && !table_put(&l->exact, key, len, v, NULL) ? v : NULL;
}

static struct value *add_prefix(struct value_lookup *l, struct trie *t, const void *key, size_t bits, size_t size)
{
	struct value *v;
	void **slot;

	if (trie_slot(t, key, bits, &slot))
		return NULL;
	if (*slot)
		return *slot;
	v = *slot = value_new(l, size);
	if (v)
		v->bits = (unsigned)bits;
	return v;
}

struct value *value_lookup_add(struct value_lookup *l, const struct policy_field *f, size_t i, size_t size)
{
	const struct string_match *m;

	if (f->attribute == ATTRIBUTE_DESTINATION_PORT)
		return add_exact(l, &f->ports[i], sizeof(f->ports[i]), size);
	if (f->attribute == ATTRIBUTE_SOURCE_IP || f->attribute == ATTRIBUTE_DESTINATION_IP)
		return add_prefix(l, &l->prefixes, f->ranges[i].net.b, f->ranges[i].bits, size);
	m = &f->strings[i];
	switch (m->kind) {
	case MATCH_EXACT:
		return add_exact(l, m->text, strlen(m->text), size);
	case MATCH_PREFIX:
		return add_prefix(l, &l->prefixes, m->text, strlen(m->text) * 8, size);
	case MATCH_SUFFIX:
		l->suffixes.backwards = true;
		return add_prefix(l, &l->suffixes, m->text, strlen(m->text) * 8, size);
	default:
		if (!l->present)
			l->present = value_new(l, size);
		return l->present;
	}
}

void value_lookup_done(struct value_lookup *l)
{
	struct value *v = l->all;

	while (v) {
		struct value *next = v->next;

		free(v);
		v = next;
	}
	table_done(&l->exact);
	trie_done(&l->prefixes);
	trie_done(&l->suffixes);
	*l = (struct value_lookup){0};
}

void value_walk_init(struct value_walk *w, const struct value_lookup *l, enum policy_attribute attribute,
		     const struct policy_view *v)
{
	const struct ip_addr *a = attribute == ATTRIBUTE_SOURCE_IP ? &v->subject->source : &v->subject->destination.ip;

	*w = (struct value_walk){.lookup = l};
	if (attribute < POLICY_TEXTS) {
		w->text = true;
		w->bytes = v->texts[attribute].text;
		w->len = v->texts[attribute].len;
	} else if (attribute == ATTRIBUTE_DESTINATION_PORT) {
		w->bytes = &v->subject->destination.port;
		w->len = sizeof(v->subject->destination.port);
	} else {
		w->bytes = a->b;
		w->len = sizeof(a->b);
		w->v4 = ip_addr_is_v4(a);
	}
}

/* The next value of a trie, with the rule of policy_match.c about IPv4. */
static struct value *next_of(struct value_walk *w, const struct trie *t)
{
	struct value *v;

	do
		v = trie_walk_next(&w->trie, t, w->bytes, w->len * 8);
	while (v && w->v4 && v->bits < 96);
	return v;
}

struct value *value_walk_next(struct value_walk *w)
{
	const struct value_lookup *l = w->lookup;
	struct value *v = NULL;

	while (!v && w->bytes) {
		switch (w->stage) {
		case 0:
			v = w->text ? l->present : NULL;
			break;
		case 1:
			v = table_get(&l->exact, w->bytes, w->len);
			trie_walk_init(&w->trie, &l->prefixes);
			break;
		case 2:
			v = next_of(w, &l->prefixes);
			if (v)
				return v;
			trie_walk_init(&w->trie, &l->suffixes);
			break;
		case 3:
			v = next_of(w, &l->suffixes);
			if (v)
				return v;
			break;
		default:
			return NULL;
		}
		w->stage++;
	}
	return v;
}
