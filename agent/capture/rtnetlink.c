/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtnetlink in the current network namespace: the rule by mark, and the table whose only route says that
 * everything is local. Both carry our protocol number, and removing one names all of its attributes. Called
 * by netns.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"

#include <linux/fib_rules.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

struct request {
	struct nlmsghdr h;
	char body[256];
};

static void put(struct request *q, unsigned short type, const void *data, size_t len)
{
	struct rtattr *a = (void *)((char *)q + NLMSG_ALIGN(q->h.nlmsg_len));

	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	q->h.nlmsg_len = (__u32)(NLMSG_ALIGN(q->h.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

static void put_u32(struct request *q, unsigned short type, __u32 value)
{
	put(q, type, &value, sizeof(value));
}

static int transact(struct request *q)
{
	_cleanup_close_ int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	char buf[1024] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *h = (void *)buf;
	ssize_t n;

	if (s < 0)
		return -errno;
	q->h.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
	if (send(s, q, q->h.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(s, buf, sizeof(buf), 0);
	if (n < 0)
		return -errno;
	if ((size_t)n < NLMSG_LENGTH(sizeof(struct nlmsgerr)) || h->nlmsg_type != NLMSG_ERROR)
		return -EBADMSG;
	return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
}

int route_rule(bool add, int family)
{
	struct request q = {.h = {.nlmsg_type = add ? RTM_NEWRULE : RTM_DELRULE,
				  .nlmsg_flags = add ? NLM_F_CREATE | NLM_F_EXCL : 0,
				  .nlmsg_len = NLMSG_LENGTH(sizeof(struct fib_rule_hdr))}};
	struct fib_rule_hdr *r = NLMSG_DATA(&q.h);
	__u8 protocol = WR_ROUTE_PROTOCOL;

	r->family = (__u8)family;
	r->action = FR_ACT_TO_TBL;
	put_u32(&q, FRA_PRIORITY, WR_RULE_PRIORITY);
	put_u32(&q, FRA_FWMARK, WR_MARK_BASE);
	put_u32(&q, FRA_FWMASK, WR_MARK_MASK);
	put_u32(&q, FRA_TABLE, WR_ROUTE_TABLE);
	put(&q, FRA_PROTOCOL, &protocol, sizeof(protocol));
	return transact(&q);
}

int route_local(bool add, int family)
{
	struct request q = {.h = {.nlmsg_type = add ? RTM_NEWROUTE : RTM_DELROUTE,
				  .nlmsg_flags = add ? NLM_F_CREATE | NLM_F_EXCL : 0,
				  .nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg))}};
	struct rtmsg *r = NLMSG_DATA(&q.h);

	r->rtm_family = (unsigned char)family;
	r->rtm_table = RT_TABLE_UNSPEC;
	r->rtm_protocol = WR_ROUTE_PROTOCOL;
	r->rtm_scope = family == AF_INET ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
	r->rtm_type = RTN_LOCAL;
	put_u32(&q, RTA_TABLE, WR_ROUTE_TABLE);
	put_u32(&q, RTA_OIF, 1); /* lo, in every namespace */
	return transact(&q);
}
