/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel does for policy: plaintext to ports that demand mutual TLS is refused with a RST, callers are
 * reported, inbound of restricted pods stays closed. Tables of packets first, then real connections.
 */
#include "packet_case.h"
#include "engine/io/loop.h"

#include <cjson/cJSON.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>

#define LISTED(a) .ports = (a), .n_ports = ARRAY_SIZE(a)

static const struct mtls_port plain_80[] = {{80, MTLS_PERMISSIVE}};
static const struct mtls_port strict_80[] = {{80, MTLS_STRICT}};
static const struct mtls_port strict_80_81[] = {{80, MTLS_STRICT}, {81, MTLS_STRICT}};

static void set_modes(struct fixture *f, struct capture_modes m)
{
	assert_int_equal(capture_pod_set_modes(f->capture, 7, &m), 0);
}

/* --- tables --- */

static const struct packet_case strict[] = {
	{"SYN", PLACE_IN, "4S", POD4, 8080, REDIRECT, WR_REASON_MTLS_REQUIRED},
	{"SYN v6", PLACE_IN, "6S", POD6, 8080, REDIRECT, WR_REASON_MTLS_REQUIRED},
	{"SYN with options", PLACE_IN, "4oS", POD4, 8080, REDIRECT, WR_REASON_MTLS_REQUIRED},
	{"SYN behind extension headers", PLACE_IN, "6hrxS", POD6, 8080, REDIRECT, WR_REASON_MTLS_REQUIRED},
	{"exempt port", PLACE_IN, "4S", POD4, 80, ASSIGN, WR_REASON_CAPTURED_IN},
	{"exempt port v6", PLACE_IN, "6S", POD6, 80, ASSIGN, WR_REASON_CAPTURED_IN},
	{"HBONE", PLACE_IN, "4S", POD4, 15008, ASSIGN, WR_REASON_NONE},
	{"the agent's own port", PLACE_IN, "4S", POD4, 15006, ASSIGN, WR_REASON_CAPTURED_IN},
	{"ACK of nobody", PLACE_IN, "4A", POD4, 8080, ASSIGN, WR_REASON_NONE},
	{"RST of nobody", PLACE_IN, "4R", POD4, 8080, ASSIGN, WR_REASON_NONE},
	{"SYN with RST", PLACE_IN, "4B", POD4, 8080, DROP, WR_REASON_MTLS_REQUIRED},
	{"fragment", PLACE_IN, "4fS", POD4, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"UDP", PLACE_IN, "4U", POD4, 8080, PASS, WR_REASON_NONE},
	{"outbound", PLACE_OUT, "4S", "10.99.0.1", 8080, REDIRECT, WR_REASON_NONE},
};

static void test_strict(void **state)
{
	set_modes(*state, (struct capture_modes){.mode = MTLS_STRICT, LISTED(plain_80)});
	run_table(*state, strict, ARRAY_SIZE(strict));
}

