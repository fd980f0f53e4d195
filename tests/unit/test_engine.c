/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole L4 engine without BPF: in a network namespace of its own, lo carries the addresses of a client pod, a
 * server pod and a Service. A listener on the Service's address plays capture: its accepted sockets' local address is
 * where the client wanted to go, just as after bpf_sk_assign. Real TLS, real HTTP/2, real sockets.
 */
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/identity/ca.h"
#include "engine/identity/trust.h"
#include "engine/io/loop.h"
#include "engine/proxy/engine.h"
#include "engine/telemetry/accesslog.h"
#include "engine/telemetry/reason.h"
#include "folder.h"

#include <cjson/cJSON.h>
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <cmocka.h>

#define CLIENT "10.99.0.1"
#define SERVER "10.99.0.2"
#define PLAIN "10.99.0.3"
#define VIP "10.99.0.9"
#define PLAIN_VIP "10.99.0.8"
#define APP_PORT 8080

static struct engine *engine;
static struct loop *control;
static pthread_t control_thread;
static struct ca *ca;
static struct trust *trust;
static struct tls_identity *client_id, *server_id;
static struct workload *client_w, *server_w;
static int app_fd = -1;
static atomic_int removed;

/* With `hold_next` the worker that claims the next socket says so by `holding`, and waits for `go_on`. */
static atomic_bool hold_next;
static sem_t holding, go_on;

static int claim(void *arg, int fd, enum socket_role role)
{
	(void)arg;
	(void)fd;
	(void)role;
	if (atomic_exchange(&hold_next, false)) {
		sem_post(&holding);
		sem_wait(&go_on);
	}
	return 0;
}

static void address(const char *text)
{
	static int n;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq ifr = {0};
	struct sockaddr_in *in = (struct sockaddr_in *)(void *)&ifr.ifr_addr;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "lo:%d", n++);
	in->sin_family = AF_INET;
	inet_pton(AF_INET, text, &in->sin_addr);
	assert_int_equal(ioctl(fd, SIOCSIFADDR, &ifr), 0);
	strcpy(ifr.ifr_name, "lo");
	assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &ifr), 0);
	ifr.ifr_flags |= IFF_UP;
	assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	close(fd);
}

static struct sockaddr_in at(const char *ip, int port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	inet_pton(AF_INET, ip, &in.sin_addr);
	return in;
}

static int listen_at(const char *ip, int port, bool blocking)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK), 0), one = 1;
	struct sockaddr_in in = at(ip, port);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(listen(fd, 4096), 0);
	return fd;
}

static int dial_from(const char *source, const char *ip, int port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = at(ip, port), from = at(source, 0);
	struct timeval tv = {.tv_sec = 20};

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	return fd;
}

static int dial(const char *ip, int port)
{
	return dial_from(CLIENT, ip, port);
}

static struct workload *workload(const char *name, const char *ip, enum tunnel_protocol protocol)
{
	struct workload *w = workload_new();
	char text[256];

	snprintf(text, sizeof(text), "Kubernetes//Pod/test/%s", name);
	w->uid = strdup(text);
	w->name = strdup(name);
	w->namespace_ = strdup("test");
	w->service_account = strdup(name);
	w->node = strdup("n1");
	w->network = strdup("");
	w->cluster_id = strdup("Kubernetes");
	w->trust_domain = strdup("cluster.local");
	snprintf(text, sizeof(text), "spiffe://cluster.local/ns/test/sa/%s", name);
	w->identity = strdup(text);
	w->canonical_name = strdup(name);
	w->canonical_revision = strdup("v1");
	w->workload_name = strdup(name);
	w->workload_type = strdup("deployment");
	w->addrs = calloc(1, sizeof(*w->addrs));
	w->n_addrs = 1;
	assert_int_equal(ip_addr_parse(ip, &w->addrs[0]), 0);
	w->protocol = protocol;
	w->ready = true;
	w->capacity = 1;
	return w;
}

