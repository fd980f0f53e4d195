/* SPDX-License-Identifier: Apache-2.0 */
/* SPIFFE IDs, the embedded CA's folder, and handshakes in memory: who is let in, who is refused and why. */
#include "engine/base/cleanup.h"
#include "engine/identity/ca.h"
#include "engine/identity/trust.h"
#include "folder.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(spiffe_ids_are_exact),
		cmocka_unit_test(handshakes),
		cmocka_unit_test(the_root_is_made_once_and_kept_secret),
		cmocka_unit_test(broken_folders_are_named),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
