/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is believed: roots in an OpenSSL store, the trust domains they may vouch for, revocation lists. Made by
 * trust_keeper.c; the judgement itself is verify.c's.
 */
#include "trust_private.h"
#include "engine/base/cleanup.h"
#include "identity.h"

#include <string.h>

static int copy_domains(struct trust *t, const struct trust_config *cfg)
{
	t->domains = calloc(cfg->n_domains + 1, sizeof(*t->domains));
	for (; t->domains && t->n_domains < cfg->n_domains; t->n_domains++) {
		t->domains[t->n_domains] = strdup(cfg->domains[t->n_domains]);
		if (!t->domains[t->n_domains])
			return -ENOMEM;
	}
	return t->domains ? 0 : -ENOMEM;
}

static int copy_crls(struct trust *t, const struct trust_config *cfg)
{
	t->crls = calloc(cfg->n_crls + 1, sizeof(*t->crls));
	for (size_t i = 0; t->crls && i < cfg->n_crls; i++)
		if (cfg->crls[i])
			t->crls[t->n_crls++] = crl_ref(cfg->crls[i]);
	t->crl_missing = cfg->crl_missing;
	return t->crls ? 0 : -ENOMEM;
}

int trust_new(const struct trust_config *cfg, struct trust **ret)
{
	STACK_OF(X509) *roots = identity_read_certs(cfg->roots_pem);
	struct trust *t = calloc(1, sizeof(*t));
	int r = t ? 0 : -ENOMEM;

	if (t) {
		t->refs = 1;
		t->roots = X509_STORE_new();
		r = t->roots ? copy_domains(t, cfg) : -ENOMEM;
		r = r < 0 ? r : copy_crls(t, cfg);
		r = r < 0 ? r : roots ? 0 : -EINVAL;
	}
	for (int i = 0; i < sk_X509_num(roots) && r == 0; i++)
		r = X509_STORE_add_cert(t->roots, sk_X509_value(roots, i)) == 1 ? 0 : -ENOMEM;
	sk_X509_pop_free(roots, X509_free);
	if (r < 0)
		trust_unref(t);
	else
		*ret = t;
	return r;
}

struct trust *trust_ref(struct trust *t)
{
	atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
	return t;
}

struct trust *trust_unref(struct trust *t)
{
	if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	X509_STORE_free(t->roots);
	for (size_t i = 0; i < t->n_domains; i++)
		free(t->domains[i]);
	for (size_t i = 0; i < t->n_crls; i++)
		crl_unref(t->crls[i]);
	free(t->domains);
	free(t->crls);
	free(t);
	return NULL;
}

bool trust_has_domain(const struct trust *t, const char *domain, size_t len)
{
	for (size_t i = 0; i < t->n_domains; i++)
		if (strlen(t->domains[i]) == len && !memcmp(t->domains[i], domain, len))
			return true;
	return false;
}

bool trust_revokes(const struct trust *t, const struct tls_identity *id)
{
	X509 *leaf = SSL_CTX_get0_certificate(id->client), *issuer = NULL;
	STACK_OF(X509) *chain = NULL;
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	bool revoked = false;

	(void)SSL_CTX_get0_chain_certs(id->client, &chain);
	if (sk_X509_num(chain) > 0)
		issuer = sk_X509_value(chain, 0);
	else if (ctx && X509_STORE_CTX_init(ctx, t->roots, leaf, NULL) &&
		 X509_STORE_CTX_get1_issuer(&issuer, ctx, leaf) != 1)
		issuer = NULL;
	for (size_t i = 0; issuer && i < t->n_crls; i++)
		revoked = revoked || crl_revokes(t->crls[i], leaf, issuer);
	if (issuer && sk_X509_num(chain) <= 0)
		X509_free(issuer);
	X509_STORE_CTX_free(ctx);
	return revoked;
}
