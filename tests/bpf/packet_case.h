/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One packet, one program, its verdict and what it counted (BPF_PROG_TEST_RUN in the namespace where the program
 * belongs). Included by tests/bpf/test_*.c that hold tables of such cases.
 */
#pragma once
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
 * TCP ACK; C: SYN-ACK; R: RST; B: SYN with RST; U: UDP; T: SCTP; I: ICMP; p: 12 bytes of payload; then - : cut by 8
 * bytes. */
struct packet_case {
	const char *what;
	enum place where;
	const char *packet, *dst; /* "ADDRESS" from the pod, or "ADDRESS from ADDRESS" */
	uint16_t port;
	int verdict;
	enum wr_reason counted;
};

struct builder {
	uint8_t b[MAX_PACKET];
	size_t len;
	size_t next; /* where the number of the next header goes */
};

static inline void add_extension(struct builder *p, uint8_t number, size_t size, uint8_t length, uint16_t word)
{
	uint8_t *e = p->b + p->len;

	p->b[p->next] = number;
	p->next = p->len;
	e[1] = length;
	e[2] = (uint8_t)(word >> 8);
	e[3] = (uint8_t)word;
	p->len += size;
}

static inline void add_transport(struct builder *p, uint8_t number, uint16_t port, uint8_t flags)
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

static inline void add_ip(struct builder *p, const struct packet_case *c)
{
	struct ip_addr dst, src;
	uint8_t *ip = p->b + 14;
	bool v6 = c->packet[0] == '6';
	char to[64], from[64];

	if (sscanf(c->dst, "%63s from %63s", to, from) < 2)
		strcpy(from, v6 ? POD6 : POD4);
	assert_int_equal(ip_addr_parse(to, &dst), 0);
	assert_int_equal(ip_addr_parse(from, &src), 0);
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

static inline void add_layer(struct builder *p, char layer, uint16_t port, bool v6)
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
	case 'B':
		add_transport(p, IPPROTO_TCP, port, 0x06);
		break;
	case 'p':
		memset(p->b + p->len, 'p', 12);
		p->len += 12;
		break;
	case 'T':
		add_transport(p, IPPROTO_SCTP, port, 0);
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

static inline uint64_t counter(struct fixture *f, enum wr_reason reason)
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

static inline void build(struct builder *p, const struct packet_case *c)
{
	*p = (struct builder){.len = 14};
	add_ip(p, c);
	for (const char *l = c->packet + 1; *l; l++)
		add_layer(p, *l, c->port, c->packet[0] == '6');
}

/* In the namespace `where`; what the packet has become goes back into the builder. */
static inline int run_packet(struct fixture *f, int where, int prog, struct builder *p)
{
	uint8_t out[MAX_PACKET];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = p->b, .data_size_in = (__u32)p->len, .data_out = out,
		    .data_size_out = sizeof(out));
	int r;

	enter(where);
	r = bpf_prog_test_run_opts(prog, &opts);
	enter(f->home);
	if (r < 0)
		fail_msg("not run: %s", strerror(-r));
	memcpy(p->b, out, opts.data_size_out);
	p->len = opts.data_size_out;
	return (int)opts.retval;
}

static inline void run_case(struct fixture *f, const int progs[PLACE_MAX_], const struct packet_case *c)
{
	uint64_t before = counter(f, c->counted), refused = counter(f, WR_REASON_DROP_ASSIGN_FAILED);
	bool assign = c->verdict == ASSIGN;
	struct builder p;
	int verdict;

	build(&p, c);
	verdict = run_packet(f, c->where == PLACE_LINK ? f->world : f->pod, progs[c->where], &p);
	if (counter(f, WR_REASON_DROP_ASSIGN_FAILED) != refused + assign)
		fail_msg("%s: %s to a listener", c->what, assign ? "not handed" : "handed");
	if (verdict != (assign ? DROP : c->verdict))
		fail_msg("%s: verdict %d, not %d", c->what, verdict, c->verdict);
	if (c->counted && counter(f, c->counted) != before + 1)
		fail_msg("%s: not counted as reason %d", c->what, c->counted);
}

/* The pod's instance of a program of its own namespace; to be closed. */
static inline int program_of(struct fixture *f, enum place where)
{
	struct instances s = INSTANCES(f->capture, 7);
	int fd = instances_get(&s, where);

	assert_true(fd >= 0);
	return fd;
}

static inline void run_table(struct fixture *f, const struct packet_case *cases, size_t n)
{
	_cleanup_(instances_done) struct instances s = INSTANCES(f->capture, 7);

	enter(f->world);
	assert_int_equal(interfaces_netns_id(f->pod, &s.netns_id), 0);
	enter(f->home);
	for (int i = 0; i < PLACE_MAX_; i++)
		assert_true(instances_get(&s, (enum place)i) >= 0);
	for (size_t i = 0; i < n; i++)
		run_case(f, s.fds, &cases[i]);
}
