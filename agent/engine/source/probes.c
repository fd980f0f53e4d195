/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ports that the kubelet connects to by a pod's manifest: its startup, liveness and readiness probes and its
 * lifecycle handlers. The Pod comes in, the workload's list of ports leaves. Called by workload.c.
 */
#include "assemble_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint16_t port_in_range(double n)
{
	return n >= 1 && n <= 65535 && n == (double)(uint16_t)n ? (uint16_t)n : 0;
}

/* A number, or the name of a port of the same container; text that names none may still be a number. */
static uint16_t resolve(const cJSON *container, const cJSON *port)
{
	const cJSON *p;
	char *end;
	long n;

	if (cJSON_IsNumber(port))
		return port_in_range(port->valuedouble);
	if (!cJSON_IsString(port))
		return 0;
	cJSON_ArrayForEach(p, get(container, "ports")) {
		if (!strcmp(decode_string(p, "name", ""), port->valuestring))
			return port_in_range(cJSON_GetNumberValue(get(p, "containerPort")));
	}
	n = strtol(port->valuestring, &end, 10);
	return *end ? 0 : port_in_range((double)n);
}

static int add(struct workload *w, uint16_t port)
{
	uint16_t *grown;

	if (!port)
		return 0;
	for (size_t i = 0; i < w->n_probe_ports; i++)
		if (w->probe_ports[i] == port)
			return 0;
	grown = realloc(w->probe_ports, (w->n_probe_ports + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	w->probe_ports = grown;
	w->probe_ports[w->n_probe_ports++] = port;
	return 0;
}

/* httpGet, tcpSocket or grpc. One with a host does not go to the pod. */
static int add_handler(struct workload *w, const cJSON *container, const cJSON *handler)
{
	static const char *const actions[] = {"httpGet", "tcpSocket", "grpc"};
	int r = 0;

	for (size_t i = 0; i < 3 && r == 0; i++) {
		const cJSON *action = get(handler, actions[i]);

		if (!*decode_string(action, "host", ""))
			r = add(w, resolve(container, get(action, "port")));
	}
	return r;
}

int assemble_probes(struct workload *w, const cJSON *spec)
{
	static const char *const lists[] = {"containers", "initContainers"};
	static const char *const probes[] = {"startupProbe", "livenessProbe", "readinessProbe"};
	const cJSON *c;
	int r = 0;

	for (size_t i = 0; i < 2; i++)
		cJSON_ArrayForEach(c, get(spec, lists[i])) {
			const cJSON *life = get(c, "lifecycle");

			for (size_t k = 0; k < 3; k++)
				r = r ? r : add_handler(w, c, get(c, probes[k]));
			r = r ? r : add_handler(w, c, get(life, "postStart"));
			r = r ? r : add_handler(w, c, get(life, "preStop"));
		}
	return r;
}
