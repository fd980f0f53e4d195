/* SPDX-License-Identifier: Apache-2.0 */
/* The embedded CA over time, as two agents on one folder see it: rotation of the root, revocation, a folder that goes.
 */
#include "engine/base/cleanup.h"
#include "engine/identity/ca.h"
#include "engine/identity/crl.h"
#include "engine/identity/trust.h"
#include "certs.h"
#include "folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <cmocka.h>

#define A "spiffe://cluster.local/ns/a/sa/a"
#define B "spiffe://cluster.local/ns/b/sa/b"

struct two {
	char dir[32];
	struct ca *here, *there;
};

static struct ca *open_ca(const char *dir, unsigned ttl_s)
{
	char *error = NULL;
	struct ca *ca = NULL;

	if (ca_open_dir(dir, "cluster.local", ttl_s, &ca, &error) < 0)
		fail_msg("%s", error);
	return ca;
}

static void open_two(struct two *t, unsigned ttl_s)
{
	*t = (struct two){.dir = "/tmp/wr-test-rot-XXXXXX"};
	folder_make(t->dir);
	t->here = open_ca(t->dir, ttl_s);
	t->there = open_ca(t->dir, ttl_s);
}

static void close_two(struct two *t)
{
	ca_free(t->here);
	ca_free(t->there);
}

static struct tls_identity *issue(struct ca *ca, const char *spiffe)
{
	struct tls_identity *id = NULL;
	char *error = NULL;

	if (ca_issue(ca, spiffe, &id, &error) < 0)
		fail_msg("%s", error);
	return id;
}

static char *in(const struct two *t, const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", t->dir, name);
	return path;
}

static char *text_of(const char *path)
{
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	char *text = calloc(1, 1 << 20);

	if (f)
		(void)!fread(text, 1, (1 << 20) - 1, f);
	return text;
}

/* What an agent believes that has just read the folder: its roots and, when there is one, the list. */
static struct trust *believes(struct ca *ca, const struct two *t)
{
	static const char *const domains[] = {"cluster.local"};
	_cleanup_free_ char *list = text_of(in(t, "crl.pem"));
	STACK_OF(X509) * issuers;
	struct trust_config cfg = {.domains = domains, .n_domains = 1};
	struct crl *crl = NULL;
	struct trust *trust = NULL;
	char *error = NULL;

	assert_int_equal(ca_reload(ca, &error), 0);
	issuers = ca_crl_issuers(ca);
	if (*list && crl_read(list, strlen(list), issuers, &crl, &error) < 0)
		fail_msg("%s", error);
	sk_X509_pop_free(issuers, X509_free);
	cfg.roots_pem = ca_roots(ca);
	cfg.crls = &crl;
	cfg.n_crls = 1;
	assert_int_equal(trust_new(&cfg, &trust), 0);
	crl_unref(crl);
	return trust;
}

static enum wr_reason judge(struct ca *ca, const struct two *t, const struct tls_identity *id)
{
	struct trust *trust = believes(ca, t);
	struct tls_verify v = {.trust = trust, .server = true};
	X509 *leaf = SSL_CTX_get0_certificate(id->client);
	STACK_OF(X509) *presented = sk_X509_new_null();
	enum wr_reason r;

	sk_X509_push(presented, leaf);
	r = trust_judge(&v, leaf, presented);
	assert_int_equal(trust_revokes(trust, id), r == WR_REASON_TLS_REVOKED);
	tls_verify_done(&v);
	sk_X509_free(presented);
	trust_unref(trust);
	return r;
}

static int roots(const struct ca *ca)
{
	int n = 0;

	for (const char *p = ca_roots(ca); (p = strstr(p, "BEGIN CERT")); p++)
		n++;
	return n;
}

static int rotate(struct ca *ca, enum ca_rotate_step step, enum ca_phase *ret_phase, const char *complaint)
{
	_cleanup_free_ char *error = NULL;
	int r = ca_rotate(ca, step, ret_phase, &error);

	if (r < 0 && (!error || !strstr(error, complaint)))
		fail_msg("%s: does not say %s", error, complaint);
	return r;
}

/* --- rotation --- */

