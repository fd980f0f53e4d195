/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PeerAuthentication. A document's tree comes in; a struct peer_auth leaves, or what is wrong with it. Fields and rules
 * as in Istio's reference page of that name. Called by decode.c for the verdict and by policies.c for the object.
 */
#include "policy_decode.h"
#include "engine/base/array.h"
#include "engine/base/cleanup.h"

#include <stdio.h>
#include <string.h>

static const char *const modes[] = {"UNSET", "DISABLE", "PERMISSIVE", "STRICT", NULL};
static const char *const mtls_fields[] = {"mode", NULL};

static bool read_mode(struct check *c, const cJSON *parent, const cJSON *mtls, const char *path, enum mtls_mode *ret)
{
	const char *mode = decode_string(mtls, "mode", "UNSET");
	char hint[80];

	if (!cJSON_IsObject(mtls))
		return check_refuse(c, check_at(mtls, parent), "%s: must be a mapping", path);
	if (!check_only(c, path, mtls, mtls_fields) || !check_string(c, mtls, path, "mode", false))
		return false;
	for (int i = 0; modes[i]; i++) {
		if (strcmp(modes[i], mode))
			continue;
		if (i == MTLS_DISABLE)
			check_warn(c, get(mtls, "mode"),
				   "%s.mode: DISABLE does not switch mutual TLS off here: it "
				   "allows plaintext, as PERMISSIVE does",
				   path);
		*ret = (enum mtls_mode)i;
		return true;
	}
	return check_refuse(c, get(mtls, "mode"), "%s.mode: must be UNSET, DISABLE, PERMISSIVE or STRICT, not %s%s",
			    path, mode, check_suggest(mode, modes, hint, sizeof(hint)));
}

static int read_port(struct check *c, const cJSON *ports, const cJSON *entry, struct peer_auth *p)
{
	const char *text = entry->string;
	unsigned long number = strtoul(text, NULL, 10);
	char path[80];
	struct mtls_port *port;

	snprintf(path, sizeof(path), "spec.portLevelMtls.%.40s", text);
	if (!*text || strlen(text) > 5 || strspn(text, "0123456789") != strlen(text) || !number || number > 65535)
		return check_invalid(c, check_at(entry, ports), "%s: must be a port from 1 to 65535", path);
	port = array_grow(&p->ports, &p->n_ports, sizeof(*port));
	if (!port)
		return -ENOMEM;
	port->port = (uint16_t)number;
	return read_mode(c, ports, entry, path, &port->mode) ? 0 : -EINVAL;
}

static int read_ports(struct check *c, const cJSON *spec, struct peer_auth *p)
{
	const cJSON *ports = get(spec, "portLevelMtls"), *i;
	int r = 0;

	if (!ports)
		return 0;
	if (!check_object(c, spec, "spec", "portLevelMtls", false))
		return -EINVAL;
	if (!ports->child)
		return check_invalid(c, ports, "spec.portLevelMtls: is empty: name a port, or leave it out");
	if (p->scope != SCOPE_WORKLOAD)
		return check_invalid(c, ports,
				     "spec.portLevelMtls: needs a selector with labels: ports are those of a workload");
	cJSON_ArrayForEach(i, ports) {
		r = r ? r : read_port(c, ports, i, p);
	}
	return r;
}

static struct peer_auth *new_scoped(const cJSON *tree, const struct mesh_names *mesh)
{
	struct peer_auth *p = peer_auth_new();
	struct scope_fields to = {&p->namespace_, &p->name, &p->created, &p->scope, &p->labels, &p->n_labels};

	return !p || scope_decode(tree, mesh, &to) < 0 ? peer_auth_unref(p) : p;
}

int peer_auth_decode(struct check *c, const cJSON *tree, const struct mesh_names *mesh, struct peer_auth **ret)
{
	static const char *const fields[] = {"selector", "mtls", "portLevelMtls", NULL};
	const cJSON *spec = get(tree, "spec");
	struct peer_auth *p;
	int r;

	if (!check_object(c, tree, "", "spec", false) || !check_near(c, "spec", spec, fields) ||
	    !scope_check_selector(c, spec))
		return -EINVAL;
	if (decode_annotation(tree, "istio.io/dry-run"))
		return check_invalid(c, tree,
				     "metadata.annotations[istio.io/dry-run]: a PeerAuthentication cannot be tried: it "
				     "would be in force; leave it out");
	p = new_scoped(tree, mesh);
	if (!p)
		return -ENOMEM;
	r = get(spec, "mtls") && !read_mode(c, spec, get(spec, "mtls"), "spec.mtls", &p->mode) ? -EINVAL
											       : read_ports(c, spec, p);
	if (r < 0) {
		peer_auth_unref(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct peer_auth *peer_auth_decode_closed(const cJSON *tree, const struct mesh_names *mesh)
{
	struct peer_auth *p = new_scoped(tree, mesh);

	if (p)
		p->closed = true;
	return p;
}
