/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IP addresses in one form: 16 bytes in network order, IPv4 as v4-mapped IPv6 (RFC 4291 2.5.5.2). Every comparison,
 * hash and map key uses this form, so 10.0.0.1 and ::ffff:10.0.0.1 are one address everywhere.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct ip_addr {
	uint8_t b[16];
};

/* An address and a port; the port is in host byte order. */
struct ip_port {
	struct ip_addr ip;
	uint16_t port;
};

/* "[" + INET6_ADDRSTRLEN + "]:65535" with its NUL. */
#define IP_PORT_STRLEN 56
/* INET6_ADDRSTRLEN + "/128". */
#define IP_CIDR_STRLEN 50

bool ip_addr_equal(const struct ip_addr *a, const struct ip_addr *b);
bool ip_addr_is_v4(const struct ip_addr *a);
bool ip_addr_is_loopback(const struct ip_addr *a);
/* Parses "10.0.0.1" or "fd00::1" (no brackets, no zone). 0, or -EINVAL with *ret untouched. */
int ip_addr_parse(const char *text, struct ip_addr *ret);
/* Writes the usual text form into buf (at least 46 bytes) and returns buf; IPv4 without the mapped prefix. */
const char *ip_addr_format(const struct ip_addr *a, char *buf, size_t size);
/* Parses "10.0.0.0/8" or "fd00::/8"; *ret_bits counts from the start of the 16 bytes (an IPv4 /8 is 104).
 * Without "/bits" it is one address. Host bits stay: who refuses them compares with ip_addr_mask(). 0 or
 * -EINVAL. */
int ip_cidr_parse(const char *text, struct ip_addr *ret, unsigned *ret_bits);
/* Clears all but the first `bits` (0..128, counted as above) of *a. */
void ip_addr_mask(struct ip_addr *a, unsigned bits);
/* Writes "10.0.0.0/8" or "fd00::/8" into buf (IP_CIDR_STRLEN) and returns buf; `bits` counts as above. */
const char *ip_cidr_format(const struct ip_addr *a, unsigned bits, char *buf, size_t size);

/* Parses "1.2.3.4:80" or "[fd00::1]:80"; the port must be 1..65535. 0 or -EINVAL. */
int ip_port_parse(const char *text, size_t len, struct ip_port *ret);
/* Writes "1.2.3.4:80" or "[fd00::1]:80" into buf (IP_PORT_STRLEN) and returns buf. */
const char *ip_port_format(const struct ip_port *a, char *buf, size_t size);
/* From a kernel socket address of family AF_INET or AF_INET6; -EAFNOSUPPORT for another. */
int ip_port_from_sockaddr(const struct sockaddr_storage *ss, struct ip_port *ret);
/* To a socket address of the given socket family: AF_INET (only for v4) or AF_INET6 (v4 stays mapped).
 * Returns the length for connect(2) and bind(2). */
socklen_t ip_port_to_sockaddr(const struct ip_port *a, int family, struct sockaddr_storage *ret);