/* Port 80 of `vip` is APP_PORT of this workload. */
static void add_service(struct model_delta *d, const char *name, const char *vip, struct workload *w)
{
	struct service *s = service_new();
	struct service_endpoint *e = calloc(1, sizeof(*e));

	char hostname[64];

	snprintf(hostname, sizeof(hostname), "%s.test.svc.cluster.local", name);
	s->name = strdup(name);
	s->namespace_ = strdup("test");
	s->hostname = strdup(hostname);
	s->vips = calloc(1, sizeof(*s->vips));
	s->n_vips = 1;
	ip_addr_parse(vip, &s->vips[0]);
	s->ports = calloc(1, sizeof(*s->ports));
	s->n_ports = 1;
	s->ports[0] = (struct service_port){.port = 80, .name = strdup("http")};
	e->addr = w->addrs[0];
	e->workload = workload_ref(w);
	e->target_ports = calloc(1, sizeof(uint16_t));
	e->target_ports[0] = APP_PORT;
	e->weight = 1;
	e->healthy = true;
	s->endpoints = e;
	s->n_endpoints = 1;
	assert_int_equal(model_delta_add_service(d, s), 0);
}

/* Threads that may still be made; -1: all. */
static int threads_left = -1;

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attr, void *(*fn)(void *),
		   void *restrict arg)
{
	int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
		(int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))(uintptr_t)dlsym(
			RTLD_NEXT, "pthread_create");

	if (!threads_left)
		return EAGAIN;
	threads_left -= threads_left > 0;
	return next(thread, attr, fn, arg);
}

static void *control_main(void *arg)
{
	loop_run(arg);
	return NULL;
}

/* 15001 of the client pod stands at the Service's address; what the test does not use listens on odd ports. */
static void add_pod(uint32_t number, struct workload *w, struct tls_identity *id, int out, int in, int hbone)
{
	struct engine_pod_config pod = {.number = number,
					.workload = w,
					.identity = id,
					.netns_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC),
					.listen_outbound = out,
					.listen_inbound = in,
					.listen_hbone = hbone};

	assert_int_equal(engine_pod_add(engine, &pod), 0);
}

static int set_up(void **state)
{
	struct engine_config cfg = {.workers = 2,
				    .busy_poll_us = 150,
				    .buffer_limit = 64 << 20,
				    .dial_timeout_ms = 2000,
				    .cluster_id = "Kubernetes",
				    .network = "",
				    .claim_socket = claim};
	static const char *const domains[] = {"cluster.local"};
	struct trust_config tc = {.domains = domains, .n_domains = 1};
	char dir[] = "/tmp/wr-test-engine-XXXXXX", *error = NULL;
	struct workload *plain_w = workload("plain", PLAIN, TUNNEL_NONE);
	struct model_delta *d = model_delta_new();

	(void)state;
	if (unshare(CLONE_NEWNET) < 0) {
		print_message("needs CAP_SYS_ADMIN for a network namespace of its own\n");
		return -1;
	}
	sem_init(&holding, 0, 0);
	sem_init(&go_on, 0, 0);
	address("127.0.0.1");
	address(CLIENT);
	address(SERVER);
	address(PLAIN);
	address(VIP);
	address(PLAIN_VIP);
	accesslog_open(getenv("WR_TEST_LOG") ? "stderr" : "off", false);
	folder_make(dir);
	assert_int_equal(ca_open_dir(dir, "cluster.local", 3600, &ca, &error), 0);
	client_w = workload("client", CLIENT, TUNNEL_HBONE);
	server_w = workload("server", SERVER, TUNNEL_HBONE);
	tc.roots_pem = ca_roots(ca);
	assert_int_equal(trust_new(&tc, &trust), 0);
	cfg.trust = trust;
	assert_int_equal(ca_issue(ca, client_w->identity, &client_id, &error), 0);
	assert_int_equal(ca_issue(ca, server_w->identity, &server_id, &error), 0);
	assert_int_equal(loop_new(&control), 0);
	cfg.control = control;
	assert_int_equal(engine_new(&cfg, &engine), 0);
	model_delta_add_workload(d, workload_ref(client_w));
	model_delta_add_workload(d, workload_ref(server_w));
	model_delta_add_workload(d, plain_w);
	add_service(d, "web", VIP, server_w);
	add_service(d, "plain", PLAIN_VIP, plain_w);
	engine_model_apply(engine, d);
	model_delta_free(d);
	add_pod(1, client_w, client_id, listen_at(VIP, 80, false), listen_at(PLAIN, 81, false),
		listen_at(CLIENT, 15008, false));
	add_pod(2, server_w, server_id, listen_at(PLAIN_VIP, 80, false), listen_at(SERVER, 82, false),
		listen_at(SERVER, 15008, false));
	assert_int_equal(engine_start(engine), 0);
	pthread_create(&control_thread, NULL, control_main, control);
	app_fd = listen_at(SERVER, APP_PORT, true);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	engine_free(engine);
	loop_stop(control);
	pthread_join(control_thread, NULL);
	loop_free(control);
	tls_identity_unref(client_id);
	tls_identity_unref(server_id);
	workload_unref(client_w);
	workload_unref(server_w);
	trust_unref(trust);
	ca_free(ca);
	close(app_fd);
	accesslog_close();
	return 0;
}

