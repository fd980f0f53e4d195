/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `prove POD`: is there a way around the agent? Enters a pod's name. Leaves the list of what was sent from inside its
 * network namespace, as a hostile process there could, and how much of it came out on the node. A witness behind the
 * program on the node's end of the pod's link counts the probes and ends them, so that nobody gets one: a capture
 * there would also show what is about to be dropped. Called by local.c; probe.c makes the packets.
 */
#include "ctl.h"
#include "probe.h"
#include "engine/base/cleanup.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Discard: what nobody serves. */
#define FIRST_TARGET_PORT 9
/* Below the ports that the system gives to others. */
#define FIRST_PORT 20000
#define PORTS 8000
/* From the last probe to the reading of what came out. */
#define SETTLE_US 200000

/* --- from whom, to whom --- */

static bool is_v4(const struct ip_addr *a)
{
	return ip_addr_is_v4(a);
}

static bool address_of(const cJSON *pod, bool v4, struct ip_addr *ret)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, member(pod, "addresses"))
		if (cJSON_IsString(i) && ip_addr_parse(i->valuestring, ret) == 0 && is_v4(ret) == v4)
			return true;
	return false;
}

static bool is_unenrolled(const cJSON *dump, const struct ip_addr *a)
{
	char text[64];

	return !strcmp(text_of(member(dump, "destinations"), ip_addr_format(a, text, sizeof(text))), "unenrolled");
}

/* An address in the range that is not known to be outside the mesh. Of all addresses one that nobody has (RFC 5737,
 * RFC 3849). */
static bool inside(const cJSON *dump, const char *range, bool v4, struct ip_addr *ret)
{
	struct ip_addr a;
	unsigned bits;

	if (ip_cidr_parse(range, &a, &bits) < 0 || (bits && is_v4(&a) != v4))
		return false;
	if (!bits)
		(void)ip_addr_parse(v4 ? "192.0.2.0" : "2001:db8::", &a);
	for (int i = 0; i < 255 && (i == 0 || bits <= 120); i++) {
		a.b[15] = (uint8_t)(bits <= 120 ? a.b[15] + 1 : a.b[15]);
		if (!is_unenrolled(dump, &a)) {
			*ret = a;
			return true;
		}
	}
	return false;
}

/* Another pod in the mesh if there is one, else any address that counts as the mesh's. */
static bool find_target(const cJSON *dump, const cJSON *self, bool v4, struct ip_addr *ret)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, member(dump, "pods"))
		if (i != self && address_of(i, v4, ret) && !is_unenrolled(dump, ret))
			return true;
	cJSON_ArrayForEach(i, member(dump, "mesh_ranges"))
		if (cJSON_IsString(i) && inside(dump, i->valuestring, v4, ret))
			return true;
	return false;
}

/* Ports that are excluded from capture are nobody's business here. */
static uint16_t target_port(const cJSON *dump)
{
	uint16_t port = FIRST_TARGET_PORT;
	const cJSON *i;

again:
	cJSON_ArrayForEach(i, member(dump, "excluded_ports"))
		if (cJSON_GetNumberValue(i) == port) {
			port++;
			goto again;
		}
	return port;
}

static const cJSON *find_pod(const cJSON *dump, const char *name)
{
	char full[600];
	const cJSON *p;

	cJSON_ArrayForEach(p, member(dump, "pods")) {
		snprintf(full, sizeof(full), "%s/%s", text_of(p, "namespace"), text_of(p, "name"));
		if (!strcmp(name, full) || !strcmp(name, text_of(p, "name")) || !strcmp(name, text_of(p, "uid")))
			return p;
	}
	return NULL;
}

/* --- sending --- */

/* In the pod's namespace; it never stays there. */
static int send_all(int netns_fd, struct probe_route *route, struct probe *probes, unsigned n)
{
	_cleanup_close_ int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);

	if (home < 0 || setns(netns_fd, CLONE_NEWNET) < 0)
		return -errno;
	for (unsigned i = 0; i < n; i++)
		probe_send(route, &probes[i], (uint16_t)(route->first_port + i));
	usleep(SETTLE_US);
	for (unsigned i = 0; i < n; i++)
		probe_done(&probes[i]);
	if (setns(home, CLONE_NEWNET) < 0)
		abort();
	return 0;
}

static uint16_t random_port(void)
{
	uint16_t r = 0;

	(void)!getrandom(&r, sizeof(r), 0);
	return (uint16_t)(FIRST_PORT + r % PORTS);
}

/* --- what came of it --- */

static double dropped(const cJSON *dump, const char *uid, const char *reason)
{
	const cJSON *p;

	cJSON_ArrayForEach(p, member(dump, "pods"))
		if (!strcmp(text_of(p, "uid"), uid))
			return number_of(member(p, "counters"), reason);
	return 0;
}

