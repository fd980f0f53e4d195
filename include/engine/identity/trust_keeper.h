/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps what this node believes up to date: watches the CA's folder and the revocation lists, reads them again when
 * they change, is told the names of the trust domain, and hands out a new struct trust. What is broken leaves the last
 * good one in force, with an alarm. Control thread.
 */
#pragma once
#include "engine/identity/ca.h"
#include "engine/identity/trust.h"

struct trust_keeper;
struct loop;
struct cJSON;

struct trust_keeper_config {
	struct ca *ca;
	const char *crl_path;	    /* of an operator's list; NULL or "": none */
	const char *const *domains; /* our trust domain, then its aliases */
	size_t n_domains;
	struct loop *loop;
	/* Something may have changed; `new_signer`: another certificate signs our leaves now. */
	void (*changed)(void *arg, struct trust *t, bool new_signer);
	void *arg;
};

/* Reads everything once; `changed` is not called for that. A list that cannot be read is no failure. 0 or -errno. */
int trust_keeper_new(const struct trust_keeper_config *cfg, struct trust_keeper **ret);
struct trust_keeper *trust_keeper_free(struct trust_keeper *k);
/* Borrowed. */
struct trust *trust_keeper_trust(struct trust_keeper *k);
/* What the roots may vouch for beside our trust domain from now on. Without `widen` only those count that did before:
 * what is gone can be taken back first. 0, or -ENOMEM: nothing has changed. */
int trust_keeper_set_aliases(struct trust_keeper *k, char *const *aliases, size_t n, bool widen);
/* Looks now instead of at the next event. */
void trust_keeper_look(struct trust_keeper *k);
/* Appends to an array of strings. */
void trust_keeper_alarms(const struct trust_keeper *k, struct cJSON *list);
/* "none", or how many are revoked and until when the lists hold, for people. */
void trust_keeper_crl_state(const struct trust_keeper *k, char *buf, size_t size);
