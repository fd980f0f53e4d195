/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a peer must prove in the handshake: a chain to our roots, validity, fitness for its role, and one SPIFFE ID of a
 * trust domain that the roots may vouch for, on the client side exactly the expected one. Runs as OpenSSL's
 * verification, so that no application byte moves before it has passed. Called by OpenSSL and by proxy/tunnel_life.c;
 * reasons are read by proxy/session.c.
 */
#include "engine/base/cleanup.h"
#include "engine/base/limits.h"
#include "identity.h"
#include "trust_private.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>

void tls_verify_done(struct tls_verify *v)
{
	free(v->peer);
	v->peer = NULL;
	free(v->peer_serial);
	v->peer_serial = NULL;
	sk_X509_pop_free(v->chain, X509_free);
	v->chain = NULL;
}

static enum wr_reason refuse(struct tls_verify *v, enum wr_reason reason, const char *detail)
{
	v->detail = detail;
	return reason;
}

/* --- the chain --- */

static enum wr_reason chain_reason(int error)
{
	switch (error) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return WR_REASON_TLS_EXPIRED;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return WR_REASON_TLS_NOT_YET_VALID;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
	case X509_V_ERR_CERT_UNTRUSTED:
		return WR_REASON_TLS_UNKNOWN_CA;
	case X509_V_ERR_INVALID_CA:
	case X509_V_ERR_KEYUSAGE_NO_CERTSIGN:
		return WR_REASON_TLS_ISSUER_NOT_CA;
	case X509_V_ERR_INVALID_PURPOSE:
		return WR_REASON_TLS_KEY_USAGE;
	case X509_V_ERR_PATH_LENGTH_EXCEEDED:
		return WR_REASON_TLS_PATH_LENGTH;
	case X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION:
		return WR_REASON_TLS_EXTENSION;
	case X509_V_ERR_CERT_CHAIN_TOO_LONG:
		return WR_REASON_TLS_CHAIN_LIMIT;
	default:
		return WR_REASON_TLS_BAD_CERT;
	}
}

/* OpenSSL's word, but for what it says too broadly. */
static const char *chain_detail(int error, X509 *leaf, bool server)
{
	uint32_t have = X509_get_extended_key_usage(leaf);

	if (error == X509_V_ERR_INVALID_PURPOSE && have != UINT32_MAX &&
	    !(have & (server ? XKU_SSL_CLIENT : XKU_SSL_SERVER)))
		return server ? "its extended key usage is not for clients"
			      : "its extended key usage is not for servers";
	return X509_verify_cert_error_string(error);
}

/* Builds the chain to a root: *ret_chain on success, OpenSSL's error otherwise. */
static int build_chain(const struct trust *t, X509 *leaf, STACK_OF(X509) * presented, bool server, unsigned long flags,
		       STACK_OF(X509) * *ret_chain)
{
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	int error = X509_V_ERR_OUT_OF_MEM;

	if (ctx && X509_STORE_CTX_init(ctx, t->roots, leaf, presented)) {
		X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);

		X509_STORE_CTX_set_default(ctx, server ? "ssl_client" : "ssl_server");
		X509_VERIFY_PARAM_set_depth(param, LIMIT_CHAIN_CERTS);
		X509_VERIFY_PARAM_set_auth_level(param, 2);
		X509_VERIFY_PARAM_set_flags(param, flags);
		error = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
		if (error == X509_V_OK) {
			*ret_chain = X509_STORE_CTX_get1_chain(ctx);
			error = *ret_chain ? X509_V_OK : X509_V_ERR_OUT_OF_MEM;
		}
	}
	X509_STORE_CTX_free(ctx);
	return error;
}

/* From the leaf up; nobody revokes a root by its own list. */
static bool is_revoked(const struct trust *t, STACK_OF(X509) * chain)
{
	for (int i = 0; i + 1 < sk_X509_num(chain); i++)
		for (size_t k = 0; k < t->n_crls; k++)
			if (crl_revokes(t->crls[k], sk_X509_value(chain, i), sk_X509_value(chain, i + 1)))
				return true;
	return false;
}

