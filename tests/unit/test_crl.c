/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Revocation lists: which are believed, whom they name, and how the keeper of trust follows a file that is missing,
 * replaced, broken, forged or late.
 */
#include "engine/base/cleanup.h"
#include "engine/identity/trust_keeper.h"
#include "engine/io/loop.h"
#include "certs.h"
#include "folder.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <cmocka.h>

#define DAY 86400

static struct zoo_cert root, imitation, inter, one, two;
static STACK_OF(X509) * issuers;

static int set_up(void **state)
{
	(void)state;
	root = zoo_make_ca(NULL, "root", NULL);
	imitation = zoo_make_ca(NULL, "root", NULL);
	inter = zoo_make_ca(&root, "intermediate", NULL);
	one = zoo_make(&(struct zoo_spec){.issuer = &root});
	two = zoo_make(&(struct zoo_spec){.issuer = &root});
	issuers = sk_X509_new_null();
	sk_X509_push(issuers, root.x);
	sk_X509_push(issuers, inter.x);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	sk_X509_free(issuers);
	zoo_free(&root);
	zoo_free(&imitation);
	zoo_free(&inter);
	zoo_free(&one);
	zoo_free(&two);
	return 0;
}

static int read_text(const char *text, struct crl **ret, const char *complaint)
{
	char *error = NULL;
	int r = crl_read(text, strlen(text), issuers, ret, &error);

	if (r < 0) {
		assert_non_null(error);
		if (!strstr(error, complaint))
			fail_msg("%s: does not say %s", error, complaint);
	}
	free(error);
	return r;
}

static char *list_of(const struct zoo_cert *issuer, long from, long until, X509 *revoked)
{
	X509_CRL *crl = zoo_make_crl(issuer, from, until, &revoked, revoked != NULL);
	char *pem = zoo_crl_pem(crl);

	X509_CRL_free(crl);
	return pem;
}

/* --- reading and asking --- */

static void names_whom_it_names(void **state)
{
	_cleanup_free_ char *pem = list_of(&root, -60, DAY, one.x), *more = list_of(&inter, -60, 2 * DAY, two.x),
			    *both = NULL;
	struct crl *c;

	(void)state;
	assert_int_equal(read_text(pem, &c, ""), 0);
	assert_true(crl_revokes(c, one.x, root.x));
	assert_false(crl_revokes(c, two.x, root.x));
	/* The same number of another issuer is another certificate. */
	assert_false(crl_revokes(c, one.x, imitation.x));
	assert_int_equal(crl_size(c), 1);
	assert_in_range(crl_next_update(c), time(NULL) + DAY - 60, time(NULL) + DAY + 60);
	crl_unref(c);
	/* Several in one file; the earliest nextUpdate counts. */
	assert_true(asprintf(&both, "%s%s", pem, more) > 0);
	assert_int_equal(read_text(both, &c, ""), 0);
	assert_true(crl_revokes(c, one.x, root.x));
	assert_false(crl_revokes(c, two.x, root.x));
	assert_in_range(crl_next_update(c), time(NULL) + DAY - 60, time(NULL) + DAY + 60);
	crl_unref(c);
}

static void der_is_read(void **state)
{
	X509_CRL *crl = zoo_make_crl(&root, -60, DAY, &one.x, 1);
	unsigned char *der = NULL;
	int len = i2d_X509_CRL(crl, &der);
	char *error = NULL;
	struct crl *c;

	(void)state;
	assert_true(len > 0);
	assert_int_equal(crl_read((char *)der, (size_t)len, issuers, &c, &error), 0);
	assert_true(crl_revokes(c, one.x, root.x));
	crl_unref(c);
	assert_int_equal(crl_read((char *)der, (size_t)len / 2, issuers, &c, &error), -EINVAL);
	free(error);
	OPENSSL_free(der);
	X509_CRL_free(crl);
}

