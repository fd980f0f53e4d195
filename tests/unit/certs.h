/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates of any kind, good and bad, made with OpenSSL for the tests of identity/. Included by the tests alone. */
#pragma once
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define TEST_ID "spiffe://cluster.local/ns/a/sa/a"

struct zoo_cert {
	X509 *x;
	EVP_PKEY *key;
};

/* What differs from an ordinary leaf of TEST_ID; zeroes are the ordinary. */
struct zoo_spec {
	const struct zoo_cert *issuer; /* NULL: self-signed */
	const char *name;
	const char *constraints; /* "critical,CA:FALSE" */
	const char *usage;	 /* "critical,digitalSignature" */
	const char *eku;	 /* "serverAuth,clientAuth"; "" for no extension */
	const char *san;	 /* value for OpenSSL: "URI:..."; "" for none */
	const char *raw_uri;	 /* the bytes of the one URI, whatever they are */
	size_t raw_uri_len;
	const char *extra; /* OID of a critical extension that nobody knows */
	bool weak;	   /* a key of RSA with 1024 bits */
	EVP_PKEY *key;	   /* taken over; NULL: a new one of P-256 */
	long from, until;  /* seconds from now; both 0: from a day ago to a day ahead */
};

static inline bool zoo_add(X509 *x, X509 *issuer, int nid, const char *value)
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

static inline bool zoo_add_raw_uri(X509 *x, const char *uri, size_t len)
{
	GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
	GENERAL_NAME *n = GENERAL_NAME_new();
	ASN1_IA5STRING *text = ASN1_IA5STRING_new();
	bool ok = ASN1_STRING_set(text, uri, (int)len) == 1;

	GENERAL_NAME_set0_value(n, GEN_URI, text);
	sk_GENERAL_NAME_push(names, n);
	ok = ok && X509_add1_ext_i2d(x, NID_subject_alt_name, names, 1, 0) == 1;
	GENERAL_NAMES_free(names);
	return ok;
}

static inline bool zoo_add_extra(X509 *x, const char *oid)
{
	ASN1_OBJECT *o = OBJ_txt2obj(oid, 1);
	ASN1_OCTET_STRING *data = ASN1_OCTET_STRING_new();
	X509_EXTENSION *e;
	bool ok;

	ASN1_OCTET_STRING_set(data, (const unsigned char *)"\x05\x00", 2);
	e = X509_EXTENSION_create_by_OBJ(NULL, o, 1, data);
	ok = e && X509_add_ext(x, e, -1) == 1;
	X509_EXTENSION_free(e);
	ASN1_OCTET_STRING_free(data);
	ASN1_OBJECT_free(o);
	return ok;
}

static inline struct zoo_cert zoo_make(const struct zoo_spec *s)
{
	struct zoo_cert c = {X509_new(), s->key ? s->key : s->weak ? EVP_RSA_gen(1024) : EVP_EC_gen("P-256")};
	X509 *issuer = s->issuer ? s->issuer->x : c.x;
	const char *eku = s->eku ? s->eku : "serverAuth,clientAuth", *san = s->san ? s->san : "URI:" TEST_ID;
	bool both = !s->from && !s->until, ok = true;
	uint64_t serial = 0;

	RAND_bytes((unsigned char *)&serial, sizeof(serial));
	X509_set_version(c.x, X509_VERSION_3);
	ASN1_INTEGER_set_uint64(X509_get_serialNumber(c.x), serial >> 1 | 1);
	X509_gmtime_adj(X509_getm_notBefore(c.x), both ? -86400 : s->from);
	X509_gmtime_adj(X509_getm_notAfter(c.x), both ? 86400 : s->until);
	X509_set_pubkey(c.x, c.key);
	if (s->name)
		X509_NAME_add_entry_by_txt(X509_get_subject_name(c.x), "CN", MBSTRING_UTF8,
					   (const unsigned char *)s->name, -1, -1, 0);
	X509_set_issuer_name(c.x, X509_get_subject_name(issuer));
	ok = zoo_add(c.x, issuer, NID_basic_constraints, s->constraints ? s->constraints : "critical,CA:FALSE") && ok;
	ok = zoo_add(c.x, issuer, NID_key_usage, s->usage ? s->usage : "critical,digitalSignature") && ok;
	ok = (!*eku || zoo_add(c.x, issuer, NID_ext_key_usage, eku)) && ok;
	if (s->raw_uri)
		ok = zoo_add_raw_uri(c.x, s->raw_uri, s->raw_uri_len) && ok;
	else
		ok = (!*san || zoo_add(c.x, issuer, NID_subject_alt_name, san)) && ok;
	ok = (!s->extra || zoo_add_extra(c.x, s->extra)) && ok;
	ok = X509_sign(c.x, s->issuer ? s->issuer->key : c.key, EVP_sha256()) && ok;
	if (!ok)
		abort();
	return c;
}

/* A CA below `issuer` (NULL: a root); `constraints` NULL: without a path length. */
static inline struct zoo_cert zoo_make_ca(const struct zoo_cert *issuer, const char *name, const char *constraints)
{
	struct zoo_spec s = {.issuer = issuer,
			     .name = name,
			     .constraints = constraints ? constraints : "critical,CA:TRUE",
			     .usage = "critical,keyCertSign,cRLSign",
			     .eku = "",
			     .san = ""};

	return zoo_make(&s);
}

static inline void zoo_free(struct zoo_cert *c)
{
	X509_free(c->x);
	EVP_PKEY_free(c->key);
}

static inline char *zoo_text(BIO *bio)
{
	char *data, *text;
	long n = BIO_get_mem_data(bio, &data);

	text = strndup(data, (size_t)n);
	BIO_free(bio);
	return text;
}

static inline char *zoo_pem(X509 *x)
{
	BIO *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_X509(bio, x);
	return zoo_text(bio);
}

static inline char *zoo_key_pem(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
	return zoo_text(bio);
}

/* A list of `issuer` that names the first n serials; `until` seconds from now, 0: no nextUpdate. */
static inline X509_CRL *zoo_make_crl(const struct zoo_cert *issuer, long from, long until, X509 *const *revoked,
				     size_t n)
{
	X509_CRL *crl = X509_CRL_new();
	ASN1_TIME *t = X509_gmtime_adj(NULL, from), *u = until ? X509_gmtime_adj(NULL, until) : NULL;

	X509_CRL_set_version(crl, X509_CRL_VERSION_2);
	X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->x));
	X509_CRL_set1_lastUpdate(crl, t);
	if (u)
		X509_CRL_set1_nextUpdate(crl, u);
	for (size_t i = 0; i < n; i++) {
		X509_REVOKED *rev = X509_REVOKED_new();

		X509_REVOKED_set_serialNumber(rev, X509_get_serialNumber(revoked[i]));
		X509_REVOKED_set_revocationDate(rev, t);
		X509_CRL_add0_revoked(crl, rev);
	}
	X509_CRL_sign(crl, issuer->key, EVP_sha256());
	ASN1_TIME_free(t);
	ASN1_TIME_free(u);
	return crl;
}

static inline char *zoo_crl_pem(X509_CRL *crl)
{
	BIO *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_X509_CRL(bio, crl);
	return zoo_text(bio);
}
