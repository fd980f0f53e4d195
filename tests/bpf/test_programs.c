/* SPDX-License-Identifier: Apache-2.0 */
/* Tables: one packet, one program, its verdict and what it counted (BPF_PROG_TEST_RUN in a pod's namespace).
 */
#include "netns_fixture.h"
#include "abi/reasons.h"
#include "agent/capture/private.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#define PASS (-1)
#define DROP 2
#define REDIRECT 7
/* Handed to a listener: refused in a test run, which is at no ingress, and so counted as such. */
#define ASSIGN 100
#define MAX_PACKET 256

/* A packet is spelled as a string: link type, then layers, each a word.
 *   4 or 6; o: 8 bytes of IPv4 options; f: first fragment; l: later fragment; a: atomic fragment (v6); d:
 * dont-fragment; h, r, x, s: hop-by-hop, routing, destination options, authentication header; S: TCP SYN; A:
 * TCP ACK; C: SYN-ACK; R: RST; U: UDP; I: ICMP; then - : cut by 8 bytes. */
struct packet_case {
	const char *what;
	enum place where;
	const char *packet, *dst;
	uint16_t port;
	int verdict;
	enum wr_reason counted;
};

struct builder {
	uint8_t b[MAX_PACKET];
	size_t len;
	size_t next; /* where the number of the next header goes */
};

static void add_extension(struct builder *p, uint8_t number, size_t size, uint8_t length, uint16_t word)
{
	uint8_t *e = p->b + p->len;

	p->b[p->next] = number;
	p->next = p->len;
	e[1] = length;
	e[2] = (uint8_t)(word >> 8);
	e[3] = (uint8_t)word;
	p->len += size;
}

static void add_transport(struct builder *p, uint8_t number, uint16_t port, uint8_t flags)
{
	uint8_t *t = p->b + p->len;

	p->b[p->next] = number;
	t[0] = 0x9c;
	t[1] = 0x40;
	t[2] = (uint8_t)(port >> 8);
	t[3] = (uint8_t)port;
	t[12] = 5 << 4;
	t[13] = flags;
	p->len += 20;
}

static void add_ip(struct builder *p, const struct packet_case *c)
{
	struct ip_addr dst, src;
	uint8_t *ip = p->b + 14;
	bool v6 = c->packet[0] == '6';

	assert_int_equal(ip_addr_parse(c->dst, &dst), 0);
	assert_int_equal(ip_addr_parse(v6 ? POD6 : POD4, &src), 0);
	p->b[12] = v6 ? 0x86 : 0x08;
	p->b[13] = v6 ? 0xdd : 0x00;
	if (v6) {
		ip[0] = 0x60;
		ip[7] = 64;
		memcpy(ip + 8, src.b, 16);
		memcpy(ip + 24, dst.b, 16);
		p->next = 14 + 6;
		p->len = 14 + 40;
		return;
	}
	ip[0] = 0x45;
	ip[8] = 64;
	memcpy(ip + 12, src.b + 12, 4);
	memcpy(ip + 16, dst.b + 12, 4);
	p->next = 14 + 9;
	p->len = 14 + 20;
}

static void add_layer(struct builder *p, char layer, uint16_t port, bool v6)
{
	uint8_t *ip = p->b + 14;

	switch (layer) {
	case 'o':
		ip[0] = 0x47;
		memset(p->b + p->len, 1, 8);
		p->len += 8;
		break;
	case 'd':
		ip[6] |= 0x40;
		break;
	case 'f':
	case 'l':
	case 'a':
		if (v6)
			add_extension(p, 44, 8, 0, layer == 'f' ? 1 : layer == 'l' ? 8 : 0);
		else
			ip[layer == 'f' ? 6 : 7] |= layer == 'f' ? 0x20 : 1;
		break;
	case 'h':
		add_extension(p, 0, 16, 1, 0);
		break;
	case 'r':
		add_extension(p, 43, 8, 0, 0);
		break;
	case 'x':
		add_extension(p, 60, 8, 0, 0);
		break;
	case 's':
		add_extension(p, 51, 24, 4, 0);
		break;
	case 'S':
		add_transport(p, IPPROTO_TCP, port, 0x02);
		break;
	case 'A':
		add_transport(p, IPPROTO_TCP, port, 0x10);
		break;
	case 'C':
		add_transport(p, IPPROTO_TCP, port, 0x12);
		break;
	case 'R':
		add_transport(p, IPPROTO_TCP, port, 0x04);
		break;
	case 'U':
		add_transport(p, IPPROTO_UDP, port, 0);
		break;
	case 'I':
		add_transport(p, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, port, 0);
		break;
	case '-':
		p->len -= 8;
		break;
	default:
		fail_msg("layer %c", layer);
	}
}

