/* SPDX-License-Identifier: Apache-2.0 */
/* The admin commands behind `warrenctl certificate`. A call comes in, JSON leaves. Control thread. */
#include "node_private.h"

#include <cjson/cJSON.h>
#include <string.h>

static void list(void *arg, struct admin_call *c)
{
	struct node *n = arg;
	cJSON *rows = cert_store_dump(n->certs), *i;
	const char *phase = ca_phase_name(ca_phase(n->ca));
	char crl[64];

	trust_keeper_crl_state(n->keeper, crl, sizeof(crl));
	cJSON_ArrayForEach(i, rows) {
		cJSON_AddStringToObject(i, "root_rotation", phase);
		cJSON_AddStringToObject(i, "crl", crl);
		cJSON_AddStringToObject(i, "root_pem", ca_roots(n->ca));
	}
	admin_reply(c, rows);
}

static const char *next_step(enum ca_phase phase)
{
	switch (phase) {
	case CA_PHASE_PUBLISHED:
		return "old and new root are trusted; once every agent has read that, '--finish' issues from the new "
		       "one";
	case CA_PHASE_ISSUING:
		return "leaves come from the new root; once the last of the old has expired, '--finish' drops the old "
		       "root";
	default:
		return "one root";
	}
}

static void rotate_root(void *arg, struct admin_call *c)
{
	struct node *n = arg;
	const char *word = admin_text(c, "step", "");
	enum ca_rotate_step step = !strcmp(word, "--force")    ? CA_ROTATE_FORCE
				   : !strcmp(word, "--finish") ? CA_ROTATE_FINISH
							       : CA_ROTATE_BEGIN;
	_cleanup_free_ char *error = NULL;
	enum ca_phase phase;
	cJSON *o;
	int r = *word && step == CA_ROTATE_BEGIN ? -EINVAL : ca_rotate(n->ca, step, &phase, &error);

	if (r < 0) {
		admin_reply_error(c, -r, "certificate rotate-root: %s",
				  error		 ? error
				  : r == -EINVAL ? "expected --finish, --force or nothing"
						 : strerror(-r));
		return;
	}
	trust_keeper_look(n->keeper);
	log_info("identity", "root rotation: %s; %s", ca_phase_name(phase), next_step(phase));
	o = cJSON_CreateObject();
	cJSON_AddStringToObject(o, "phase", ca_phase_name(phase));
	cJSON_AddStringToObject(o, "next", next_step(phase));
	admin_reply(c, o);
}

static void revoke_certificate(void *arg, struct admin_call *c)
{
	struct node *n = arg;
	const char *what = admin_text(c, "what", "");
	_cleanup_free_ char *error = NULL;
	unsigned count;
	cJSON *o;
	int r = ca_revoke(n->ca, what, &count, &error);

	if (r < 0) {
		admin_reply_error(c, -r, "certificate revoke: %s", error ? error : strerror(-r));
		return;
	}
	trust_keeper_look(n->keeper);
	log_info("identity", "revoked %s: %u certificates", what, count);
	o = cJSON_CreateObject();
	cJSON_AddNumberToObject(o, "revoked", count);
	admin_reply(c, o);
}

int node_register_certificate_commands(struct node *n)
{
	static const struct node_command commands[] = {
		{"certificate list", list},
		{"certificate rotate-root", rotate_root},
		{"certificate revoke", revoke_certificate},
	};

	return node_register(n, commands, ARRAY_SIZE(commands));
}
