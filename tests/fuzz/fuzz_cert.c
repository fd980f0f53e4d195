/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hostile peer may present in a handshake, through the whole judgement. The first byte chooses: 0, the rest is
 * the subject alternative name of a leaf that a trusted root has signed; else the rest is a chain in DER.
 */
#include "engine/identity/trust.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static EVP_PKEY *key;
static X509 *root;
static struct trust *trust;

static X509 *make(X509 *issuer, const char *constraints, const char *usage)
{
	X509 *x = X509_new();
	X509V3_CTX ctx;
	const struct {
		int nid;
		const char *value;
	} exts[] = {{NID_basic_constraints, constraints}, {NID_key_usage, usage}};

	X509_set_version(x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x), 2);
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400);
	X509_set_pubkey(x, key);
	X509_set_issuer_name(x, X509_get_subject_name(issuer ? issuer : x));
	X509V3_set_ctx(&ctx, issuer ? issuer : x, x, NULL, NULL, 0);
	for (int i = 0; i < 2; i++) {
		X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, exts[i].nid, exts[i].value);

		X509_add_ext(x, e, -1);
		X509_EXTENSION_free(e);
	}
	return x;
}

static void set_up(void)
{
	static const char *const domains[] = {"cluster.local"};
	struct trust_config cfg = {.domains = domains, .n_domains = 1};
	BIO *bio = BIO_new(BIO_s_mem());
	char *data, *pem;
	long n;

	key = EVP_EC_gen("P-256");
	root = make(NULL, "critical,CA:TRUE", "critical,keyCertSign,cRLSign");
	X509_sign(root, key, EVP_sha256());
	PEM_write_bio_X509(bio, root);
	n = BIO_get_mem_data(bio, &data);
	pem = strndup(data, (size_t)n);
	cfg.roots_pem = pem;
	if (trust_new(&cfg, &trust) < 0)
		abort();
	free(pem);
	BIO_free(bio);
}

static X509 *leaf_with_name(const uint8_t *data, size_t size)
{
	X509 *x = make(root, "critical,CA:FALSE", "critical,digitalSignature"), *again;
	ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
	X509_EXTENSION *e;
	unsigned char *der = NULL;
	const unsigned char *p;
	int n;

	ASN1_OCTET_STRING_set(value, data, (int)size);
	e = X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 1, value);
	X509_add_ext(x, e, -1);
	X509_sign(x, key, EVP_sha256());
	X509_EXTENSION_free(e);
	ASN1_OCTET_STRING_free(value);
	/* As it would come off the wire. */
	n = i2d_X509(x, &der);
	p = der;
	again = d2i_X509(NULL, &p, n);
	OPENSSL_free(der);
	X509_free(x);
	return again;
}

static void judge(STACK_OF(X509) * chain, const char *expected)
{
	struct tls_verify v = {.trust = trust, .server = !expected, .expected = expected};
	struct spiffe_id id;

	if (trust_judge(&v, sk_X509_value(chain, 0), chain) == WR_REASON_NONE &&
	    (!v.peer || spiffe_parse(v.peer, strlen(v.peer), &id) || id.trust_domain_len != 13 ||
	     memcmp(id.trust_domain, "cluster.local", 13) || (expected && strcmp(expected, v.peer))))
		abort();
	if (v.chain)
		(void)trust_judge_again(trust, &v);
	tls_verify_done(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	STACK_OF(X509) *chain = sk_X509_new_null();
	const unsigned char *p = data + 1, *end = data + size;

	if (!root)
		set_up();
	if (size > 1 && !data[0]) {
		X509 *x = leaf_with_name(data + 1, size - 1);

		if (x)
			sk_X509_push(chain, x);
	}
	while (size > 1 && data[0] && p < end) {
		X509 *x = d2i_X509(NULL, &p, end - p);

		if (!x)
			break;
		sk_X509_push(chain, x);
	}
	if (sk_X509_num(chain) > 0) {
		judge(chain, NULL);
		judge(chain, "spiffe://cluster.local/ns/a/sa/a");
	}
	sk_X509_pop_free(chain, X509_free);
	ERR_clear_error();
	return 0;
}
