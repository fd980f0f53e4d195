/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates of the workloads on this node: one per SPIFFE ID, counted users, renewed at half of what was left when
 * each was received. Control thread.
 */
#pragma once
#include "engine/identity/trust.h"

struct cert_store;
struct loop;
struct cJSON;

struct cert_store_config {
	/* The provider: a fresh certificate for this SPIFFE ID. 0, or -errno with *ret_error (malloc'd). */
	int (*issue)(void *arg, const char *spiffe, struct tls_identity **ret, char **ret_error);
	/* Called with each renewed identity (borrowed). */
	void (*changed)(void *arg, struct tls_identity *id);
	void *arg; /* of both */
	struct loop *loop;
};

int cert_store_new(const struct cert_store_config *cfg, struct cert_store **ret);
struct cert_store *cert_store_free(struct cert_store *s);
/* Takes a user reference on this identity's certificate, issuing it if new. *ret_id is a counted reference. */
int cert_store_get(struct cert_store *s, const char *spiffe, struct tls_identity **ret_id, char **ret_error);
/* Drops one user; the certificate is forgotten with the last. */
void cert_store_put(struct cert_store *s, const char *spiffe);
/* What is believed now: certificates that a list names are replaced at once, those that could not be renewed are tried
 * again, and with `new_signer` all are replaced within two seconds. */
void cert_store_trust(struct cert_store *s, const struct trust *t, bool new_signer);
/* JSON array for `warrenctl certificate` (identity, serial, not_before, not_after, next_renewal, state, users, pem
 * chain; no keys). */
struct cJSON *cert_store_dump(struct cert_store *s);
/* Appends to an array of strings a line for each certificate that cannot be renewed. */
void cert_store_alarms(struct cert_store *s, struct cJSON *list);
