/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets that a hostile process in a pod could send: by packet socket, with and without the pod's own queueing (and
 * so its programs), by raw socket, and by TCP sockets that carry the agent's marks. Enters a route; leaves packets, or
 * why one could not be sent. Called by prove.c in the pod's network namespace.
 */
#include "probe.h"
#include "abi/marks.h"
#include "engine/base/cleanup.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define TEXT "warrenctl prove"
#define FOREIGN4 "198.51.100.7" /* nobody's (RFC 5737) */
#define FOREIGN6 "2001:db8:ffff::7"
#define FLAG_SYN 0x02
#define FLAG_PSH_ACK 0x18
#define FLAG_ACK 0x10

/* --- which --- */

static void add(struct probe *all, unsigned *n, struct probe p)
{
	static const char *const ways[] = {"packet socket", "packet socket past the queue", "raw socket",
					   "TCP socket with mark"};
	static const char *const whats[] = {"SYN", "bytes", "foreign source", "v4-mapped addresses"};

	if (*n == CAPTURE_MAX_PROBES)
		return;
	p.fd = -1;
	if (p.way == WAY_SOCKET)
		snprintf(p.name, sizeof(p.name), "%s %#x, %s", ways[p.way], p.mark,
			 p.what == WHAT_MAPPED ? "v4-mapped"
			 : p.v6		       ? "IPv6"
					       : "IPv4");
	else
		snprintf(p.name, sizeof(p.name), "%s, %s, %s", ways[p.way], p.v6 ? "IPv6" : "IPv4", whats[p.what]);
	all[(*n)++] = p;
}

unsigned probe_list(const struct probe_route *r, struct probe ret[CAPTURE_MAX_PROBES])
{
	static const uint32_t marks[] = {WR_MARK_CAPTURED, WR_MARK_TO_APP, WR_MARK_ANSWER};
	unsigned n = 0;

	for (int v6 = 0; v6 < 2; v6++) {
		if (!(v6 ? r->v6 : r->v4))
			continue;
		for (int way = WAY_PACKET; way <= WAY_RAW; way++)
			for (int what = WHAT_SYN; what <= WHAT_FOREIGN; what++)
				add(ret, &n, (struct probe){.way = way, .what = what, .v6 = v6});
		for (size_t i = 0; i < ARRAY_SIZE(marks); i++)
			add(ret, &n, (struct probe){.way = WAY_SOCKET, .v6 = v6, .mark = marks[i]});
	}
	if (!r->v4)
		return n;
	for (int way = WAY_PACKET; way <= WAY_PACKET_BYPASS; way++)
		add(ret, &n, (struct probe){.way = way, .what = WHAT_MAPPED, .v6 = true});
	for (size_t i = 0; i < ARRAY_SIZE(marks); i++)
		add(ret, &n, (struct probe){.way = WAY_SOCKET, .what = WHAT_MAPPED, .v6 = true, .mark = marks[i]});
	return n;
}

/* --- packets --- */

struct frame {
	uint8_t b[128];
	size_t ip, tcp, end; /* offsets */
};

static uint32_t sum(const uint8_t *b, size_t n)
{
	uint32_t s = 0;

	for (size_t i = 0; i < n; i++)
		s += (uint32_t)b[i] << (i % 2 ? 0 : 8);
	return s;
}

static void put_sum(uint8_t *at, uint32_t s)
{
	s = (s >> 16) + (s & 0xffff);
	s = (uint16_t) ~((s >> 16) + s);
	at[0] = (uint8_t)(s >> 8);
	at[1] = (uint8_t)s;
}

