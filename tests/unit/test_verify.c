/* SPDX-License-Identifier: Apache-2.0 */
/* The zoo of certificates that a peer may present: which are let in, which are refused, and with which reason. */
#include "engine/base/cleanup.h"
#include "engine/base/limits.h"
#include "engine/identity/trust.h"
#include "certs.h"

#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define ALIAS_ID "spiffe://old.name/ns/a/sa/a"
#define FOREIGN_ID "spiffe://other.domain/ns/a/sa/a"

static struct zoo_cert root, inter, other_root;
static struct trust *trust;
static const char *said; /* what the last judgement said beside its reason; "": nothing */

static const char *const domains[] = {"cluster.local", "old.name"};

static struct trust *make_trust(X509 *anchor, const char *const *names, size_t n)
{
	_cleanup_free_ char *pem = zoo_pem(anchor);
	struct trust_config cfg = {.roots_pem = pem, .domains = names, .n_domains = n};
	struct trust *t = NULL;

	assert_int_equal(trust_new(&cfg, &t), 0);
	return t;
}

static int set_up(void **state)
{
	(void)state;
	root = zoo_make_ca(NULL, "root", NULL);
	inter = zoo_make_ca(&root, "intermediate", "critical,CA:TRUE,pathlen:0");
	other_root = zoo_make_ca(NULL, "another root", NULL);
	trust = make_trust(root.x, domains, 2);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	trust_unref(trust);
	zoo_free(&root);
	zoo_free(&inter);
	zoo_free(&other_root);
	return 0;
}

/* Judges leaf and what comes with it; on success the peer's name is checked, too. */
static enum wr_reason judge_as(bool server, const char *expected, X509 *leaf, X509 *const *more, size_t n,
			       const char *peer)
{
	STACK_OF(X509) *presented = sk_X509_new_null();
	struct tls_verify v = {.trust = trust, .expected = expected, .server = server};
	enum wr_reason r;

	sk_X509_push(presented, leaf);
	for (size_t i = 0; i < n; i++)
		sk_X509_push(presented, more[i]);
	r = trust_judge(&v, leaf, presented);
	said = v.detail ? v.detail : "";
	if (r == WR_REASON_NONE) {
		assert_string_equal(v.peer, peer);
		assert_non_null(v.peer_serial);
		assert_true(v.not_after > time(NULL));
		assert_int_equal(trust_judge_again(trust, &v), WR_REASON_NONE);
	}
	tls_verify_done(&v);
	sk_X509_free(presented);
	ERR_clear_error();
	return r;
}

static enum wr_reason judge(const struct zoo_spec *s)
{
	struct zoo_cert c = zoo_make(s);
	enum wr_reason r = judge_as(true, NULL, c.x, NULL, 0, TEST_ID);

	zoo_free(&c);
	return r;
}

/* --- let in --- */

static void good_ones_pass(void **state)
{
	struct zoo_cert direct = zoo_make(&(struct zoo_spec){.issuer = &root});
	struct zoo_cert below = zoo_make(&(struct zoo_spec){.issuer = &inter});
	struct zoo_cert alias = zoo_make(&(struct zoo_spec){.issuer = &root, .san = "URI:" ALIAS_ID});

	(void)state;
	assert_int_equal(judge_as(true, NULL, direct.x, NULL, 0, TEST_ID), WR_REASON_NONE);
	assert_int_equal(judge_as(false, TEST_ID, direct.x, NULL, 0, TEST_ID), WR_REASON_NONE);
	assert_int_equal(judge_as(true, NULL, below.x, &inter.x, 1, TEST_ID), WR_REASON_NONE);
	assert_int_equal(judge_as(true, NULL, alias.x, NULL, 0, ALIAS_ID), WR_REASON_NONE);
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .eku = ""}), WR_REASON_NONE);
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .san = "URI:" TEST_ID ",DNS:a.example"}),
			 WR_REASON_NONE);
	zoo_free(&direct);
	zoo_free(&below);
	zoo_free(&alias);
}

/* --- names --- */