/* Either agent drives it; what both issued stays good for both until the last step. */
static void a_root_is_rotated_in_three_steps(void **state)
{
	struct tls_identity *old, *between, *fresh;
	enum ca_phase phase = CA_PHASE_NONE;
	char signer[32];
	_cleanup_free_ char *published = NULL;
	struct two t;
	struct stat st;

	(void)state;
	open_two(&t, 3600);
	old = issue(t.there, A);
	snprintf(signer, sizeof(signer), "%s", ca_signer(t.here));
	assert_int_equal(rotate(t.here, CA_ROTATE_FINISH, &phase, "no rotation is under way"), -EINVAL);
	assert_int_equal(rotate(t.here, CA_ROTATE_BEGIN, &phase, ""), 0);
	assert_int_equal(phase, CA_PHASE_PUBLISHED);
	assert_int_equal(roots(t.here), 2);
	assert_string_equal(ca_signer(t.here), signer);
	assert_int_equal(judge(t.there, &t, old), WR_REASON_NONE);
	assert_int_equal(roots(t.there), 2);
	assert_int_equal(ca_phase(t.there), CA_PHASE_PUBLISHED);
	assert_int_equal(stat(in(&t, "next-root-key.pem"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	between = issue(t.there, B);
	/* Once more is no second rotation. */
	published = strdup(ca_roots(t.there));
	assert_int_equal(rotate(t.there, CA_ROTATE_BEGIN, &phase, ""), 0);
	assert_string_equal(ca_roots(t.there), published);
	/* Not before everybody has had the time to read it. */
	assert_int_equal(rotate(t.there, CA_ROTATE_FINISH, &phase, "give the agents"), -EAGAIN);
	assert_int_equal(rotate(t.there, CA_ROTATE_FORCE, &phase, ""), 0);
	assert_int_equal(phase, CA_PHASE_ISSUING);
	assert_string_not_equal(ca_signer(t.there), signer);
	fresh = issue(t.there, A);
	assert_int_equal(judge(t.here, &t, old), WR_REASON_NONE);
	assert_int_equal(judge(t.here, &t, between), WR_REASON_NONE);
	assert_int_equal(judge(t.here, &t, fresh), WR_REASON_NONE);
	assert_string_equal(ca_signer(t.here), ca_signer(t.there));
	/* Leaves of the old root are still out. */
	assert_int_equal(rotate(t.here, CA_ROTATE_FINISH, &phase, "2 certificates of the old root"), -EAGAIN);
	assert_int_equal(rotate(t.here, CA_ROTATE_FORCE, &phase, ""), 0);
	assert_int_equal(phase, CA_PHASE_NONE);
	assert_int_equal(roots(t.here), 1);
	assert_int_equal(judge(t.there, &t, old), WR_REASON_TLS_UNKNOWN_CA);
	assert_int_equal(judge(t.there, &t, fresh), WR_REASON_NONE);
	assert_int_equal(access(in(&t, "old-root-key.pem"), F_OK), -1);
	assert_int_equal(access(in(&t, "next-root-key.pem"), F_OK), -1);
	tls_identity_unref(old);
	tls_identity_unref(between);
	tls_identity_unref(fresh);
	close_two(&t);
}

static void the_old_root_goes_when_its_leaves_have(void **state)
{
	enum ca_phase phase = CA_PHASE_NONE;
	struct tls_identity *old;
	struct two t;

	(void)state;
	open_two(&t, 2);
	old = issue(t.here, A);
	assert_int_equal(rotate(t.here, CA_ROTATE_BEGIN, &phase, ""), 0);
	assert_int_equal(rotate(t.here, CA_ROTATE_FORCE, &phase, ""), 0);
	while (old->not_after >= time(NULL))
		usleep(20000);
	/* The phase itself must be as old as a leaf that nobody recorded could be. */
	while (rotate(t.here, CA_ROTATE_FINISH, &phase, "of the old root are still valid") == -EAGAIN)
		usleep(20000);
	assert_int_equal(phase, CA_PHASE_NONE);
	tls_identity_unref(old);
	close_two(&t);
}

/* --- revocation --- */

static void a_serial_is_revoked(void **state)
{
	struct tls_identity *one, *other;
	_cleanup_free_ char *error = NULL;
	unsigned count = 0;
	struct two t;

	(void)state;
	open_two(&t, 3600);
	one = issue(t.there, A);
	other = issue(t.there, A);
	assert_int_equal(ca_revoke(t.here, one->serial, &count, &error), 0);
	assert_int_equal(count, 1);
	assert_int_equal(judge(t.there, &t, one), WR_REASON_TLS_REVOKED);
	assert_int_equal(judge(t.there, &t, other), WR_REASON_NONE);
	/* The second does not pardon the first; the same again changes nothing. */
	assert_int_equal(ca_revoke(t.there, other->serial, &count, &error), 0);
	assert_int_equal(ca_revoke(t.there, other->serial, &count, &error), 0);
	assert_int_equal(judge(t.here, &t, one), WR_REASON_TLS_REVOKED);
	assert_int_equal(judge(t.here, &t, other), WR_REASON_TLS_REVOKED);
	/* Its holder gets another. */
	tls_identity_unref(one);
	one = issue(t.there, A);
	assert_int_equal(judge(t.here, &t, one), WR_REASON_NONE);
	assert_int_equal(ca_revoke(t.here, "12x", &count, &error), -EINVAL);
	assert_non_null(strstr(error, "12x"));
	tls_identity_unref(one);
	tls_identity_unref(other);
	close_two(&t);
}

static void an_identity_is_revoked(void **state)
{
	struct tls_identity *first, *second, *bystander, *id;
	_cleanup_free_ char *error = NULL;
	unsigned count = 0;
	struct two t;

	(void)state;
	open_two(&t, 3600);
	first = issue(t.here, A);
	second = issue(t.there, A);
	bystander = issue(t.there, B);
	assert_int_equal(ca_revoke(t.here, A, &count, &error), 0);
	assert_int_equal(count, 2);
	assert_int_equal(judge(t.there, &t, first), WR_REASON_TLS_REVOKED);
	assert_int_equal(judge(t.there, &t, second), WR_REASON_TLS_REVOKED);
	assert_int_equal(judge(t.there, &t, bystander), WR_REASON_NONE);
	/* No agent gives it a new one, until the operator takes the line out. */
	assert_int_equal(ca_issue(t.there, A, &id, &error), -EKEYREVOKED);
	assert_non_null(strstr(error, "revoked-identities"));
	assert_int_equal(unlink(in(&t, "revoked-identities")), 0);
	id = issue(t.there, A);
	assert_int_equal(judge(t.here, &t, id), WR_REASON_NONE);
	tls_identity_unref(id);
	tls_identity_unref(first);
	tls_identity_unref(second);
	tls_identity_unref(bystander);
	close_two(&t);
}

/* What is revoked stays so whichever root signs the list, through the whole rotation. */
static void revocation_survives_rotation(void **state)
{
	enum ca_phase phase = CA_PHASE_NONE;
	struct tls_identity *old, *fresh;
	_cleanup_free_ char *error = NULL;
	unsigned count = 0;
	struct two t;

	(void)state;
	open_two(&t, 3600);
	old = issue(t.here, A);
	assert_int_equal(ca_revoke(t.here, old->serial, &count, &error), 0);
	assert_int_equal(rotate(t.here, CA_ROTATE_BEGIN, &phase, ""), 0);
	assert_int_equal(judge(t.there, &t, old), WR_REASON_TLS_REVOKED);
	assert_int_equal(rotate(t.here, CA_ROTATE_FORCE, &phase, ""), 0);
	assert_int_equal(judge(t.there, &t, old), WR_REASON_TLS_REVOKED);
	fresh = issue(t.there, B);
	assert_int_equal(ca_revoke(t.there, fresh->serial, &count, &error), 0);
	assert_int_equal(judge(t.here, &t, fresh), WR_REASON_TLS_REVOKED);
	assert_int_equal(rotate(t.here, CA_ROTATE_FORCE, &phase, ""), 0);
	assert_int_equal(judge(t.there, &t, fresh), WR_REASON_TLS_REVOKED);
	tls_identity_unref(old);
	tls_identity_unref(fresh);
	close_two(&t);
}

static void a_list_is_signed_again_in_time(void **state)
{
	struct tls_identity *id;
	_cleanup_free_ char *error = NULL, *before = NULL, *after = NULL;
	unsigned count = 0;
	struct two t;

	(void)state;
	open_two(&t, 3600);
	id = issue(t.here, A);
	assert_int_equal(ca_revoke(t.here, id->serial, &count, &error), 0);
	before = text_of(in(&t, "crl.pem"));
	assert_int_equal(ca_crl_renew(t.here, time(NULL) + 6 * 86400), 0);
	after = text_of(in(&t, "crl.pem"));
	assert_string_equal(before, after);
	assert_int_equal(ca_crl_renew(t.here, time(NULL) + 86400), 0);
	free(after);
	after = text_of(in(&t, "crl.pem"));
	assert_string_not_equal(before, after);
	assert_int_equal(judge(t.there, &t, id), WR_REASON_TLS_REVOKED);
	tls_identity_unref(id);
	close_two(&t);
}

/* --- a folder that changes under the agent --- */

static void write_text(const char *path, const char *text)
{
	_cleanup_fclose_ FILE *f = fopen(path, "we");

	assert_non_null(f);
	fputs(text, f);
}

static void broken_contents_leave_the_last_good(void **state)
{
	_cleanup_free_ char *error = NULL, *good = NULL;
	struct tls_identity *id;
	struct two t;

	(void)state;
	open_two(&t, 3600);
	good = text_of(in(&t, "root-cert.pem"));
	write_text(in(&t, "root-cert.pem"), "-----BEGIN CERTIFICATE-----\nno\n");
	assert_int_equal(ca_reload(t.here, &error), -EINVAL);
	assert_non_null(strstr(error, "root-cert.pem"));
	assert_string_equal(ca_roots(t.here), good);
	id = issue(t.here, A);
	write_text(in(&t, "root-cert.pem"), good);
	assert_int_equal(judge(t.there, &t, id), WR_REASON_NONE);
	tls_identity_unref(id);
	close_two(&t);
}

/* Who takes the CA away wants no more certificates of it, and no new root in its place. */
static void without_its_folder_nothing_is_issued(void **state)
{
	struct tls_identity *id = NULL;
	_cleanup_free_ char *error = NULL, *again = NULL, *third = NULL;
	char away[64];
	struct two t;

	(void)state;
	open_two(&t, 3600);
	snprintf(away, sizeof(away), "%s.away", t.dir);
	assert_int_equal(rename(t.dir, away), 0);
	assert_int_equal(ca_reload(t.here, &error), -ENOENT);
	assert_int_equal(ca_issue(t.here, A, &id, &again), -ENOENT);
	assert_non_null(strstr(again, "not there"));
	assert_int_equal(access(t.dir, F_OK), -1);
	/* The same with the folder there and empty. */
	assert_int_equal(mkdir(t.dir, 0700), 0);
	assert_int_equal(ca_reload(t.here, &third), -ENOENT);
	assert_int_equal(access(in(&t, "root-cert.pem"), F_OK), -1);
	assert_int_equal(rmdir(t.dir), 0);
	assert_int_equal(rename(away, t.dir), 0);
	free(take_ptr(error));
	assert_int_equal(ca_reload(t.here, &error), 0);
	id = issue(t.here, A);
	tls_identity_unref(id);
	close_two(&t);
}

static void the_operators_ca_is_the_operators(void **state)
{
	struct zoo_cert root = zoo_make_ca(NULL, "root", NULL);
	_cleanup_free_ char *cert = zoo_pem(root.x), *key = zoo_key_pem(root.key), *error = NULL, *other = NULL;
	struct two t = {.dir = "/tmp/wr-test-rot-XXXXXX"};
	enum ca_phase phase;
	unsigned count;

	(void)state;
	folder_make(t.dir);
	write_text(in(&t, "ca-cert.pem"), cert);
	write_text(in(&t, "cert-chain.pem"), cert);
	write_text(in(&t, "root-cert.pem"), cert);
	write_text(in(&t, "ca-key.pem"), key);
	assert_int_equal(chmod(in(&t, "ca-key.pem"), 0600), 0);
	t.here = open_ca(t.dir, 3600);
	assert_int_equal(ca_rotate(t.here, CA_ROTATE_BEGIN, &phase, &error), -ENOTSUP);
	assert_int_equal(ca_revoke(t.here, "1", &count, &other), -ENOTSUP);
	assert_non_null(strstr(other, "--crl=FILE"));
	zoo_free(&root);
	close_two(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_root_is_rotated_in_three_steps),
		cmocka_unit_test(the_old_root_goes_when_its_leaves_have),
		cmocka_unit_test(a_serial_is_revoked),
		cmocka_unit_test(an_identity_is_revoked),
		cmocka_unit_test(revocation_survives_rotation),
		cmocka_unit_test(a_list_is_signed_again_in_time),
		cmocka_unit_test(broken_contents_leave_the_last_good),
		cmocka_unit_test(without_its_folder_nothing_is_issued),
		cmocka_unit_test(the_operators_ca_is_the_operators),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
