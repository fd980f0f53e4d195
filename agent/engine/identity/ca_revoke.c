/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the embedded CA takes back: serial numbers go into crl.pem, signed by each root at hand, identities into
 * `revoked-identities`, so that they get no new certificate. A serial or an identity comes in; called by
 * agent/certificate_commands.c, and by trust_keeper.c to sign the list again before it is due.
 */
#include "ca_private.h"
#include "engine/base/cleanup.h"
#include "engine/identity/crl.h"
#include "identity.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CRL_DAYS 7
/* No leaf lives longer than --cert-ttl allows: what was revoked before that is over by itself. */
#define FORGET_DAYS 366

/* --- identities --- */

static bool has_line(const char *text, const char *wanted)
{
	size_t n = strlen(wanted);

	for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL)
		if (!strncmp(p, wanted, n) && (!p[n] || strchr(" \t\r\n#", p[n])))
			return true;
	return false;
}

int ca_check_identity(const struct ca *ca, const char *spiffe, char **ret_error)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_close_ int dir = ca_folder(ca->path, ret_error);
	int r = dir < 0 ? dir : ca_read(dir, ca->path, CA_REVOKED_IDENTITIES, false, &text, ret_error);

	if (r == -ENOENT && dir >= 0)
		return 0;
	if (r == 0 && has_line(text, spiffe))
		return ca_fail(ret_error, -EKEYREVOKED,
			       "%s was revoked; take its line out of %s/%s to give it certificates again", spiffe,
			       ca->path, CA_REVOKED_IDENTITIES);
	return r;
}

static int forbid_identity(struct ca *ca, int dir, const char *spiffe, char **ret_error)
{
	_cleanup_free_ char *text = NULL, *longer = NULL;
	int r = ca_read(dir, ca->path, CA_REVOKED_IDENTITIES, false, &text, ret_error);

	if (r < 0 && r != -ENOENT)
		return r;
	if (text && has_line(text, spiffe))
		return 0;
	if (asprintf(&longer, "%s%s\n", text ? text : "", spiffe) < 0)
		return -ENOMEM;
	return ca_write(dir, ca->path, CA_REVOKED_IDENTITIES, 0644, longer, ret_error);
}

/* --- the list --- */

struct serials {
	STACK_OF(X509_REVOKED) * list;
	const char *spiffe;
	unsigned count;
	bool failed;
};

static bool listed(const STACK_OF(X509_REVOKED) * list, const ASN1_INTEGER *number)
{
	for (int i = 0; i < sk_X509_REVOKED_num(list); i++)
		if (!ASN1_INTEGER_cmp(X509_REVOKED_get0_serialNumber(sk_X509_REVOKED_value(list, i)), number))
			return true;
	return false;
}

static void add_serial(struct serials *s, const char *decimal)
{
	X509_REVOKED *rev = X509_REVOKED_new();
	ASN1_TIME *now = X509_gmtime_adj(NULL, 0);
	BIGNUM *bn = NULL;
	ASN1_INTEGER *number = BN_dec2bn(&bn, decimal) ? BN_to_ASN1_INTEGER(bn, NULL) : NULL;

	if (number && listed(s->list, number)) {
		s->count++;
	} else if (rev && now && number && X509_REVOKED_set_serialNumber(rev, number) &&
		   X509_REVOKED_set_revocationDate(rev, now) && sk_X509_REVOKED_push(s->list, rev)) {
		rev = NULL;
		s->count++;
	} else {
		s->failed = true;
	}
	X509_REVOKED_free(rev);
	ASN1_TIME_free(now);
	ASN1_INTEGER_free(number);
	BN_free(bn);
}

static void add_if_of_identity(void *arg, const struct ledger_entry *e)
{
	struct serials *s = arg;

	if (!strcmp(e->spiffe, s->spiffe))
		add_serial(s, e->serial);
}

static bool forgotten(const X509_REVOKED *rev)
{
	int days = 0, seconds = 0;

	return ASN1_TIME_diff(&days, &seconds, X509_REVOKED_get0_revocationDate(rev), NULL) && days > FORGET_DAYS;
}

/* What crl.pem holds already; its lists are the same but for the signer. */
static int read_list(int dir, const char *path, STACK_OF(X509_REVOKED) * list, char **ret_error)
{
	_cleanup_free_ char *text = NULL;
	int r = ca_read(dir, path, CA_CRL, false, &text, ret_error);
	BIO *bio = r == 0 ? BIO_new_mem_buf(text, -1) : NULL;
	X509_CRL *crl = bio ? PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL) : NULL;
	STACK_OF(X509_REVOKED) *old = crl ? X509_CRL_get_REVOKED(crl) : NULL;

	for (int i = 0; i < sk_X509_REVOKED_num(old); i++) {
		X509_REVOKED *rev = sk_X509_REVOKED_value(old, i);
		X509_REVOKED *copy = forgotten(rev) ? NULL : X509_REVOKED_dup(rev);

		if (copy && !sk_X509_REVOKED_push(list, copy))
			X509_REVOKED_free(copy);
	}
	if (r == 0 && !crl)
		r = ca_fail(ret_error, -EINVAL,
			    "%s/%s: holds no revocation list; restore it, or remove it to begin anew", path, CA_CRL);
	X509_CRL_free(crl);
	BIO_free(bio);
	return r;
}

static bool add_number(X509_CRL *crl)
{
	ASN1_INTEGER *number = ASN1_INTEGER_new();
	bool ok = number && ASN1_INTEGER_set_int64(number, (int64_t)time(NULL)) &&
		  X509_CRL_add1_ext_i2d(crl, NID_crl_number, number, 0, 0);

	ASN1_INTEGER_free(number);
	return ok;
}