static void names_must_be_one_exact_spiffe_id(void **state)
{
	static const struct {
		const char *uri;
		size_t len;
		const char *why;
	} bad[] = {
#define URI(text, why) {text, sizeof(text) - 1, why}
		URI(TEST_ID "\0.evil", "NUL"),
		URI("\0" TEST_ID, "NUL"),
		URI(TEST_ID "/more", "extra pieces"),
		URI(TEST_ID "/", "empty piece"),
		URI("spiffe://cluster.local/ns//sa/a", "empty piece"),
		URI("spiffe://cluster.local/ns/a/sa/", "empty piece"),
		URI("spiffe://cluster.local//ns/a/sa/a", "empty piece"),
		URI("spiffe:///ns/a/sa/a", "is not spiffe://"),
		URI("spiffe://cluster.local/ns/a/sa/%61", "percent-encoding"),
		URI("spiffe://cluster.local/ns/a%2fsa%2fb/sa/a", "percent-encoding"),
		URI("spiffe://cluster.local/ns/a/sa/a?x=y", "is not spiffe://"),
		URI("spiffe://cluster.local/ns/a/sa/a#x", "is not spiffe://"),
		URI("spiffe://user@cluster.local/ns/a/sa/a", "is not spiffe://"),
		URI("SPIFFE://cluster.local/ns/a/sa/a", "scheme"),
		URI("https://cluster.local/ns/a/sa/a", "scheme"),
		URI("spiffe://cluster.local", "is not spiffe://"),
		URI("", "scheme"),
#undef URI
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(
			judge(&(struct zoo_spec){.issuer = &root, .raw_uri = bad[i].uri, .raw_uri_len = bad[i].len}),
			WR_REASON_TLS_SPIFFE_MALFORMED);
		assert_non_null(strstr(said, bad[i].why));
	}
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .san = ""}), WR_REASON_TLS_SPIFFE_MISSING);
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .san = "DNS:a.example"}),
			 WR_REASON_TLS_SPIFFE_MISSING);
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .san = "URI:" TEST_ID ",URI:" ALIAS_ID}),
			 WR_REASON_TLS_SPIFFE_SEVERAL);
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .san = "URI:" TEST_ID ",URI:http://x"}),
			 WR_REASON_TLS_SPIFFE_SEVERAL);
}

/* A root vouches for our trust domain and its aliases: on neither side for any other. */
static void roots_are_bound_to_their_domains(void **state)
{
	struct zoo_cert c = zoo_make(&(struct zoo_spec){.issuer = &root, .san = "URI:" FOREIGN_ID});
	struct zoo_cert longer =
		zoo_make(&(struct zoo_spec){.issuer = &root, .san = "URI:spiffe://cluster.local.evil/ns/a/sa/a"});

	(void)state;
	assert_int_equal(judge_as(true, NULL, c.x, NULL, 0, ""), WR_REASON_TLS_TRUST_DOMAIN);
	assert_int_equal(judge_as(false, FOREIGN_ID, c.x, NULL, 0, ""), WR_REASON_TLS_TRUST_DOMAIN);
	assert_int_equal(judge_as(false, TEST_ID, c.x, NULL, 0, ""), WR_REASON_TLS_WRONG_IDENTITY);
	assert_int_equal(judge_as(true, NULL, longer.x, NULL, 0, ""), WR_REASON_TLS_TRUST_DOMAIN);
	zoo_free(&c);
	zoo_free(&longer);
}

/* --- chains --- */

static void only_trusted_roots_count(void **state)
{
	struct zoo_cert c = zoo_make(&(struct zoo_spec){.issuer = &other_root});
	struct zoo_cert own = zoo_make(&(struct zoo_spec){0});
	X509 *with_root[] = {other_root.x};

	(void)state;
	assert_int_equal(judge_as(true, NULL, c.x, NULL, 0, ""), WR_REASON_TLS_UNKNOWN_CA);
	assert_int_equal(judge_as(true, NULL, c.x, with_root, 1, ""), WR_REASON_TLS_UNKNOWN_CA);
	assert_int_equal(judge_as(true, NULL, own.x, NULL, 0, ""), WR_REASON_TLS_UNKNOWN_CA);
	zoo_free(&c);
	zoo_free(&own);
}

static void forged_signature(void **state)
{
	struct zoo_cert imitation = zoo_make_ca(NULL, "root", NULL);
	struct zoo_cert c = zoo_make(&(struct zoo_spec){.issuer = &imitation});

	(void)state;
	assert_int_equal(judge_as(true, NULL, c.x, NULL, 0, ""), WR_REASON_TLS_UNKNOWN_CA);
	zoo_free(&c);
	zoo_free(&imitation);
}

static void a_ca_is_no_leaf(void **state)
{
	(void)state;
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .constraints = "critical,CA:TRUE"}),
			 WR_REASON_TLS_LEAF_IS_CA);
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .usage = "critical,digitalSignature,keyCertSign"}),
			 WR_REASON_TLS_LEAF_IS_CA);
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .usage = "critical,digitalSignature,cRLSign"}),
			 WR_REASON_TLS_LEAF_IS_CA);
}