static void forged_and_foreign_lists_are_refused(void **state)
{
	_cleanup_free_ char *forged = list_of(&imitation, -60, DAY, one.x), *good = list_of(&root, -60, DAY, one.x);
	struct zoo_cert stranger = zoo_make_ca(NULL, "stranger", NULL);
	struct zoo_cert no_signer = zoo_make(&(struct zoo_spec){.name = "root",
								.constraints = "critical,CA:TRUE",
								.san = "",
								.eku = "",
								.usage = "critical,keyCertSign"});
	_cleanup_free_ char *foreign = list_of(&stranger, -60, DAY, one.x), *early = list_of(&root, 600, DAY, NULL),
			    *mixed = NULL, *unfit = list_of(&no_signer, -60, DAY, NULL);
	struct crl *c = NULL;

	(void)state;
	assert_int_equal(read_text(forged, &c, "signature"), -EINVAL);
	assert_int_equal(read_text(foreign, &c, "issuer is neither"), -EINVAL);
	assert_int_equal(read_text(early, &c, "not valid yet"), -EINVAL);
	sk_X509_push(issuers, no_signer.x);
	assert_int_equal(read_text(unfit, &c, "may not sign lists"), -EINVAL);
	sk_X509_pop(issuers);
	assert_int_equal(read_text("", &c, "not a revocation list"), -EINVAL);
	assert_int_equal(read_text("junk\n", &c, "not a revocation list"), -EINVAL);
	/* All of a file or nothing. */
	assert_true(asprintf(&mixed, "%s%s", good, forged) > 0);
	assert_int_equal(read_text(mixed, &c, "signature"), -EINVAL);
	free(mixed);
	assert_true(asprintf(&mixed, "%s-----BEGIN X509 CRL-----\nMIIB\n", good) > 0);
	assert_int_equal(read_text(mixed, &c, "cut short"), -EINVAL);
	zoo_free(&stranger);
	zoo_free(&no_signer);
}

/* A delta, or a list of one part, would pardon everybody it does not name. */
static void partial_lists_are_refused(void **state)
{
	X509_CRL *crl = zoo_make_crl(&root, -60, DAY, NULL, 0);
	ASN1_INTEGER *base = ASN1_INTEGER_new();
	_cleanup_free_ char *pem = NULL;
	struct crl *c;

	(void)state;
	ASN1_INTEGER_set(base, 1);
	assert_int_equal(X509_CRL_add1_ext_i2d(crl, NID_delta_crl, base, 1, 0), 1);
	X509_CRL_sign(crl, root.key, EVP_sha256());
	pem = zoo_crl_pem(crl);
	assert_int_equal(read_text(pem, &c, "critical extension"), -EINVAL);
	ASN1_INTEGER_free(base);
	X509_CRL_free(crl);
}

/* --- in the judgement --- */

static enum wr_reason judge_as(bool server, struct trust *t, X509 *leaf, X509 *above)
{
	struct tls_verify v = {.trust = t, .server = server, .expected = server ? NULL : TEST_ID};
	STACK_OF(X509) *presented = sk_X509_new_null();
	enum wr_reason r;

	sk_X509_push(presented, leaf);
	if (above)
		sk_X509_push(presented, above);
	r = trust_judge(&v, leaf, presented);
	/* The log names also whom it refuses. */
	if (r == WR_REASON_TLS_REVOKED)
		assert_string_equal(v.peer, TEST_ID);
	tls_verify_done(&v);
	sk_X509_free(presented);
	return r;
}

/* Callers and servers are judged alike. */
static enum wr_reason judge(struct trust *t, X509 *leaf, X509 *above)
{
	enum wr_reason r = judge_as(true, t, leaf, above);

	assert_int_equal(judge_as(false, t, leaf, above), r);
	return r;
}

static struct trust *trust_with(struct crl *crl, bool missing)
{
	static const char *const domains[] = {"cluster.local"};
	_cleanup_free_ char *pem = zoo_pem(root.x);
	struct trust_config cfg = {.roots_pem = pem,
				   .domains = domains,
				   .n_domains = 1,
				   .crls = &crl,
				   .n_crls = 1,
				   .crl_missing = missing};
	struct trust *t = NULL;

	assert_int_equal(trust_new(&cfg, &t), 0);
	return t;
}

/* In either role, and the whole chain of then: the leaf `one` is on one list, the intermediate on the other. */
static void judge_again(struct trust *before, struct trust *of_leaf, struct trust *of_inter, X509 *leaf, X509 *above)
{
	for (int server = 0; server < 2; server++) {
		struct tls_verify v = {.trust = before, .server = server, .expected = TEST_ID};
		STACK_OF(X509) *presented = sk_X509_new_null();

		sk_X509_push(presented, leaf);
		if (above)
			sk_X509_push(presented, above);
		assert_int_equal(trust_judge(&v, leaf, presented), WR_REASON_NONE);
		assert_int_equal(trust_judge_again(of_leaf, &v), above ? WR_REASON_NONE : WR_REASON_TLS_REVOKED);
		assert_int_equal(trust_judge_again(of_inter, &v), above ? WR_REASON_TLS_REVOKED : WR_REASON_NONE);
		tls_verify_done(&v);
		sk_X509_free(presented);
	}
}