static const struct packet_case one_strict_port[] = {
	{"SYN", PLACE_IN, "4S", POD4, 80, REDIRECT, WR_REASON_MTLS_REQUIRED},
	{"another port", PLACE_IN, "4S", POD4, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
};

static void test_one_strict_port(void **state)
{
	set_modes(*state, (struct capture_modes){.mode = MTLS_PERMISSIVE, LISTED(strict_80)});
	run_table(*state, one_strict_port, ARRAY_SIZE(one_strict_port));
}

static const struct packet_case strict_draining[] = {
	{"SYN", PLACE_IN, "4S", POD4, 80, PASS, WR_REASON_BYPASS_DRAINING},
};

static void test_strict_and_draining(void **state)
{
	struct fixture *f = *state;

	set_modes(f, (struct capture_modes){.mode = MTLS_STRICT});
	assert_int_equal(capture_pod_drain(f->capture, 7), 0);
	run_table(f, strict_draining, ARRAY_SIZE(strict_draining));
	/* Back again, it is as strict as before. */
	assert_int_equal(capture_pod_resume(f->capture, 7), 0);
	run_table(f, one_strict_port, 1);
}

static const struct packet_case strict_alone[] = {
	{"SYN", PLACE_IN, "4S", POD4, 8080, REDIRECT, WR_REASON_MTLS_REQUIRED},
	{"exempt port", PLACE_IN, "4S", POD4, 80, DROP, WR_REASON_DROP_AGENT_GONE},
	{"the app's SYN-ACK", PLACE_OUT, "4C", "10.99.0.1", 80, DROP, WR_REASON_DROP_AGENT_GONE},
};

static const struct packet_case open_alone[] = {
	{"SYN out", PLACE_OUT, "4S", "10.99.0.1", 80, PASS, WR_REASON_BYPASS_AGENT_GONE},
	{"SYN", PLACE_IN, "4S", POD4, 8080, PASS, WR_REASON_BYPASS_AGENT_GONE},
	{"the app's SYN-ACK", PLACE_OUT, "4C", "10.99.0.1", 80, PASS, WR_REASON_NONE},
};

/* The agent is gone, and so is the one that comes after it and knows no policy yet. */
static void test_restricted_without_agent(void **state)
{
	struct fixture *f = *state;

	set_modes(f, (struct capture_modes){.mode = MTLS_STRICT, LISTED(plain_80), .restricted = true});
	close_listeners(f);
	run_table(f, strict_alone, ARRAY_SIZE(strict_alone));
	f->capture = capture_close(f->capture);
	open_capture(f, true);
	run_table(f, strict_alone, ARRAY_SIZE(strict_alone));
	run_table(f, open_alone, 1); /* what goes out is open all the same */
	set_modes(f, (struct capture_modes){.mode = MTLS_PERMISSIVE});
	run_table(f, open_alone, ARRAY_SIZE(open_alone));
}

/* --- the RST, byte by byte --- */

static uint16_t sum16(const uint8_t *b, size_t n, uint32_t sum)
{
	for (size_t i = 0; i < n; i += 2)
		sum += (uint32_t)(b[i] << 8 | (i + 1 < n ? b[i + 1] : 0));
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void check_answer(const struct builder *in, const struct builder *out, uint32_t seq)
{
	bool v6 = in->b[12] == 0x86;
	size_t ip = v6 ? 40 : 20, at = v6 ? 8 : 12, len = v6 ? 16 : 4;
	const uint8_t *i = in->b + 14, *o = out->b + 14, *tcp = o + ip;
	const uint8_t ports[] = {8080 >> 8, 8080 & 255, 0x9c, 0x40};
	uint32_t ack = (uint32_t)tcp[8] << 24 | (uint32_t)tcp[9] << 16 | (uint32_t)tcp[10] << 8 | tcp[11];

	assert_int_equal(out->len, 14 + ip + 20);
	assert_memory_equal(out->b, in->b + 6, 6);
	assert_memory_equal(out->b + 6, in->b, 6);
	assert_memory_equal(o + at, i + at + len, len);
	assert_memory_equal(o + at + len, i + at, len);
	if (v6) {
		assert_int_equal(o[0], 0x60);
		assert_int_equal(o[4] << 8 | o[5], 20);
		assert_int_equal(o[6], IPPROTO_TCP);
		assert_int_equal(o[7], 64);
	} else {
		assert_int_equal(o[0], 0x45);
		assert_int_equal(o[2] << 8 | o[3], 40);
		assert_int_equal(o[8], 64);
		assert_int_equal(o[9], IPPROTO_TCP);
		assert_int_equal(sum16(o, 20, 0), 0xffff);
	}
	assert_memory_equal(tcp, ports, 4);
	assert_memory_equal(tcp + 4, "\0\0\0\0", 4);
	assert_int_equal(ack, seq + 1);
	assert_int_equal(tcp[12], 5 << 4);
	assert_int_equal(tcp[13], 0x14);
	assert_memory_equal(tcp + 14, "\0\0", 2);
	assert_int_equal(sum16(tcp, 20, sum16(o + at, 2 * len, IPPROTO_TCP + 20)), 0xffff);
}

static void refuse(struct fixture *f, int prog, const char *packet, uint32_t seq)
{
	struct packet_case c = {.packet = packet, .dst = *packet == '6' ? POD6 : POD4, .port = 8080};
	struct builder in, out;
	struct ip_addr caller;
	uint8_t *tcp;

	build(&in, &c);
	memcpy(in.b + 6, "\2\1\2\3\4\5", 6);
	assert_int_equal(ip_addr_parse(*packet == '6' ? WORLD6 : WORLD4, &caller), 0);
	memcpy(in.b + (*packet == '6' ? 22 : 26), caller.b + (*packet == '6' ? 0 : 12), *packet == '6' ? 16 : 4);
	tcp = in.b + in.len - 20 - (strchr(packet, 'p') ? 12 : 0);
	for (int i = 0; i < 4; i++)
		tcp[4 + i] = (uint8_t)(seq >> (24 - 8 * i));
	out = in;
	assert_int_equal(run_packet(f, f->pod, prog, &out), REDIRECT);
	check_answer(&in, &out, seq);
}

static void test_bytes_of_the_answer(void **state)
{
	static const char *const packets[] = {"4S",  "4dS", "4oS",   "4Sp",  "4odSp", "6S",
					      "6Sp", "6hS", "6hrxS", "6sSp", "6aS"};
	static const uint32_t seqs[] = {0, 0x01020304, 0xffffffff, 0x80000000};
	struct fixture *f = *state;
	int prog = program_of(f, PLACE_IN);

	assert_true(prog >= 0);
	set_modes(f, (struct capture_modes){.mode = MTLS_STRICT});
	for (size_t i = 0; i < ARRAY_SIZE(packets); i++)
		for (size_t k = 0; k < ARRAY_SIZE(seqs); k++)
			refuse(f, prog, packets[i], seqs[k]);
	close(prog);
}

/* --- changes --- */

/* Whether the kernel refuses, by the map and the flag alone. */
static bool is_strict(struct fixture *f, uint16_t port)
{
	struct wr_port key = {.pod = 7, .port = port};
	struct wr_pod_config cfg;
	uint32_t number = 7, mode;

	if (bpf_map_lookup_elem(f->capture->maps[MAP_MODE], &key, &mode) == 0)
		return mode == WR_PORT_STRICT;
	assert_int_equal(bpf_map_lookup_elem(f->capture->maps[MAP_PODCFG], &number, &cfg), 0);
	return cfg.flags & WR_POD_STRICT;
}

static void test_relax_only_lifts(void **state)
{
	struct capture_modes m = {.mode = MTLS_PERMISSIVE, LISTED(strict_80_81)};
	struct fixture *f = *state;

	/* 80 was free and is to be strict; 443 was strict and is to be free; 81 is strict both times. */
	set_modes(f, (struct capture_modes){.mode = MTLS_STRICT, LISTED(plain_80)});
	assert_int_equal(capture_pod_relax(f->capture, 7, &m), 0);
	assert_false(is_strict(f, 80));
	assert_false(is_strict(f, 443));
	assert_true(is_strict(f, 81));
	set_modes(f, m);
	assert_true(is_strict(f, 80));
	assert_false(is_strict(f, 443));
	assert_true(is_strict(f, 81));
}

struct watcher {
	struct fixture *f;
	int prog;
	atomic_bool stop;
	atomic_ulong looked;
	unsigned long refused;
};

static void *watch_port(void *arg)
{
	const struct packet_case c = {.packet = "4S", .dst = POD4, .port = 80};
	struct watcher *w = arg;
	struct builder p;

	for (; !atomic_load(&w->stop); w->looked++) {
		build(&p, &c);
		w->refused += run_packet(w->f, w->f->pod, w->prog, &p) == REDIRECT;
	}
	return NULL;
}

/* 80 is plain in every set, by the flag or by its own entry: the program never finds it strict. */
static void test_changes_have_no_gap(void **state)
{
	struct fixture *f = *state;
	struct watcher w = {.f = f, .prog = program_of(f, PLACE_IN)};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, watch_port, &w), 0);
	for (int i = 0; i < 5000 || atomic_load(&w.looked) < 20000; i++) {
		set_modes(f, (struct capture_modes){.mode = MTLS_STRICT, LISTED(plain_80)});
		set_modes(f, (struct capture_modes){.mode = MTLS_PERMISSIVE});
	}
	atomic_store(&w.stop, true);
	pthread_join(thread, NULL);
	assert_int_equal(w.refused, 0);
	close(w.prog);
}

