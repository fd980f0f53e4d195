/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this node believes of peers' certificates at one moment: the roots, the trust domains these may vouch for, and
 * what is revoked. Immutable, counted, replaced as a whole: handshakes ask the one in force, live tunnels are judged
 * again by the next one. Any thread.
 */
#pragma once
#include "engine/identity/crl.h"
#include "engine/identity/tls_identity.h"

struct trust_config {
	const char *roots_pem;
	const char *const *domains; /* ours, then its aliases: the roots may vouch for these and for no others */
	size_t n_domains;
	struct crl *const *crls; /* each may be NULL */
	size_t n_crls;
	bool crl_missing; /* one is configured and has never been read: no handshake succeeds */
};

struct trust;

/* Copies what it needs. 0, -ENOMEM, or -EINVAL when there is no usable root. */
int trust_new(const struct trust_config *cfg, struct trust **ret);
struct trust *trust_ref(struct trust *t);
struct trust *trust_unref(struct trust *t);
/* Whether the roots may vouch for this trust domain. */
bool trust_has_domain(const struct trust *t, const char *domain, size_t len);
/* Whether a list names this leaf of our own. */
bool trust_revokes(const struct trust *t, const struct tls_identity *id);

/*
 * The whole judgement of a presented chain, leaf first among `presented`: NONE and v->peer, v->chain and
 * v->not_after filled, or the reason, with v->detail saying more. `v` names the role, v->trust is asked.
 */
enum wr_reason trust_judge(struct tls_verify *v, X509 *leaf, STACK_OF(X509) * presented);
/* Judges a chain that passed before by what is believed now: roots, trust domains and lists, not the clock, since an
 * open stream may outlive its certificates. */
enum wr_reason trust_judge_again(const struct trust *t, const struct tls_verify *v);
