/* SPDX-License-Identifier: Apache-2.0 */
/* SPIFFE IDs, the embedded CA's folder, and handshakes in memory: who is let in, who is refused and why. */
#include "engine/base/cleanup.h"
#include "engine/identity/ca.h"
#include "engine/identity/trust.h"
#include "certs.h"
#include "folder.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#define A "spiffe://cluster.local/ns/a/sa/a"
#define B "spiffe://cluster.local/ns/b/sa/b"

static char dir_one[] = "/tmp/wr-test-ca1-XXXXXX", dir_two[] = "/tmp/wr-test-ca2-XXXXXX";
static struct ca *one, *two;

static int set_up(void **state)
{
	char *error = NULL;

	(void)state;
	folder_make(dir_one);
	folder_make(dir_two);
	assert_int_equal(ca_open_dir(dir_one, "cluster.local", 3600, &one, &error), 0);
	assert_int_equal(ca_open_dir(dir_two, "cluster.local", 3600, &two, &error), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	ca_free(one);
	ca_free(two);
	return 0;
}

static void spiffe_ids_are_exact(void **state)
{
	static const char *const bad[] = {"",
					  "spiffe://",
					  "spiffe://td",
					  "spiffe://td/ns/a",
					  "spiffe://td/ns/a/sa/",
					  "spiffe://td/ns//sa/a",
					  "spiffe:///ns/a/sa/a",
					  "spiffe://td/ns/a/sa/b/c",
					  "spiffe://td/sa/a/ns/b",
					  "http://td/ns/a/sa/b",
					  "spiffe://td/ns/a/sa/b%2f",
					  "spiffe://td/ns/a/sa/b?x",
					  "spiffe://td:1/ns/a/sa/b"};
	struct spiffe_id id;
	char name[2049];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(spiffe_parse(bad[i], strlen(bad[i]), &id), -EINVAL);
	assert_int_equal(spiffe_parse(A, strlen(A), &id), 0);
	assert_int_equal(id.trust_domain_len, 13);
	assert_int_equal(spiffe_parse(A "\0x", strlen(A) + 2, &id), -EINVAL);
	/* Policy knows nobody by a longer name, and a DENY of everybody who has one would not match. */
	memcpy(name, "spiffe://td/ns/a/sa/", 20);
	memset(name + 20, 'b', sizeof(name) - 20);
	assert_int_equal(spiffe_parse(name, 2048, &id), 0);
	assert_int_equal(spiffe_parse(name, 2049, &id), -EINVAL);
}

static struct trust *trust_in(struct ca *ca, const char *domain)
{
	struct trust_config cfg = {.roots_pem = ca_roots(ca), .domains = &domain, .n_domains = 1};
	struct trust *t = NULL;

	assert_int_equal(trust_new(&cfg, &t), 0);
	return t;
}

/* Runs a handshake between two memory BIO ends; the reasons of both sides. */
static void shake(struct ca *ca_client, const char *client, struct ca *ca_server, const char *server,
		  const char *expected, const char *trust_domain, enum wr_reason *ret_client,
		  enum wr_reason *ret_server)
{
	struct trust *tc = trust_in(ca_client, "cluster.local"), *ts = trust_in(ca_server, trust_domain);
	struct tls_verify vc = {.trust = tc, .expected = expected}, vs = {.trust = ts, .server = true};
	struct tls_identity *ic, *is;
	char *error = NULL;
	BIO *a, *b;
	SSL *c, *s;
	int rc = 0, rs = 0;
	char byte;

	assert_int_equal(ca_issue(ca_client, client, &ic, &error), 0);
	assert_int_equal(ca_issue(ca_server, server, &is, &error), 0);
	c = tls_identity_client_ssl(ic, &vc);
	s = tls_identity_server_ssl(is, &vs);
	assert_int_equal(BIO_new_bio_pair(&a, 65536, &b, 65536), 1);
	SSL_set_bio(c, a, a);
	SSL_set_bio(s, b, b);
	*ret_client = *ret_server = WR_REASON_NONE;
	for (int i = 0; i < 10; i++) {
		if (rc != 1 && !*ret_client) {
			rc = SSL_do_handshake(c);
			if (rc != 1 && SSL_get_error(c, rc) == SSL_ERROR_SSL)
				*ret_client = tls_verify_reason(c, &vc);
		}
		if (rs != 1 && !*ret_server) {
			rs = SSL_do_handshake(s);
			if (rs != 1 && SSL_get_error(s, rs) == SSL_ERROR_SSL)
				*ret_server = tls_verify_reason(s, &vs);
		}
	}
	if (rc == 1 && rs == 1) {
		assert_string_equal(vc.peer, server);
		assert_string_equal(vs.peer, client);
		assert_string_equal(SSL_get_cipher_name(c), "TLS_AES_128_GCM_SHA256");
		/* Good for clocks that are five minutes behind. */
		assert_in_range(time(NULL) - ic->not_before, 300, 330);
		/* Nothing that could be resumed past a change of trust: tickets would come behind the handshake. */
		assert_int_equal(SSL_read(c, &byte, 1), -1);
		assert_int_equal(SSL_get_error(c, -1), SSL_ERROR_WANT_READ);
		assert_false(SSL_SESSION_is_resumable(SSL_get0_session(c)));
		assert_int_equal(SSL_CTX_sess_number(is->server), 0);
	}
	SSL_free(c);
	SSL_free(s);
	tls_verify_done(&vc);
	tls_verify_done(&vs);
	tls_identity_unref(ic);
	tls_identity_unref(is);
	trust_unref(tc);
	trust_unref(ts);
}

static void handshakes(void **state)
{
	enum wr_reason c, s;

	(void)state;
	shake(one, A, one, B, B, "cluster.local", &c, &s);
	assert_int_equal(c, WR_REASON_NONE);
	assert_int_equal(s, WR_REASON_NONE);
	shake(one, A, one, B, A, "cluster.local", &c, &s);
	assert_int_equal(c, WR_REASON_TLS_WRONG_IDENTITY);
	shake(one, A, one, B, "", "cluster.local", &c, &s);
	assert_int_equal(c, WR_REASON_TLS_WRONG_IDENTITY);
	shake(one, A, one, B, B, "other.domain", &c, &s);
	assert_int_equal(s, WR_REASON_TLS_TRUST_DOMAIN);
	shake(two, A, one, B, B, "cluster.local", &c, &s);
	assert_int_equal(c, WR_REASON_TLS_UNKNOWN_CA);
}

static void the_root_is_made_once_and_kept_secret(void **state)
{
	char path[100], *error = NULL;
	struct ca *again = NULL;
	struct stat st;

	(void)state;
	snprintf(path, sizeof(path), "%s/root-key.pem", dir_one);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(ca_open_dir(dir_one, "cluster.local", 60, &again, &error), 0);
	assert_string_equal(ca_describe(again), ca_describe(one));
	ca_free(again);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(ca_open_dir(dir_one, "cluster.local", 60, &again, &error), -EPERM);
	assert_non_null(strstr(error, "chmod 600"));
	free(error);
	chmod(path, 0600);
}

static void broken_folders_are_named(void **state)
{
	char dir[] = "/tmp/wr-test-ca3-XXXXXX", path[100], *error = NULL;
	struct ca *ca = NULL;
	int fd;

	(void)state;
	folder_make(dir);
	snprintf(path, sizeof(path), "%s/root-cert.pem", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0644);
	assert_true(fd >= 0);
	close(fd);
	assert_true(ca_open_dir(dir, "cluster.local", 60, &ca, &error) < 0);
	assert_non_null(strstr(error, dir));
	free(error);
	snprintf(path, sizeof(path), "%s/ca-cert.pem", dir);
	fd = open(path, O_CREAT | O_WRONLY, 0644);
	close(fd);
	assert_true(ca_open_dir(dir, "cluster.local", 60, &ca, &error) < 0);
	assert_non_null(strstr(error, "ca-key.pem"));
	free(error);
	assert_true(ca_open_dir("/proc/no/such", "cluster.local", 60, &ca, &error) < 0);
	free(error);
}

/* What `openssl genrsa -traditional` and `openssl ecparam -genkey` write. */
static char *traditional_pem(EVP_PKEY *key, bool with_parameters)
{
	BIO *bio = BIO_new(BIO_s_mem());

	if (with_parameters)
		BIO_puts(bio, "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n");
	PEM_write_bio_PrivateKey_traditional(bio, key, NULL, NULL, 0, NULL, NULL);
	return zoo_text(bio);
}

static char *encrypted_pem(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_PKCS8PrivateKey(bio, key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL);
	return zoo_text(bio);
}

static void put(const char *dir, const char *name, const char *text)
{
	char path[100];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	folder_put(path, text);
	assert_int_equal(chmod(path, 0600), 0);
}

/* What an operator may put in place: an intermediate's key of some kind and form, and a chain that names more or less.
 */
struct plugin {
	const char *key;
	enum { PKCS8, TRADITIONAL, ENCRYPTED } form;
	bool chain_inter, chain_root, refused;
	bool chain_old; /* the one before, of the same key */
};

static EVP_PKEY *plugin_key(const struct plugin *p)
{
	if (!strcmp(p->key, "RSA"))
		return EVP_RSA_gen(2048);
	return strcmp(p->key, "ED25519") ? EVP_EC_gen(p->key) : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
}

/* Istio's four files, the root's and the one between as given. */
static void put_plugin(const char *dir, const struct plugin *p, const struct zoo_cert *mid, const char *root)
{
	struct zoo_spec spec = {.issuer = mid,
				.name = "inter",
				.constraints = "critical,CA:TRUE,pathlen:0",
				.usage = "critical,keyCertSign,cRLSign",
				.eku = "",
				.san = "",
				.key = plugin_key(p)};
	struct zoo_cert inter = zoo_make(&spec);
	_cleanup_free_ char *cert = zoo_pem(inter.x), *above = zoo_pem(mid->x),
			    *key = p->form == TRADITIONAL ? traditional_pem(inter.key, !strcmp(p->key, "P-256"))
				   : p->form == ENCRYPTED ? encrypted_pem(inter.key)
							  : zoo_key_pem(inter.key);
	_cleanup_free_ char *before = NULL;
	char chain[8192];

	if (p->chain_old) {
		struct zoo_cert old;

		spec.from = -7200;
		spec.until = -3600;
		EVP_PKEY_up_ref(spec.key);
		old = zoo_make(&spec);
		before = zoo_pem(old.x);
		zoo_free(&old);
	}
	snprintf(chain, sizeof(chain), "%s%s%s%s", p->chain_inter ? cert : "", before ? before : "", above,
		 p->chain_root ? root : "");
	put(dir, "ca-cert.pem", cert);
	put(dir, "ca-key.pem", key);
	put(dir, "cert-chain.pem", chain);
	put(dir, "root-cert.pem", root);
	zoo_free(&inter);
}

/* Two agents on one such folder believe each other, who know the root alone. */
static void operators_ca_of_each_kind(void **state)
{
	static const struct plugin kinds[] = {
		{.key = "RSA", .chain_inter = true, .chain_root = true},
		{.key = "RSA", .form = TRADITIONAL, .chain_inter = true},
		{.key = "P-256", .form = TRADITIONAL, .chain_inter = true, .chain_root = true},
		{.key = "P-256"},
		{.key = "P-256", .chain_old = true},
		{.key = "P-384", .chain_root = true},
		{.key = "P-256", .form = ENCRYPTED, .chain_inter = true, .chain_root = true, .refused = true},
		{.key = "ED25519", .chain_inter = true, .chain_root = true, .refused = true},
	};
	struct zoo_cert root = zoo_make_ca(NULL, "root", NULL), mid = zoo_make_ca(&root, "mid", NULL);
	_cleanup_free_ char *root_text = zoo_pem(root.x);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		char dir[] = "/tmp/wr-test-op-XXXXXX", *error = NULL;
		struct ca *a = NULL, *b = NULL;
		enum wr_reason here, there;

		folder_make(dir);
		put_plugin(dir, &kinds[i], &mid, root_text);
		assert_int_equal(ca_open_dir(dir, "cluster.local", 3600, &a, &error), kinds[i].refused ? -EINVAL : 0);
		if (kinds[i].refused) {
			assert_non_null(strstr(error, "ca-key.pem: holds no RSA or EC private key"));
			free(error);
			continue;
		}
		assert_int_equal(ca_open_dir(dir, "cluster.local", 3600, &b, &error), 0);
		shake(a, A, b, B, B, "cluster.local", &here, &there);
		if (here || there)
			fail_msg("kind %zu: %d, %d", i, here, there);
		assert_non_null(strstr(ca_describe(a), "inter"));
		ca_free(a);
		ca_free(b);
	}
	zoo_free(&mid);
	zoo_free(&root);
}