static uint64_t counter(struct fixture *f, enum wr_reason reason)
{
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct wr_count *rows = calloc((size_t)cpus, sizeof(*rows));
	uint32_t number = 7;
	uint64_t sum = 0;

	assert_int_equal(bpf_map_lookup_elem(f->capture->maps[MAP_COUNT], &number, rows), 0);
	for (int i = 0; i < cpus; i++)
		sum += rows[i].n[reason];
	return sum;
}

static void run_case(struct fixture *f, const int progs[PLACE_MAX_], const struct packet_case *c)
{
	struct builder p = {.len = 14};
	uint8_t out[MAX_PACKET];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = p.b, .data_out = out, .data_size_out = sizeof(out));
	uint64_t before = counter(f, c->counted), refused = counter(f, WR_REASON_DROP_ASSIGN_FAILED);
	bool assign = c->verdict == ASSIGN;
	int r;

	add_ip(&p, c);
	for (const char *l = c->packet + 1; *l; l++)
		add_layer(&p, *l, c->port, c->packet[0] == '6');
	opts.data_size_in = (__u32)p.len;
	enter(f->pod);
	r = bpf_prog_test_run_opts(progs[c->where], &opts);
	enter(f->home);
	if (r < 0)
		fail_msg("%s: not run: %s", c->what, strerror(-r));
	if (counter(f, WR_REASON_DROP_ASSIGN_FAILED) != refused + assign)
		fail_msg("%s: %s to a listener", c->what, assign ? "not handed" : "handed");
	if ((int)opts.retval != (assign ? DROP : c->verdict))
		fail_msg("%s: verdict %d, not %d", c->what, (int)opts.retval, c->verdict);
	if (c->counted && counter(f, c->counted) != before + 1)
		fail_msg("%s: not counted as reason %d", c->what, c->counted);
}

static void run_table(struct fixture *f, const struct packet_case *cases, size_t n)
{
	int progs[PLACE_MAX_];

	for (int i = 0; i < PLACE_MAX_; i++) {
		progs[i] = program_load(f->capture, (enum place)i, 7);
		assert_true(progs[i] >= 0);
	}
	for (size_t i = 0; i < n; i++)
		run_case(f, progs, &cases[i]);
	for (int i = 0; i < PLACE_MAX_; i++)
		close(progs[i]);
}

static void put_destination(struct fixture *f, const char *ip, uint32_t flags)
{
	struct ip_addr a;

	assert_int_equal(ip_addr_parse(ip, &a), 0);
	assert_int_equal(bpf_map_update_elem(f->capture->maps[MAP_DEST], &a, &flags, BPF_ANY), 0);
}

static int setup(void **state)
{
	struct fixture *f;

	setup_attached(state);
	f = *state;
	put_destination(f, "192.0.2.10", WR_DEST_VIP);
	put_destination(f, "2001:db8::10", WR_DEST_VIP);
	put_destination(f, "10.5.0.9", WR_DEST_UNENROLLED);
	put_destination(f, "10.5.0.8", WR_DEST_UNENROLLED | WR_DEST_VIP);
	return 0;
}

