/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a policy check costs: sets of 1 to 10,000 policies of 10 rules all on one workload, asked by peers that a rule
 * names, by peers that none does, and where every rule negates what everybody has. Prints JSON: nanoseconds, each
 * sample one check with its own peer. Called by bench.py, `policy_bench [SAMPLES]`.
 */
#include "engine/model/policy.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RULES 10
/* More than any cache of the machine holds what their look-ups touch; the verdict cache is asked about some. */
#define PEERS 16384
#define CACHED_PEERS 1024

enum mix { MIX_USUAL, MIX_SHARED, MIX_ONLY_NOT };

static uint64_t seed = 1;

static uint32_t below(uint32_t limit)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 32) * limit >> 32);
}

static void *array(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		abort();
	return p;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((format(printf, 1, 2))) static char *text(const char *format, ...)
{
	char *s;
	va_list ap;

	va_start(ap, format);
	if (vasprintf(&s, format, ap) < 0)
		abort();
	va_end(ap);
	return s;
}

static struct policy_field *add_field(struct policy_rule *r, enum policy_attribute attribute, bool negate)
{
	struct policy_group *g;
	struct policy_field *f = array(1, sizeof(*f));

	r->groups = realloc(r->groups, (r->n_groups + 1) * sizeof(*r->groups));
	if (!r->groups)
		abort();
	g = &r->groups[r->n_groups++];
	g->n_clauses = 1;
	g->clauses = array(1, sizeof(*g->clauses));
	g->clauses->n_fields = 1;
	g->clauses->fields = f;
	f->attribute = attribute;
	f->negate = negate;
	f->path = text("rules[].from[0].source");
	return f;
}

static void add_string(struct policy_rule *r, enum policy_attribute attribute, bool negate, enum match_kind kind,
		       char *value)
{
	struct policy_field *f = add_field(r, attribute, negate);

	f->n_strings = 1;
	f->strings = array(1, sizeof(*f->strings));
	*f->strings = (struct string_match){kind, value};
}

static void add_port(struct policy_rule *r, uint16_t port)
{
	struct policy_field *f = add_field(r, ATTRIBUTE_DESTINATION_PORT, false);

	f->n_ports = 1;
	f->ports = array(1, sizeof(*f->ports));
	*f->ports = port;
}

static void add_range(struct policy_rule *r)
{
	struct policy_field *f = add_field(r, ATTRIBUTE_SOURCE_IP, false);

	f->n_ranges = 1;
	f->ranges = array(1, sizeof(*f->ranges));
	f->ranges->net = (struct ip_addr){{[10] = 0xff, 0xff, 10, (uint8_t)below(256), (uint8_t)below(256), 0}};
	f->ranges->bits = 96 + 16 + below(9);
	ip_addr_mask(&f->ranges->net, f->ranges->bits);
}

/* 60 % exact principal, 15 % namespace, 10 % address range, 10 % prefix or suffix, 5 % negations alone. */
static void usual_rule(struct policy_rule *r)
{
	uint32_t of100 = below(100), n = below(60000);

	if (of100 < 60)
		add_string(r, ATTRIBUTE_PRINCIPAL, false, MATCH_EXACT,
			   text("cluster.local/ns/team-%u/sa/service-%u", n % 500, n));
	else if (of100 < 75)
		add_string(r, ATTRIBUTE_NAMESPACE, false, MATCH_EXACT, text("space-%u", n % 2000));
	else if (of100 < 85)
		add_range(r);
	else if (of100 < 90)
		add_string(r, ATTRIBUTE_PRINCIPAL, false, MATCH_PREFIX, text("cluster.local/ns/group-%u/", n));
	else if (of100 < 95)
		add_string(r, ATTRIBUTE_PRINCIPAL, false, MATCH_SUFFIX, text("/sa/job-%u", n));
	else
		add_string(r, ATTRIBUTE_PRINCIPAL, true, MATCH_PRESENCE, text("%s", ""));
	if (below(2))
		add_port(r, (uint16_t)(8000 + below(8)));
}

/* Everybody has the one field, nobody the others. */
static void shared_rule(struct policy_rule *r)
{
	add_string(r, ATTRIBUTE_NAMESPACE, false, MATCH_EXACT, text("absent"));
	add_string(r, ATTRIBUTE_TRUST_DOMAIN, false, MATCH_EXACT, text("cluster.local"));
	add_string(r, ATTRIBUTE_PRINCIPAL, true, MATCH_EXACT, text("cluster.local/ns/x/sa/y-%u", below(60000)));
}

static void only_not_rule(struct policy_rule *r)
{
	add_string(r, ATTRIBUTE_NAMESPACE, true, MATCH_EXACT, text("space-%u", below(2000)));
	add_string(r, ATTRIBUTE_PRINCIPAL, true, MATCH_PRESENCE, text("%s", ""));
}

static struct policy *make_policy(unsigned number, enum mix mix)
{
	struct policy *p = policy_new();

	if (!p)
		abort();
	p->namespace_ = text("bench");
	p->name = text("policy-%05u", number);
	p->action = number % 4 ? POLICY_ALLOW : POLICY_DENY;
	p->n_rules = RULES;
	p->rules = array(RULES, sizeof(*p->rules));
	for (int i = 0; i < RULES; i++)
		(mix == MIX_USUAL ? usual_rule : mix == MIX_SHARED ? shared_rule : only_not_rule)(&p->rules[i]);
	return p;
}

static size_t in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Samples of one way to ask; `peers` different ones in turn. */
static void measure(const char *name, struct policy_cache *cache, const struct policy_set *s,
		    const struct policy_subject *peers, size_t n_peers, size_t samples)
{
	uint64_t *took = array(samples, sizeof(*took));
	struct policy_verdict v;
	size_t allowed = 0;

	for (size_t i = 0; i < samples + n_peers; i++) {
		const struct policy_subject *p = &peers[i % n_peers];
		uint64_t start = now();

		if (cache)
			policy_cache_evaluate(cache, s, p, &v);
		else
			policy_evaluate(s, p, &v);
		/* The first round meets cold memory, as nothing in service does. */
		if (i >= n_peers)
			took[i - n_peers] = now() - start;
		allowed += v.allow;
	}
	qsort(took, samples, sizeof(*took), by_size);
	printf("\"%s\": {\"p50\": %lu, \"p99\": %lu, \"worst\": %lu, \"allowed\": %.2f}", name, took[samples / 2],
	       took[samples * 99 / 100], took[samples - 1], (double)allowed / (double)(samples + n_peers));
	free(took);
}

static void make_peers(struct policy_subject *peers, bool named)
{
	for (size_t i = 0; i < PEERS; i++) {
		uint32_t n = below(60000);

		peers[i].identity = named ? text("spiffe://cluster.local/ns/team-%u/sa/service-%u", n % 500, n)
					  : text("spiffe://cluster.local/ns/nobody-%u/sa/nothing-%u", n % 7, n);
		peers[i].source = (struct ip_addr){{[10] = 0xff,
						    0xff,
						    named ? 10 : 172,
						    (uint8_t)below(256),
						    (uint8_t)below(256),
						    (uint8_t)below(256)}};
		peers[i].destination =
			(struct ip_port){{{[10] = 0xff, 0xff, 10, 1, 2, 3}}, (uint16_t)(8000 + below(16))};
	}
}

static void one_set(const char *name, enum mix mix, unsigned n_policies, size_t samples, bool last)
{
	struct policy **policies = array(n_policies, sizeof(struct policy *));
	static struct policy_subject named[PEERS], strangers[PEERS];
	struct policy_cache *cache = policy_cache_new(4 * CACHED_PEERS);
	struct policy_set *s;
	uint64_t start;
	size_t before;

	for (unsigned i = 0; i < n_policies; i++)
		policies[i] = make_policy(i, mix);
	make_peers(named, true);
	make_peers(strangers, false);
	before = in_use();
	start = now();
	if (!cache || policy_set_new(policies, n_policies, NULL, 0, L7_DENY_MATCHES, &s))
		abort();
	printf("{\"mix\": \"%s\", \"policies\": %u, \"compile_ms\": %.2f, \"bytes_per_rule\": %zu, ", name, n_policies,
	       (double)(now() - start) / 1e6, (in_use() - before) / n_policies / RULES);
	measure("named", NULL, s, named, PEERS, samples);
	printf(", ");
	measure("strangers", NULL, s, strangers, PEERS, samples);
	printf(", ");
	measure("cached", cache, s, named, CACHED_PEERS, samples);
	printf("}%s\n", last ? "" : ",");
	policy_set_unref(s);
	policy_cache_free(cache);
	for (unsigned i = 0; i < n_policies; i++)
		policy_unref(policies[i]);
	free(policies);
	for (size_t i = 0; i < PEERS; i++) {
		free((char *)named[i].identity);
		free((char *)strangers[i].identity);
	}
}

int main(int argc, char **argv)
{
	size_t samples = argc > 1 ? (size_t)atol(argv[1]) : 100000;

	printf("[\n");
	for (unsigned n = 1; n <= 10000; n *= 10)
		one_set("usual", MIX_USUAL, n, samples, false);
	one_set("shared field", MIX_SHARED, 10000, samples, false);
	one_set("only not", MIX_ONLY_NOT, 10000, samples, true);
	printf("]\n");
	return 0;
}
