/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates of workloads: shared, renewed in time, tried again, replaced when taken back, and never another's. */
#include "engine/base/cleanup.h"
#include "engine/identity/cert_store.h"
#include "engine/io/loop.h"
#include "certs.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#define A "spiffe://cluster.local/ns/a/sa/a"
#define B "spiffe://cluster.local/ns/b/sa/b"

static struct zoo_cert root;

/* A provider that does as the test says. */
struct provider {
	struct loop *loop;
	struct cert_store *store;
	long ttl_s;
	int failures;	    /* how many calls fail next */
	const char *answer; /* the identity it hands out; NULL: the one that was asked for */
	unsigned calls, changes;
	unsigned stop_after; /* calls */
};

static int issue(void *arg, const char *spiffe, struct tls_identity **ret, char **ret_error)
{
	struct provider *p = arg;
	char san[256];
	struct zoo_cert c;
	_cleanup_free_ char *pem = NULL, *key = NULL;
	const char *why;
	int r;

	if (++p->calls == p->stop_after)
		loop_stop(p->loop);
	if (p->failures > 0) {
		p->failures--;
		*ret_error = strdup("the CA sleeps");
		return -EIO;
	}
	snprintf(san, sizeof(san), "URI:%s", p->answer ? p->answer : spiffe);
	c = zoo_make(&(struct zoo_spec){.issuer = &root, .san = san, .from = -300, .until = p->ttl_s});
	pem = zoo_pem(c.x);
	key = zoo_key_pem(c.key);
	r = tls_identity_new(pem, key, ret, &why);
	zoo_free(&c);
	return r;
}

static void changed(void *arg, struct tls_identity *id)
{
	(void)id;
	((struct provider *)arg)->changes++;
}

static void open_store(struct provider *p)
{
	struct cert_store_config cfg = {.issue = issue, .changed = changed, .arg = p};

	assert_int_equal(loop_new(&p->loop), 0);
	cfg.loop = p->loop;
	assert_int_equal(cert_store_new(&cfg, &p->store), 0);
}

static void close_store(struct provider *p)
{
	cert_store_free(p->store);
	loop_free(p->loop);
}

static char *get(struct provider *p, const char *spiffe)
{
	struct tls_identity *id = NULL;
	char *error = NULL, *serial;

	if (cert_store_get(p->store, spiffe, &id, &error) < 0)
		fail_msg("%s", error);
	serial = strdup(id->serial);
	tls_identity_unref(id);
	return serial;
}

static cJSON *first_row(struct provider *p)
{
	cJSON *rows = cert_store_dump(p->store), *row = cJSON_DetachItemFromArray(rows, 0);

	cJSON_Delete(rows);
	return row;
}

static char *text_in(struct provider *p, const char *field)
{
	cJSON *row = first_row(p);
	char *text = strdup(cJSON_GetStringValue(cJSON_GetObjectItem(row, field)));

	cJSON_Delete(row);
	return text;
}

static unsigned alarms(struct provider *p, const char *words)
{
	cJSON *list = cJSON_CreateArray(), *i;
	unsigned n = 0;

	cert_store_alarms(p->store, list);
	cJSON_ArrayForEach(i, list)
		n += strstr(i->valuestring, words) != NULL;
	cJSON_Delete(list);
	return n;
}

/* --- */

static void users_share_one(void **state)
{
	struct provider p = {.ttl_s = 3600};
	_cleanup_free_ char *first = NULL, *second = NULL, *third = NULL;

	(void)state;
	open_store(&p);
	first = get(&p, A);
	second = get(&p, A);
	assert_string_equal(first, second);
	assert_int_equal(p.calls, 1);
	cert_store_put(p.store, A);
	cert_store_put(p.store, A);
	third = get(&p, A);
	assert_string_not_equal(first, third);
	close_store(&p);
}

/* Half of what was left at receipt, at most a tenth earlier, and not all at the same time. */
static void renewal_is_due_at_half_with_jitter(void **state)
{
	time_t least = 0, most = 0;

	(void)state;
	for (int i = 0; i < 20; i++) {
		struct provider p = {.ttl_s = 100000};
		_cleanup_free_ char *serial = NULL, *when = NULL;
		struct tm tm = {0};
		time_t in;

		open_store(&p);
		serial = get(&p, A);
		when = text_in(&p, "next_renewal");
		assert_non_null(strptime(when, "%Y-%m-%dT%H:%M:%SZ", &tm));
		in = timegm(&tm) - time(NULL);
		assert_in_range(in, 44990, 50001);
		least = !i || in < least ? in : least;
		most = in > most ? in : most;
		close_store(&p);
	}
	assert_true(most - least > 500);
}

static void renewed_while_used(void **state)
{
	struct provider p = {.ttl_s = 2, .stop_after = 3};
	_cleanup_free_ char *first = NULL, *then = NULL;

	(void)state;
	open_store(&p);
	first = get(&p, A);
	assert_int_equal(loop_run(p.loop), 0);
	assert_int_equal(p.calls, 3);
	assert_int_equal(p.changes, 2);
	then = text_in(&p, "serial");
	assert_string_not_equal(first, then);
	close_store(&p);
}

