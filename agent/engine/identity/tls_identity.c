/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One workload's certificate as a pair of SSL_CTX, shared by all its connections. PEM texts come in, SSLs leave; called
 * by ca.c (new), proxy/tunnel.c (one SSL per tunnel). What peers must prove is struct trust's matter.
 */
#include "engine/identity/tls_identity.h"
#include "engine/base/limits.h"
#include "identity.h"

#include <errno.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const unsigned char alpn_h2[] = {2, 'h', '2'};
static int ex_index = -1;
static pthread_once_t ex_once = PTHREAD_ONCE_INIT;

static void ex_make(void)
{
	ex_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
}

int identity_ex_index(void)
{
	pthread_once(&ex_once, ex_make);
	return ex_index;
}

STACK_OF(X509) * identity_read_certs(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	STACK_OF(X509) *certs = sk_X509_new_null();
	X509 *x;

	while (bio && certs && (x = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
		/* OpenSSL reads extensions when they are first asked for: let that be before threads share it. */
		(void)X509_check_purpose(x, -1, 0);
		if (!sk_X509_push(certs, x))
			X509_free(x);
	}
	BIO_free(bio);
	if (certs && !sk_X509_num(certs)) {
		sk_X509_free(certs);
		certs = NULL;
	}
	return certs;
}

/* Only h2: a peer that offers something else, or nothing, is not speaking HBONE. */
static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
		       unsigned in_len, void *arg)
{
	(void)ssl;
	(void)arg;
	for (unsigned i = 0; i < in_len; i += in[i] + 1u) {
		if (i + 3 <= in_len && in[i] == 2 && in[i + 1] == 'h' && in[i + 2] == '2') {
			*out = in + i + 1;
			*out_len = 2;
			return SSL_TLSEXT_ERR_OK;
		}
	}
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static SSL_CTX *make_ctx(bool server, STACK_OF(X509) * chain, EVP_PKEY *key)
{
	SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
	int ok = ctx != NULL;

	ok = ok && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	ok = ok && SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384");
	ok = ok && SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384");
	ok = ok && SSL_CTX_use_certificate(ctx, sk_X509_value(chain, 0));
	for (int i = 1; ok && i < sk_X509_num(chain); i++)
		ok = (int)SSL_CTX_add1_chain_cert(ctx, sk_X509_value(chain, i));
	ok = ok && SSL_CTX_use_PrivateKey(ctx, key) && SSL_CTX_check_private_key(ctx);
	/* set_alpn_protos returns 0 for success. */
	ok = ok && !SSL_CTX_set_alpn_protos(ctx, alpn_h2, sizeof(alpn_h2));
	if (!ok) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	SSL_CTX_set_alpn_select_cb(ctx, select_alpn, NULL);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_max_cert_list(ctx, LIMIT_CHAIN_BYTES);
	SSL_CTX_set_cert_verify_callback(ctx, identity_verify_callback, NULL);
	/* Each handshake proves both certificates anew: no tickets, no sessions, so a change of trust has no resumption
	 * state to flush. */
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	return ctx;
}

time_t identity_time(const ASN1_TIME *t)
{
	struct tm tm = {0};

	return ASN1_TIME_to_tm(t, &tm) == 1 ? timegm(&tm) : 0;
}

char *identity_serial(const X509 *leaf)
{
	BIGNUM *bn = ASN1_INTEGER_to_BN(X509_get0_serialNumber(leaf), NULL);
	char *dec = bn ? BN_bn2dec(bn) : NULL, *copy = dec ? strdup(dec) : NULL;

	OPENSSL_free(dec);
	BN_free(bn);
	return copy;
}

static int fill(struct tls_identity *id, STACK_OF(X509) * chain, EVP_PKEY *key, const char **ret_error)
{
	X509 *leaf = sk_X509_value(chain, 0);
	enum wr_reason reason;
	struct spiffe_id s;

	id->spiffe = identity_spiffe(leaf, &reason, ret_error);
	if (!id->spiffe || spiffe_parse(id->spiffe, strlen(id->spiffe), &s))
		return -EINVAL;
	id->trust_domain = strndup(s.trust_domain, s.trust_domain_len);
	id->serial = identity_serial(leaf);
	id->not_before = identity_time(X509_get0_notBefore(leaf));
	id->not_after = identity_time(X509_get0_notAfter(leaf));
	*ret_error = "certificate and key do not fit together";
	id->client = make_ctx(false, chain, key);
	id->server = make_ctx(true, chain, key);
	return id->client && id->server && id->trust_domain && id->serial ? 0 : -EINVAL;
}

int tls_identity_new(const char *chain_pem, const char *key_pem, struct tls_identity **ret, const char **ret_error)
{
	STACK_OF(X509) *chain = identity_read_certs(chain_pem);
	BIO *bio = BIO_new_mem_buf(key_pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
	struct tls_identity *id = calloc(1, sizeof(*id));
	int r = -EINVAL;

	BIO_free(bio);
	*ret_error = !chain ? "no certificate in the chain" : "no private key";
	if (id && chain && key) {
		id->refs = 1;
		id->cert_chain_pem = strdup(chain_pem);
		r = fill(id, chain, key, ret_error);
	}
	sk_X509_pop_free(chain, X509_free);
	EVP_PKEY_free(key);
	if (r < 0) {
		if (id) {
			id->refs = 1;
			tls_identity_unref(id);
		}
		return r;
	}
	*ret = id;
	return 0;
}

struct tls_identity *tls_identity_ref(struct tls_identity *id)
{
	atomic_fetch_add_explicit(&id->refs, 1, memory_order_relaxed);
	return id;
}

struct tls_identity *tls_identity_unref(struct tls_identity *id)
{
	if (!id || atomic_fetch_sub_explicit(&id->refs, 1, memory_order_acq_rel) != 1)
		return NULL;
	SSL_CTX_free(id->client);
	SSL_CTX_free(id->server);
	free(id->spiffe);
	free(id->trust_domain);
	free(id->serial);
	free(id->cert_chain_pem);
	free(id);
	return NULL;
}

static SSL *make_ssl(SSL_CTX *ctx, struct tls_verify *v)
{
	SSL *ssl = SSL_new(ctx);

	if (ssl && SSL_set_ex_data(ssl, identity_ex_index(), v) != 1) {
		SSL_free(ssl);
		return NULL;
	}
	v->failure = WR_REASON_NONE;
	return ssl;
}

SSL *tls_identity_client_ssl(struct tls_identity *id, struct tls_verify *v)
{
	SSL *ssl = make_ssl(id->client, v);

	if (ssl)
		SSL_set_connect_state(ssl);
	return ssl;
}

SSL *tls_identity_server_ssl(struct tls_identity *id, struct tls_verify *v)
{
	SSL *ssl = make_ssl(id->server, v);

	if (ssl)
		SSL_set_accept_state(ssl);
	return ssl;
}
