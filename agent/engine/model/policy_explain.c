/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A verdict said aloud: every policy of a set beside one subject, compared rule by rule without the index. Called by
 * admin/ for `warrenctl policy check`.
 */
#include "policy_private.h"

#include <cjson/cJSON.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Policies of one class that are shown though they do not match: nobody reads thousands, and traces are kept. */
#define SHOWN_MAX 16

/* One explanation in the making: false from any function is "out of memory". */
struct explanation {
	const struct policy_set *set;
	const struct policy_view *view;
	cJSON *steps;
};

static const char *reason_text(enum wr_reason reason)
{
	static const char *const names[] = {
#define WR_REASON_TEXT(id, name, text) [WR_REASON_##id] = name,
		WR_REASONS(WR_REASON_TEXT)
#undef WR_REASON_TEXT
	};

	return names[reason];
}

static const char *mode_text(enum mtls_mode mode)
{
	return mode == MTLS_STRICT ? "STRICT" : "PERMISSIVE";
}

static cJSON *add_step(struct explanation *e, const char *step, const char *result)
{
	cJSON *o = cJSON_CreateObject();

	if (!o || !cJSON_AddItemToArray(e->steps, o)) {
		cJSON_Delete(o);
		return NULL;
	}
	if (!cJSON_AddStringToObject(o, "step", step) || !cJSON_AddStringToObject(o, "result", result))
		return NULL;
	return o;
}

static bool add_name(cJSON *o, const char *namespace_, const char *name)
{
	char *text;
	cJSON *item;

	if (asprintf(&text, "%s/%s", namespace_, name) < 0)
		return false;
	item = cJSON_AddStringToObject(o, "policy", text);
	free(text);
	return item;
}

/* What the subject has where the field looks. */
static bool add_value(cJSON *o, const struct policy_field *f, const struct policy_view *v)
{
	char ip[INET6_ADDRSTRLEN];
	cJSON *item;

	switch (f->attribute) {
	case ATTRIBUTE_SOURCE_IP:
		item = cJSON_AddStringToObject(o, "value", ip_addr_format(&v->subject->source, ip, sizeof(ip)));
		break;
	case ATTRIBUTE_DESTINATION_IP:
		item = cJSON_AddStringToObject(o, "value", ip_addr_format(&v->subject->destination.ip, ip, sizeof(ip)));
		break;
	case ATTRIBUTE_DESTINATION_PORT:
		item = cJSON_AddNumberToObject(o, "value", v->subject->destination.port);
		break;
	case ATTRIBUTE_L7:
		return true; /* not seen here */
	default: {
		char text[POLICY_IDENTITY_MAX + 1] = "";

		if (!v->texts[f->attribute].text)
			return cJSON_AddNullToObject(o, "value");
		memcpy(text, v->texts[f->attribute].text, v->texts[f->attribute].len);
		item = cJSON_AddStringToObject(o, "value", text);
	}
	}
	return item;
}

static bool add_rule(cJSON *o, const struct policy_near *near, const struct policy_view *v)
{
	if (near->rule >= 0 && !cJSON_AddNumberToObject(o, "rule", near->rule))
		return false;
	if (!near->field)
		return true;
	return (!near->field->path || cJSON_AddStringToObject(o, "field", near->field->path)) &&
	       add_value(o, near->field, v);
}

/* The rule that matches, else the one that came nearest. */
static bool compare(const struct policy *p, enum l7_deny l7_deny, const struct policy_view *v, struct policy_near *ret)
{
	struct policy_near best = {.policy = p, .rule = -1};

	for (size_t i = 0; i < p->n_rules; i++) {
		struct policy_near near = {.policy = p, .rule = (int)i};

		if (policy_rule_matches(&p->rules[i], policy_l7_effect(p->action, l7_deny), v, NULL, &near)) {
			*ret = near;
			return true;
		}
		if (best.rule < 0 || near.groups > best.groups)
			best = near;
	}
	*ret = best;
	return false;
}

static bool add_rest(struct explanation *e, const char *step, size_t n)
{
	char text[48];

	snprintf(text, sizeof(text), "no match in %zu more policies", n);
	return !n || add_step(e, step, text);
}

/* All policies of a class, to the first that matches: *ret_match, NULL when none does. */
static bool explain_class(struct explanation *e, enum policy_class class, const char *step,
			  const struct policy **ret_match)
{
	const struct policy *match = NULL;
	size_t shown = 0, rest = 0;

	for (size_t i = 0; !match && i < e->set->n_policies; i++) {
		const struct policy *p = e->set->policies[i];
		struct policy_near near;
		cJSON *o;

		if (policy_class_of(p) != class)
			continue;
		if (compare(p, e->set->l7_deny, e->view, &near))
			match = p;
		else if (shown++ >= SHOWN_MAX && ++rest)
			continue;
		if (match && !add_rest(e, step, rest))
			return false;
		o = add_step(e, step, match ? "match" : "no match");
		if (!o || !add_name(o, p->namespace_, p->name) || !add_rule(o, &near, e->view))
			return false;
	}
	*ret_match = match;
	return match || add_rest(e, step, rest);
}

