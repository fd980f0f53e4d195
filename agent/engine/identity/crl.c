/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Revocation lists: a text comes in, answers whether a certificate is on one leave. A list counts only if one of those
 * who may sign it did, so that whoever can write the file can neither empty it nor name others. Called by
 * trust_keeper.c (read), trust.c (keep) and verify.c (ask).
 */
#include "engine/identity/crl.h"
#include "engine/base/cleanup.h"
#include "identity.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <string.h>

struct list {
	X509_CRL *crl;
	X509 *issuer;
};

struct crl {
	atomic_uint refs;
	size_t n, revoked;
	time_t next_update;
	struct list lists[];
};

#define LISTS_MAX 64

static int bad(char **ret_error, const X509_CRL *crl, const char *why)
{
	char issuer[256] = "";

	if (crl)
		X509_NAME_oneline(X509_CRL_get_issuer(crl), issuer, sizeof(issuer));
	if (asprintf(ret_error, "%s%s%s%s", crl ? "the list of " : "", issuer, crl ? ": " : "", why) < 0)
		*ret_error = NULL;
	ERR_clear_error();
	return -EINVAL;
}

static X509 *find_issuer(X509_CRL *crl, STACK_OF(X509) * issuers, bool *ret_named)
{
	*ret_named = false;
	for (int i = 0; i < sk_X509_num(issuers); i++) {
		X509 *x = sk_X509_value(issuers, i);
		EVP_PKEY *key = X509_get0_pubkey(x);

		if (X509_NAME_cmp(X509_get_subject_name(x), X509_CRL_get_issuer(crl)))
			continue;
		*ret_named = true;
		if (key && X509_get_key_usage(x) & KU_CRL_SIGN && X509_CRL_verify(crl, key) == 1)
			return x;
	}
	return NULL;
}

/* Deltas and lists of a part only say so in critical extensions: taken for whole, they would pardon the rest. */
static const char *objection(const X509_CRL *crl)
{
	const ASN1_TIME *from = X509_CRL_get0_lastUpdate(crl);

	for (int i = 0; i < X509_CRL_get_ext_count(crl); i++)
		if (X509_EXTENSION_get_critical(X509_CRL_get_ext(crl, i)))
			return "has a critical extension: only whole, direct lists are understood";
	if (X509_cmp_current_time(from) > 0)
		return "is not valid yet; is this node's clock right?";
	return NULL;
}

static int add(struct crl *c, X509_CRL *crl, STACK_OF(X509) * issuers, char **ret_error)
{
	const char *why = objection(crl);
	const ASN1_TIME *until = X509_CRL_get0_nextUpdate(crl);
	time_t next = until ? identity_time(until) : 0;
	X509 *issuer;
	bool named;

	if (why)
		return bad(ret_error, crl, why);
	issuer = find_issuer(crl, issuers, &named);
	if (!issuer)
		return bad(ret_error, crl,
			   named ? "its signature is wrong, or its issuer may not sign lists"
				 : "its issuer is neither a trusted root nor this CA");
	if (c->n == LISTS_MAX || !X509_up_ref(issuer) || !X509_CRL_up_ref(crl))
		return bad(ret_error, crl, "too many lists in one file");
	/* Now, and not when the first worker asks. */
	X509_CRL_sort(crl);
	c->lists[c->n++] = (struct list){crl, issuer};
	c->revoked += (size_t)(sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl)) > 0
				       ? sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl))
				       : 0);
	if (next && (!c->next_update || next < c->next_update))
		c->next_update = next;
	return 0;
}

static int add_der(struct crl *c, const char *text, size_t len, STACK_OF(X509) * issuers, char **ret_error)
{
	const unsigned char *p = (const unsigned char *)text;
	X509_CRL *crl = len <= LONG_MAX ? d2i_X509_CRL(NULL, &p, (long)len) : NULL;
	int r = crl ? add(c, crl, issuers, ret_error)
		    : bad(ret_error, NULL, "not a revocation list in PEM or DER, or cut short");

	X509_CRL_free(crl);
	return r;
}

static int add_all(struct crl *c, const char *text, size_t len, STACK_OF(X509) * issuers, char **ret_error)
{
	BIO *bio = len <= INT_MAX ? BIO_new_mem_buf(text, (int)len) : NULL;
	unsigned long e;
	X509_CRL *crl;
	int r = 0;

	while (bio && r == 0 && (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL))) {
		r = add(c, crl, issuers, ret_error);
		X509_CRL_free(crl);
	}
	e = ERR_peek_last_error();
	ERR_clear_error();
	BIO_free(bio);
	if (r < 0)
		return r;
	/* The end of the text is the only way to be done. */
	if (c->n && ERR_GET_REASON(e) != PEM_R_NO_START_LINE)
		return bad(ret_error, NULL, "one of several is malformed, or cut short");
	return c->n ? 0 : add_der(c, text, len, issuers, ret_error);
}

int crl_read(const char *text, size_t len, STACK_OF(X509) * issuers, struct crl **ret, char **ret_error)
{
	struct crl *c = calloc(1, sizeof(*c) + LISTS_MAX * sizeof(c->lists[0]));
	int r;

	*ret_error = NULL;
	if (!c)
		return -ENOMEM;
	c->refs = 1;
	r = add_all(c, text, len, issuers, ret_error);
	if (r < 0)
		crl_unref(c);
	else
		*ret = c;
	return r;
}

struct crl *crl_ref(struct crl *c)
{
	atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
	return c;
}

struct crl *crl_unref(struct crl *c)
{
	if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	for (size_t i = 0; i < c->n; i++) {
		X509_CRL_free(c->lists[i].crl);
		X509_free(c->lists[i].issuer);
	}
	free(c);
	return NULL;
}

bool crl_revokes(const struct crl *c, X509 *cert, X509 *issuer)
{
	EVP_PKEY *key = X509_get0_pubkey(issuer);

	for (size_t i = 0; i < c->n; i++) {
		X509_REVOKED *rev;

		if (EVP_PKEY_eq(key, X509_get0_pubkey(c->lists[i].issuer)) == 1 &&
		    X509_CRL_get0_by_cert(c->lists[i].crl, &rev, cert) == 1)
			return true;
	}
	return false;
}

size_t crl_size(const struct crl *c)
{
	return c->revoked;
}

time_t crl_next_update(const struct crl *c)
{
	return c->next_update;
}