static cJSON *result(const struct capture_witness *w, const struct probe *probes, unsigned n, unsigned *ret_through)
{
	cJSON *list = cJSON_CreateArray();

	*ret_through = 0;
	for (unsigned i = 0; i < n; i++) {
		double seen = (double)capture_witness_seen(w, i);
		cJSON *o = cJSON_CreateObject();

		cJSON_AddStringToObject(o, "probe", probes[i].name);
		cJSON_AddStringToObject(o, "sent", probes[i].error ? strerror(probes[i].error) : "yes");
		cJSON_AddStringToObject(o, "got_through", seen > 0 ? "YES" : "no");
		cJSON_AddNumberToObject(o, "packets", seen);
		cJSON_AddItemToArray(list, o);
		*ret_through += seen > 0;
	}
	return list;
}

static void print(struct ctl *c, cJSON *all, const struct probe_route *route)
{
	static const struct column columns[] = {
		{"PROBE", "probe", AS_TEXT}, {"SENT", "sent", AS_TEXT}, {"GOT THROUGH", "got_through", AS_TEXT}};

	if (ctl_print_json(c, all))
		return;
	printf("pod %s, from %s to %s on the node, link %s\n\n", text_of(all, "pod"), route->link.name,
	       route->link.end_name, text_of(all, "link"));
	table_print(member(all, "probes"), columns, ARRAY_SIZE(columns));
	printf("\n%.0f of %d probes got through; dropped on the node's end meanwhile: %.0f for their source, %.0f for "
	       "going around the agent\n",
	       number_of(all, "through"), cJSON_GetArraySize(member(all, "probes")),
	       number_of(all, "drop_source_address"), number_of(all, "drop_bypass"));
}

static int run(struct ctl *c, struct capture *cap, const cJSON *dump, const cJSON *pod, int netns_fd)
{
	static const char *const reasons[] = {"drop_source_address", "drop_bypass"};
	struct probe_route route = {.to_port = target_port(dump), .first_port = random_port()};
	struct capture_witness *w = NULL;
	_cleanup_free_ char *error = NULL;
	struct probe probes[CAPTURE_MAX_PROBES];
	unsigned n, through;
	cJSON *all, *after;
	int r;

	route.v4 = address_of(pod, true, &route.from4) && find_target(dump, pod, true, &route.to4);
	route.v6 = address_of(pod, false, &route.from6) && find_target(dump, pod, false, &route.to6);
	if (!route.v4 && !route.v6)
		return ctl_error(c, CTL_USAGE, "%s: no address of it, or none of the mesh to send to, is known",
				 text_of(pod, "name"));
	r = capture_witness_open(cap, (uint32_t)number_of(pod, "number"), netns_fd, route.first_port, route.to_port,
				 &route.link, &w, &error);
	if (r < 0)
		return ctl_error(c, CTL_USAGE, "%s: %s", text_of(pod, "name"), error ? error : strerror(-r));
	n = probe_list(&route, probes);
	r = send_all(netns_fd, &route, probes, n);
	all = cJSON_CreateObject();
	cJSON_AddStringToObject(all, "pod", text_of(pod, "uid"));
	cJSON_AddStringToObject(all, "link", text_of(pod, "link"));
	cJSON_AddItemToObject(all, "probes", result(w, probes, n, &through));
	cJSON_AddNumberToObject(all, "through", through);
	capture_witness_close(w);
	after = capture_dump(cap);
	for (size_t i = 0; i < ARRAY_SIZE(reasons); i++)
		cJSON_AddNumberToObject(all, reasons[i],
					dropped(after, text_of(pod, "uid"), reasons[i]) -
						dropped(dump, text_of(pod, "uid"), reasons[i]));
	cJSON_Delete(after);
	if (r == 0)
		print(c, all, &route);
	cJSON_Delete(all);
	if (r < 0)
		return ctl_error(c, CTL_USAGE, "cannot enter the pod's network namespace: %s", strerror(-r));
	return through ? CTL_NOT_SO : CTL_OK;
}

/* A filter of the witness would stay behind. */
static void hold_signals(int how)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	(void)sigprocmask(how, &set, NULL);
}

int prove(struct ctl *c, struct capture *cap, const char *name)
{
	cJSON *dump = capture_dump(cap);
	const cJSON *pod = dump ? find_pod(dump, name) : NULL;
	_cleanup_close_ int netns = -1;
	int r;

	if (pod && is_true(pod, "netns_there"))
		netns = open(text_of(pod, "netns"), O_RDONLY | O_CLOEXEC);
	if (!pod)
		r = ctl_error(c, CTL_USAGE, "no captured pod is called %s", name);
	else if (netns < 0)
		r = ctl_error(c, CTL_USAGE, "%s: its network namespace %s is gone", name, text_of(pod, "netns"));
	else {
		hold_signals(SIG_BLOCK);
		r = run(c, cap, dump, pod, netns);
		hold_signals(SIG_UNBLOCK);
	}
	cJSON_Delete(dump);
	return r;
}