static time_t earliest_end(STACK_OF(X509) * chain)
{
	time_t end = 0;

	for (int i = 0; i < sk_X509_num(chain); i++) {
		time_t t = identity_time(X509_get0_notAfter(sk_X509_value(chain, i)));

		end = !end || t < end ? t : end;
	}
	return end;
}

/* --- the leaf --- */

/* Who speaks for a workload signs no certificates (SPIFFE X509-SVID 4). */
static const char *unfit_leaf(X509 *leaf)
{
	uint32_t usage = X509_get_key_usage(leaf);

	if (X509_get_extension_flags(leaf) & EXFLAG_CA)
		return "a CA certificate is no workload's";
	if (usage != UINT32_MAX && usage & (KU_KEY_CERT_SIGN | KU_CRL_SIGN))
		return "key usage of a CA";
	return NULL;
}

/* An SVID has exactly one URI, and one with more is to be refused (SPIFFE X509-SVID 2): the name that passes here must
 * be the name that logs and policies see. */
char *identity_spiffe(X509 *leaf, enum wr_reason *ret_reason, const char **ret_why)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
	const ASN1_IA5STRING *uri = NULL;
	const char *text = NULL;
	char *found = NULL;
	struct spiffe_id id;
	size_t len = 0;
	int n = 0;

	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(names, i);

		if (g->type == GEN_URI && !n++)
			uri = g->d.uniformResourceIdentifier;
	}
	/* A NUL inside fails the parse: the length is the certificate's, not strlen's. */
	if (n == 1) {
		text = (const char *)ASN1_STRING_get0_data(uri);
		len = (size_t)ASN1_STRING_length(uri);
		found = spiffe_parse(text, len, &id) ? NULL : strndup(text, len);
	}
	if (!found) {
		*ret_reason = !n      ? WR_REASON_TLS_SPIFFE_MISSING
			      : n > 1 ? WR_REASON_TLS_SPIFFE_SEVERAL
				      : WR_REASON_TLS_SPIFFE_MALFORMED;
		*ret_why = !n ? "no SPIFFE URI" : n > 1 ? "several URIs" : spiffe_fault(text, len);
	}
	GENERAL_NAMES_free(names);
	return found;
}

static bool may_vouch(const struct trust *t, const char *spiffe)
{
	struct spiffe_id id;

	return !spiffe_parse(spiffe, strlen(spiffe), &id) && trust_has_domain(t, id.trust_domain, id.trust_domain_len);
}

/* The peer's SPIFFE ID against what v asks for; kept as the peer's name when it can be parsed. */
static enum wr_reason check_name(X509 *leaf, struct tls_verify *v)
{
	enum wr_reason reason;
	const char *why;

	free(v->peer);
	v->peer = identity_spiffe(leaf, &reason, &why);
	if (!v->peer)
		return refuse(v, reason, why);
	if (!v->server && (!v->expected || strcmp(v->expected, v->peer)))
		return refuse(v, WR_REASON_TLS_WRONG_IDENTITY, NULL);
	if (!may_vouch(v->trust, v->peer))
		return refuse(v, WR_REASON_TLS_TRUST_DOMAIN, "the trusted roots may not vouch for it");
	return WR_REASON_NONE;
}

/* --- the judgement --- */

enum wr_reason trust_judge(struct tls_verify *v, X509 *leaf, STACK_OF(X509) * presented)
{
	const char *why = unfit_leaf(leaf);
	STACK_OF(X509) *chain = NULL;
	enum wr_reason r;
	int error;

