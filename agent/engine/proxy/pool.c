/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tunnels of a pod by (source address, accepted destination identity, next hop). One per key; another when the first is
 * at its stream limit, but none beside one that allows no stream at all. A key belongs to one worker, so look-ups need
 * no lock; while that one is saturated the others dial tunnels of their own. Called by outbound.c and tunnel.c.
 */
#include "worker.h"
#include "engine/base/cleanup.h"

#include <errno.h>
#include <string.h>

/* Source address, next hop, identity: fixed parts first, so that no two keys can run into each other. */
static size_t make_key(const struct workload *dst, const struct ip_port *next_hop, const struct ip_port *client,
		       char key[POOL_KEY_MAX])
{
	size_t id = strlen(dst->identity), n = 0;

	memcpy(key + n, client->ip.b, 16);
	n += 16;
	memcpy(key + n, next_hop->ip.b, 16);
	n += 16;
	memcpy(key + n, &next_hop->port, 2);
	n += 2;
	if (n + id > POOL_KEY_MAX)
		return 0;
	memcpy(key + n, dst->identity, id);
	return n + id;
}

static bool is_saturated(const struct worker *w)
{
	return loop_busy_percent(w->loop) >= LIMIT_WORKER_BUSY_PERCENT;
}

unsigned pool_worker(const struct pod *p, const struct workload *dst, const struct ip_port *next_hop,
		     const struct ip_port *client)
{
	char key[POOL_KEY_MAX];
	unsigned owner = table_hash(key, make_key(dst, next_hop, client, key)) % p->w->e->n_workers;

	/* Whoever accepted the connection had time for it. */
	return is_saturated(&p->w->e->workers[owner]) && !is_saturated(p->w) ? p->w->index : owner;
}

static bool has_room(const struct tunnel *t)
{
	uint32_t limit = LIMIT_STREAMS_BEFORE_SETTINGS;

	if (t->goaway || t->state == TUNNEL_CLOSED || tunnel_life_over(t))
		return false;
	if (t->state == TUNNEL_READY) {
		limit = h2_max_streams(t->h2);
		limit = limit < LIMIT_STREAMS_PER_TUNNEL ? limit : LIMIT_STREAMS_PER_TUNNEL;
	}
	return t->n_conns < limit;
}

static bool allows_none(const struct tunnel *t)
{
	return t->state == TUNNEL_READY && !h2_max_streams(t->h2) && !tunnel_life_over(t);
}

/* The tunnel of this key for one more connection, NULL when there is to be another. */
static struct tunnel *choose(const struct pool_entry *e)
{
	struct tunnel *waiting = NULL;

	list_foreach(n, &e->tunnels) {
		struct tunnel *t = list_entry(n, struct tunnel, pool_node);

		if (has_room(t))
			return t;
		if (allows_none(t))
			waiting = t;
	}
	return waiting;
}

static struct pool_entry *entry_get(struct pod *p, const char *key, size_t len)
{
	struct pool_entry *e = table_get(&p->pool, key, len);

	if (e)
		return e;
	e = malloc(sizeof(*e) + len);
	if (!e)
		return NULL;
	list_init(&e->tunnels);
	e->key_len = len;
	memcpy(e->key, key, len);
	if (table_put(&p->pool, e->key, len, e, NULL)) {
		free(e);
		return NULL;
	}
	return e;
}

int pool_get(struct pod *p, const struct workload *dst, const struct ip_port *next_hop, const struct ip_port *client,
	     struct tunnel **ret)
{
	char key[POOL_KEY_MAX];
	size_t len = make_key(dst, next_hop, client, key);
	struct pool_entry *e = len ? entry_get(p, key, len) : NULL;
	struct tunnel *t;
	int r;

	if (!e)
		return len ? -ENOMEM : -ENAMETOOLONG;
	t = choose(e);
	if (t) {
		*ret = t;
		return 0;
	}
	r = tunnel_dial(p, client, next_hop, dst->identity, &t);
	if (r < 0) {
		if (list_empty(&e->tunnels)) {
			table_del(&p->pool, e->key, e->key_len);
			free(e);
		}
		return r;
	}
	t->pool = e;
	list_append(&e->tunnels, &t->pool_node);
	*ret = t;
	return 0;
}

void pool_remove(struct tunnel *t)
{
	struct pool_entry *e = t->pool;

	if (!e)
		return;
	t->pool = NULL;
	list_remove(&t->pool_node);
	if (!list_empty(&e->tunnels))
		return;
	table_del(&t->pod->pool, e->key, e->key_len);
	free(e);
}
