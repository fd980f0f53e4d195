/* SPDX-License-Identifier: Apache-2.0 */
/* Enrolment against an engine, a capture and certificates that fail when told to; with real namespaces (root). */
#include "agent/enroll/private.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <cmocka.h>

static struct {
	int attach, add, detach; /* what the next call answers */
	unsigned attached, detached, drained, resumed, removed;
	uint32_t number;  /* of the last attach or detach */
	size_t addresses; /* that the pod may send from */
	void (*done)(void *arg, uint32_t number);
	struct capture_leftover left;
	/* In their order: A attached, W a workload to the workers, R relaxed, M modes, P probes. */
	char told[64];
	size_t n_told;
	struct capture_modes modes; /* of the last call */
	size_t n_probes;
} fake;

static void tell(char what)
{
	assert_true(fake.n_told < sizeof(fake.told) - 1);
	fake.told[fake.n_told++] = what;
}

int capture_leftovers(struct capture *c, struct capture_leftover **ret, size_t *ret_n)
{
	(void)c;
	*ret_n = fake.left.number != 0;
	*ret = calloc(1, sizeof(**ret));
	assert_non_null(*ret);
	**ret = fake.left;
	return 0;
}

int capture_pod_attach(struct capture *c, const struct capture_pod *pod, const int listeners[3], int ret_listeners[3],
		       char **ret_error)
{
	(void)c;
	(void)listeners;
	*ret_error = NULL;
	fake.attached++;
	fake.number = pod->number;
	fake.modes = *pod->modes;
	tell('A');
	fake.addresses = pod->n_addrs;
	if (fake.attach < 0)
		return fake.attach;
	for (int i = 0; i < 3; i++)
		ret_listeners[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return 0;
}

int capture_pod_refresh(struct capture *c, uint32_t number, int netns_fd)
{
	(void)c;
	(void)number;
	(void)netns_fd;
	return 0;
}

/* No pod here has sockets. */
int capture_pod_sockets(struct capture *c, int netns_fd, struct capture_socket **ret, size_t *ret_n)
{
	(void)c;
	(void)netns_fd;
	*ret = NULL;
	*ret_n = 0;
	return 0;
}

bool capture_is_probe(const struct capture *c, uint32_t number, const struct capture_socket *s)
{
	(void)c;
	(void)number;
	(void)s;
	return false;
}

int capture_close_socket(int netns_fd, const struct capture_socket *s)
{
	(void)netns_fd;
	(void)s;
	return -ENOENT;
}

int capture_pod_set_addresses(struct capture *c, uint32_t number, const struct ip_addr *addrs, size_t n)
{
	(void)c;
	(void)number;
	(void)addrs;
	fake.addresses = n;
	return 0;
}

const char *capture_pod_link(const struct capture *c, uint32_t number, int netns_fd, char *buf, size_t size)
{
	(void)c;
	(void)number;
	(void)netns_fd;
	(void)buf;
	(void)size;
	return "enforced";
}

int capture_pod_drain(struct capture *c, uint32_t number)
{
	(void)c;
	(void)number;
	fake.drained++;
	return 0;
}

int capture_pod_resume(struct capture *c, uint32_t number)
{
	(void)c;
	(void)number;
	fake.resumed++;
	return 0;
}

int capture_pod_detach(struct capture *c, uint32_t number, int netns_fd)
{
	(void)c;
	(void)netns_fd;
	fake.detached++;
	fake.number = number;
	return fake.detach;
}

int capture_pod_set_modes(struct capture *c, uint32_t number, const struct capture_modes *m)
{
	(void)c;
	(void)number;
	fake.modes = *m;
	tell('M');
	return 0;
}

int capture_pod_relax(struct capture *c, uint32_t number, const struct capture_modes *m)
{
	(void)c;
	(void)number;
	fake.modes = *m;
	tell('R');
	return 0;
}

int capture_pod_set_probes(struct capture *c, uint32_t number, const struct ip_addr *addrs, size_t n_addrs,
			   const uint16_t *ports, size_t n_ports)
{
	(void)c;
	(void)number;
	(void)addrs;
	(void)n_addrs;
	(void)ports;
	fake.n_probes = n_ports;
	tell('P');
	return 0;
}

int engine_pod_add(struct engine *e, const struct engine_pod_config *cfg)
{
	(void)e;
	if (fake.add < 0)
		return fake.add;
	close(cfg->netns_fd);
	close(cfg->listen_outbound);
	close(cfg->listen_inbound);
	close(cfg->listen_hbone);
	return 0;
}

void engine_pod_remove(struct engine *e, uint32_t number, unsigned drain_ms, void (*done)(void *arg, uint32_t number),
		       void *arg)
{
	(void)e;
	(void)number;
	(void)drain_ms;
	(void)arg;
	fake.removed++;
	fake.done = done;
}

void engine_pod_expire(struct engine *e, uint32_t number)
{
	(void)e;
	(void)number;
}

void engine_pod_set_identity(struct engine *e, uint32_t number, struct tls_identity *id)
{
	(void)e;
	(void)number;
	(void)id;
}

void engine_pod_set_workload(struct engine *e, uint32_t number, struct workload *w)
{
	(void)e;
	(void)number;
	(void)w;
	tell('W');
}

int cert_store_get(struct cert_store *s, const char *spiffe, struct tls_identity **ret_id, char **ret_error)
{
	(void)s;
	(void)spiffe;
	*ret_id = NULL;
	*ret_error = NULL;
	return 0;
}

void cert_store_put(struct cert_store *s, const char *spiffe)
{
	(void)s;
	(void)spiffe;
}

/* --- one pod --- */

static char path[64];
static uint64_t cookie;
static struct loop *loop;
static struct pods *pods;

static void found_addresses(void *arg, const char *uid, const struct ip_addr *addrs, size_t n)
{
	(void)arg;
	(void)uid;
	(void)addrs;
	(void)n;
}

static void changed(void *arg)
{
	(void)arg;
}

static void make_namespace(void)
{
	_cleanup_close_ int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), fd = -1, s = -1;
	socklen_t len = sizeof(cookie);

	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(home >= 0 && fd >= 0);
	assert_int_equal(unshare(CLONE_NEWNET), 0);
	assert_int_equal(mount("/proc/self/ns/net", path, "none", MS_BIND, NULL), 0);
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(getsockopt(s, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len), 0);
	assert_int_equal(setns(home, CLONE_NEWNET), 0);
}