#define AT_ONCE 8

/* Opens the folder when `gate` is closed, and says in one write whose root it found. */
static void start_agent(const char *dir, const int gate[2], int out)
{
	char text[512] = "", *error = NULL, byte;
	struct ca *ca = NULL;

	close(gate[1]);
	(void)!read(gate[0], &byte, 1);
	if (ca_open_dir(dir, "cluster.local", 60, &ca, &error) == 0)
		snprintf(text, sizeof(text), "%.500s", ca_describe(ca));
	else
		snprintf(text, sizeof(text), "%.500s", error);
	_exit(write(out, text, sizeof(text)) != sizeof(text));
}

static void agents_that_start_at_once_share_a_root(void **state)
{
	char dir[] = "/tmp/wr-test-once-XXXXXX", first[512], other[512];
	int gate[2], out[2];

	(void)state;
	folder_make(dir);
	assert_int_equal(pipe(gate), 0);
	assert_int_equal(pipe(out), 0);
	for (int i = 0; i < AT_ONCE; i++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (!pid)
			start_agent(dir, gate, out[1]);
	}
	close(gate[0]);
	close(gate[1]);
	assert_int_equal(read(out[0], first, sizeof(first)), sizeof(first));
	assert_int_equal(strncmp(first, "own root, ", 10), 0);
	for (int i = 1; i < AT_ONCE; i++) {
		assert_int_equal(read(out[0], other, sizeof(other)), sizeof(other));
		assert_string_equal(other, first);
	}
	close(out[0]);
	close(out[1]);
	while (wait(NULL) > 0)
		;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spiffe_ids_are_exact),
		cmocka_unit_test(handshakes),
		cmocka_unit_test(the_root_is_made_once_and_kept_secret),
		cmocka_unit_test(broken_folders_are_named),
		cmocka_unit_test(operators_ca_of_each_kind),
		cmocka_unit_test(agents_that_start_at_once_share_a_root),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