static bool explain_mode(struct explanation *e, enum wr_reason *reason)
{
	const char *field = NULL;
	const struct peer_auth *strict = policy_set_strict(e->set, e->view, &field), *from = strict;
	cJSON *o = add_step(e, "peer_authentication", strict ? "deny" : "pass");

	if (!from)
		from = e->set->auth.mode_from;
	if (strict)
		*reason = WR_REASON_MTLS_REQUIRED;
	return o && (!from || add_name(o, from->namespace_, from->name)) &&
	       (!strict || cJSON_AddStringToObject(o, "field", field)) &&
	       cJSON_AddStringToObject(o, "value",
				       mode_text(policy_set_mode(e->set, e->view->subject->destination.port)));
}

/* Policies that close, and those that decide nothing here, are named whatever comes of them. */
static bool explain_closed(struct explanation *e, enum wr_reason *reason)
{
	const struct peer_auth *auth = e->set->auth.closed;
	bool established = e->view->subject->established;
	cJSON *o;

	if (auth) {
		o = add_step(e, "invalid", established ? "keeps out new ones only" : "deny");
		if (!o || !add_name(o, auth->namespace_, auth->name))
			return false;
		*reason = established ? *reason : WR_REASON_POLICY_INVALID;
	}
	for (size_t i = 0; i < e->set->n_policies; i++) {
		const struct policy *p = e->set->policies[i];
		bool closes = p->closed && !p->target_ref;

		if (policy_class_of(p) != CLASS_COUNT)
			continue;
		o = add_step(e,
			     closes	     ? "invalid"
			     : p->target_ref ? "target_ref"
					     : "audit",
			     !closes	   ? "decides nothing here"
			     : p->dry_run  ? "dry run: would deny"
			     : established ? "keeps out new ones only"
					   : "deny");
		if (!o || !add_name(o, p->namespace_, p->name))
			return false;
		if (closes && !p->dry_run && !established)
			*reason = WR_REASON_POLICY_INVALID;
	}
	return true;
}

static bool explain_rules(struct explanation *e, enum wr_reason *reason)
{
	const struct policy *match = NULL;

	if (!explain_class(e, CLASS_DENY, "deny", &match))
		return false;
	if (match) {
		*reason = WR_REASON_POLICY_DENY;
		return true;
	}
	if (!e->set->allow)
		return add_step(e, "allow", "no ALLOW policy: allowed");
	if (!explain_class(e, CLASS_ALLOW, "allow", &match))
		return false;
	if (!match)
		*reason = WR_REASON_POLICY_NO_ALLOW;
	return true;
}

static bool explain_dry_run(struct explanation *e, struct policy_verdict *d)
{
	const struct policy *deny, *allow;

	if (!explain_class(e, CLASS_DRY_DENY, "dry run of deny", &deny) ||
	    !explain_class(e, CLASS_DRY_ALLOW, "dry run of allow", &allow))
		return false;
	if (!deny && !e->view->subject->established)
		deny = e->set->dry_closed;
	policy_dry_run(e->set, deny, allow, d);
	return true;
}

static bool explain(struct explanation *e, struct policy_verdict *d)
{
	if (!explain_mode(e, &d->reason) || (!d->reason && !explain_closed(e, &d->reason)) ||
	    (!d->reason && !explain_rules(e, &d->reason)))
		return false;
	d->allow = !d->reason;
	return explain_dry_run(e, d);
}

static bool add_would(cJSON *o, const char *key, const struct policy *p)
{
	cJSON *would = p ? cJSON_AddObjectToObject(o, key) : NULL;

	return !p || (would && add_name(would, p->namespace_, p->name));
}

struct cJSON *policy_explain(const struct policy_set *s, const struct policy_subject *subject)
{
	struct policy_verdict d = {.allow = true};
	cJSON *o = cJSON_CreateObject();
	struct policy_view v;
	struct explanation e = {s, &v, cJSON_AddArrayToObject(o, "steps")};
	bool ok = e.steps;

	policy_view_init(&v, subject);
	if (ok)
		ok = s ? explain(&e, &d) : !!add_step(&e, "policies", "none: allowed");
	if (!ok || !cJSON_AddBoolToObject(o, "allow", d.allow) ||
	    !cJSON_AddStringToObject(o, "reason", reason_text(d.reason)) || !add_would(o, "would_deny", d.would_deny) ||
	    !add_would(o, "would_allow", d.would_allow)) {
		cJSON_Delete(o);
		return NULL;
	}
	return o;
}