static struct workload *pod(bool labelled, bool sidecar)
{
	struct workload *w = workload_new();

	assert_non_null(w);
	w->uid = strdup("Kubernetes//Pod/shop/web");
	w->name = strdup("web");
	w->namespace_ = strdup("shop");
	w->identity = strdup("spiffe://cluster.local/ns/shop/sa/web");
	w->netns_path = strdup(path);
	w->local = w->addrs_in_status = true;
	w->labelled = labelled;
	w->has_sidecar = sidecar;
	return w;
}

/* As node.c does it; the workers are told of the model in between. */
static void apply_workload(struct workload *w)
{
	struct model_delta *d = model_delta_new();

	assert_int_equal(model_delta_add_workload(d, w), 0);
	pods_relax(pods, d);
	pods_apply(pods, d);
	model_delta_free(d);
}

static void apply(bool labelled, bool sidecar)
{
	apply_workload(pod(labelled, sidecar));
}

static void stop(struct timer *t)
{
	(void)t;
	loop_stop(loop);
}

static void run_for(unsigned ms)
{
	struct timer t = {.fn = stop};

	loop_timer_set(loop, &t, ms);
	loop_run(loop);
}

static struct enrolment *enrolment(void)
{
	return table_get_str(&pods->by_uid, "Kubernetes//Pod/shop/web");
}

static void start(void)
{
	struct pods_config cfg = {
		.loop = loop, .drain_ms = 60000, .found_addresses = found_addresses, .changed = changed};

	assert_int_equal(pods_new(&cfg, &pods), 0);
}

static int set_up(void **state)
{
	(void)state;
	log_set_level("error");
	memset(&fake, 0, sizeof(fake));
	snprintf(path, sizeof(path), "/run/wr-enroll-%d", (int)getpid());
	make_namespace();
	return loop_new(&loop);
}

static int tear_down(void **state)
{
	(void)state;
	pods = pods_free(pods);
	loop_free(loop);
	umount2(path, MNT_DETACH);
	unlink(path);
	return 0;
}

static void leave_behind(void)
{
	fake.left = (struct capture_leftover){.number = 7, .netns_cookie = cookie};
	snprintf(fake.left.uid, sizeof(fake.left.uid), "Kubernetes//Pod/shop/web");
	snprintf(fake.left.netns_path, sizeof(fake.left.netns_path), "%s", path);
}

static void leftover_gets_its_number_again(void **state)
{
	(void)state;
	leave_behind();
	start();
	apply(true, false);
	run_for(20);
	assert_int_equal(enrolment()->state, POD_ENROLLED);
	assert_int_equal(fake.number, 7);
	assert_int_equal(fake.detached, 0);
}

/* At its path is another one by now, be it with the same inode number. */
static void leftover_of_another_namespace_goes(void **state)
{
	(void)state;
	leave_behind();
	fake.left.netns_cookie++;
	start();
	apply(true, false);
	assert_int_equal(fake.detached, 1);
	assert_int_equal(fake.number, 7);
	run_for(20);
	assert_int_equal(enrolment()->state, POD_ENROLLED);
	assert_int_equal(fake.number, 1);
}