/* More than the map holds: the kernel then refuses nothing, instead of what it should not. */
static void test_too_many_ports(void **state)
{
	static struct mtls_port many[CAPTURE_MAX_PORT_MODES + 1];
	struct capture_modes m = {.mode = MTLS_STRICT, LISTED(many), .restricted = true};
	struct fixture *f = *state;
	struct wr_pod_config cfg;
	uint32_t number = 7;
	struct wr_port key;

	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (struct mtls_port){(uint16_t)(i + 1), MTLS_PERMISSIVE};
	assert_int_equal(capture_pod_set_modes(f->capture, 7, &m), -E2BIG);
	assert_false(is_strict(f, 60000));
	assert_int_not_equal(bpf_map_get_next_key(f->capture->maps[MAP_MODE], NULL, &key), 0);
	assert_int_equal(bpf_map_lookup_elem(f->capture->maps[MAP_PODCFG], &number, &cfg), 0);
	assert_int_equal(cfg.flags, WR_POD_RESTRICTED);
}

/* A number that another pod gets has nothing of its former pod's. */
static void test_detach_forgets(void **state)
{
	struct fixture *f = *state;
	struct ip_addr a;
	uint16_t port = 8080;
	struct wr_probe_port none;
	struct wr_port nothing;

	assert_int_equal(ip_addr_parse(POD4, &a), 0);
	set_modes(f, (struct capture_modes){.mode = MTLS_STRICT, LISTED(plain_80), .restricted = true});
	assert_int_equal(capture_pod_set_probes(f->capture, 7, &a, 1, &port, 1), 0);
	assert_int_equal(capture_pod_detach(f->capture, 7, f->pod), 0);
	assert_int_not_equal(bpf_map_get_next_key(f->capture->maps[MAP_MODE], NULL, &nothing), 0);
	assert_int_not_equal(bpf_map_get_next_key(f->capture->maps[MAP_PROBE_PORTS], NULL, &none), 0);
	close_listeners(f);
	attach(f);
	assert_false(is_strict(f, 8080));
}