static void revoked_peers_are_told_apart(void **state)
{
	_cleanup_free_ char *pem = list_of(&root, -60, DAY, one.x), *of_inter = list_of(&root, -60, DAY, inter.x);
	struct zoo_cert below = zoo_make(&(struct zoo_spec){.issuer = &inter});
	struct crl *c, *ci;
	struct trust *t, *plain, *ti, *missing;

	(void)state;
	assert_int_equal(read_text(pem, &c, ""), 0);
	assert_int_equal(read_text(of_inter, &ci, ""), 0);
	t = trust_with(c, false);
	ti = trust_with(ci, false);
	plain = trust_with(NULL, false);
	missing = trust_with(NULL, true);
	assert_int_equal(judge(t, one.x, NULL), WR_REASON_TLS_REVOKED);
	assert_int_equal(judge(t, two.x, NULL), WR_REASON_NONE);
	assert_int_equal(judge(plain, one.x, NULL), WR_REASON_NONE);
	/* The whole chain is looked at. */
	assert_int_equal(judge(t, below.x, inter.x), WR_REASON_NONE);
	assert_int_equal(judge(ti, below.x, inter.x), WR_REASON_TLS_REVOKED);
	assert_int_equal(judge(missing, two.x, NULL), WR_REASON_TLS_CRL);
	/* One that passed before. */
	judge_again(plain, t, ti, one.x, NULL);
	judge_again(plain, t, ti, below.x, inter.x);
	trust_unref(t);
	trust_unref(ti);
	trust_unref(plain);
	trust_unref(missing);
	crl_unref(c);
	crl_unref(ci);
	zoo_free(&below);
}

/* --- the file, followed by the keeper --- */

struct followed {
	char dir[32], file[64];
	struct ca *ca;
	struct loop *loop;
	struct trust_keeper *k;
	unsigned changes;
};

static void changed(void *arg, struct trust *t, bool new_signer)
{
	(void)t;
	assert_false(new_signer);
	((struct followed *)arg)->changes++;
}

/* The zoo's root as an operator's CA, and a list beside it that is not there yet. */
static void follow(struct followed *f)
{
	static const char *const domains[] = {"cluster.local"};
	_cleanup_free_ char *cert = zoo_pem(inter.x), *key = zoo_key_pem(inter.key), *top = zoo_pem(root.x);
	struct trust_keeper_config cfg = {
		.domains = domains, .n_domains = 1, .crl_path = f->file, .changed = changed, .arg = f};
	char path[128], *error = NULL;

	*f = (struct followed){.dir = "/tmp/wr-test-crl-XXXXXX"};
	folder_make(f->dir);
	snprintf(f->file, sizeof(f->file), "%s/operator.crl", f->dir);
	snprintf(path, sizeof(path), "%s/ca-cert.pem", f->dir);
	folder_put(path, cert);
	snprintf(path, sizeof(path), "%s/cert-chain.pem", f->dir);
	folder_put(path, cert);
	snprintf(path, sizeof(path), "%s/root-cert.pem", f->dir);
	folder_put(path, top);
	snprintf(path, sizeof(path), "%s/ca-key.pem", f->dir);
	folder_put(path, key);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(ca_open_dir(f->dir, "cluster.local", 3600, &f->ca, &error), 0);
	assert_int_equal(loop_new(&f->loop), 0);
	cfg.ca = f->ca;
	cfg.loop = f->loop;
	assert_int_equal(trust_keeper_new(&cfg, &f->k), 0);
}

static bool alarmed(struct followed *f, const char *words)
{
	cJSON *list = cJSON_CreateArray(), *i;
	bool found = false;

	trust_keeper_alarms(f->k, list);
	cJSON_ArrayForEach(i, list)
		found = found || !words || strstr(i->valuestring, words);
	cJSON_Delete(list);
	return found;
}

static void put(struct followed *f, const char *text)
{
	folder_put(f->file, text);
	trust_keeper_look(f->k);
}

static enum wr_reason verdict(struct followed *f, X509 *leaf)
{
	return judge(trust_keeper_trust(f->k), leaf, NULL);
}