static const struct packet_case present[] = {
	{"mesh range", PLACE_OUT, "4S", "10.99.0.1", 80, REDIRECT, WR_REASON_NONE},
	{"mesh range v6", PLACE_OUT, "6S", "fd99::1", 80, REDIRECT, WR_REASON_NONE},
	{"VIP outside the ranges", PLACE_OUT, "4S", "192.0.2.10", 80, REDIRECT, WR_REASON_NONE},
	{"VIP outside the ranges v6", PLACE_OUT, "6S", "2001:db8::10", 80, REDIRECT, WR_REASON_NONE},
	{"outside", PLACE_OUT, "4S", "192.0.2.11", 80, PASS, WR_REASON_BYPASS_OUTSIDE},
	{"outside v6", PLACE_OUT, "6S", "2001:db8::11", 80, PASS, WR_REASON_BYPASS_OUTSIDE},
	{"link-local v6", PLACE_OUT, "6S", "fe80::1", 80, PASS, WR_REASON_BYPASS_OUTSIDE},
	{"un-enrolled pod", PLACE_OUT, "4S", "10.5.0.9", 80, PASS, WR_REASON_BYPASS_UNENROLLED},
	{"un-enrolled and VIP", PLACE_OUT, "4S", "10.5.0.8", 80, REDIRECT, WR_REASON_NONE},
	{"excluded port", PLACE_OUT, "4S", "10.99.0.1", 9999, PASS, WR_REASON_BYPASS_EXCLUDED},
	{"UDP", PLACE_OUT, "4U", "10.99.0.1", 53, PASS, WR_REASON_NONE},
	{"ICMP", PLACE_OUT, "4I", "10.99.0.1", 0, PASS, WR_REASON_NONE},
	{"options", PLACE_OUT, "4oS", "10.99.0.1", 80, REDIRECT, WR_REASON_NONE},
	{"extension headers", PLACE_OUT, "6hrxS", "fd99::1", 80, REDIRECT, WR_REASON_NONE},
	{"first fragment", PLACE_OUT, "4fS", "10.99.0.1", 80, DROP, WR_REASON_DROP_FRAGMENT},
	{"stray RST", PLACE_OUT, "4R", "10.99.0.1", 80, PASS, WR_REASON_NONE},
	{"SYN-ACK of the agent's", PLACE_OUT, "4C", "10.99.0.1", 80, PASS, WR_REASON_NONE},
	{"inbound", PLACE_IN, "4S", POD4, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"inbound v6", PLACE_IN, "6S", POD6, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"inbound, options", PLACE_IN, "4odS", POD4, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"inbound, extension headers", PLACE_IN, "6hrxS", POD6, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"inbound, authentication header", PLACE_IN, "6sS", POD6, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"atomic fragment", PLACE_IN, "6aS", POD6, 8080, ASSIGN, WR_REASON_CAPTURED_IN},
	{"first fragment", PLACE_IN, "4fS", POD4, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"later fragment", PLACE_IN, "4lA", POD4, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"first fragment v6", PLACE_IN, "6fS", POD6, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"later fragment v6", PLACE_IN, "6lA", POD6, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"fragment before more headers", PLACE_IN, "6fxS", POD6, 8080, DROP, WR_REASON_DROP_FRAGMENT},
	{"UDP fragment", PLACE_IN, "4fU", POD4, 53, PASS, WR_REASON_NONE},
	{"UDP fragment v6", PLACE_IN, "6lU", POD6, 53, PASS, WR_REASON_NONE},
	{"cut in the TCP header", PLACE_IN, "4S-", POD4, 8080, DROP, WR_REASON_DROP_MALFORMED},
	{"cut in the TCP header v6", PLACE_IN, "6S-", POD6, 8080, DROP, WR_REASON_DROP_MALFORMED},
	{"too many extension headers", PLACE_IN, "6xxxxxxxxxxS", POD6, 8080, DROP, WR_REASON_DROP_MALFORMED},
	{"HBONE", PLACE_IN, "4S", POD4, 15008, ASSIGN, WR_REASON_NONE},
	{"ICMPv6", PLACE_IN, "6I", POD6, 0, PASS, WR_REASON_NONE},
};

static void test_agent_present(void **state)
{
	run_table(*state, present, ARRAY_SIZE(present));
}

