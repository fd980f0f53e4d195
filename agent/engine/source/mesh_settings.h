/* SPDX-License-Identifier: Apache-2.0 */
/* The names that the whole mesh goes by, as they are in force: options first, then Istio's ConfigMap, then defaults.
 * Private to source/. */
#pragma once
#include "mesh_config.h"
#include "policy_decode.h"
#include "store.h"

/* Options; they win over the ConfigMap. */
struct mesh_options {
	const char *trust_domain_aliases; /* with commas between them; NULL: not given */
	const char *root_namespace;	  /* NULL: not given */
	bool trust_domain_given;
};

/* All zeroes: nothing is known yet. */
struct mesh_settings {
	struct mesh_names names; /* as the decoders want them; the trust domain is the agent's own */
	struct mesh_config now;	 /* holds the others */
	struct mesh_config map;	 /* what the ConfigMap says by itself */
	uint64_t map_version;	 /* of the resource */
	uint64_t version;	 /* grows with each change of names; 0: not read yet */
	char *alarm;		 /* what the ConfigMap asks for and only a restart gives; NULL: nothing */
};

/* Reads the ConfigMap if it has changed. 0 or -ENOMEM, which leaves what was. */
int mesh_settings_update(struct mesh_settings *m, const struct mesh_options *o, const char *trust_domain,
			 const struct store *s);
void mesh_settings_done(struct mesh_settings *m);
/* {"trust_domain","trust_domain_aliases","root_namespace"}, each {"value","from", overridden?: what the ConfigMap says
 * and an option, which is `from`, keeps from being so}. */
cJSON *mesh_settings_dump(const struct mesh_settings *m, const struct mesh_options *o);

/* The trust domain that the ConfigMap names, malloc'd; NULL: none. 0 or -ENOMEM. */
int mesh_settings_domain(const struct mesh_options *o, const struct store *s, char **ret);