static void the_file_is_followed(void **state)
{
	_cleanup_free_ char *first = list_of(&root, -60, DAY, one.x), *second = list_of(&root, -60, DAY, two.x);
	_cleanup_free_ char *forged = list_of(&imitation, -60, DAY, NULL), *late = list_of(&root, -DAY, -60, one.x);
	struct followed f;
	char state_text[64];

	(void)state;
	follow(&f);
	/* Configured and never read: nobody. */
	assert_int_equal(verdict(&f, two.x), WR_REASON_TLS_CRL);
	assert_true(alarmed(&f, "is not there"));
	assert_true(alarmed(&f, "no handshake succeeds"));
	put(&f, "junk");
	assert_int_equal(verdict(&f, two.x), WR_REASON_TLS_CRL);
	/* Read: the alarm is over. */
	put(&f, first);
	assert_false(alarmed(&f, NULL));
	assert_int_equal(verdict(&f, one.x), WR_REASON_TLS_REVOKED);
	assert_int_equal(verdict(&f, two.x), WR_REASON_NONE);
	trust_keeper_crl_state(f.k, state_text, sizeof(state_text));
	assert_string_equal(state_text, "1 revoked");
	put(&f, second);
	assert_int_equal(verdict(&f, one.x), WR_REASON_NONE);
	assert_int_equal(verdict(&f, two.x), WR_REASON_TLS_REVOKED);
	/* Forged, broken, gone: the last good one stays, with an alarm. */
	put(&f, forged);
	assert_true(alarmed(&f, "signature"));
	assert_int_equal(verdict(&f, two.x), WR_REASON_TLS_REVOKED);
	put(&f, "");
	assert_true(alarmed(&f, "last good one stays"));
	assert_int_equal(unlink(f.file), 0);
	trust_keeper_look(f.k);
	assert_true(alarmed(&f, "is not there"));
	assert_int_equal(verdict(&f, two.x), WR_REASON_TLS_REVOKED);
	assert_int_equal(verdict(&f, one.x), WR_REASON_NONE);
	/* Late: used, with an alarm. */
	put(&f, late);
	assert_true(alarmed(&f, "past its nextUpdate"));
	assert_int_equal(verdict(&f, one.x), WR_REASON_TLS_REVOKED);
	put(&f, first);
	assert_false(alarmed(&f, NULL));
	trust_keeper_free(f.k);
	loop_free(f.loop);
	ca_free(f.ca);
}

/* An operator's rotation: both roots in one file, then the old one goes; what is broken changes nothing. */
static void the_operators_roots_are_followed(void **state)
{
	struct zoo_cert next = zoo_make_ca(NULL, "next root", NULL),
			leaf = zoo_make(&(struct zoo_spec){.issuer = &next});
	_cleanup_free_ char *old_pem = zoo_pem(root.x), *next_pem = zoo_pem(next.x), *both = NULL, *empty = NULL,
			    *of_next = NULL;
	struct followed f;
	char path[64];

	(void)state;
	follow(&f);
	snprintf(path, sizeof(path), "%s/root-cert.pem", f.dir);
	empty = list_of(&root, -60, DAY, NULL);
	put(&f, empty);
	assert_int_equal(verdict(&f, leaf.x), WR_REASON_TLS_UNKNOWN_CA);
	of_next = list_of(&next, -60, DAY, one.x);
	put(&f, of_next);
	assert_true(alarmed(&f, "issuer is neither"));
	assert_true(asprintf(&both, "%s%s", old_pem, next_pem) > 0);
	folder_put(path, both);
	trust_keeper_look(f.k);
	/* The list that was refused is its issuer's now. */
	assert_false(alarmed(&f, NULL));
	assert_int_equal(verdict(&f, leaf.x), WR_REASON_NONE);
	assert_int_equal(verdict(&f, one.x), WR_REASON_NONE);
	folder_put(path, "nothing of use");
	trust_keeper_look(f.k);
	assert_true(alarmed(&f, "CA folder"));
	assert_int_equal(verdict(&f, leaf.x), WR_REASON_NONE);
	/* The intermediate does not lead to this root alone: refused, too. */
	folder_put(path, next_pem);
	trust_keeper_look(f.k);
	assert_true(alarmed(&f, "does not lead to root-cert.pem"));
	assert_int_equal(verdict(&f, one.x), WR_REASON_NONE);
	folder_put(path, old_pem);
	trust_keeper_look(f.k);
	assert_false(alarmed(&f, "CA folder"));
	assert_int_equal(verdict(&f, leaf.x), WR_REASON_TLS_UNKNOWN_CA);
	assert_int_equal(verdict(&f, one.x), WR_REASON_NONE);
	trust_keeper_free(f.k);
	loop_free(f.loop);
	ca_free(f.ca);
	zoo_free(&next);
	zoo_free(&leaf);
}

