/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and certificates that the embedded CA makes: roots, leaves, and their PEM texts. Called by ca.c, ca_rotation.c
 * and ca_revoke.c.
 */
#include "ca_private.h"
#include "engine/base/cleanup.h"
#include "identity.h"

#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <string.h>

#define ROOT_YEARS 10

static bool add_ext(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;
	bool ok;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = e && X509_add_ext(x, e, -1) == 1;
	X509_EXTENSION_free(e);
	return ok;
}

static bool random_serial(X509 *x)
{
	unsigned char bytes[16];
	BIGNUM *bn;
	bool ok;

	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return false;
	bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive and of full length (RFC 5280 4.1.2.2) */
	bn = BN_bin2bn(bytes, sizeof(bytes), NULL);
	ok = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x));
	BN_free(bn);
	return ok;
}

static bool add_name(X509_NAME *name, const char *field, const char *value)
{
	return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const unsigned char *)value, -1, -1, 0) == 1;
}

X509 *ca_make_root(EVP_PKEY *key, const char *trust_domain)
{
	X509 *x = X509_new();
	X509_NAME *name = x ? X509_get_subject_name(x) : NULL;
	unsigned char random[4];
	char common[32];
	bool ok;

	/* Two roots are trusted during a rotation: with one name for both, a chain could be tried with the wrong one.
	 */
	if (RAND_bytes(random, sizeof(random)) != 1)
		name = NULL;
	snprintf(common, sizeof(common), "Warren root %02x%02x%02x%02x", random[0], random[1], random[2], random[3]);
	ok = name && X509_set_version(x, X509_VERSION_3) && random_serial(x) &&
	     X509_gmtime_adj(X509_getm_notBefore(x), -CA_BACKDATE_S) &&
	     X509_time_adj_ex(X509_getm_notAfter(x), ROOT_YEARS * 365, 0, NULL) && X509_set_pubkey(x, key) &&
	     add_name(name, "O", trust_domain) && add_name(name, "CN", common) && X509_set_issuer_name(x, name) &&
	     add_ext(x, x, NID_basic_constraints, "critical,CA:TRUE") &&
	     add_ext(x, x, NID_key_usage, "critical,keyCertSign,cRLSign") &&
	     add_ext(x, x, NID_subject_key_identifier, "hash") && X509_sign(x, key, EVP_sha256());
	if (ok)
		return x;
	X509_free(x);
	return NULL;
}

X509 *ca_make_leaf(const struct ca *ca, EVP_PKEY *key, const char *spiffe)
{
	X509 *x = X509_new();
	char san[600];
	bool ok;

	snprintf(san, sizeof(san), "critical,URI:%s", spiffe);
	ok = x && X509_set_version(x, X509_VERSION_3) && random_serial(x) &&
	     X509_gmtime_adj(X509_getm_notBefore(x), -CA_BACKDATE_S) &&
	     X509_gmtime_adj(X509_getm_notAfter(x), (long)ca->ttl_s) && X509_set_pubkey(x, key) &&
	     X509_set_issuer_name(x, X509_get_subject_name(ca->cert)) &&
	     add_ext(x, ca->cert, NID_basic_constraints, "critical,CA:FALSE") &&
	     add_ext(x, ca->cert, NID_key_usage, "critical,digitalSignature") &&
	     add_ext(x, ca->cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
	     add_ext(x, ca->cert, NID_subject_alt_name, san);
	if (ok && X509_get0_subject_key_id(ca->cert))
		ok = add_ext(x, ca->cert, NID_authority_key_identifier, "keyid");
	/* A leaf must not outlive its issuer: the chain would break before the leaf says so. */
	if (ok && ASN1_TIME_compare(X509_get0_notAfter(x), X509_get0_notAfter(ca->cert)) > 0)
		ok = X509_set1_notAfter(x, X509_get0_notAfter(ca->cert));
	ok = ok && X509_sign(x, ca->key, EVP_sha256());
	if (ok)
		return x;
	X509_free(x);
	return NULL;
}

static char *to_text(BIO *bio)
{
	char *data;
	long n = BIO_get_mem_data(bio, &data);

	return n > 0 ? strndup(data, (size_t)n) : NULL;
}

char *ca_cert_pem(X509 *x)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = bio && PEM_write_bio_X509(bio, x) ? to_text(bio) : NULL;

	BIO_free(bio);
	return text;
}

char *ca_key_pem(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	char *text = bio && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) ? to_text(bio) : NULL;

	BIO_free(bio);
	return text;
}

EVP_PKEY *ca_read_key(const char *pem)
{
	/* With a pass phrase, be it an empty one, nobody is asked for one on the terminal. */
	char none[] = "";
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, none) : NULL;

	BIO_free(bio);
	return key;
}

void ca_fingerprint(X509 *x, char ret[17])
{
	unsigned char digest[EVP_MAX_MD_SIZE] = {0};

	(void)X509_digest(x, EVP_sha256(), digest, NULL);
	for (int i = 0; i < 8; i++)
		snprintf(ret + 2 * i, 3, "%02x", digest[i]);
}

X509 *ca_cert_of_key(const char *pem, EVP_PKEY *key)
{
	STACK_OF(X509) *certs = identity_read_certs(pem);
	X509 *found = NULL;

	for (int i = 0; i < sk_X509_num(certs) && !found; i++) {
		X509 *x = sk_X509_value(certs, i);

		if (X509_check_private_key(x, key) == 1 && X509_up_ref(x))
			found = x;
	}
	sk_X509_pop_free(certs, X509_free);
	return found;
}