static void put16(uint8_t *at, uint16_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static void add_ip(struct frame *f, bool v6, const struct ip_addr *from, const struct ip_addr *to, size_t payload)
{
	uint8_t *ip = f->b + f->ip;

	if (v6) {
		ip[0] = 0x60;
		put16(ip + 4, (uint16_t)payload);
		ip[6] = IPPROTO_TCP;
		ip[7] = 64;
		memcpy(ip + 8, from, 16);
		memcpy(ip + 24, to, 16);
		f->tcp = f->ip + 40;
		return;
	}
	ip[0] = 0x45;
	put16(ip + 2, (uint16_t)(20 + payload));
	ip[8] = 64;
	ip[9] = IPPROTO_TCP;
	memcpy(ip + 12, from->b + 12, 4);
	memcpy(ip + 16, to->b + 12, 4);
	put_sum(ip + 10, sum(ip, 20));
	f->tcp = f->ip + 20;
}

/* The pseudo header's addresses lie right before TCP in both families (RFC 9293 3.1). */
static void add_tcp(struct frame *f, bool v6, uint16_t from, uint16_t to, uint8_t flags, const char *text)
{
	size_t addresses = v6 ? 32 : 8, n = 20 + strlen(text);
	uint8_t *t = f->b + f->tcp;

	put16(t, from);
	put16(t + 2, to);
	t[7] = 1;
	t[12] = 5 << 4;
	t[13] = flags;
	put16(t + 14, 65535);
	memcpy(t + 20, text, strlen(text));
	put_sum(t + 16, sum(t, n) + sum(t - addresses, addresses) + IPPROTO_TCP + (uint32_t)n);
	f->end = f->tcp + n;
}

static void build(const struct probe_route *r, const struct probe *p, uint16_t port, struct frame *f)
{
	static const uint8_t flags[] = {[WHAT_SYN] = FLAG_SYN,
					[WHAT_BYTES] = FLAG_PSH_ACK,
					[WHAT_FOREIGN] = FLAG_ACK,
					[WHAT_MAPPED] = FLAG_SYN};
	bool mapped = p->what == WHAT_MAPPED;
	struct ip_addr from = p->v6 && !mapped ? r->from6 : r->from4, to = p->v6 && !mapped ? r->to6 : r->to4;
	const char *text = p->what == WHAT_BYTES ? TEXT : "";

	if (p->what == WHAT_FOREIGN)
		(void)ip_addr_parse(p->v6 ? FOREIGN6 : FOREIGN4, &from);
	memset(f, 0, sizeof(*f));
	memcpy(f->b, r->link.end_mac, 6);
	memcpy(f->b + 6, r->link.mac, 6);
	put16(f->b + 12, p->v6 ? ETH_P_IPV6 : ETH_P_IP);
	f->ip = 14;
	add_ip(f, p->v6, &from, &to, 20 + strlen(text));
	add_tcp(f, p->v6, port, r->to_port, flags[p->what], text);
}

/* --- ways out --- */

static int send_packet(const struct probe_route *r, const struct probe *p, const struct frame *f)
{
	_cleanup_close_ int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	struct sockaddr_ll to = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(p->v6 ? ETH_P_IPV6 : ETH_P_IP),
				 .sll_ifindex = (int)r->link.ifindex};
	int one = 1;

	if (s < 0 ||
	    (p->way == WAY_PACKET_BYPASS && setsockopt(s, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) < 0))
		return errno;
	return sendto(s, f->b, f->end, 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? errno : 0;
}

static int send_raw(const struct probe *p, const struct frame *f)
{
	_cleanup_close_ int s = socket(p->v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
	struct sockaddr_in6 to6 = {.sin6_family = AF_INET6};
	struct sockaddr_in to4 = {.sin_family = AF_INET};
	int one = 1;

	memcpy(&to6.sin6_addr, f->b + f->ip + 24, 16);
	memcpy(&to4.sin_addr, f->b + f->ip + 16, 4);
	if (s < 0 ||
	    setsockopt(s, p->v6 ? IPPROTO_IPV6 : IPPROTO_IP, p->v6 ? IPV6_HDRINCL : IP_HDRINCL, &one, sizeof(one)) < 0)
		return errno;
	return sendto(s, f->b + f->ip, f->end - f->ip, 0, p->v6 ? (struct sockaddr *)&to6 : (struct sockaddr *)&to4,
		      p->v6 ? sizeof(to6) : sizeof(to4)) < 0
		       ? errno
		       : 0;
}

static int try_connect(const struct probe_route *r, struct probe *p, uint16_t port)
{
	bool mapped = p->what == WHAT_MAPPED;
	struct ip_port from = {.ip = p->v6 && !mapped ? r->from6 : r->from4, .port = port};
	struct ip_port to = {.ip = p->v6 && !mapped ? r->to6 : r->to4, .port = r->to_port};
	int family = p->v6 ? AF_INET6 : AF_INET;
	struct sockaddr_storage ss;
	socklen_t len;

	p->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (p->fd < 0 || setsockopt(p->fd, SOL_SOCKET, SO_MARK, &p->mark, sizeof(p->mark)) < 0)
		return errno;
	len = ip_port_to_sockaddr(&from, family, &ss);
	if (bind(p->fd, (struct sockaddr *)&ss, len) < 0)
		return errno;
	len = ip_port_to_sockaddr(&to, family, &ss);
	return connect(p->fd, (struct sockaddr *)&ss, len) < 0 && errno != EINPROGRESS ? errno : 0;
}

void probe_send(const struct probe_route *r, struct probe *p, uint16_t port)
{
	struct frame f;

	if (p->way == WAY_SOCKET) {
		p->error = try_connect(r, p, port);
		return;
	}
	build(r, p, port, &f);
	p->error = p->way == WAY_RAW ? send_raw(p, &f) : send_packet(r, p, &f);
}

void probe_done(struct probe *p)
{
	struct linger at_once = {.l_onoff = 1};

	if (p->fd < 0)
		return;
	(void)setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(take_fd(p->fd));
}
