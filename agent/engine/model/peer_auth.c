/* SPDX-License-Identifier: Apache-2.0 */
/* Which of a workload's PeerAuthentications counts: the port's word, then the workload's, the namespace's, the mesh's;
 * the oldest of a level. The list comes in, the mode and its origin leave; called by policy_set.c and, for people,
 * by source/policy_dump.c. */
#include "policy_private.h"
#include "engine/base/cleanup.h"

#include <string.h>
#include <time.h>

/* RFC 3339 5.6 as seconds; INT64_MAX, newest, for what is missing or is no time. */
static int64_t created_at(const char *text)
{
	struct tm tm = {0};
	const char *at = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
	int hours, minutes, end = 0;
	int64_t offset;
	char sign;

	if (!at)
		return INT64_MAX;
	if (*at == '.')
		at += 1 + strspn(at + 1, "0123456789");
	if (!strcmp(at, "Z"))
		return timegm(&tm);
	if (sscanf(at, "%c%2d:%2d%n", &sign, &hours, &minutes, &end) != 3 || at[end] || (sign != '+' && sign != '-'))
		return INT64_MAX;
	offset = hours * 3600 + minutes * 60;
	return timegm(&tm) - (sign == '+' ? offset : -offset);
}

bool peer_auth_wins(const struct peer_auth *a, const struct peer_auth *b)
{
	int64_t at = created_at(a->created), bt = created_at(b->created);
	int order;

	if (at != bt)
		return at < bt;
	order = strcmp(a->namespace_, b->namespace_);
	return (order ? order : strcmp(a->name, b->name)) < 0;
}

/* Mutual TLS is never switched off here: DISABLE says as much as PERMISSIVE. */
static enum mtls_mode effective(enum mtls_mode mode)
{
	return mode == MTLS_DISABLE ? MTLS_PERMISSIVE : mode;
}

static int by_port(const void *a, const void *b)
{
	return (int)((const struct mtls_port *)a)->port - (int)((const struct mtls_port *)b)->port;
}

/* The ports of the workload's own that say something else than the mode. */
static int resolve_ports(struct peer_auth_result *r)
{
	const struct peer_auth *w = r->workload;

	if (!w || !w->n_ports)
		return 0;
	r->ports = calloc(w->n_ports, sizeof(*r->ports));
	if (!r->ports)
		return -ENOMEM;
	for (size_t i = 0; i < w->n_ports; i++) {
		enum mtls_mode mode = effective(w->ports[i].mode);

		if (mode != MTLS_UNSET && mode != r->mode)
			r->ports[r->n_ports++] = (struct mtls_port){w->ports[i].port, mode};
	}
	qsort(r->ports, r->n_ports, sizeof(*r->ports), by_port);
	return 0;
}

int peer_auth_resolve(struct peer_auth *const *list, size_t n, struct peer_auth_result *ret)
{
	const struct peer_auth *winner[SCOPE_WORKLOAD + 1] = {0};
	struct peer_auth_result r = {.mode = MTLS_PERMISSIVE};
	int e;

	for (size_t i = 0; i < n; i++) {
		const struct peer_auth **slot = list[i]->closed ? &r.closed : &winner[list[i]->scope];

		if (!*slot || peer_auth_wins(list[i], *slot))
			*slot = list[i];
	}
	/* From the mesh inwards: whoever says something speaks over those before. */
	for (int level = SCOPE_MESH; level <= SCOPE_WORKLOAD; level++) {
		if (winner[level] && winner[level]->mode != MTLS_UNSET) {
			r.mode = effective(winner[level]->mode);
			r.mode_from = winner[level];
		}
	}
	r.workload = winner[SCOPE_WORKLOAD];
	e = resolve_ports(&r);
	if (e)
		return e;
	*ret = r;
	return 0;
}
