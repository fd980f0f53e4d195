/* SPDX-License-Identifier: Apache-2.0 */
/* Whose an address is, and what that means for an identity that comes from there, in each mode. */
#include "engine/model/binding.h"
#include "engine/base/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define WEB "spiffe://cluster.local/ns/shop/sa/web"
#define OTHER "spiffe://cluster.local/ns/shop/sa/other"

static struct model *model;

/* A pod of WEB at this address, of which something is special. */
static void add_pod(const char *name, const char *ip, void (*special)(struct workload *w))
{
	struct model_delta *d = model_delta_new();
	struct workload *w = workload_new();

	assert_true(d && w);
	w->uid = strdup(name);
	w->name = strdup(name);
	w->namespace_ = strdup("shop");
	w->identity = strdup(WEB);
	w->addrs = calloc(1, sizeof(*w->addrs));
	w->n_addrs = 1;
	assert_int_equal(ip_addr_parse(ip, w->addrs), 0);
	if (special)
		special(w);
	assert_int_equal(model_delta_add_workload(d, w), 0);
	assert_int_equal(model_apply(model, d), 0);
	model_delta_free(d);
}

static void disputed(struct workload *w)
{
	w->addrs_disputed = true;
}

static void on_host_network(struct workload *w)
{
	w->host_network = true;
}

static void ended(struct workload *w)
{
	w->terminated = true;
}

static int set_up(void **state)
{
	(void)state;
	model = model_new();
	assert_non_null(model);
	add_pod("web", "10.0.0.1", NULL);
	add_pod("twin", "10.0.0.2", disputed);
	add_pod("kube-proxy", "10.0.0.3", on_host_network);
	add_pod("job", "10.0.0.4", ended);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	model = model_free(model);
	return 0;
}

static const struct row {
	const char *what, *ip, *identity;
	enum wr_reason known; /* what is found where addresses are compared */
} rows[] = {
	{"its own", "10.0.0.1", WEB, WR_REASON_NONE},
	{"its own, by an alias of the trust domain", "10.0.0.1", "spiffe://old/ns/shop/sa/web", WR_REASON_NONE},
	{"another's", "10.0.0.1", OTHER, WR_REASON_SRC_IDENTITY_MISMATCH},
	{"of two pods", "10.0.0.2", OTHER, WR_REASON_SOURCE_UNBOUND},
	{"of two pods, one of which it is", "10.0.0.2", WEB, WR_REASON_SOURCE_UNBOUND},
	{"the node's", "10.0.0.3", WEB, WR_REASON_SOURCE_UNBOUND},
	{"of a pod that has ended", "10.0.0.4", WEB, WR_REASON_SOURCE_UNBOUND},
	{"of a gateway, or of nobody", "10.0.0.9", WEB, WR_REASON_SOURCE_UNBOUND},
	{"of nobody, v6", "fd00::1", WEB, WR_REASON_SOURCE_UNBOUND},
};

static void check(const struct row *r, enum source_binding mode, bool allow, enum wr_reason reason)
{
	struct ip_addr ip;
	struct binding b;

	assert_int_equal(ip_addr_parse(r->ip, &ip), 0);
	b = binding_judge(mode, model, &ip, r->identity);
	if (b.allow != allow || b.reason != reason)
		fail_msg("%s, mode %d: %s (%s)", r->what, mode, b.allow ? "allowed" : "denied", b.text);
	/* Who reads it can tell. */
	assert_int_equal(!strncmp(b.text, "deny: ", 6), !allow);
	assert_int_equal(binding_is_anothers(model, &ip, r->identity), r->known == WR_REASON_SRC_IDENTITY_MISMATCH);
}

static void an_address_binds_one_live_owner_alone(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct row *r = &rows[i];

		check(r, BINDING_OFF, true, WR_REASON_NONE);
		check(r, BINDING_KNOWN, r->known != WR_REASON_SRC_IDENTITY_MISMATCH, r->known);
		check(r, BINDING_ENFORCE, r->known == WR_REASON_NONE, r->known);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(an_address_binds_one_live_owner_alone, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
