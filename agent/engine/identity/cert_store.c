/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates of this node's workloads: issued on first use, renewed at half of their life, kept until expiry when the
 * CA fails. Control thread; called by agent/enroll.
 */
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/base/table.h"
#include "engine/identity/ca.h"
#include "engine/io/loop.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#define RETRY_FIRST_MS 1000
#define RETRY_MAX_MS 150000

struct entry {
	struct cert_store *store;
	char *spiffe;
	struct tls_identity *id;
	unsigned users;
	struct timer timer;
	unsigned retry_ms;
	char *error; /* of the last renewal, NULL when it went well */
};

struct cert_store {
	struct ca *ca;
	struct loop *loop;
	void (*changed)(void *arg, struct tls_identity *id);
	void *arg;
	struct table entries;
};

int cert_store_new(struct ca *ca, struct loop *loop, void (*changed)(void *arg, struct tls_identity *id), void *arg,
		   struct cert_store **ret)
{
	struct cert_store *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	*s = (struct cert_store){.ca = ca, .loop = loop, .changed = changed, .arg = arg};
	*ret = s;
	return 0;
}

static void entry_free(struct entry *e)
{
	loop_timer_cancel(e->store->loop, &e->timer);
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

/* Half of what is left now: back-dating does not count as life. */
static void renew_later(struct entry *e)
{
	int64_t left = (int64_t)e->id->not_after - (int64_t)time(NULL);
	uint64_t ms = left > 0 ? (uint64_t)left * 500 : 1;

	loop_timer_set(e->store->loop, &e->timer, ms > 0x7fffffff ? 0x7fffffff : ms);
}

static void renew(struct timer *t)
{
	struct entry *e = container_of(t, struct entry, timer);
	struct tls_identity *fresh;
	char *error = NULL;

	if (ca_issue(e->store->ca, e->spiffe, &fresh, &error) < 0) {
		free(e->error);
		e->error = error;
		e->retry_ms = e->retry_ms ? e->retry_ms * 2 : RETRY_FIRST_MS;
		if (e->retry_ms > RETRY_MAX_MS)
			e->retry_ms = RETRY_MAX_MS;
		log_error("identity",
			  "%s: cannot renew: %s; the present certificate serves until it expires, next try in %u s",
			  e->spiffe, error ? error : "out of memory", e->retry_ms / 1000);
		loop_timer_set(e->store->loop, &e->timer, e->retry_ms);
		return;
	}
	free(e->error);
	e->error = NULL;
	e->retry_ms = 0;
	tls_identity_unref(e->id);
	e->id = fresh;
	log_debug("identity", "%s: renewed, serial %s", e->spiffe, fresh->serial);
	renew_later(e);
	e->store->changed(e->store->arg, fresh);
}

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
		r = e->spiffe ? ca_issue(s->ca, spiffe, &e->id, ret_error) : -ENOMEM;
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

static void add_time(cJSON *o, const char *name, time_t t)
{
	char text[32];
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
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
		cJSON_AddStringToObject(o, "state",
					e->id->not_after <= time(NULL) ? "expired"
					: e->error		       ? "renewal failing"
								       : "valid");
		if (e->error)
			cJSON_AddStringToObject(o, "error", e->error);
		cJSON_AddNumberToObject(o, "users", e->users);
		cJSON_AddStringToObject(o, "chain_pem", e->id->cert_chain_pem);
		cJSON_AddStringToObject(o, "root_pem", e->id->root_pem);
		cJSON_AddItemToArray(array, o);
	}
	return array;
}