static void a_leaf_signs_nothing(void **state)
{
	struct zoo_cert leaf = zoo_make(&(struct zoo_spec){.issuer = &root, .name = "leaf"});
	struct zoo_cert below = zoo_make(&(struct zoo_spec){.issuer = &leaf});

	(void)state;
	assert_int_equal(judge_as(true, NULL, below.x, &leaf.x, 1, ""), WR_REASON_TLS_ISSUER_NOT_CA);
	zoo_free(&leaf);
	zoo_free(&below);
}

/* `inter` allows no CA below it. */
static void path_length(void **state)
{
	struct zoo_cert deeper = zoo_make_ca(&inter, "deeper", NULL);
	struct zoo_cert leaf = zoo_make(&(struct zoo_spec){.issuer = &deeper});
	X509 *more[] = {deeper.x, inter.x};

	(void)state;
	assert_int_equal(judge_as(true, NULL, leaf.x, more, 2, ""), WR_REASON_TLS_PATH_LENGTH);
	zoo_free(&deeper);
	zoo_free(&leaf);
}

static void extended_key_usage(void **state)
{
	struct zoo_cert client = zoo_make(&(struct zoo_spec){.issuer = &root, .eku = "clientAuth"});
	struct zoo_cert server = zoo_make(&(struct zoo_spec){.issuer = &root, .eku = "serverAuth"});
	struct zoo_cert neither = zoo_make(&(struct zoo_spec){.issuer = &root, .eku = "codeSigning"});

	(void)state;
	assert_int_equal(judge_as(true, NULL, client.x, NULL, 0, TEST_ID), WR_REASON_NONE);
	assert_int_equal(judge_as(false, TEST_ID, client.x, NULL, 0, ""), WR_REASON_TLS_KEY_USAGE);
	assert_non_null(strstr(said, "extended key usage is not for servers"));
	assert_int_equal(judge_as(false, TEST_ID, server.x, NULL, 0, TEST_ID), WR_REASON_NONE);
	assert_int_equal(judge_as(true, NULL, server.x, NULL, 0, ""), WR_REASON_TLS_KEY_USAGE);
	assert_non_null(strstr(said, "extended key usage is not for clients"));
	assert_int_equal(judge_as(true, NULL, neither.x, NULL, 0, ""), WR_REASON_TLS_KEY_USAGE);
	zoo_free(&client);
	zoo_free(&server);
	zoo_free(&neither);
}

static void unknown_critical_extension(void **state)
{
	(void)state;
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .extra = "1.3.6.1.4.1.55555.1"}),
			 WR_REASON_TLS_EXTENSION);
}

static void weak_key(void **state)
{
	(void)state;
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .weak = true}), WR_REASON_TLS_BAD_CERT);
	assert_non_null(strstr(said, "key too weak"));
}

static void too_many_certificates(void **state)
{
	struct zoo_cert c = zoo_make(&(struct zoo_spec){.issuer = &root});
	X509 *more[LIMIT_CHAIN_CERTS];

	(void)state;
	for (int i = 0; i < LIMIT_CHAIN_CERTS; i++)
		more[i] = inter.x;
	assert_int_equal(judge_as(true, NULL, c.x, more, LIMIT_CHAIN_CERTS - 1, TEST_ID), WR_REASON_NONE);
	assert_int_equal(judge_as(true, NULL, c.x, more, LIMIT_CHAIN_CERTS, ""), WR_REASON_TLS_CHAIN_LIMIT);
	zoo_free(&c);
}

/* --- time --- */

static void validity(void **state)
{
	struct zoo_cert c = zoo_make(&(struct zoo_spec){.issuer = &root, .from = -86400, .until = -60});

	(void)state;
	assert_int_equal(judge_as(true, NULL, c.x, NULL, 0, ""), WR_REASON_TLS_EXPIRED);
	assert_int_equal(judge(&(struct zoo_spec){.issuer = &root, .from = 600, .until = 86400}),
			 WR_REASON_TLS_NOT_YET_VALID);
	zoo_free(&c);
}

