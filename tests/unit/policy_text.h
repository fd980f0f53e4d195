/* SPDX-License-Identifier: Apache-2.0 */
/* Policies written in one line, for tests. */
#pragma once
#include "engine/base/cleanup.h"
#include "engine/model/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* Values, fields, clauses, groups, rules: of each at most. */
#define MAX 32

static inline char *copy(const char *text)
{
	char *s = strdup(text);

	assert_non_null(s);
	return s;
}

/* Cuts the next piece off a text, without spaces around it; NULL at the end. */
static inline char *cut(char **text, const char *separator)
{
	char *piece = strsep(text, separator), *end;

	if (!piece)
		return NULL;
	piece += strspn(piece, " ");
	for (end = piece + strlen(piece); end > piece && end[-1] == ' ';)
		*--end = 0;
	return piece;
}

static inline void *room(size_t n, size_t size)
{
	void *p = calloc(n, size);

	assert_non_null(p);
	return p;
}

static inline struct string_match match(char *value)
{
	size_t n = strlen(value);

	if (!strcmp(value, "*"))
		return (struct string_match){MATCH_PRESENCE, copy("")};
	if (value[0] == '*')
		return (struct string_match){MATCH_SUFFIX, copy(value + 1)};
	if (value[n - 1] == '*') {
		value[n - 1] = 0;
		return (struct string_match){MATCH_PREFIX, copy(value)};
	}
	return (struct string_match){MATCH_EXACT, copy(value)};
}

/* "principal=a,b*" or "!ip=10.0.0.0/8" */
static inline void make_field(struct policy_field *f, char *text)
{
	static const char *const names[] = {"principal", "ns", "sa", "td", "ip", "dip", "port", "l7"};
	char *name, *value;
	size_t a = 0;

	f->path = copy(text);
	f->negate = text[0] == '!';
	name = strsep(&text, "=") + f->negate;
	while (strcmp(name, names[a]))
		assert_true(++a < ARRAY_SIZE(names));
	f->attribute = a;
	f->strings = room(MAX, sizeof(*f->strings));
	f->ranges = room(MAX, sizeof(*f->ranges));
	f->ports = room(MAX, sizeof(*f->ports));
	while ((value = cut(&text, ","))) {
		if (a == ATTRIBUTE_DESTINATION_PORT) {
			f->ports[f->n_ports++] = (uint16_t)atoi(value);
		} else if (a == ATTRIBUTE_SOURCE_IP || a == ATTRIBUTE_DESTINATION_IP) {
			struct ip_range *r = &f->ranges[f->n_ranges++];

			assert_int_equal(ip_cidr_parse(value, &r->net, &r->bits), 0);
		} else {
			f->strings[f->n_strings++] = match(value);
		}
	}
}

/* Groups parted by ';', clauses by '|', fields by '&'; "any" is a rule without groups. */
static inline void make_rule(struct policy_rule *r, char *text)
{
	char *group, *clause, *field;

	if (!strcmp(text, "any"))
		return;
	r->groups = room(MAX, sizeof(*r->groups));
	while ((group = cut(&text, ";"))) {
		struct policy_group *g = &r->groups[r->n_groups++];

		g->clauses = room(MAX, sizeof(*g->clauses));
		while ((clause = cut(&group, "|"))) {
			struct policy_clause *c = &g->clauses[g->n_clauses++];

			c->fields = room(MAX, sizeof(*c->fields));
			while ((field = cut(&clause, "&")))
				make_field(&c->fields[c->n_fields++], field);
		}
	}
}

/* "NAME ACTION [dry] [waypoint] [closed]: rule + rule" */
static inline struct policy *make_policy(const char *from)
{
	_cleanup_free_ char *all = copy(from);
	static const char *const actions[] = {"ALLOW", "DENY", "AUDIT", "CUSTOM"};
	char *rules = all, *head = strsep(&rules, ":"), *word, *rule;
	struct policy *p = policy_new();

	assert_non_null(p);
	p->namespace_ = copy("foo");
	p->name = copy(cut(&head, " "));
	word = cut(&head, " ");
	while (strcmp(word, actions[p->action]))
		assert_true(++p->action < ARRAY_SIZE(actions));
	while ((word = cut(&head, " "))) {
		p->dry_run |= !strcmp(word, "dry");
		p->target_ref |= !strcmp(word, "waypoint");
		p->closed |= !strcmp(word, "closed");
	}
	p->rules = room(MAX, sizeof(*p->rules));
	while ((rule = cut(&rules, "+")))
		make_rule(&p->rules[p->n_rules++], rule);
	return p;
}

/* "NAME SCOPE MODE CREATED|- [PORT=MODE]..." */
static inline struct peer_auth *make_auth(const char *from)
{
	static const char *const modes[] = {"UNSET", "DISABLE", "PERMISSIVE", "STRICT"};
	static const char *const scopes[] = {"mesh", "namespace", "workload"};
	_cleanup_free_ char *all = copy(from);
	struct peer_auth *a = peer_auth_new();
	char *rest = all, *word;

	assert_non_null(a);
	a->namespace_ = copy("foo");
	a->name = copy(cut(&rest, " "));
	word = cut(&rest, " ");
	while (strcmp(word, scopes[a->scope]))
		assert_true(++a->scope < ARRAY_SIZE(scopes));
	word = cut(&rest, " ");
	a->closed = !strcmp(word, "closed");
	while (!a->closed && strcmp(word, modes[a->mode]))
		assert_true(++a->mode < ARRAY_SIZE(modes));
	word = cut(&rest, " ");
	a->created = strcmp(word, "-") ? copy(word) : NULL;
	a->ports = room(MAX, sizeof(*a->ports));
	while ((word = cut(&rest, " "))) {
		struct mtls_port *p = &a->ports[a->n_ports++];

		p->port = (uint16_t)atoi(strsep(&word, "="));
		while (strcmp(word, modes[p->mode]))
			assert_true(++p->mode < ARRAY_SIZE(modes));
	}
	return a;
}
