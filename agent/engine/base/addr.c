/* SPDX-License-Identifier: Apache-2.0 */
/* IP addresses in one 16-byte form. Text and sockaddr come in, struct ip_addr leaves; called everywhere. */
#include "engine/base/addr.h"
#include "engine/base/decimal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t v4_mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool ip_addr_equal(const struct ip_addr *a, const struct ip_addr *b)
{
	return !memcmp(a, b, sizeof(*a));
}

bool ip_addr_is_v4(const struct ip_addr *a)
{
	return !memcmp(a->b, v4_mapped_prefix, sizeof(v4_mapped_prefix));
}

bool ip_addr_is_loopback(const struct ip_addr *a)
{
	static const struct ip_addr v6_loopback = {{[15] = 1}};

	return ip_addr_is_v4(a) ? a->b[12] == 127 : ip_addr_equal(a, &v6_loopback);
}

int ip_addr_parse(const char *text, struct ip_addr *ret)
{
	struct ip_addr a;

	if (inet_pton(AF_INET, text, a.b + 12) == 1)
		memcpy(a.b, v4_mapped_prefix, sizeof(v4_mapped_prefix));
	else if (inet_pton(AF_INET6, text, a.b) != 1)
		return -EINVAL;
	*ret = a;
	return 0;
}

const char *ip_addr_format(const struct ip_addr *a, char *buf, size_t size)
{
	char *p = buf;

	if (!ip_addr_is_v4(a)) {
		inet_ntop(AF_INET6, a->b, buf, (socklen_t)size);
		return buf;
	}
	/* inet_ntop(3) goes through printf: too slow for what every connection needs some five times. */
	for (int i = 12; i < 16; i++) {
		p = decimal_write(p, a->b[i], 1);
		*p++ = '.';
	}
	p[-1] = 0;
	return buf;
}

/* A decimal number without sign or spaces, at most `max`. */
static int parse_number(const char *text, size_t len, unsigned max, unsigned *ret)
{
	unsigned v = 0;

	if (!len || len > 5)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		v = v * 10 + (unsigned)(text[i] - '0');
	}
	if (v > max)
		return -EINVAL;
	*ret = v;
	return 0;
}

int ip_cidr_parse(const char *text, struct ip_addr *ret, unsigned *ret_bits)
{
	const char *slash = strchr(text, '/');
	char buf[INET6_ADDRSTRLEN];
	struct ip_addr a;
	unsigned bits, width;
	size_t n = slash ? (size_t)(slash - text) : strlen(text);

	if (n >= sizeof(buf))
		return -EINVAL;
	memcpy(buf, text, n);
	buf[n] = 0;
	if (ip_addr_parse(buf, &a))
		return -EINVAL;
	width = strchr(buf, ':') ? 128 : 32;
	bits = width;
	if (slash && parse_number(slash + 1, strlen(slash + 1), width, &bits))
		return -EINVAL;
	*ret = a;
	*ret_bits = bits + 128 - width;
	return 0;
}

void ip_addr_mask(struct ip_addr *a, unsigned bits)
{
	for (unsigned i = bits / 8; i < sizeof(a->b); i++)
		a->b[i] &= i == bits / 8 ? (uint8_t) ~(0xff >> bits % 8) : 0;
}

const char *ip_cidr_format(const struct ip_addr *a, unsigned bits, char *buf, size_t size)
{
	/* A range that reaches beyond the mapped prefix holds IPv6, too, whatever its first address is. */
	bool v4 = ip_addr_is_v4(a) && bits >= 96;
	char ip[INET6_ADDRSTRLEN];

	snprintf(buf, size, "%s/%u", ip_addr_format(a, ip, sizeof(ip)), v4 ? bits - 96 : bits);
	return buf;
}

int ip_port_parse(const char *text, size_t len, struct ip_port *ret)
{
	char buf[INET6_ADDRSTRLEN];
	struct ip_addr ip;
	size_t colon = len, start = 0, end;
	unsigned port;

	while (colon && text[colon - 1] != ':')
		colon--;
	if (colon < 2)
		return -EINVAL;
	end = colon - 1;
	if (text[0] == '[') {
		if (text[end - 1] != ']')
			return -EINVAL;
		start = 1;
		end--;
	}
	if (end <= start || end - start >= sizeof(buf))
		return -EINVAL;
	memcpy(buf, text + start, end - start);
	buf[end - start] = 0;
	/* Brackets belong to IPv6 and only to it (RFC 3986 3.2.2). */
	if ((strchr(buf, ':') != NULL) != (start == 1) || memchr(buf, 0, end - start))
		return -EINVAL;
	if (ip_addr_parse(buf, &ip) || parse_number(text + colon, len - colon, 65535, &port) || !port)
		return -EINVAL;
	ret->ip = ip;
	ret->port = (uint16_t)port;
	return 0;
}

const char *ip_port_format(const struct ip_port *a, char *buf, size_t size)
{
	bool v4 = ip_addr_is_v4(&a->ip);
	char *p = buf;

	if (!v4)
		*p++ = '[';
	ip_addr_format(&a->ip, p, size - (size_t)(p - buf));
	p += strlen(p);
	if (!v4)
		*p++ = ']';
	*p++ = ':';
	*decimal_write(p, a->port, 1) = 0;
	return buf;
}

int ip_port_from_sockaddr(const struct sockaddr_storage *ss, struct ip_port *ret)
{
	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)ss;

		memcpy(ret->ip.b, v4_mapped_prefix, sizeof(v4_mapped_prefix));
		memcpy(ret->ip.b + 12, &in->sin_addr, 4);
		ret->port = ntohs(in->sin_port);
		return 0;
	}
	if (ss->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)ss;

		memcpy(ret->ip.b, &in6->sin6_addr, 16);
		ret->port = ntohs(in6->sin6_port);
		return 0;
	}
	return -EAFNOSUPPORT;
}

socklen_t ip_port_to_sockaddr(const struct ip_port *a, int family, struct sockaddr_storage *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)(void *)ret;

		in->sin_family = AF_INET;
		memcpy(&in->sin_addr, a->ip.b + 12, 4);
		in->sin_port = htons(a->port);
		return sizeof(*in);
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)ret;

	in6->sin6_family = AF_INET6;
	memcpy(&in6->sin6_addr, a->ip.b, 16);
	in6->sin6_port = htons(a->port);
	return sizeof(*in6);
}
