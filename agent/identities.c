/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wiring of CA, trust and certificates: options come in, a change of any of them reaches engine and pods. Called by
 * node.c. Control thread.
 */
#include "node_private.h"

#include <stdio.h>
#include <string.h>

static void identity_renewed(void *arg, struct tls_identity *id)
{
	struct node *n = arg;

	if (n->pods)
		pods_set_identity(n->pods, id);
}

static int issue(void *arg, const char *spiffe, struct tls_identity **ret, char **ret_error)
{
	return ca_issue(((struct node *)arg)->ca, spiffe, ret, ret_error);
}

static void trust_changed(void *arg, struct trust *t, bool new_signer)
{
	struct node *n = arg;

	if (n->engine)
		engine_set_trust(n->engine, t);
	if (n->certs)
		cert_store_trust(n->certs, t, new_signer);
}

static bool holds(const char *dir, const char *name)
{
	_cleanup_free_ char *path = NULL;

	if (asprintf(&path, "%s/%s", dir, name) < 0) {
		path = NULL;
		return false;
	}
	return !access(path, F_OK);
}

void node_aliases_changed(void *arg, char *const *aliases, size_t count, bool widen)
{
	/* Without the memory for it a name that is gone would stay believed. */
	if (trust_keeper_set_aliases(((struct node *)arg)->keeper, aliases, count, widen) < 0)
		abort();
}

static int start_store(struct node *n)
{
	struct cert_store_config cc = {.issue = issue, .changed = identity_renewed, .arg = n, .loop = n->loop};
	struct trust_keeper_config kc = {.ca = n->ca,
					 .crl_path = n->o.crl,
					 .domains = &n->o.trust_domain, /* its aliases come with the source */
					 .n_domains = 1,
					 .loop = n->loop,
					 .changed = trust_changed,
					 .arg = n};
	int r = trust_keeper_new(&kc, &n->keeper);

	return r < 0 ? r : cert_store_new(&cc, &n->certs);
}

int node_start_identities(struct node *n)
{
	const char *dir = n->o.ca + 4;
	_cleanup_free_ char *error = NULL;
	int r;

	n->ca_made = !holds(dir, "root-cert.pem");
	r = ca_open_dir(dir, n->o.trust_domain, (unsigned)(n->o.cert_ttl_ms / 1000), &n->ca, &error);
	if (r < 0)
		return node_fail(r, "--ca: %s", error ? error : strerror(-r));
	return start_store(n);
}

void node_stop_identities(struct node *n)
{
	cert_store_free(n->certs);
	trust_keeper_free(n->keeper);
	ca_free(n->ca);
}