	if (v->trust->crl_missing)
		return refuse(v, WR_REASON_TLS_CRL, NULL);
	/* Before any signature is computed. */
	if (sk_X509_num(presented) > LIMIT_CHAIN_CERTS)
		return refuse(v, WR_REASON_TLS_CHAIN_LIMIT, "too many certificates");
	if (why)
		return refuse(v, WR_REASON_TLS_LEAF_IS_CA, why);
	error = build_chain(v->trust, leaf, presented, v->server, 0, &chain);
	if (error != X509_V_OK)
		return refuse(v, chain_reason(error), chain_detail(error, leaf, v->server));
	r = is_revoked(v->trust, chain) ? refuse(v, WR_REASON_TLS_REVOKED, NULL) : WR_REASON_NONE;
	/* Also of a revoked one it is worth knowing who it is. */
	r = r ? (void)check_name(leaf, v), r : check_name(leaf, v);
	v->not_after = earliest_end(chain);
	sk_X509_pop_free(v->chain, X509_free);
	v->chain = chain;
	free(v->peer_serial);
	v->peer_serial = identity_serial(leaf);
	return r;
}

enum wr_reason trust_judge_again(const struct trust *t, const struct tls_verify *v)
{
	X509 *leaf = sk_X509_value(v->chain, 0);
	STACK_OF(X509) *chain = NULL;
	enum wr_reason r = WR_REASON_NONE;
	int error;

	if (!leaf)
		return WR_REASON_NONE;
	error = build_chain(t, leaf, v->chain, v->server, X509_V_FLAG_NO_CHECK_TIME, &chain);
	if (error != X509_V_OK)
		return chain_reason(error);
	if (is_revoked(t, chain))
		r = WR_REASON_TLS_REVOKED;
	else if (!may_vouch(t, v->peer))
		r = WR_REASON_TLS_TRUST_DOMAIN;
	sk_X509_pop_free(chain, X509_free);
	return r;
}

int identity_verify_callback(X509_STORE_CTX *ctx, void *arg)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(ctx, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls_verify *v = SSL_get_ex_data(ssl, identity_ex_index());

	(void)arg;
	v->failure = trust_judge(v, X509_STORE_CTX_get0_cert(ctx), X509_STORE_CTX_get0_untrusted(ctx));
	switch (v->failure) {
	case WR_REASON_NONE:
		X509_STORE_CTX_set_error(ctx, X509_V_OK);
		return 1;
	/* OpenSSL makes the alert that the peer sees from this. */
	case WR_REASON_TLS_EXPIRED:
		X509_STORE_CTX_set_error(ctx, X509_V_ERR_CERT_HAS_EXPIRED);
		break;
	case WR_REASON_TLS_REVOKED:
		X509_STORE_CTX_set_error(ctx, X509_V_ERR_CERT_REVOKED);
		break;
	case WR_REASON_TLS_UNKNOWN_CA:
		X509_STORE_CTX_set_error(ctx, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
		break;
	default:
		X509_STORE_CTX_set_error(ctx, X509_V_ERR_APPLICATION_VERIFICATION);
	}
	return 0;
}

/* What a fatal alert from the peer, or our own finding, says, other than about certificates. */
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
		return WR_REASON_TLS_NO_CERT;
	/* The only message that may come near this size is the certificate's. */
	case SSL_R_EXCESSIVE_MESSAGE_SIZE:
		return WR_REASON_TLS_CHAIN_LIMIT;
	case SSL_R_NO_APPLICATION_PROTOCOL:
	case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
		return WR_REASON_TLS_ALPN;
	default:
		return WR_REASON_TLS_PROTOCOL;
	}
}

enum wr_reason tls_verify_reason(const SSL *ssl, struct tls_verify *v)
{
	unsigned long e = ERR_peek_error();
	enum wr_reason r = v->failure ? v->failure : queue_reason(e);

	(void)ssl;
	ERR_clear_error();
	if (r == WR_REASON_TLS_CHAIN_LIMIT && !v->failure)
		v->detail = "more than 64 KiB";
	return r;
}
