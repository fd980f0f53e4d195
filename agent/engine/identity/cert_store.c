/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates of this node's workloads: issued on first use, renewed at half of what was left at receipt, kept until
 * expiry when the CA fails. Control thread; called by agent/enroll and agent/identities.c.
 */
#include "engine/identity/cert_store.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/base/table.h"
#include "engine/io/loop.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <openssl/rand.h>
#include <stddef.h>
#include <string.h>

#define RETRY_FIRST_MS 1000
#define RETRY_MAX_MS 150000
/* All leaves are replaced within this after a change of the signer. */
#define REPLACE_SPREAD_MS 2000

struct entry {
	struct cert_store *store;
	char *spiffe;
	struct tls_identity *id;
	unsigned users;
	struct timer timer;
	time_t renew_at;
	unsigned retry_ms;
	char *error; /* of the last renewal, NULL when it went well */
};

struct cert_store {
	struct cert_store_config cfg;
	struct table entries;
};

int cert_store_new(const struct cert_store_config *cfg, struct cert_store **ret)
{
	struct cert_store *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->cfg = *cfg;
	*ret = s;
	return 0;
}

static void entry_free(struct entry *e)
{
	loop_timer_cancel(e->store->cfg.loop, &e->timer);
	tls_identity_unref(e->id);
	free(e->spiffe);
	free(e->error);
	free(e);
}

struct cert_store *cert_store_free(struct cert_store *s)
{
	struct table_iter it = {0};
	struct entry *e;

	if (!s)
		return NULL;
	while ((e = table_next(&s->entries, &it))) {
		table_del(&s->entries, e->spiffe, strlen(e->spiffe));
		entry_free(e);
	}
	table_done(&s->entries);
	free(s);
	return NULL;
}

/* --- renewal --- */

static uint64_t random_below(uint64_t limit)
{
	uint32_t n = 0;

	(void)RAND_bytes((unsigned char *)&n, sizeof(n));
	return limit ? n % limit : 0;
}

static void renew_in(struct entry *e, uint64_t ms)
{
	e->renew_at = time(NULL) + (time_t)(ms / 1000);
	loop_timer_set(e->store->cfg.loop, &e->timer, ms);
}

/* Half of what is left now, since back-dating does not count as life; up to a tenth of that earlier, so that workloads
 * that started together do not renew together. */
static void renew_later(struct entry *e)
{
	int64_t left = (int64_t)e->id->not_after - (int64_t)time(NULL);
	uint64_t ms = left > 0 ? (uint64_t)left * 500 : 1;

	renew_in(e, ms - random_below(ms / 10));
}

/* One certificate, of this very identity: a CA that mixes up its callers must not make one pod another. */
static int obtain(const struct cert_store *s, const char *spiffe, struct tls_identity **ret, char **ret_error)
{
	struct tls_identity *id;
	int r = s->cfg.issue(s->cfg.arg, spiffe, &id, ret_error);

	if (r < 0)
		return r;
	if (!strcmp(id->spiffe, spiffe) && id->not_after > time(NULL)) {
		*ret = id;
		return 0;
	}
	if (asprintf(ret_error, "the CA handed out a certificate for %s that %s: refused", id->spiffe,
		     strcmp(id->spiffe, spiffe) ? "was asked for another identity" : "has expired already") < 0)
		*ret_error = NULL;
	tls_identity_unref(id);
	return -EBADMSG;
}

static void renewal_failed(struct entry *e, char *error)
{
	bool expired = e->id->not_after <= time(NULL);

	free(e->error);
	e->error = error ? error : strdup("out of memory");
	e->retry_ms = e->retry_ms ? e->retry_ms * 2 : RETRY_FIRST_MS;
	if (e->retry_ms > RETRY_MAX_MS)
		e->retry_ms = RETRY_MAX_MS;
	log_error("identity", "%s: cannot renew: %s; %s, next try in %u s", e->spiffe, e->error,
		  expired ? "its certificate has expired and its traffic is refused"
			  : "the present certificate serves until it expires or is revoked",
		  e->retry_ms / 1000);
	renew_in(e, e->retry_ms);
}