/* Refused at once, refused while it waits for its return, no longer wanted, released by hand: never is it
 * left in capture without listeners. */
static void leftover_that_stays_out_leaves_capture(void **state)
{
	(void)state;
	leave_behind();
	start();
	apply(true, true);
	assert_int_equal(enrolment()->state, POD_REFUSED);
	assert_int_equal(fake.detached, 1);
	for (int i = 0; i < 3; i++) {
		pods_free(pods);
		start();
		apply(true, false);
		assert_int_equal(fake.detached, i + 1);
		if (i == 2)
			pods_release(pods, NULL);
		else
			apply(i == 0, true);
		assert_int_equal(fake.detached, i + 2);
	}
	assert_int_equal(fake.attached, 0);
}

static void apply_addresses(size_t n)
{
	struct model_delta *d = model_delta_new();
	struct workload *w = pod(true, false);

	w->addrs = calloc(n, sizeof(*w->addrs));
	assert_non_null(w->addrs);
	w->n_addrs = n;
	assert_int_equal(model_delta_add_workload(d, w), 0);
	pods_apply(pods, d);
	model_delta_free(d);
}

/* What the manifest says is what the pod may send from: at once when it is enrolled, and when that changes. */
static void addresses_follow_the_manifest(void **state)
{
	(void)state;
	start();
	apply_addresses(1);
	run_for(20);
	assert_int_equal(enrolment()->state, POD_ENROLLED);
	assert_int_equal(fake.addresses, 1);
	apply_addresses(2);
	assert_int_equal(fake.addresses, 2);
}

/* Wanted again before its connections were told: nothing of it has left, nothing has to join. */
static void label_off_and_on_again_keeps_the_pod_in(void **state)
{
	(void)state;
	start();
	apply(true, false);
	run_for(20);
	apply(false, false);
	assert_int_equal(enrolment()->state, POD_DRAINING);
	run_for(20);
	apply(true, false);
	assert_int_equal(enrolment()->state, POD_ENROLLED);
	run_for(200);
	assert_int_equal(enrolment()->state, POD_ENROLLED);
	assert_int_equal(fake.resumed, 1);
	assert_int_equal(fake.removed, 0);
	assert_int_equal(fake.attached, 1);
}

static struct workload *strict_pod(void)
{
	struct workload *w = pod(true, false);
	struct peer_auth *a = peer_auth_new();

	assert_non_null(a);
	a->namespace_ = strdup("shop");
	a->name = strdup("strict");
	a->scope = SCOPE_NAMESPACE;
	a->mode = MTLS_STRICT;
	assert_int_equal(policy_set_new(NULL, 0, &a, 1, L7_DENY_MATCHES, &w->policy), 0);
	peer_auth_unref(a);
	w->probe_ports = calloc(1, sizeof(*w->probe_ports));
	w->probe_ports[w->n_probe_ports++] = 8080;
	return w;
}

/* In force before the pod is; then lifted before the workers know, and tightened after. */
static void kernel_hears_around_the_workers(void **state)
{
	(void)state;
	start();
	apply_workload(strict_pod());
	run_for(20);
	assert_string_equal(fake.told, "AMP");
	assert_int_equal(fake.modes.mode, MTLS_STRICT);
	assert_true(fake.modes.restricted);
	assert_int_equal(fake.n_probes, 1);
	apply(true, false);
	assert_string_equal(fake.told, "AMPRWMP");
	assert_int_equal(fake.modes.mode, MTLS_PERMISSIVE);
	assert_false(fake.modes.restricted);
	assert_int_equal(fake.n_probes, 0);
	apply_workload(strict_pod());
	assert_string_equal(fake.told, "AMPRWMPRWMP");
	assert_int_equal(fake.modes.mode, MTLS_STRICT);
}

/* Later it joins anew, beside what still drains. */
static void label_on_again_during_the_drain_joins_beside_it(void **state)
{
	(void)state;
	start();
	apply(true, false);
	run_for(20);
	apply(false, false);
	run_for(200);
	assert_int_equal(fake.removed, 1);
	apply(true, false);
	run_for(20);
	assert_int_equal(enrolment()->state, POD_ENROLLED);
	assert_int_equal(fake.resumed, 0);
	assert_int_equal(fake.attached, 2);
	fake.done(pods, enrolment()->number);
	assert_int_equal(fake.detached, 0);
}

