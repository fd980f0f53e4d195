/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's options: command line, environment and --config file, all from one table. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#define OPTIONS_CIDRS_MAX 64

struct options {
	const char *node, *source, *ca, *trust_domain, *cluster_id, *network, *cluster_domain, *run_dir, *pin_dir;
	const char *trust_domain_aliases, *root_namespace, *l7_deny, *bad_mesh_policy, *anti_spoof;
	const char *assume_missing, *log, *access_log, *on_agent_loss, *tunnel_congestion, *exclude_ports, *crl;
	const char *source_binding, *probe_exemption;
	const char *mesh_cidrs[OPTIONS_CIDRS_MAX]; /* none: every address */
	size_t n_mesh_cidrs;
	uint64_t workers, busy_poll, drain_ms, dial_timeout_ms, cert_ttl_ms, tunnel_max_age_ms, buffer_limit,
		readiness_port;
	bool takeover;
	/* Not the default: the mesh's own settings do not count. */
	bool trust_domain_given, trust_domain_aliases_given, root_namespace_given;
};

/* Fills *ret from defaults, then the config file, the environment, the command line (later wins). 0 go on, 1
 * help or version was printed (exit 0), -EINVAL a message was printed (exit 2). Strings live as long as the
 * process. */
int options_parse(int argc, char **argv, struct options *ret);
struct cJSON;
struct cJSON *options_dump(const struct options *o);
