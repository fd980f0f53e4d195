/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One workload's certificate in usable form: the client and server SSL_CTX (TLS 1.3 only, mutual, ALPN h2), shared by
 * all its connections. Immutable, counted; replaced as a whole on renewal. Verification per connection: see tls_verify.
 */
#pragma once
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "abi/reasons.h"

struct tls_identity {
	atomic_uint refs;
	char *spiffe;	    /* spiffe://td/ns/<ns>/sa/<sa> */
	char *trust_domain; /* the td of it */
	char *serial;	    /* decimal serial number of the leaf */
	char *cert_chain_pem;
	time_t not_before, not_after;
	SSL_CTX *client, *server;
};

/* Builds from PEM texts: leaf first then intermediates; `key_pem` is not kept as text. TLS 1.3 only, AES-128-GCM first
 * then AES-256-GCM, groups X25519 and P-256 and P-384, ALPN h2, no tickets, no resumption,
 * SSL_MODE_RELEASE_BUFFERS. 0 or -EINVAL (with *ret_error a static text).
 */
int tls_identity_new(const char *chain_pem, const char *key_pem, struct tls_identity **ret, const char **ret_error);
struct tls_identity *tls_identity_ref(struct tls_identity *id);
struct tls_identity *tls_identity_unref(struct tls_identity *id);

struct trust;

/* What one connection must prove, and what it proved. Attached to an SSL, which it must outlive; zeroes but for the
 * first three fields. */
struct tls_verify {
	struct trust *trust;  /* what is believed; borrowed */
	const char *expected; /* client role: the exact SPIFFE ID that the server must present */
	bool server;	      /* our role: the peer may be anybody of a trust domain that the roots may vouch for */
	/* out: */
	enum wr_reason failure; /* why the handshake failed (WR_REASON_TLS_*), NONE while it has not */
	const char *detail;	/* more about it, static, or NULL */
	char *peer;		/* the peer's SPIFFE ID; owned, as what follows, until tls_verify_done */
	char *peer_serial;	/* of its leaf, decimal */
	STACK_OF(X509) * chain; /* as verified, from leaf to root */
	time_t not_after;	/* when the first certificate of the chain expires */
};
void tls_verify_done(struct tls_verify *v);
/* Makes an SSL of this identity for one connection (no descriptor yet) whose certificate check fills *v. NULL: no
 * memory. */
SSL *tls_identity_client_ssl(struct tls_identity *id, struct tls_verify *v);
SSL *tls_identity_server_ssl(struct tls_identity *id, struct tls_verify *v);
/* After SSL_do_handshake failed for good: the distinct reason (v->failure, or what the OpenSSL error queue and alerts
 * say: version, no certificate, unknown CA, too many bytes, ALPN, protocol); v->detail may say more. Clears the error
 * queue. */
enum wr_reason tls_verify_reason(const SSL *ssl, struct tls_verify *v);

/* Parses exactly spiffe://<td>/ns/<ns>/sa/<sa>. Pieces point into `uri`. 0 or -EINVAL. */
struct spiffe_id {
	const char *trust_domain, *namespace_, *service_account;
	size_t trust_domain_len, namespace_len, service_account_len;
};
int spiffe_parse(const char *uri, size_t len, struct spiffe_id *ret);