static void pair(int *ret_client, int *ret_app, struct sockaddr_in *ret_peer)
{
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	struct timeval tv = {.tv_sec = 20};

	*ret_client = dial(VIP, 80);
	struct pollfd p = {.fd = app_fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 10000), 1);
	*ret_app = accept(app_fd, (struct sockaddr *)&peer, &len);
	assert_true(*ret_app >= 0);
	setsockopt(*ret_app, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	if (ret_peer)
		*ret_peer = peer;
}

static void bytes_and_addresses_arrive(void **state)
{
	struct sockaddr_in peer;
	char buf[64], text[32];
	int c, a;

	(void)state;
	pair(&c, &a, &peer);
	assert_string_equal(inet_ntop(AF_INET, &peer.sin_addr, text, sizeof(text)), CLIENT);
	assert_true(ntohs(peer.sin_port) >= 61000);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(send(c, "ping", 4, 0), 4);
		assert_int_equal(recv(a, buf, 4, MSG_WAITALL), 4);
		assert_memory_equal(buf, "ping", 4);
		assert_int_equal(send(a, "pong!", 5, 0), 5);
		assert_int_equal(recv(c, buf, 5, MSG_WAITALL), 5);
	}
	close(c);
	assert_int_equal(recv(a, buf, 1, 0), 0);
	close(a);
}

struct flow {
	int fd;
	uint64_t bytes, sum;
};

static uint64_t step(uint64_t *x)
{
	*x = *x * 6364136223846793005ull + 1442695040888963407ull;
	return *x;
}

static void *send_all(void *arg)
{
	struct flow *f = arg;
	static __thread uint64_t buf[8192];
	uint64_t x = 1;

	for (uint64_t done = 0; done < f->bytes;) {
		for (size_t i = 0; i < ARRAY_SIZE(buf); i++)
			f->sum += buf[i] = step(&x);
		for (size_t off = 0; off < sizeof(buf);) {
			ssize_t n = send(f->fd, (char *)buf + off, sizeof(buf) - off, MSG_NOSIGNAL);

			if (n <= 0)
				return NULL;
			off += (size_t)n;
		}
		done += sizeof(buf);
	}
	shutdown(f->fd, SHUT_WR);
	return NULL;
}

static void *receive_all(void *arg)
{
	struct flow *f = arg;
	static __thread char buf[65536];
	uint64_t x = 1, got = 0, expect = 0;

	for (;;) {
		ssize_t n = recv(f->fd, buf, sizeof(buf), 0);

		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++, got++) {
			if (got % 8 == 0)
				expect = step(&x);
			if (((char *)&expect)[got % 8] != buf[i])
				return NULL;
		}
	}
	f->bytes = got;
	return NULL;
}

static void bulk_both_ways_and_half_close(void **state)
{
	uint64_t total = getenv("WR_SCALE") ? 8 << 20 : 64 << 20;
	pthread_t t[4];
	int c, a;

	(void)state;
	pair(&c, &a, NULL);
	struct flow f[4] = {{c, total, 0}, {a, 0, 0}, {a, total / 2, 0}, {c, 0, 0}};
	for (int i = 0; i < 4; i++)
		pthread_create(&t[i], NULL, i % 2 ? receive_all : send_all, &f[i]);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(f[1].bytes, total);
	assert_int_equal(f[3].bytes, total / 2);
	close(c);
	close(a);
}

