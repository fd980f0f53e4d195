/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded CA behind --ca=dir:PATH: makes its root on first start, or signs with the operator's own (Istio's
 * plug-in files). A folder path comes in, tls_identity objects leave; called by agent/identities.c, which
 * hands it to cert_store.c to issue, and by trust_keeper.c (reload).
 */
#include "ca_private.h"
#include "engine/base/cleanup.h"
#include "engine/base/dir.h"
#include "identity.h"

#include <fcntl.h>
#include <openssl/x509v3.h>
#include <string.h>

/* --- reading the folder --- */

static int check_chain(X509 *cert, const char *chain_pem, const char *roots_pem)
{
	STACK_OF(X509) *chain = *chain_pem ? identity_read_certs(chain_pem) : NULL,
		       *roots = identity_read_certs(roots_pem);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	int error = X509_V_ERR_OUT_OF_MEM;

	for (int i = 0; store && i < sk_X509_num(roots); i++)
		X509_STORE_add_cert(store, sk_X509_value(roots, i));
	if (store && ctx && roots && X509_STORE_CTX_init(ctx, store, cert, chain))
		error = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	sk_X509_pop_free(chain, X509_free);
	sk_X509_pop_free(roots, X509_free);
	return error;
}

/* Puts signing certificate and key together and checks that they can do their work. */
static int adopt(struct ca *ca, const char *names[2], const char *certs_text, const char *key_text, const char *kind,
		 char **ret_error)
{
	STACK_OF(X509) *certs = identity_read_certs(certs_text);
	const char *path = ca->path;
	bool any = certs != NULL;
	char subject[256];
	int e;

	sk_X509_pop_free(certs, X509_free);
	if (!any)
		return ca_fail(ret_error, -EINVAL,
			       "%s/%s: holds no certificate; restore it, or remove both files to start anew", path,
			       names[0]);
	ca->key = ca_read_key(key_text);
	if (!ca->key || !(EVP_PKEY_is_a(ca->key, "RSA") || EVP_PKEY_is_a(ca->key, "EC")))
		return ca_fail(ret_error, -EINVAL, "%s/%s: holds no RSA or EC private key without a pass phrase", path,
			       names[1]);
	/* Of several roots the one whose key is there signs. */
	ca->cert = ca_cert_of_key(certs_text, ca->key);
	if (!ca->cert)
		return ca_fail(ret_error, -EINVAL, "%s/%s does not belong to %s/%s", path, names[1], path, names[0]);
	if (X509_check_ca(ca->cert) != 1)
		return ca_fail(ret_error, -EINVAL, "%s/%s: not a CA certificate (basicConstraints CA:TRUE is missing)",
			       path, names[0]);
	e = check_chain(ca->cert, ca->chain_pem, ca->roots_pem);
	if (e != X509_V_OK)
		return ca_fail(ret_error, -EINVAL, "%s/%s: does not lead to root-cert.pem: %s", path, names[0],
			       X509_verify_cert_error_string(e));
	ca_fingerprint(ca->cert, ca->signer);
	X509_NAME_oneline(X509_get_subject_name(ca->cert), subject, sizeof(subject));
	snprintf(ca->describe, sizeof(ca->describe), "%s, %s", kind, subject);
	return 0;
}

/* Whoever knows the root alone needs the signing certificate, too: not every operator's chain has it. */
static int complete_chain(struct ca *ca)
{
	X509 *there = ca_cert_of_key(ca->chain_pem, ca->key);
	/* An older one of the same key may be there. */
	bool whole_already = there && !X509_cmp(there, ca->cert);
	_cleanup_free_ char *first = NULL;
	char *whole;

	X509_free(there);
	if (whole_already || X509_check_issued(ca->cert, ca->cert) == X509_V_OK)
		return 0;
	first = ca_cert_pem(ca->cert);
	if (!first || asprintf(&whole, "%s%s", first, ca->chain_pem) < 0)
		return -ENOMEM;
	free(ca->chain_pem);
	ca->chain_pem = whole;
	return 0;
}

/* Istio's plug-in files. -ENOENT when ca-cert.pem is not there. */
static int read_plugin(struct ca *ca, int dir, char **ret_error)
{
	static const char *names[] = {"ca-cert.pem", "ca-key.pem"};
	_cleanup_free_ char *cert = NULL;
	char *key = NULL;
	int r = ca_read(dir, ca->path, names[0], false, &cert, ret_error);

	if (r < 0)
		return r;
	r = ca_read(dir, ca->path, names[1], true, &key, ret_error);
	if (r == 0)
		r = ca_read(dir, ca->path, CA_ROOT_CERT, false, &ca->roots_pem, ret_error);
	if (r == 0)
		r = ca_read(dir, ca->path, "cert-chain.pem", false, &ca->chain_pem, ret_error);
	if (r == -ENOENT)
		r = ca_fail(ret_error, -EINVAL,
			    "%s: ca-cert.pem needs ca-key.pem, root-cert.pem and cert-chain.pem beside it", ca->path);
	if (r == 0)
		r = adopt(ca, names, cert, key, "operator's CA", ret_error);
	r = r < 0 ? r : complete_chain(ca);
	ca_wipe(key);
	return r;
}