static void renew(struct timer *t)
{
	struct entry *e = container_of(t, struct entry, timer);
	struct tls_identity *fresh;
	char *error = NULL;

	if (obtain(e->store, e->spiffe, &fresh, &error) < 0) {
		renewal_failed(e, error);
		return;
	}
	free(e->error);
	e->error = NULL;
	e->retry_ms = 0;
	tls_identity_unref(e->id);
	e->id = fresh;
	log_debug("identity", "%s: renewed, serial %s", e->spiffe, fresh->serial);
	renew_later(e);
	e->store->cfg.changed(e->store->cfg.arg, fresh);
}

void cert_store_trust(struct cert_store *s, const struct trust *t, bool new_signer)
{
	struct table_iter it = {0};
	struct entry *e;

	while ((e = table_next(&s->entries, &it))) {
		if (e->error || trust_revokes(t, e->id))
			renew_in(e, 1);
		else if (new_signer)
			renew_in(e, random_below(REPLACE_SPREAD_MS));
	}
}

/* --- users --- */

int cert_store_get(struct cert_store *s, const char *spiffe, struct tls_identity **ret_id, char **ret_error)
{
	struct entry *e = table_get_str(&s->entries, spiffe);
	int r;

	*ret_error = NULL;
	if (!e) {
		e = calloc(1, sizeof(*e));
		if (!e)
			return -ENOMEM;
		e->store = s;
		e->timer.fn = renew;
		e->spiffe = strdup(spiffe);
		r = e->spiffe ? obtain(s, spiffe, &e->id, ret_error) : -ENOMEM;
		if (r == 0)
			r = table_put(&s->entries, e->spiffe, strlen(e->spiffe), e, NULL);
		if (r < 0) {
			entry_free(e);
			return r;
		}
		renew_later(e);
	}
	e->users++;
	*ret_id = tls_identity_ref(e->id);
	return 0;
}

void cert_store_put(struct cert_store *s, const char *spiffe)
{
	struct entry *e = table_get_str(&s->entries, spiffe);

	if (!e || --e->users)
		return;
	table_del(&s->entries, e->spiffe, strlen(e->spiffe));
	entry_free(e);
}

/* --- inspection --- */

static void format_time(time_t t, char text[32])
{
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

static void add_time(cJSON *o, const char *name, time_t t)
{
	char text[32];

	format_time(t, text);
	cJSON_AddStringToObject(o, name, text);
}

struct cJSON *cert_store_dump(struct cert_store *s)
{
	cJSON *array = cJSON_CreateArray();
	struct table_iter it = {0};
	struct entry *e;

	while ((e = table_next(&s->entries, &it))) {
		cJSON *o = cJSON_CreateObject();

		cJSON_AddStringToObject(o, "identity", e->spiffe);
		cJSON_AddStringToObject(o, "serial", e->id->serial);
		add_time(o, "not_before", e->id->not_before);
		add_time(o, "not_after", e->id->not_after);
		add_time(o, "next_renewal", e->renew_at);
		cJSON_AddStringToObject(o, "state",
					e->id->not_after <= time(NULL) ? "expired"
					: e->error		       ? "renewal failing"
								       : "valid");
		if (e->error)
			cJSON_AddStringToObject(o, "error", e->error);
		cJSON_AddNumberToObject(o, "users", e->users);
		cJSON_AddStringToObject(o, "chain_pem", e->id->cert_chain_pem);
		cJSON_AddItemToArray(array, o);
	}
	return array;
}

void cert_store_alarms(struct cert_store *s, struct cJSON *list)
{
	struct table_iter it = {0};
	struct entry *e;

	while ((e = table_next(&s->entries, &it))) {
		_cleanup_free_ char *text = NULL;
		char end[32];

		if (!e->error)
			continue;
		format_time(e->id->not_after, end);
		if (asprintf(&text, "certificate of %s cannot be renewed: %s; %s %s%s", e->spiffe, e->error,
			     e->id->not_after <= time(NULL) ? "it expired at" : "it serves until", end,
			     e->id->not_after <= time(NULL) ? " and its traffic is refused"
							    : ", unless it was revoked") < 0)
			text = NULL;
		else
			cJSON_AddItemToArray(list, cJSON_CreateString(text));
	}
}