static void a_failed_renewal_is_tried_again(void **state)
{
	struct provider p = {.ttl_s = 4, .stop_after = 3};
	_cleanup_free_ char *first = NULL, *held = NULL, *condition = NULL, *then = NULL;

	(void)state;
	open_store(&p);
	first = get(&p, A);
	p.failures = 2;
	assert_int_equal(loop_run(p.loop), 0);
	/* Two failures: the certificate it has serves, and status says so. */
	held = text_in(&p, "serial");
	condition = text_in(&p, "state");
	assert_string_equal(first, held);
	assert_string_equal(condition, "renewal failing");
	assert_int_equal(alarms(&p, "the CA sleeps"), 1);
	assert_int_equal(p.changes, 0);
	p.stop_after = 4;
	assert_int_equal(loop_run(p.loop), 0);
	then = text_in(&p, "serial");
	assert_string_not_equal(first, then);
	assert_int_equal(alarms(&p, ""), 0);
	close_store(&p);
}

static void pauses_between_tries_grow(void **state)
{
	struct provider p = {.ttl_s = 2, .stop_after = 4};
	_cleanup_free_ char *first = NULL;
	struct tm tm = {0};

	(void)state;
	open_store(&p);
	first = get(&p, A);
	p.failures = 100;
	assert_int_equal(loop_run(p.loop), 0);
	/* 1 s, 2 s, and 4 s after the third failure. */
	_cleanup_free_ char *when = text_in(&p, "next_renewal");
	assert_non_null(strptime(when, "%Y-%m-%dT%H:%M:%SZ", &tm));
	assert_true(timegm(&tm) - time(NULL) >= 3);
	assert_int_equal(alarms(&p, "its traffic is refused"), 1);
	close_store(&p);
}

static void anothers_certificate_is_refused(void **state)
{
	struct provider p = {.ttl_s = 2, .answer = B, .stop_after = 3};
	_cleanup_free_ char *error = NULL, *serial = NULL, *held = NULL;
	struct tls_identity *id = NULL;

	(void)state;
	open_store(&p);
	assert_int_equal(cert_store_get(p.store, A, &id, &error), -EBADMSG);
	assert_non_null(strstr(error, B));
	assert_null(id);
	/* Also at renewal. */
	p.answer = NULL;
	serial = get(&p, A);
	p.answer = B;
	assert_int_equal(loop_run(p.loop), 0);
	held = text_in(&p, "serial");
	assert_string_equal(serial, held);
	assert_int_equal(alarms(&p, "another identity"), 1);
	assert_int_equal(p.changes, 0);
	close_store(&p);
}

static void expired_ones_are_refused(void **state)
{
	struct provider p = {.ttl_s = -10};
	_cleanup_free_ char *error = NULL;
	struct tls_identity *id = NULL;

	(void)state;
	open_store(&p);
	assert_int_equal(cert_store_get(p.store, A, &id, &error), -EBADMSG);
	assert_non_null(strstr(error, "expired already"));
	close_store(&p);
}

static struct trust *trust_that_revokes(struct tls_identity *id)
{
	static const char *const domains[] = {"cluster.local"};
	X509 *leaf = SSL_CTX_get0_certificate(id->client);
	X509_CRL *list = zoo_make_crl(&root, -60, 86400, &leaf, 1);
	_cleanup_free_ char *pem = zoo_crl_pem(list), *roots = zoo_pem(root.x);
	STACK_OF(X509) *issuers = sk_X509_new_null();
	struct trust_config cfg = {.roots_pem = roots, .domains = domains, .n_domains = 1, .n_crls = 1};
	struct crl *crl;
	struct trust *t = NULL;
	char *error = NULL;

	sk_X509_push(issuers, root.x);
	assert_int_equal(crl_read(pem, strlen(pem), issuers, &crl, &error), 0);
	cfg.crls = &crl;
	assert_int_equal(trust_new(&cfg, &t), 0);
	crl_unref(crl);
	sk_X509_free(issuers);
	X509_CRL_free(list);
	return t;
}

static void what_is_taken_back_is_replaced(void **state)
{
	struct provider p = {.ttl_s = 3600};
	_cleanup_free_ char *bystander = NULL, *error = NULL;
	struct tls_identity *id = NULL, *then = NULL;
	struct trust *t;

	(void)state;
	open_store(&p);
	assert_int_equal(cert_store_get(p.store, A, &id, &error), 0);
	bystander = get(&p, B);
	t = trust_that_revokes(id);
	p.stop_after = 3;
	cert_store_trust(p.store, t, false);
	assert_int_equal(loop_run(p.loop), 0);
	assert_int_equal(p.calls, 3);
	assert_int_equal(cert_store_get(p.store, A, &then, &error), 0);
	assert_string_not_equal(id->serial, then->serial);
	/* A new signer: all of them. */
	p.stop_after = 5;
	cert_store_trust(p.store, t, true);
	assert_int_equal(loop_run(p.loop), 0);
	assert_int_equal(p.changes, 3);
	tls_identity_unref(id);
	tls_identity_unref(then);
	trust_unref(t);
	close_store(&p);
}

static int set_up(void **state)
{
	(void)state;
	root = zoo_make_ca(NULL, "root", NULL);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	zoo_free(&root);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(users_share_one),	     cmocka_unit_test(renewal_is_due_at_half_with_jitter),
		cmocka_unit_test(renewed_while_used),	     cmocka_unit_test(a_failed_renewal_is_tried_again),
		cmocka_unit_test(pauses_between_tries_grow), cmocka_unit_test(anothers_certificate_is_refused),
		cmocka_unit_test(expired_ones_are_refused),  cmocka_unit_test(what_is_taken_back_is_replaced),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
