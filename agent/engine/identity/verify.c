/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer must prove in the handshake: a chain to our roots, validity, fitness for its role, and a SPIFFE ID,
 * exactly the expected one (client side) or one of our trust domain (server side). Runs as OpenSSL's verification, so
 * that no application byte moves before it has passed. Called by OpenSSL; reasons are read by proxy/tunnel.c.
 */
#include "engine/identity/tls_identity.h"
#include "identity.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void tls_verify_done(struct tls_verify *v)
{
	free(v->peer);
	v->peer = NULL;
}

static enum wr_reason chain_reason(int error)
{
	switch (error) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return WR_REASON_TLS_EXPIRED;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
	case X509_V_ERR_CERT_UNTRUSTED:
		return WR_REASON_TLS_UNKNOWN_CA;
	default:
		return WR_REASON_TLS_BAD_CERT;
	}
}

/* An SVID has exactly one URI, and one with more is to be refused (SPIFFE X509-SVID 2): the name that passes here must
 * be the name that logs and policies see. */
static bool several_uris(const GENERAL_NAMES *names)
{
	int n = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
		n += sk_GENERAL_NAME_value(names, i)->type == GEN_URI;
	return n > 1;
}

/* The peer's SPIFFE ID against what v asks for; kept as the peer's name when it can be parsed. */
static enum wr_reason check_names(X509 *leaf, struct tls_verify *v)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
	enum wr_reason r = WR_REASON_TLS_BAD_CERT;

	for (int i = 0; i < sk_GENERAL_NAME_num(names) && !several_uris(names); i++) {
		GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
		const char *uri;
		struct spiffe_id id;
		size_t len;

		if (n->type != GEN_URI)
			continue;
		uri = (const char *)ASN1_STRING_get0_data(n->d.uniformResourceIdentifier);
		len = (size_t)ASN1_STRING_length(n->d.uniformResourceIdentifier);
		/* A NUL inside fails the parse: the length is the certificate's, not strlen's. */
		if (spiffe_parse(uri, len, &id))
			continue;
		if (!v->peer)
			v->peer = strndup(uri, len);
		if (v->trust_domain)
			r = strlen(v->trust_domain) == id.trust_domain_len &&
					    !memcmp(v->trust_domain, id.trust_domain, id.trust_domain_len)
				    ? WR_REASON_NONE
				    : WR_REASON_TLS_TRUST_DOMAIN;
		else
			r = v->expected && *v->expected && strlen(v->expected) == len && !memcmp(v->expected, uri, len)
				    ? WR_REASON_NONE
				    : WR_REASON_TLS_WRONG_IDENTITY;
		if (r == WR_REASON_NONE)
			break;
	}
	GENERAL_NAMES_free(names);
	return v->peer ? r : WR_REASON_TLS_BAD_CERT;
}

int identity_verify_callback(X509_STORE_CTX *ctx, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_verify *v = SSL_get_ex_data(ssl, identity_ex_index());

	(void)arg;
	if (X509_verify_cert(ctx) != 1) {
		v->failure = chain_reason(X509_STORE_CTX_get_error(ctx));
		return 0;
	}
	v->failure = check_names(X509_STORE_CTX_get0_cert(ctx), v);
	if (v->failure == WR_REASON_NONE)
		return 1;
	X509_STORE_CTX_set_error(ctx, X509_V_ERR_APPLICATION_VERIFICATION);
	return 0;
}

/* What a fatal alert from the peer, or our own finding, says. */
static enum wr_reason queue_reason(unsigned long e)
{
	switch (ERR_GET_REASON(e)) {
	case SSL_R_UNSUPPORTED_PROTOCOL:
	case SSL_R_VERSION_TOO_LOW:
	case SSL_R_WRONG_SSL_VERSION:
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
	case SSL_R_NO_PROTOCOLS_AVAILABLE:
		return WR_REASON_TLS_VERSION;
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return WR_REASON_TLS_NO_CERT;
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
		return WR_REASON_TLS_UNKNOWN_CA;
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
		return WR_REASON_TLS_EXPIRED;
	case SSL_R_NO_APPLICATION_PROTOCOL:
	case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
		return WR_REASON_TLS_ALPN;
	default:
		return WR_REASON_TLS_PROTOCOL;
	}
}

enum wr_reason tls_verify_reason(const SSL *ssl, const struct tls_verify *v)
{
	unsigned long e = ERR_peek_error();
	enum wr_reason r = v->failure ? v->failure : queue_reason(e);

	(void)ssl;
	ERR_clear_error();
	return r;
}
