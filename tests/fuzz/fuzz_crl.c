/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Revocation lists as somebody may write them who can reach the file. The first byte chooses: 0, the rest is a text,
 * which no trusted key has signed and which must be refused; else a signed list of the two-byte serials that follow,
 * one byte of it changed when the second is not 0: refused, or the same as before.
 */
#include "engine/identity/crl.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static EVP_PKEY *key;
static X509 *root;
static STACK_OF(X509) * issuers;

static void set_up(void)
{
	key = EVP_EC_gen("P-256");
	root = X509_new();
	X509_set_version(root, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(root), 1);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(root), "CN", MBSTRING_UTF8, (const unsigned char *)"root", -1,
				   -1, 0);
	X509_set_issuer_name(root, X509_get_subject_name(root));
	X509_gmtime_adj(X509_getm_notBefore(root), -3600);
	X509_gmtime_adj(X509_getm_notAfter(root), 86400);
	X509_set_pubkey(root, key);
	X509_sign(root, key, EVP_sha256());
	issuers = sk_X509_new_null();
	sk_X509_push(issuers, root);
}

static X509 *leaf(long serial)
{
	X509 *x = X509_new();

	ASN1_INTEGER_set(X509_get_serialNumber(x), serial);
	X509_set_issuer_name(x, X509_get_subject_name(root));
	return x;
}

static long serial_at(const uint8_t *data, size_t i)
{
	return data[2 * i] << 8 | data[2 * i + 1];
}

static void read_text(const uint8_t *data, size_t size)
{
	char *error = NULL;
	struct crl *c;

	if (!crl_read((const char *)data, size, issuers, &c, &error) || !error)
		abort();
	free(error);
}

static int sign_list(const uint8_t *serials, size_t n, unsigned char **ret_der)
{
	X509_CRL *crl = X509_CRL_new();
	ASN1_TIME *t = X509_gmtime_adj(NULL, -60);
	int len;

	X509_CRL_set_version(crl, X509_CRL_VERSION_2);
	X509_CRL_set_issuer_name(crl, X509_get_subject_name(root));
	X509_CRL_set1_lastUpdate(crl, t);
	for (size_t i = 0; i < n; i++) {
		X509_REVOKED *rev = X509_REVOKED_new();
		ASN1_INTEGER *number = ASN1_INTEGER_new();

		ASN1_INTEGER_set(number, serial_at(serials, i));
		X509_REVOKED_set_serialNumber(rev, number);
		X509_REVOKED_set_revocationDate(rev, t);
		X509_CRL_add0_revoked(crl, rev);
		ASN1_INTEGER_free(number);
	}
	X509_CRL_sign(crl, key, EVP_sha256());
	len = i2d_X509_CRL(crl, ret_der);
	X509_CRL_free(crl);
	ASN1_TIME_free(t);
	return len;
}

static void check_answers(const struct crl *c, const uint8_t *serials, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		X509 *x = leaf(serial_at(serials, i));

		if (!crl_revokes(c, x, root))
			abort();
		X509_free(x);
	}
	/* No serial of two bytes. */
	X509 *other = leaf(70000);

	if (crl_revokes(c, other, root) || crl_size(c) != n)
		abort();
	X509_free(other);
}

static void read_signed(uint8_t change, const uint8_t *serials, size_t n)
{
	unsigned char *der = NULL;
	int len = sign_list(serials, n, &der), r;
	char *error = NULL;
	struct crl *c;

	if (change)
		der[(size_t)change * 7 % (size_t)len] ^= 1 << change % 8;
	r = crl_read((char *)der, (size_t)len, issuers, &c, &error);
	if (r && !change)
		abort();
	if (!r) {
		check_answers(c, serials, n);
		crl_unref(c);
	}
	free(error);
	OPENSSL_free(der);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!root)
		set_up();
	if (size > 1 && !data[0])
		read_text(data + 1, size - 1);
	else if (size > 1)
		read_signed(data[1], data + 2, (size - 2) / 2);
	ERR_clear_error();
	return 0;
}
