/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interfaces of the current network namespace, asked by rtnetlink: what each is and what it hangs on. Called by
 * pod.c, node_end.c, witness.c and dump_links.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

/* The kernel fills one answer up to what the reader takes, at most 32 KiB. */
#define ANSWER_MAX 32768

struct question {
	struct nlmsghdr h;
	union {
		struct ifinfomsg link;
		struct rtgenmsg netns;
	};
	char attributes[16];
};

struct answers {
	struct interface *list;
	size_t n;
};

static void put_u32(struct question *q, unsigned short type, __u32 value)
{
	struct rtattr *a = (void *)((char *)q + NLMSG_ALIGN(q->h.nlmsg_len));

	a->rta_type = type;
	a->rta_len = RTA_LENGTH(sizeof(value));
	memcpy(RTA_DATA(a), &value, sizeof(value));
	q->h.nlmsg_len = (__u32)(NLMSG_ALIGN(q->h.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

static void copy_text(char *to, size_t size, const struct rtattr *a)
{
	size_t n = strnlen(RTA_DATA(a), RTA_PAYLOAD(a));

	n = n < size ? n : size - 1;
	memcpy(to, RTA_DATA(a), n);
	to[n] = '\0';
}

static void read_kind(struct interface *i, struct rtattr *info)
{
	int left = (int)RTA_PAYLOAD(info);

	for (struct rtattr *a = RTA_DATA(info); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == IFLA_INFO_KIND)
			copy_text(i->kind, sizeof(i->kind), a);
}

static void read_link(struct interface *i, struct nlmsghdr *h)
{
	struct ifinfomsg *m = NLMSG_DATA(h);
	int left = (int)IFLA_PAYLOAD(h);

	*i = (struct interface){
		.ifindex = (unsigned)m->ifi_index, .link_netns = -1, .ethernet = m->ifi_type == ARPHRD_ETHER};
	for (struct rtattr *a = IFLA_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == IFLA_IFNAME)
			copy_text(i->name, sizeof(i->name), a);
		else if (a->rta_type == IFLA_LINK && RTA_PAYLOAD(a) >= sizeof(i->link))
			memcpy(&i->link, RTA_DATA(a), sizeof(i->link));
		else if (a->rta_type == IFLA_LINK_NETNSID && RTA_PAYLOAD(a) >= sizeof(i->link_netns))
			memcpy(&i->link_netns, RTA_DATA(a), sizeof(i->link_netns));
		else if (a->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(a) == sizeof(i->mac))
			memcpy(i->mac, RTA_DATA(a), sizeof(i->mac));
		else if (a->rta_type == IFLA_LINKINFO)
			read_kind(i, a);
	}
}

static int add_link(struct answers *all, struct nlmsghdr *h)
{
	struct interface *more;

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg)))
		return -EBADMSG;
	more = reallocarray(all->list, all->n + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	all->list = more;
	read_link(&all->list[all->n++], h);
	return 0;
}

/* 1: more is to come. */
static int read_messages(struct nlmsghdr *h, ssize_t n, bool dump, struct answers *all)
{
	for (; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
		int r = 0;

		if (h->nlmsg_type == NLMSG_DONE)
			return 0;
		if (h->nlmsg_type == NLMSG_ERROR)
			return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
		if (h->nlmsg_type == RTM_NEWLINK)
			r = add_link(all, h);
		if (r < 0 || !dump)
			return r;
	}
	return 1;
}

static int ask(struct question *q, struct answers *all)
{
	_cleanup_close_ int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	_cleanup_free_ char *buf = malloc(ANSWER_MAX);
	bool dump = q->h.nlmsg_flags & NLM_F_DUMP;
	ssize_t n;
	int r = 1;

	if (!buf)
		return -ENOMEM;
	if (s < 0 || send(s, q, q->h.nlmsg_len, 0) < 0)
		return -errno;
	while (r == 1) {
		n = recv(s, buf, ANSWER_MAX, 0);
		r = n < 0 ? -errno : read_messages((struct nlmsghdr *)buf, n, dump, all);
	}
	return r;
}

static int ask_links(unsigned ifindex, struct answers *all)
{
	struct question q = {.h = {.nlmsg_type = RTM_GETLINK,
				   .nlmsg_flags = NLM_F_REQUEST | (ifindex ? 0 : NLM_F_DUMP),
				   .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg))},
			     .link = {.ifi_index = (int)ifindex}};

	put_u32(&q, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	return ask(&q, all);
}

int interfaces_list(struct interface **ret, size_t *ret_n)
{
	struct answers all = {0};
	int r = ask_links(0, &all);

	if (r < 0) {
		free(all.list);
		return r;
	}
	*ret = all.list;
	*ret_n = all.n;
	return 0;
}

int interfaces_of(int netns_fd, struct interface **ret, size_t *ret_n)
{
	_cleanup_(netns_leave) struct netns_guard g = {-1};
	int r = netns_enter(netns_fd, &g);

	return r < 0 ? r : interfaces_list(ret, ret_n);
}

int interface_get(unsigned ifindex, struct interface *ret)
{
	struct answers all = {0};
	int r = ask_links(ifindex, &all);

	if (r == 0 && all.n)
		*ret = all.list[0];
	else if (r == 0)
		r = -ENODEV;
	free(all.list);
	return r;
}

int interfaces_netns_id(int netns_fd, int32_t *ret)
{
	struct question q = {.h = {.nlmsg_type = RTM_GETNSID,
				   .nlmsg_flags = NLM_F_REQUEST,
				   .nlmsg_len = NLMSG_LENGTH(sizeof(struct rtgenmsg))}};
	_cleanup_close_ int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	char buf[512] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *h = (void *)buf;
	struct rtattr *a;
	int32_t id = -1;
	ssize_t n;
	int left;

	put_u32(&q, NETNSA_FD, (__u32)netns_fd);
	if (s < 0 || send(s, &q, q.h.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(s, buf, sizeof(buf), 0);
	if (n < 0)
		return -errno;
	if (!NLMSG_OK(h, n) || h->nlmsg_type != RTM_NEWNSID)
		return -ENOENT;
	left = (int)NLMSG_PAYLOAD(h, sizeof(struct rtgenmsg));
	a = (void *)((char *)NLMSG_DATA(h) + NLMSG_ALIGN(sizeof(struct rtgenmsg)));
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == NETNSA_NSID)
			memcpy(&id, RTA_DATA(a), sizeof(id));
	if (id < 0)
		return -ENOENT;
	*ret = id;
	return 0;
}