/* Pins of an agent that did not have these maps: who comes without an agent works with those that are there. */
static void test_older_pins(void **state)
{
	struct fixture *f = *state;
	struct capture *c = NULL;
	char *error = NULL;
	cJSON *dump;

	run("rm /sys/fs/bpf/warren/%s/v1/wr_mode /sys/fs/bpf/warren/%s/v1/wr_events /sys/fs/bpf/warren/%s/v1/wr_probe*",
	    f->node, f->node, f->node);
	assert_int_equal(capture_open_readonly(f->node, NULL, &c, &error), 0);
	dump = capture_dump(c);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(dump, "pods")), 1);
	cJSON_Delete(dump);
	assert_int_equal(capture_pod_detach(c, 7, f->pod), 0);
	capture_close(c);
}

/* --- reports --- */

struct reports {
	struct capture_denial last;
	unsigned n;
};

static void denied(void *arg, const struct capture_denial *d)
{
	struct reports *r = arg;

	r->last = *d;
	r->n++;
}

static void stop_loop(struct timer *t)
{
	extern struct loop *reports_loop;

	(void)t;
	loop_stop(reports_loop);
}
struct loop *reports_loop;

static void run_loop(unsigned ms)
{
	struct timer t = {.fn = stop_loop};

	loop_timer_set(reports_loop, &t, ms);
	assert_int_equal(loop_run(reports_loop), 0);
}

/* The entry of the one caller there is, as though it had been reported longer ago. */
static void age_reports(struct fixture *f, uint64_t by)
{
	struct wr_denied_key key;
	struct wr_denied d;

	assert_int_equal(bpf_map_get_next_key(f->capture->maps[MAP_DENIED], NULL, &key), 0);
	assert_int_equal(bpf_map_lookup_elem(f->capture->maps[MAP_DENIED], &key, &d), 0);
	d.at -= by;
	assert_int_equal(bpf_map_update_elem(f->capture->maps[MAP_DENIED], &key, &d, BPF_ANY), 0);
}

static void test_first_of_each_caller_is_reported(void **state)
{
	const struct packet_case a = {"", PLACE_IN, "4S", POD4, 8080, REDIRECT, WR_REASON_MTLS_REQUIRED},
				 b = {"", PLACE_IN, "6S", POD6, 8081, REDIRECT, WR_REASON_MTLS_REQUIRED},
				 other_port = {"", PLACE_IN, "4S", POD4, 8081, REDIRECT, WR_REASON_MTLS_REQUIRED};
	struct fixture *f = *state;
	int progs[PLACE_MAX_] = {[PLACE_IN] = program_of(f, PLACE_IN)};
	uint64_t before = counter(f, WR_REASON_MTLS_REQUIRED);
	struct reports r = {0};
	char text[IP_PORT_STRLEN];

	assert_int_equal(loop_new(&reports_loop), 0);
	assert_int_equal(capture_watch_denials(f->capture, reports_loop, denied, &r), 0);
	set_modes(f, (struct capture_modes){.mode = MTLS_STRICT});
	for (int i = 0; i < 5; i++)
		run_case(f, progs, &a);
	run_loop(50);
	assert_int_equal(r.n, 1);
	assert_int_equal(r.last.number, 7);
	assert_int_equal(r.last.reason, WR_REASON_MTLS_REQUIRED);
	assert_int_equal(r.last.suppressed, 0);
	assert_string_equal(ip_port_format(&r.last.src, text, sizeof(text)), POD4 ":40000");
	assert_string_equal(ip_port_format(&r.last.dst, text, sizeof(text)), POD4 ":8080");
	age_reports(f, 9000000000ull);
	run_case(f, progs, &a);
	run_loop(50);
	assert_int_equal(r.n, 1);
	age_reports(f, 1000000000ull);
	run_case(f, progs, &a);
	run_loop(50);
	assert_int_equal(r.n, 2);
	assert_int_equal(r.last.suppressed, 5);
	run_case(f, progs, &b);
	run_loop(50);
	assert_int_equal(r.n, 3);
	assert_string_equal(ip_port_format(&r.last.dst, text, sizeof(text)), "[" POD6 "]:8081");
	/* The same caller as the first one, whose time is not over. */
	for (int i = 0; i < 3; i++)
		run_case(f, progs, &other_port);
	run_case(f, progs, &a);
	run_loop(50);
	assert_int_equal(r.n, 4);
	assert_int_equal(r.last.suppressed, 0);
	assert_string_equal(ip_port_format(&r.last.dst, text, sizeof(text)), POD4 ":8081");
	assert_int_equal(counter(f, WR_REASON_MTLS_REQUIRED), before + 12);
	capture_unwatch_denials(f->capture);
	loop_free(reports_loop);
	close(progs[PLACE_IN]);
}