static const struct packet_case absent[] = {
	{"SYN out", PLACE_OUT, "4S", "10.99.0.1", 80, DROP, WR_REASON_DROP_AGENT_GONE},
	{"SYN out v6", PLACE_OUT, "6S", "fd99::1", 80, DROP, WR_REASON_DROP_AGENT_GONE},
	{"SYN to outside", PLACE_OUT, "4S", "192.0.2.11", 80, PASS, WR_REASON_BYPASS_OUTSIDE},
	{"SYN-ACK", PLACE_OUT, "4C", "10.99.0.1", 80, DROP, WR_REASON_DROP_AGENT_GONE},
	{"SYN in", PLACE_IN, "4S", POD4, 8080, DROP, WR_REASON_DROP_AGENT_GONE},
	{"ACK in", PLACE_IN, "4A", POD4, 8080, DROP, WR_REASON_DROP_AGENT_GONE},
	{"HBONE", PLACE_IN, "6S", POD6, 15008, DROP, WR_REASON_DROP_AGENT_GONE},
	{"UDP", PLACE_IN, "4U", POD4, 53, PASS, WR_REASON_NONE},
};

static void test_agent_absent(void **state)
{
	close_listeners(*state);
	run_table(*state, absent, ARRAY_SIZE(absent));
}

static const struct packet_case foreign[] = {
	{"SYN out", PLACE_OUT, "4S", "10.99.0.1", 80, DROP, WR_REASON_DROP_FOREIGN_SOCKET},
	{"SYN in", PLACE_IN, "4S", POD4, 8080, DROP, WR_REASON_DROP_FOREIGN_SOCKET},
	{"HBONE", PLACE_IN, "4S", POD4, 15008, DROP, WR_REASON_DROP_FOREIGN_SOCKET},
};

/* The pod's own process takes the ports while the agent is away. */
static void test_foreign_sockets(void **state)
{
	struct fixture *f = *state;
	int fds[3];

	close_listeners(f);
	fds[0] = listen_on(f, f->pod, "0.0.0.0", 15001);
	fds[1] = listen_on(f, f->pod, "0.0.0.0", 15006);
	fds[2] = listen_on(f, f->pod, "0.0.0.0", 15008);
	run_table(f, foreign, ARRAY_SIZE(foreign));
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

static const struct packet_case draining[] = {
	{"SYN out", PLACE_OUT, "4S", "10.99.0.1", 80, PASS, WR_REASON_BYPASS_DRAINING},
	{"SYN in", PLACE_IN, "4S", POD4, 8080, PASS, WR_REASON_BYPASS_DRAINING},
	{"HBONE", PLACE_IN, "4S", POD4, 15008, ASSIGN, WR_REASON_NONE},
};

static void test_pod_draining(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(capture_pod_drain(f->capture, 7), 0);
	run_table(f, draining, ARRAY_SIZE(draining));
}

static void test_model_changes(void **state)
{
	struct fixture *f = *state;
	struct model *m = model_new();
	struct model_delta *d = model_delta_new();
	struct workload *w = workload_new();
	struct ip_addr a;
	uint32_t flags = 0;

	w->uid = strdup("cluster//Pod/default/plain");
	w->addrs = calloc(1, sizeof(*w->addrs));
	w->n_addrs = 1;
	assert_int_equal(ip_addr_parse("10.5.0.7", &w->addrs[0]), 0);
	a = w->addrs[0];
	assert_int_equal(model_delta_add_workload(d, w), 0);
	assert_int_equal(model_apply(m, d), 0);
	assert_int_equal(capture_apply_model(f->capture, m, d), 0);
	assert_int_equal(bpf_map_lookup_elem(f->capture->maps[MAP_DEST], &a, &flags), 0);
	assert_int_equal(flags, WR_DEST_UNENROLLED);
	/* The first state swept what an earlier agent had. */
	assert_int_equal(ip_addr_parse("10.5.0.9", &a), 0);
	assert_int_not_equal(bpf_map_lookup_elem(f->capture->maps[MAP_DEST], &a, &flags), 0);
	model_delta_free(d);
	d = model_delta_new();
	assert_int_equal(model_delta_remove_workload(d, "cluster//Pod/default/plain"), 0);
	assert_int_equal(model_apply(m, d), 0);
	assert_int_equal(capture_apply_model(f->capture, m, d), 0);
	assert_int_equal(ip_addr_parse("10.5.0.7", &a), 0);
	assert_int_not_equal(bpf_map_lookup_elem(f->capture->maps[MAP_DEST], &a, &flags), 0);
	model_delta_free(d);
	model_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_agent_present, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_agent_absent, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_foreign_sockets, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_pod_draining, setup, fixture_free),
		cmocka_unit_test_setup_teardown(test_model_changes, setup, fixture_free),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