/* First what is gone, then what is new; the trust domain itself stays. */
static void the_names_of_the_trust_domain(void **state)
{
	char *both[] = {"old.name", "older.name"}, *other[] = {"older.name", "new.name"};
	struct followed f;

	(void)state;
	follow(&f);
	assert_int_equal(trust_keeper_set_aliases(f.k, both, 2, false), 0);
	assert_int_equal(f.changes, 0);
	assert_false(trust_has_domain(trust_keeper_trust(f.k), "old.name", 8));
	assert_int_equal(trust_keeper_set_aliases(f.k, both, 2, true), 0);
	assert_int_equal(f.changes, 1);
	assert_true(trust_has_domain(trust_keeper_trust(f.k), "old.name", 8));
	assert_int_equal(trust_keeper_set_aliases(f.k, other, 2, false), 0);
	assert_int_equal(f.changes, 2);
	assert_false(trust_has_domain(trust_keeper_trust(f.k), "old.name", 8));
	assert_true(trust_has_domain(trust_keeper_trust(f.k), "older.name", 10));
	assert_false(trust_has_domain(trust_keeper_trust(f.k), "new.name", 8));
	assert_int_equal(trust_keeper_set_aliases(f.k, other, 2, true), 0);
	assert_int_equal(trust_keeper_set_aliases(f.k, other, 2, true), 0);
	assert_int_equal(f.changes, 3);
	assert_true(trust_has_domain(trust_keeper_trust(f.k), "new.name", 8));
	/* Nor does another reason to look anew forget them. */
	put(&f, "no list");
	trust_keeper_look(f.k);
	assert_true(trust_has_domain(trust_keeper_trust(f.k), "new.name", 8));
	assert_true(trust_has_domain(trust_keeper_trust(f.k), "cluster.local", 13));
	trust_keeper_free(f.k);
	loop_free(f.loop);
	ca_free(f.ca);
}

/* As a ConfigMap may list them: a name that is gone is gone, whatever stands twice in its place. */
static void names_that_are_listed_twice(void **state)
{
	char *old[] = {"old.name", "other.name"}, *twice[] = {"other.name", "other.name"},
	     *own[] = {"cluster.local", "cluster.local"};
	struct followed f;

	(void)state;
	follow(&f);
	assert_int_equal(trust_keeper_set_aliases(f.k, old, 2, true), 0);
	assert_int_equal(trust_keeper_set_aliases(f.k, twice, 2, false), 0);
	assert_int_equal(trust_keeper_set_aliases(f.k, twice, 2, true), 0);
	assert_int_equal(f.changes, 2);
	assert_false(trust_has_domain(trust_keeper_trust(f.k), "old.name", 8));
	assert_true(trust_has_domain(trust_keeper_trust(f.k), "other.name", 10));
	assert_int_equal(trust_keeper_set_aliases(f.k, own, 2, false), 0);
	assert_int_equal(trust_keeper_set_aliases(f.k, own, 2, true), 0);
	assert_int_equal(f.changes, 3);
	assert_false(trust_has_domain(trust_keeper_trust(f.k), "other.name", 10));
	assert_true(trust_has_domain(trust_keeper_trust(f.k), "cluster.local", 13));
	trust_keeper_free(f.k);
	loop_free(f.loop);
	ca_free(f.ca);
}

struct stopper {
	struct timer timer;
	struct followed *f;
	unsigned wanted, rounds;
};

static void stop_when_changed(struct timer *t)
{
	struct stopper *s = container_of(t, struct stopper, timer);

	if (s->f->changes >= s->wanted || !--s->rounds)
		loop_stop(s->f->loop);
	else
		loop_timer_set(s->f->loop, t, 10);
}

/* Nobody asks the keeper to look: the folder's event does, before the look of each second is due. */
static void the_file_is_watched(void **state)
{
	_cleanup_free_ char *first = list_of(&root, -60, DAY, one.x);
	struct stopper s = {.timer.fn = stop_when_changed, .wanted = 1, .rounds = 50};
	struct followed f;

	(void)state;
	follow(&f);
	s.f = &f;
	folder_put(f.file, first);
	loop_timer_set(f.loop, &s.timer, 1);
	assert_int_equal(loop_run(f.loop), 0);
	assert_int_equal(f.changes, 1);
	assert_int_equal(verdict(&f, one.x), WR_REASON_TLS_REVOKED);
	trust_keeper_free(f.k);
	loop_free(f.loop);
	ca_free(f.ca);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_whom_it_names),
		cmocka_unit_test(der_is_read),
		cmocka_unit_test(forged_and_foreign_lists_are_refused),
		cmocka_unit_test(partial_lists_are_refused),
		cmocka_unit_test(revoked_peers_are_told_apart),
		cmocka_unit_test(the_file_is_followed),
		cmocka_unit_test(the_operators_roots_are_followed),
		cmocka_unit_test(the_names_of_the_trust_domain),
		cmocka_unit_test(names_that_are_listed_twice),
		cmocka_unit_test(the_file_is_watched),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