/* --- real connections --- */

static void offload(struct fixture *f, int ns, const char *interface, bool on)
{
	struct ethtool_value v = {.cmd = ETHTOOL_STXCSUM, .data = on};
	int fd = socket_in(f, ns, AF_INET, SOCK_DGRAM, 0);
	struct ifreq ifr = {};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", interface);
	ifr.ifr_data = (void *)&v;
	assert_int_equal(ioctl(fd, SIOCETHTOOL, &ifr), 0);
	close(fd);
}

/* With IP options or an extension header in the SYN. */
static int dial_long(struct fixture *f, const char *ip, uint16_t port)
{
	uint8_t header[8] = {0, 0, 1, 4}, nops[8] = {1, 1, 1, 1, 1, 1, 1, 1};
	struct sockaddr_storage ss;
	socklen_t len = address(ip, port, family_of(ip), &ss);
	int fd = socket_in(f, f->world, family_of(ip), SOCK_STREAM, 0);

	if (family_of(ip) == AF_INET6)
		assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_DSTOPTS, header, sizeof(header)), 0);
	else
		assert_int_equal(setsockopt(fd, IPPROTO_IP, IP_OPTIONS, nops, sizeof(nops)), 0);
	if (connect(fd, (struct sockaddr *)&ss, len) < 0)
		assert_int_equal(errno, EINPROGRESS);
	return fd;
}

static void refused(int fd)
{
	assert_int_equal(connected(fd, WAIT_MS), ECONNREFUSED);
	close(fd);
}

static void refused_each_way(struct fixture *f)
{
	refused(dial(f, f->world, AF_INET, NULL, 0, POD4, 8080));
	refused(dial(f, f->world, AF_INET6, NULL, 0, POD6, 8080));
	refused(dial(f, f->world, AF_INET6, NULL, 0, POD4, 8080));
	refused(dial_long(f, POD4, 8080));
	refused(dial_long(f, POD6, 8080));
}

/* Whoever computes the checksums: the caller accepts the RST only when it is right. */
static void test_connections_are_refused(void **state)
{
	struct fixture *f = *state;
	int app = listen_on(f, f->pod, "::", 8080), fd, agent;

	set_modes(f, (struct capture_modes){.mode = MTLS_STRICT, LISTED(plain_80), .restricted = true});
	for (int i = 0; i < 4; i++) {
		offload(f, f->world, "wrcapw", i & 1);
		offload(f, f->pod, "eth0", i & 2);
		refused_each_way(f);
	}
	fd = dial(f, f->world, AF_INET, NULL, 0, POD4, 80);
	agent = take(f->listeners[1], WAIT_MS, POD4 ":80", WORLD4);
	assert_true(agent >= 0);
	close(fd);
	close(agent);
	assert_int_equal(take(f->listeners[1], 0, NULL, NULL), -1);
	close_listeners(f);
	refused_each_way(f);
	assert_int_equal(take(app, 0, NULL, NULL), -1);
	close(app);
}

int main(void)
{
	const struct CMUnitTest tables[] = {
		cmocka_unit_test_setup_teardown(test_strict, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_one_strict_port, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_strict_and_draining, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_restricted_without_agent, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_bytes_of_the_answer, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_relax_only_lifts, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_changes_have_no_gap, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_too_many_ports, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_detach_forgets, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_older_pins, setup_attached, fixture_free),
		cmocka_unit_test_setup_teardown(test_first_of_each_caller_is_reported, setup_attached, fixture_free),
	};
	const struct CMUnitTest connections[] = {
		cmocka_unit_test_setup_teardown(test_connections_are_refused, setup_attached, fixture_free),
	};
	int r = cmocka_run_group_tests(tables, NULL, NULL);

	return r + run_either_way(connections, ARRAY_SIZE(connections));
}