/* -ENOENT when there is no root. */
static int read_own(struct ca *ca, int dir, char **ret_error)
{
	static const char *names[] = {CA_ROOT_CERT, CA_ROOT_KEY};
	char *key = NULL;
	int r = ca_read(dir, ca->path, names[0], false, &ca->roots_pem, ret_error);

	if (r < 0)
		return r;
	ca->own = true;
	r = ca_read(dir, ca->path, names[1], true, &key, ret_error);
	if (r == -ENOENT)
		r = ca_fail(
			ret_error, -EINVAL,
			"%s: root-cert.pem without root-key.pem; restore the key, or use ca-cert.pem and ca-key.pem",
			ca->path);
	if (r == 0) {
		ca->chain_pem = strdup("");
		r = ca->chain_pem ? adopt(ca, names, ca->roots_pem, key, "own root", ret_error) : -ENOMEM;
	}
	ca_wipe(key);
	return r;
}

static int read_folder(struct ca *ca, int dir, char **ret_error)
{
	int r = read_plugin(ca, dir, ret_error);

	return r == -ENOENT ? read_own(ca, dir, ret_error) : r;
}

static int create_root(int dir, const char *path, const char *trust_domain, char **ret_error)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *root = key ? ca_make_root(key, trust_domain) : NULL;
	char *cert_text = root ? ca_cert_pem(root) : NULL, *key_text = key ? ca_key_pem(key) : NULL;
	int r = cert_text && key_text ? 0 : ca_fail(ret_error, -ENOMEM, "cannot make a root certificate");

	/* The certificate comes last: with it the pair is complete. */
	if (r == 0)
		r = ca_write(dir, path, CA_ROOT_KEY, 0600, key_text, ret_error);
	if (r == 0)
		r = ca_write(dir, path, CA_ROOT_CERT, 0644, cert_text, ret_error);
	ca_wipe(key_text);
	free(cert_text);
	X509_free(root);
	EVP_PKEY_free(key);
	return r;
}

/* --- life --- */

static struct ca *ca_new(const char *path, const char *trust_domain, unsigned ttl_s)
{
	struct ca *ca = calloc(1, sizeof(*ca));

	if (!ca)
		return NULL;
	ca->path = strdup(path);
	ca->trust_domain = strdup(trust_domain);
	ca->ttl_s = ttl_s;
	return ca->path && ca->trust_domain ? ca : ca_free(ca);
}

int ca_open_dir(const char *path, const char *trust_domain, unsigned ttl_s, struct ca **ret, char **ret_error)
{
	_cleanup_close_ int dir = -1, lock = -1;
	struct ca *ca;
	int r;

	*ret_error = NULL;
	r = dir_make(path, 0700);
	if (r < 0)
		return ca_fail(ret_error, r, "%s: cannot make the folder: %s", path, strerror(-r));
	dir = ca_folder(path, ret_error);
	if (dir < 0)
		return dir;
	/* Two agents may start at once on one folder: the second finds the first one's root. A read-only folder is fine
	 * as long as nothing has to be made. */
	lock = ca_lock(dir, path, ret_error);
	free(take_ptr(*ret_error));
	ca = ca_new(path, trust_domain, ttl_s);
	if (!ca)
		return -ENOMEM;
	r = read_folder(ca, dir, ret_error);
	if (r == -ENOENT) {
		r = create_root(dir, path, trust_domain, ret_error);
		r = r < 0 ? r : read_folder(ca, dir, ret_error);
	}
	if (r < 0) {
		ca_free(ca);
		return r;
	}
	*ret = ca;
	return 0;
}

static void drop_contents(struct ca *ca)
{
	X509_free(ca->cert);
	EVP_PKEY_free(ca->key);
	free(ca->chain_pem);
	free(ca->roots_pem);
	free(ca->gone);
}

static void remember_gone(struct ca *ca, const char *why)
{
	free(ca->gone);
	ca->gone = strdup(why);
	if (!ca->gone)
		abort();
}

