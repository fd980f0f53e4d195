/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and the identities that they belong to. A model, an address and an identity come in, a judgement leaves.
 * Called by proxy/admission.c and agent/policy_commands.c. */
#include "engine/model/binding.h"

#include <string.h>

/* The one workload that an address belongs to; NULL: none, or it is not certain which. hostNetwork pods own none. */
static const struct workload *owner_of(const struct model *m, const struct ip_addr *a)
{
	const struct workload *o = model_workload_by_addr(m, a);

	return o && !o->addrs_disputed ? o : NULL;
}

/* Whether two SPIFFE IDs name the same account: in one trust domain, which the handshake has accepted, its aliases mean
 * the same. */
static bool same_account(const char *a, const char *b)
{
	static const size_t scheme = sizeof("spiffe://") - 1;
	const char *x = strlen(a) > scheme ? strchr(a + scheme, '/') : NULL;
	const char *y = strlen(b) > scheme ? strchr(b + scheme, '/') : NULL;

	return x && y && !strcmp(x, y);
}

bool binding_is_anothers(const struct model *m, const struct ip_addr *source, const char *identity)
{
	const struct workload *owner = owner_of(m, source);

	return owner && !same_account(owner->identity, identity);
}

struct binding binding_judge(enum source_binding mode, const struct model *m, const struct ip_addr *source,
			     const char *identity)
{
	if (mode == BINDING_OFF)
		return (struct binding){true, WR_REASON_NONE, "off: addresses are not compared"};
	if (binding_is_anothers(m, source, identity))
		return (struct binding){false, WR_REASON_SRC_IDENTITY_MISMATCH,
					"deny: the address is another identity's"};
	if (owner_of(m, source))
		return (struct binding){true, WR_REASON_NONE, "the address is this identity's"};
	if (mode == BINDING_ENFORCE)
		return (struct binding){false, WR_REASON_SOURCE_UNBOUND,
					"deny: the address belongs to no single workload"};
	return (struct binding){true, WR_REASON_SOURCE_UNBOUND,
				"the address belongs to no single workload: not compared"};
}
