/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a caller's address bears out the identity that it has proven. Asked for every CONNECT (proxy/admission.c) and
 * by `warrenctl policy check`.
 */
#pragma once
#include "abi/reasons.h"
#include "engine/model/model.h"

/* What the owner of a caller's address, as the model knows it, means for a CONNECT with another identity. */
enum source_binding {
	BINDING_OFF,
	BINDING_KNOWN,	/* refused when the address belongs to exactly one workload, and that is another one */
	BINDING_ENFORCE /* also refused when it belongs to none, or to several */
};

struct binding {
	bool allow;
	/* NONE, SRC_IDENTITY_MISMATCH or SOURCE_UNBOUND, the latter also where it is let pass, to be counted. */
	enum wr_reason reason;
	const char *text; /* for people; static */
};

/* `identity`: the peer's verified SPIFFE ID. */
struct binding binding_judge(enum source_binding mode, const struct model *m, const struct ip_addr *source,
			     const char *identity);
/* Whether the address has one live owner now and that is not this identity's account. */
bool binding_is_anothers(const struct model *m, const struct ip_addr *source, const char *identity);