static void pod_beyond_the_last_number_joins_when_one_is_free(void **state)
{
	struct enrolment other = {.uid = (char *)"other", .netns_fd = -1};

	(void)state;
	start();
	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++)
		pods->by_number[n] = &other;
	apply(true, false);
	run_for(20);
	assert_int_equal(enrolment()->state, POD_REFUSED);
	assert_non_null(strstr(enrolment()->reason, "more than 511 pods"));
	pods->by_number[300] = NULL;
	run_for(300);
	assert_int_equal(enrolment()->state, POD_ENROLLED);
	assert_int_equal(fake.number, 300);
}

/* The engine takes no pod, and capture cannot be undone: it is tried again, and can be given up. */
static void attempt_that_cannot_be_undone_ends(void **state)
{
	(void)state;
	fake.add = -ENOMEM;
	fake.detach = -EIO;
	start();
	apply(true, false);
	run_for(20);
	assert_int_equal(enrolment()->state, POD_PENDING);
	assert_string_equal(pods_pending(pods), "web");
	assert_int_equal(fake.detached, 1);
	assert_null(pods->by_number[fake.number]);
	fake.add = 0;
	run_for(300);
	assert_int_equal(enrolment()->state, POD_ENROLLED);
	pods_free(pods);
	fake.add = -ENOMEM;
	start();
	apply(true, false);
	run_for(20);
	apply(false, false);
	assert_null(enrolment());
	assert_string_equal(pods_pending(pods), "");
}

static int alarms(void)
{
	cJSON *list = cJSON_CreateArray();
	int n;

	pods_alarms(pods, list);
	n = cJSON_GetArraySize(list);
	cJSON_Delete(list);
	return n;
}

/* Taken for a moment: a killed agent's, to be waited for. For longer: somebody else's, which readiness does
 * not wait for but status alarms of. Pods that stay out by design, or that were let out by hand, are nobody's
 * mistake. */
static void refusals_that_need_help_are_alarms(void **state)
{
	(void)state;
	fake.attach = -EADDRINUSE;
	start();
	apply(true, false);
	run_for(150);
	assert_int_equal(enrolment()->state, POD_PENDING);
	assert_int_equal(alarms(), 0);
	run_for(1500);
	assert_int_equal(enrolment()->state, POD_REFUSED);
	assert_string_equal(pods_pending(pods), "");
	assert_int_equal(alarms(), 1);
	assert_int_equal(pods_held(pods), 0);
	fake.attach = 0;
	run_for(2000);
	assert_int_equal(enrolment()->state, POD_ENROLLED);
	assert_int_equal(alarms(), 0);
	assert_int_equal(pods_held(pods), 1);
	pods_free(pods);
	start();
	apply(true, true);
	assert_int_equal(enrolment()->state, POD_REFUSED);
	assert_int_equal(alarms(), 0);
	apply(true, false);
	pods_release(pods, NULL);
	assert_int_equal(enrolment()->state, POD_REFUSED);
	assert_int_equal(alarms(), 0);
}

static int offer(void)
{
	int fds[3];

	for (int i = 0; i < 3; i++)
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	pods_offer_listeners(pods, "Kubernetes//Pod/shop/web", fds);
	return fds[2];
}

/* Refused before the listeners come, refused while they wait for the pod's turn, or not known at all. */
static void passed_listeners_that_nobody_serves_are_closed(void **state)
{
	int fd;

	(void)state;
	start();
	assert_int_equal(fcntl(offer(), F_GETFD), -1);
	apply(true, true);
	assert_int_equal(fcntl(offer(), F_GETFD), -1);
	apply(true, false);
	run_for(20);
	assert_int_equal(fcntl(offer(), F_GETFD), -1);
	pods_free(pods);
	start();
	apply(true, false);
	fd = offer();
	assert_true(fcntl(fd, F_GETFD) >= 0);
	apply(true, true);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(addresses_follow_the_manifest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(leftover_gets_its_number_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(leftover_of_another_namespace_goes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(leftover_that_stays_out_leaves_capture, set_up, tear_down),
		cmocka_unit_test_setup_teardown(label_off_and_on_again_keeps_the_pod_in, set_up, tear_down),
		cmocka_unit_test_setup_teardown(kernel_hears_around_the_workers, set_up, tear_down),
		cmocka_unit_test_setup_teardown(label_on_again_during_the_drain_joins_beside_it, set_up, tear_down),
		cmocka_unit_test_setup_teardown(pod_beyond_the_last_number_joins_when_one_is_free, set_up, tear_down),
		cmocka_unit_test_setup_teardown(refusals_that_need_help_are_alarms, set_up, tear_down),
		cmocka_unit_test_setup_teardown(passed_listeners_that_nobody_serves_are_closed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(attempt_that_cannot_be_undone_ends, set_up, tear_down),
	};

	if (geteuid()) {
		printf("needs root for network namespaces\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