static bool fill(X509_CRL *crl, X509 *issuer, EVP_PKEY *key, const STACK_OF(X509_REVOKED) * list)
{
	ASN1_TIME *from = X509_gmtime_adj(NULL, 0), *until = X509_time_adj_ex(NULL, CRL_DAYS, 0, NULL);
	bool ok = crl && from && until && X509_CRL_set_version(crl, X509_CRL_VERSION_2) &&
		  X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer)) && X509_CRL_set1_lastUpdate(crl, from) &&
		  X509_CRL_set1_nextUpdate(crl, until) && add_number(crl);

	for (int i = 0; ok && i < sk_X509_REVOKED_num(list); i++) {
		X509_REVOKED *rev = X509_REVOKED_dup(sk_X509_REVOKED_value(list, i));

		ok = rev && X509_CRL_add0_revoked(crl, rev);
	}
	ASN1_TIME_free(from);
	ASN1_TIME_free(until);
	return ok && X509_CRL_sort(crl) && X509_CRL_sign(crl, key, EVP_sha256());
}

/* Appends one list to `out`, signed by the root whose key is in this file, if there is one. */
static int sign_with(struct ca *ca, int dir, const char *key_file, const STACK_OF(X509_REVOKED) * list, BIO *out,
		     char **ret_error)
{
	char *text = NULL;
	int r = ca_read(dir, ca->path, key_file, true, &text, ret_error);
	EVP_PKEY *key = r == 0 ? ca_read_key(text) : NULL;
	X509 *issuer = key ? ca_cert_of_key(ca->roots_pem, key) : NULL;
	X509_CRL *crl = issuer ? X509_CRL_new() : NULL;

	ca_wipe(text);
	if (issuer)
		r = fill(crl, issuer, key, list) && PEM_write_bio_X509_CRL(out, crl)
			    ? 0
			    : ca_fail(ret_error, -ENOMEM, "%s: cannot sign a revocation list", ca->path);
	X509_CRL_free(crl);
	X509_free(issuer);
	EVP_PKEY_free(key);
	return r == -ENOENT ? 0 : r;
}

static int write_list(struct ca *ca, int dir, const STACK_OF(X509_REVOKED) * list, char **ret_error)
{
	static const char *const keys[] = {CA_ROOT_KEY, CA_OLD_KEY};
	BIO *out = BIO_new(BIO_s_mem());
	_cleanup_free_ char *text = NULL;
	int r = out ? 0 : -ENOMEM;
	char *data;
	long n;

	for (size_t i = 0; i < ARRAY_SIZE(keys) && r == 0; i++)
		r = sign_with(ca, dir, keys[i], list, out, ret_error);
	n = r == 0 ? BIO_get_mem_data(out, &data) : 0;
	text = n > 0 ? strndup(data, (size_t)n) : NULL;
	BIO_free(out);
	r = r < 0 ? r : text ? 0 : -ENOMEM;
	return r < 0 ? r : ca_write(dir, ca->path, CA_CRL, 0644, text, ret_error);
}

int ca_crl_sign(struct ca *ca, int dir, char **ret_error)
{
	STACK_OF(X509_REVOKED) *list = sk_X509_REVOKED_new_null();
	int r = list ? read_list(dir, ca->path, list, ret_error) : -ENOMEM;

	if (r == 0)
		r = write_list(ca, dir, list, ret_error);
	sk_X509_REVOKED_pop_free(list, X509_REVOKED_free);
	return r == -ENOENT ? 0 : r;
}

int ca_crl_renew(struct ca *ca, time_t next_update)
{
	_cleanup_close_ int dir = -1, lock = -1;
	_cleanup_free_ char *error = NULL;

	if (!ca->own || next_update - time(NULL) > CRL_DAYS * 86400 / 2)
		return 0;
	dir = ca_folder_locked(ca->path, &lock, &error);
	return dir < 0 ? -EACCES : ca_crl_sign(ca, dir, &error);
}

/* --- the command --- */

static bool is_serial(const char *text)
{
	return *text && strlen(text) < 50 && strspn(text, "0123456789") == strlen(text);
}

static int collect(struct ca *ca, int dir, const char *what, struct serials *s, char **ret_error)
{
	struct spiffe_id id;
	int r;

	if (is_serial(what)) {
		add_serial(s, what);
		return 0;
	}
	if (spiffe_parse(what, strlen(what), &id))
		return ca_fail(
			ret_error, -EINVAL,
			"%s: neither a serial number of 'certificate list' nor spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT",
			what);
	r = forbid_identity(ca, dir, what, ret_error);
	return r < 0 ? r : ca_ledger_each(dir, ca->path, add_if_of_identity, s, ret_error);
}

int ca_revoke(struct ca *ca, const char *what, unsigned *ret_count, char **ret_error)
{
	_cleanup_close_ int dir = -1, lock = -1;
	struct serials s = {.spiffe = what};
	int r;

	*ret_error = NULL;
	if (!ca->own)
		return ca_fail(
			ret_error, -ENOTSUP,
			"%s holds the operator's CA: revoke there, and give its list to the agents with --crl=FILE",
			ca->path);
	dir = ca_folder_locked(ca->path, &lock, ret_error);
	if (dir < 0)
		return dir;
	s.list = sk_X509_REVOKED_new_null();
	if (!s.list)
		return -ENOMEM;
	r = read_list(dir, ca->path, s.list, ret_error);
	if (r == -ENOENT)
		r = 0;
	r = r < 0 ? r : collect(ca, dir, what, &s, ret_error);
	r = r < 0 ? r : s.failed ? -ENOMEM : write_list(ca, dir, s.list, ret_error);
	sk_X509_REVOKED_pop_free(s.list, X509_REVOKED_free);
	if (r == 0)
		*ret_count = s.count;
	return r;
}