int ca_reload(struct ca *ca, char **ret_error)
{
	_cleanup_close_ int dir = ca_folder(ca->path, ret_error);
	struct ca *fresh = ca_new(ca->path, ca->trust_domain, ca->ttl_s);
	int r = !fresh ? -ENOMEM : dir < 0 ? dir : read_folder(fresh, dir, ret_error);

	if (r == -ENOENT && !*ret_error)
		r = ca_fail(ret_error, -ENOENT, "%s: holds no root-cert.pem any more", ca->path);
	if (r < 0) {
		/* Whoever took the folder away wants no more certificates from it; one that is broken is being
		 * repaired, and the last good contents serve. */
		if ((dir < 0 || r == -ENOENT) && *ret_error)
			remember_gone(ca, *ret_error);
		ca_free(fresh);
		return r;
	}
	drop_contents(ca);
	ca->own = fresh->own;
	ca->cert = take_ptr(fresh->cert);
	ca->key = take_ptr(fresh->key);
	ca->chain_pem = take_ptr(fresh->chain_pem);
	ca->roots_pem = take_ptr(fresh->roots_pem);
	ca->gone = NULL;
	memcpy(ca->signer, fresh->signer, sizeof(ca->signer));
	memcpy(ca->describe, fresh->describe, sizeof(ca->describe));
	ca_free(fresh);
	return 0;
}

struct ca *ca_free(struct ca *ca)
{
	if (!ca)
		return NULL;
	drop_contents(ca);
	free(ca->path);
	free(ca->trust_domain);
	free(ca);
	return NULL;
}

const char *ca_describe(const struct ca *ca)
{
	return ca->describe;
}

const char *ca_path(const struct ca *ca)
{
	return ca->path;
}

const char *ca_roots(const struct ca *ca)
{
	return ca->roots_pem;
}

const char *ca_signer(const struct ca *ca)
{
	return ca->signer;
}

STACK_OF(X509) * ca_crl_issuers(const struct ca *ca)
{
	STACK_OF(X509) *all = identity_read_certs(ca->roots_pem),
		       *chain = *ca->chain_pem ? identity_read_certs(ca->chain_pem) : NULL;

	while (all && sk_X509_num(chain) > 0) {
		X509 *x = sk_X509_shift(chain);

		if (!sk_X509_push(all, x))
			X509_free(x);
	}
	sk_X509_pop_free(chain, X509_free);
	if (all && X509_up_ref(ca->cert) && !sk_X509_push(all, ca->cert))
		X509_free(ca->cert);
	return all;
}

/* --- issuing --- */

static int issue_pem(struct ca *ca, const char *spiffe, char **ret_chain, char **ret_key)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *leaf = key ? ca_make_leaf(ca, key, spiffe) : NULL;
	char *leaf_pem = leaf ? ca_cert_pem(leaf) : NULL, *text = key ? ca_key_pem(key) : NULL, *chain = NULL;
	int r = -ENOMEM;

	if (leaf_pem && text && asprintf(&chain, "%s%s", leaf_pem, ca->chain_pem) > 0) {
		*ret_chain = chain;
		*ret_key = take_ptr(text);
		r = 0;
	}
	ca_wipe(text);
	free(leaf_pem);
	X509_free(leaf);
	EVP_PKEY_free(key);
	return r;
}

static int may_issue(struct ca *ca, const char *spiffe, char **ret_error)
{
	struct spiffe_id id;

	if (spiffe_parse(spiffe, strlen(spiffe), &id) || strlen(spiffe) > 500)
		return ca_fail(ret_error, -EINVAL, "not an identity that can be certified: %s", spiffe);
	if (ca->gone)
		return ca_fail(ret_error, -ENOENT, "the CA is not there: %s", ca->gone);
	if (X509_cmp_current_time(X509_get0_notAfter(ca->cert)) < 0)
		return ca_fail(ret_error, -EKEYEXPIRED, "the CA's own certificate has expired; put a new one in place");
	return ca_check_identity(ca, spiffe, ret_error);
}

int ca_issue(struct ca *ca, const char *spiffe, struct tls_identity **ret, char **ret_error)
{
	_cleanup_free_ char *chain = NULL;
	const char *why = NULL;
	char *key = NULL;
	int r = may_issue(ca, spiffe, ret_error);

	if (r < 0)
		return r;
	r = issue_pem(ca, spiffe, &chain, &key);
	if (r < 0)
		return ca_fail(ret_error, r, "cannot issue a certificate for %s", spiffe);
	r = tls_identity_new(chain, key, ret, &why);
	ca_wipe(key);
	if (r < 0)
		return ca_fail(ret_error, r, "cannot use the new certificate of %s: %s", spiffe, why);
	ca_ledger_add(ca, *ret);
	return 0;
}
