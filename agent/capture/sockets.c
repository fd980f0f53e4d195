/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The TCP sockets of a pod's namespace, by sock_diag(7): tuples come out, with what our programs wrote at each
 * (sk_storage), so that connections which the agent does not carry can be told from those it does. Called by
 * agent/enroll/unmanaged.c.
 */
#include "private.h"
#include "engine/base/array.h"
#include "engine/base/cleanup.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <string.h>

/* A pod with more has other worries. */
#define SOCKETS_MAX 65536

struct listing {
	struct capture_socket *list;
	size_t n;
	int error;
};

static struct ip_addr address(int family, const __be32 *words)
{
	struct ip_addr a = {.b = {[10] = 0xff, [11] = 0xff}};

	if (family == AF_INET)
		memcpy(a.b + 12, words, 4);
	else
		memcpy(a.b, words, 16);
	return a;
}

/* The one map asked for; a socket without an entry has no attribute inside. */
static uint32_t storage_kind(const struct nlattr *storages)
{
	struct nlattr *storage, *value;
	struct wr_sock s = {0};

	storage = storages ? nla_find(nla_data(storages), nla_len(storages), SK_DIAG_BPF_STORAGE) : NULL;
	value = storage ? nla_find(nla_data(storage), nla_len(storage), SK_DIAG_BPF_STORAGE_MAP_VALUE) : NULL;
	if (value && nla_len(value) >= (int)sizeof(s))
		memcpy(&s, nla_data(value), sizeof(s));
	return s.kind;
}

static int found(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *h = nlmsg_hdr(msg);
	const struct inet_diag_msg *d = nlmsg_data(h);
	struct listing *l = arg;
	struct capture_socket *s;

	if (l->n == SOCKETS_MAX) {
		l->error = -E2BIG;
		return NL_STOP;
	}
	s = array_grow(&l->list, &l->n, sizeof(*s));
	if (!s) {
		l->error = -ENOMEM;
		return NL_STOP;
	}
	*s = (struct capture_socket){.local = {address(d->idiag_family, d->id.idiag_src), ntohs(d->id.idiag_sport)},
				     .remote = {address(d->idiag_family, d->id.idiag_dst), ntohs(d->id.idiag_dport)},
				     .family = d->idiag_family,
				     .interface = d->id.idiag_if,
				     .cookie = {d->id.idiag_cookie[0], d->id.idiag_cookie[1]},
				     .listening = d->idiag_state == TCP_LISTEN};
	s->kind = storage_kind(nlmsg_find_attr(h, sizeof(*d), INET_DIAG_SK_BPF_STORAGES));
	return NL_OK;
}

static int open_diag(struct nl_sock **ret)
{
	struct nl_sock *sk = nl_socket_alloc();

	if (!sk)
		return -ENOMEM;
	if (nl_connect(sk, NETLINK_SOCK_DIAG) < 0) {
		nl_socket_free(sk);
		return -EIO;
	}
	*ret = sk;
	return 0;
}

static int list_family(struct capture *c, struct nl_sock *sk, int family, struct listing *l)
{
	struct inet_diag_req_v2 req = {.sdiag_family = (__u8)family,
				       .sdiag_protocol = IPPROTO_TCP,
				       .idiag_states = 1u << TCP_ESTABLISHED | 1u << TCP_LISTEN | 1u << TCP_FIN_WAIT1 |
						       1u << TCP_FIN_WAIT2 | 1u << TCP_CLOSE_WAIT};
	struct nl_msg *msg = nlmsg_alloc_simple(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP);
	struct nlattr *storages;
	int r = -ENOMEM;

	if (msg && nlmsg_append(msg, &req, sizeof(req), NLMSG_ALIGNTO) == 0 &&
	    (storages = nla_nest_start(msg, INET_DIAG_REQ_SK_BPF_STORAGES)) &&
	    nla_put_u32(msg, SK_DIAG_BPF_STORAGE_REQ_MAP_FD, (uint32_t)c->maps[MAP_SOCK]) == 0) {
		nla_nest_end(msg, storages);
		nl_socket_modify_cb(sk, NL_CB_VALID, NL_CB_CUSTOM, found, l);
		r = nl_send_auto(sk, msg) < 0 || nl_recvmsgs_default(sk) < 0 ? -EIO : l->error;
	}
	nlmsg_free(msg);
	return r;
}

int capture_pod_sockets(struct capture *c, int netns_fd, struct capture_socket **ret, size_t *ret_n)
{
	_cleanup_(netns_leave) struct netns_guard g = {-1};
	struct listing l = {0};
	struct nl_sock *sk;
	int r = netns_enter(netns_fd, &g);

	r = r < 0 ? r : open_diag(&sk);
	if (r < 0)
		return r;
	r = list_family(c, sk, AF_INET, &l);
	r = r < 0 ? r : list_family(c, sk, AF_INET6, &l);
	nl_socket_free(sk);
	if (r < 0) {
		free(l.list);
		return r;
	}
	*ret = l.list;
	*ret_n = l.n;
	return 0;
}

bool capture_is_probe(const struct capture *c, uint32_t number, const struct capture_socket *s)
{
	struct wr_flow key = {.sport = s->remote.port, .dport = s->local.port};
	struct wr_probe_flow f;

	memcpy(&key.src, &s->remote.ip, sizeof(key.src));
	memcpy(&key.dst, &s->local.ip, sizeof(key.dst));
	return bpf_map_lookup_elem(c->maps[MAP_PROBE_FLOWS], &key, &f) == 0 && f.pod == number;
}

static void words_of(int family, const struct ip_addr *a, __be32 *ret)
{
	memcpy(ret, family == AF_INET ? a->b + 12 : a->b, family == AF_INET ? 4 : 16);
}

int capture_close_socket(int netns_fd, const struct capture_socket *s)
{
	_cleanup_(netns_leave) struct netns_guard g = {-1};
	struct inet_diag_req_v2 req = {.sdiag_family = s->family,
				       .sdiag_protocol = IPPROTO_TCP,
				       .id = {.idiag_sport = htons(s->local.port),
					      .idiag_dport = htons(s->remote.port),
					      .idiag_if = s->interface,
					      .idiag_cookie = {s->cookie[0], s->cookie[1]}}};
	struct nl_sock *sk;
	int r = netns_enter(netns_fd, &g);

	r = r < 0 ? r : open_diag(&sk);
	if (r < 0)
		return r;
	words_of(s->family, &s->local.ip, req.id.idiag_src);
	words_of(s->family, &s->remote.ip, req.id.idiag_dst);
	r = nl_send_simple(sk, SOCK_DESTROY, NLM_F_ACK, &req, sizeof(req));
	r = r < 0 ? -EIO : nl_wait_for_ack(sk);
	nl_socket_free(sk);
	return r < 0 ? -ENOENT : 0;
}