static void reset_stays_reset(void **state)
{
	struct linger now = {1, 0};
	char b;
	int c, a;

	(void)state;
	pair(&c, &a, NULL);
	setsockopt(c, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(c);
	assert_int_equal(recv(a, &b, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	close(a);
	pair(&c, &a, NULL);
	setsockopt(a, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(a);
	assert_int_equal(recv(c, &b, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	close(c);
}

static void refused_app_is_a_reset(void **state)
{
	uint64_t before = reason_counter(WR_REASON_APP_REFUSED), start = clock_now_ms();
	char b;
	int c;

	(void)state;
	close(app_fd);
	c = dial(VIP, 80);
	assert_int_equal(recv(c, &b, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	assert_true(clock_now_ms() - start < 5000);
	assert_int_equal(reason_counter(WR_REASON_APP_REFUSED), before + 1);
	close(c);
	app_fd = listen_at(SERVER, APP_PORT, true);
}

static void slow_reader_keeps_everything(void **state)
{
	uint64_t total = 16 << 20;
	pthread_t t[2];
	int c, a;

	(void)state;
	pair(&c, &a, NULL);
	struct flow f[2] = {{c, total, 0}, {a, 0, 0}};
	pthread_create(&t[0], NULL, send_all, &f[0]);
	usleep(700000);
	pthread_create(&t[1], NULL, receive_all, &f[1]);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	assert_int_equal(f[1].bytes, total);
	close(c);
	close(a);
}

static void many_connections_leave_nothing(void **state)
{
	static int c[300], a[300];
	char b;

	(void)state;
	for (int i = 0; i < 300; i++)
		pair(&c[i], &a[i], NULL);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(send(c[i], "x", 1, 0), 1);
		close(c[i]);
	}
	/* Accept order is not connect order: each app socket has one byte and an end, whichever it belongs to. */
	for (int i = 0; i < 300; i++) {
		assert_int_equal(recv(a[i], &b, 1, 0), 1);
		assert_int_equal(recv(a[i], &b, 1, 0), 0);
		close(a[i]);
	}
	for (int i = 0; i < 200 && engine_open_connections(engine); i++)
		usleep(10000);
	assert_int_equal(engine_open_connections(engine), 0);
}

static void a_relayed_connection_is_one(void **state)
{
	int plain_fd = listen_at(PLAIN, APP_PORT, true), c = dial(PLAIN_VIP, 80), a = accept(plain_fd, NULL, NULL);

	(void)state;
	assert_true(a >= 0);
	assert_int_equal(engine_open_connections(engine), 1);
	close(c);
	close(a);
	close(plain_fd);
	for (int i = 0; i < 200 && engine_open_connections(engine); i++)
		usleep(10000);
	assert_int_equal(engine_open_connections(engine), 0);
}

static void counted(void *arg, struct cJSON *array)
{
	atomic_store((atomic_int *)arg, cJSON_GetArraySize(array) + 1);
	cJSON_Delete(array);
}

static void dumps_show_what_is_open(void **state)
{
	atomic_int n = 0;
	int c, a;

	(void)state;
	pair(&c, &a, NULL);
	engine_dump(engine, "connections", counted, &n);
	for (int i = 0; i < 200 && !atomic_load(&n); i++)
		usleep(10000);
	assert_int_equal(atomic_load(&n), 3);
	close(c);
	close(a);
}

static void gone(void *arg, uint32_t number)
{
	(void)arg;
	atomic_store(&removed, (int)number);
}

/* Long before the drains of these tests are over. */
static void wait_removed(uint32_t number)
{
	for (int i = 0; i < 1000 && atomic_load(&removed) != (int)number; i++)
		usleep(10000);
	assert_int_equal(atomic_load(&removed), number);
}

static void removal_ends_by_reset(void **state)
{
	char b;
	int c, a;

	(void)state;
	pair(&c, &a, NULL);
	engine_pod_remove(engine, 2, 300, gone, NULL);
	usleep(100000);
	/* Still alive while draining. */
	assert_int_equal(send(c, "x", 1, 0), 1);
	assert_int_equal(recv(a, &b, 1, 0), 1);
	assert_int_equal(recv(a, &b, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	wait_removed(2);
	assert_int_equal(recv(c, &b, 1, 0), -1);
	close(c);
	close(a);
	/* Nobody answers 15008 any more: retried until the deadline, then reset; never sent to the app in plaintext. */
	c = dial(VIP, 80);
	uint64_t start = clock_now_ms();
	assert_int_equal(recv(c, &b, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	assert_true(clock_now_ms() - start >= 1000);
	struct pollfd p = {.fd = app_fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 0), 0);
	close(c);
}

/* One worker knows that the pod goes, the other, held in the middle of its work, still accepts: what it passes on to
 * the first, because that one has the caller's tunnel, is reset there, and the log says why. */
static void the_pod_goes_while_connections_move(void **state)
{
	int listener = listen_at("0.0.0.0", 8099, false), busy, moving[16];
	uint64_t before = reason_counter(WR_REASON_POD_REMOVED);
	char source[24], b;

	(void)state;
	add_pod(5, client_w, client_id, listener, listen_at(PLAIN, 87, false), listen_at(PLAIN, 88, false));
	atomic_store(&hold_next, true);
	busy = dial(PLAIN, 8099);
	sem_wait(&holding);
	engine_pod_remove(engine, 5, 60000, gone, NULL);
	usleep(100000);
	/* A caller's address chooses the worker: with so many, some are the other one's. */
	for (int i = 0; i < 16; i++) {
		snprintf(source, sizeof(source), "127.0.1.%d", i + 1);
		moving[i] = dial_from(source, SERVER, 8099);
	}
	sem_post(&go_on);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(recv(moving[i], &b, 1, 0), -1);
		assert_int_equal(errno, ECONNRESET);
		close(moving[i]);
	}
	assert_true(reason_counter(WR_REASON_POD_REMOVED) > before);
	close(busy);
	wait_removed(5);
}

/* The last stream of the next GOAWAY (RFC 9113 6.8) on a session, or 0 when it ends without. */
static uint32_t next_goaway(SSL *ssl)
{
	uint8_t head[9], body[16384];

	for (;;) {
		size_t len, n;

		if (SSL_read_ex(ssl, head, sizeof(head), &n) != 1 || n != sizeof(head))
			return 0;
		len = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
		if (len && (SSL_read_ex(ssl, body, len, &n) != 1 || n != len))
			return 0;
		if (head[3] == 7)
			return (uint32_t)body[0] << 24 | (uint32_t)body[1] << 16 | (uint32_t)body[2] << 8 | body[3];
	}
}

/* A caller's session on a pod's 15008, past the TLS handshake. */
static SSL *open_session(int fd, struct tls_verify *verify)
{
	static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
	SSL *ssl = tls_identity_client_ssl(client_id, verify);

	assert_int_equal(SSL_set_fd(ssl, fd), 1);
	assert_int_equal(SSL_connect(ssl), 1);
	assert_int_equal(SSL_write(ssl, hello, sizeof(hello)), sizeof(hello));
	return ssl;
}

/* Takes no more connections: further SYNs are dropped. */
static void fill(int fd, const char *ip, int port, int ret_held[4])
{
	struct sockaddr_in in = at(ip, port);

	assert_int_equal(listen(fd, 0), 0);
	for (int i = 0; i < 4; i++) {
		ret_held[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)connect(ret_held[i], (struct sockaddr *)&in, sizeof(in));
	}
}

/* First a tunnel that is refused, then, as the model changed, plain TCP that is not answered: one deadline for all. A
 * connection that dials plain TCP alone, and began later, must outlive it. */
static void a_retry_gets_no_time_of_its_own(void **state)
{
	int hole = listen_at(PLAIN, APP_PORT, false), held[4];
	struct workload *plain_w = workload("plain", PLAIN, TUNNEL_NONE);
	struct model_delta *d = model_delta_new();
	struct pollfd p[2] = {{.events = POLLIN}, {.events = POLLIN}};

	(void)state;
	fill(hole, PLAIN, APP_PORT, held);
	add_pod(4, client_w, client_id, listen_at(PLAIN_VIP, 80, false), listen_at(PLAIN, 85, false),
		listen_at(PLAIN, 86, false));
	p[0].fd = dial(VIP, 80);
	usleep(1000000);
	p[1].fd = dial(PLAIN_VIP, 80);
	add_service(d, "web", VIP, plain_w);
	engine_model_apply(engine, d);
	model_delta_free(d);
	assert_true(poll(p, 2, 10000) > 0);
	assert_true(p[0].revents);
	assert_false(p[1].revents);
	engine_pod_remove(engine, 4, 0, gone, NULL);
	wait_removed(4);
	workload_unref(plain_w);
	for (int i = 0; i < 4; i++)
		close(held[i]);
	close(hole);
	close(p[0].fd);
	close(p[1].fd);
}

static void a_pod_without_connections_drains_at_once(void **state)
{
	struct tls_verify verify = {.trust = trust, .expected = server_id->spiffe};
	SSL *ssl;
	int fd;

	(void)state;
	add_pod(3, server_w, server_id, listen_at(PLAIN, 83, false), listen_at(PLAIN, 84, false),
		listen_at(PLAIN, 15008, false));
	fd = dial(PLAIN, 15008);
	ssl = open_session(fd, &verify);
	usleep(100000);
	engine_pod_remove(engine, 3, 60000, gone, NULL);
	/* Its callers are told all the same, with notice. */
	assert_int_equal(next_goaway(ssl), 0x7fffffff);
	wait_removed(3);
	SSL_free(ssl);
	tls_verify_done(&verify);
	close(fd);
}

static int threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* One of two workers gets a thread: nothing of it, of the pod or of the question is left. */
static void a_failed_start_leaves_nothing(void **state)
{
	struct engine_config cfg = {.workers = 2, .claim_socket = claim, .trust = trust};
	int before = threads(), fd = listen_at(PLAIN, 87, false);
	struct engine *whole = engine;
	atomic_int n = 0;

	(void)state;
	/* A control loop that has ended, as the agent's has by then. */
	assert_int_equal(loop_new(&cfg.control), 0);
	assert_int_equal(engine_new(&cfg, &engine), 0);
	add_pod(1, client_w, client_id, fd, listen_at(PLAIN, 88, false), listen_at(PLAIN, 89, false));
	engine_dump(engine, "pods", counted, &n);
	threads_left = 1;
	assert_int_equal(engine_start(engine), -EAGAIN);
	threads_left = -1;
	engine_free(engine);
	loop_free(cfg.control);
	engine = whole;
	assert_int_equal(threads(), before);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	assert_true(atomic_load(&n) > 0);
}

/* Roots that are gone end what rests on them, and nothing new begins; roots that come back serve again. */
static void lost_trust_ends_live_tunnels(void **state)
{
	static const char *const domains[] = {"cluster.local"};
	char dir[] = "/tmp/wr-test-engine-XXXXXX", *error = NULL, byte;
	uint64_t before = reason_counter(WR_REASON_TLS_UNKNOWN_CA);
	struct trust_config tc = {.domains = domains, .n_domains = 1};
	struct trust *other_trust = NULL;
	struct sockaddr_in peer;
	struct ca *other = NULL;
	int client, app;

	(void)state;
	folder_make(dir);
	assert_int_equal(ca_open_dir(dir, "cluster.local", 3600, &other, &error), 0);
	tc.roots_pem = ca_roots(other);
	assert_int_equal(trust_new(&tc, &other_trust), 0);
	pair(&client, &app, &peer);
	assert_int_equal(write(client, "x", 1), 1);
	assert_int_equal(read(app, &byte, 1), 1);
	engine_set_trust(engine, other_trust);
	assert_int_equal(read(client, &byte, 1), -1);
	assert_int_equal(errno, ECONNRESET);
	assert_int_equal(read(app, &byte, 1), -1);
	assert_int_equal(errno, ECONNRESET);
	assert_true(reason_counter(WR_REASON_TLS_UNKNOWN_CA) > before);
	close(client);
	close(app);
	client = dial(VIP, 80);
	assert_int_equal(read(client, &byte, 1), -1);
	assert_int_equal(errno, ECONNRESET);
	close(client);
	engine_set_trust(engine, trust);
	pair(&client, &app, &peer);
	assert_int_equal(write(app, "y", 1), 1);
	assert_int_equal(read(client, &byte, 1), 1);
	close(client);
	close(app);
	trust_unref(other_trust);
	ca_free(other);
}

static void a_tunnel_in_its_handshake_is_handed_over_with_notice(void **state)
{
	struct tls_verify verify = {.trust = trust, .expected = client_id->spiffe};
	int fd = dial(CLIENT, 15008);
	SSL *ssl;

	(void)state;
	usleep(100000);
	engine_hand_over(engine);
	usleep(100000);
	ssl = open_session(fd, &verify);
	/* Streams on their way are still served, those after the second one no more. */
	assert_int_equal(next_goaway(ssl), 0x7fffffff);
	uint64_t start = clock_now_ms();
	assert_int_equal(next_goaway(ssl), 0);
	assert_true(clock_now_ms() - start >= 500);
	SSL_free(ssl);
	tls_verify_done(&verify);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_and_addresses_arrive),
		cmocka_unit_test(bulk_both_ways_and_half_close),
		cmocka_unit_test(reset_stays_reset),
		cmocka_unit_test(refused_app_is_a_reset),
		cmocka_unit_test(slow_reader_keeps_everything),
		cmocka_unit_test(many_connections_leave_nothing),
		cmocka_unit_test(a_relayed_connection_is_one),
		cmocka_unit_test(dumps_show_what_is_open),
		cmocka_unit_test(lost_trust_ends_live_tunnels),
		cmocka_unit_test(the_pod_goes_while_connections_move),
		cmocka_unit_test(removal_ends_by_reset),
		cmocka_unit_test(a_retry_gets_no_time_of_its_own),
		cmocka_unit_test(a_pod_without_connections_drains_at_once),
		cmocka_unit_test(a_failed_start_leaves_nothing),
		cmocka_unit_test(a_tunnel_in_its_handshake_is_handed_over_with_notice),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