/* An open stream may outlive its certificate; what else is believed counts for it, too. */
static void judged_again_without_the_clock(void **state)
{
	struct zoo_cert c = zoo_make(&(struct zoo_spec){.issuer = &root, .from = -60, .until = 1});
	struct tls_verify v = {.trust = trust, .server = true};
	STACK_OF(X509) *presented = sk_X509_new_null();
	static const char *const others[] = {"other.domain", "old.name"};
	struct trust *other = make_trust(other_root.x, domains, 2), *without = make_trust(root.x, others, 2);

	(void)state;
	sk_X509_push(presented, c.x);
	assert_int_equal(trust_judge(&v, c.x, presented), WR_REASON_NONE);
	while (X509_cmp_current_time(X509_get0_notAfter(c.x)) > 0)
		usleep(10000);
	assert_int_equal(judge_as(true, NULL, c.x, NULL, 0, ""), WR_REASON_TLS_EXPIRED);
	assert_int_equal(trust_judge_again(trust, &v), WR_REASON_NONE);
	assert_int_equal(trust_judge_again(other, &v), WR_REASON_TLS_UNKNOWN_CA);
	assert_int_equal(trust_judge_again(without, &v), WR_REASON_TLS_TRUST_DOMAIN);
	tls_verify_done(&v);
	sk_X509_free(presented);
	trust_unref(other);
	trust_unref(without);
	zoo_free(&c);
}

/* --- on the wire --- */

/* A real handshake in memory; what the server made of the client's certificates. */
static enum wr_reason shake(const struct zoo_cert *client, X509 *const *more, size_t n)
{
	struct zoo_cert own = zoo_make(&(struct zoo_spec){.issuer = &root});
	_cleanup_free_ char *chain = zoo_pem(own.x), *key = zoo_key_pem(own.key);
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	struct tls_verify v = {.trust = trust, .server = true};
	struct tls_identity *id;
	const char *why;
	enum wr_reason r = WR_REASON_NONE;
	int done = 0;
	SSL *c, *s;
	BIO *a, *b;

	assert_int_equal(tls_identity_new(chain, key, &id, &why), 0);
	SSL_CTX_use_certificate(ctx, client->x);
	SSL_CTX_use_PrivateKey(ctx, client->key);
	for (size_t i = 0; i < n; i++)
		SSL_CTX_add1_chain_cert(ctx, more[i]);
	SSL_CTX_set_alpn_protos(ctx, (const unsigned char *)"\x02h2", 3);
	c = SSL_new(ctx);
	s = tls_identity_server_ssl(id, &v);
	SSL_set_connect_state(c);
	assert_int_equal(BIO_new_bio_pair(&a, 1 << 20, &b, 1 << 20), 1);
	SSL_set_bio(c, a, a);
	SSL_set_bio(s, b, b);
	for (int i = 0; i < 20 && done != 1 && !r; i++) {
		(void)SSL_do_handshake(c);
		ERR_clear_error();
		done = SSL_do_handshake(s);
		if (done != 1 && SSL_get_error(s, done) == SSL_ERROR_SSL)
			r = tls_verify_reason(s, &v);
	}
	assert_true(done == 1 || r);
	SSL_free(c);
	SSL_free(s);
	SSL_CTX_free(ctx);
	tls_verify_done(&v);
	tls_identity_unref(id);
	zoo_free(&own);
	return r;
}

static void more_than_64_kib(void **state)
{
	static char name[30000];
	struct zoo_cert leaf = zoo_make(&(struct zoo_spec){.issuer = &root}), big[3];
	X509 *more[3];

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	for (int i = 0; i < 3; i++) {
		char san[sizeof(name) + 8];

		snprintf(san, sizeof(san), "DNS:%s", name);
		big[i] = zoo_make(&(struct zoo_spec){.issuer = &root, .san = san});
		more[i] = big[i].x;
	}
	assert_int_equal(shake(&leaf, NULL, 0), WR_REASON_NONE);
	assert_int_equal(shake(&leaf, more, 2), WR_REASON_NONE);
	assert_int_equal(shake(&leaf, more, 3), WR_REASON_TLS_CHAIN_LIMIT);
	for (int i = 0; i < 3; i++)
		zoo_free(&big[i]);
	zoo_free(&leaf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_ones_pass),
		cmocka_unit_test(names_must_be_one_exact_spiffe_id),
		cmocka_unit_test(roots_are_bound_to_their_domains),
		cmocka_unit_test(only_trusted_roots_count),
		cmocka_unit_test(forged_signature),
		cmocka_unit_test(a_ca_is_no_leaf),
		cmocka_unit_test(a_leaf_signs_nothing),
		cmocka_unit_test(path_length),
		cmocka_unit_test(extended_key_usage),
		cmocka_unit_test(unknown_critical_extension),
		cmocka_unit_test(weak_key),
		cmocka_unit_test(too_many_certificates),
		cmocka_unit_test(validity),
		cmocka_unit_test(judged_again_without_the_clock),
		cmocka_unit_test(more_than_64_kib),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
