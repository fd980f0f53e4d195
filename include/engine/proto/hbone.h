/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HBONE's headers: the CONNECT authority, baggage, forwarded and traceparent as Istio's ztunnel and waypoints send and
 * read them (istio/ztunnel ARCHITECTURE; W3C Baggage and Trace Context; RFC 7239). Text in, text out.
 */
#pragma once
#include "engine/base/addr.h"
#include "engine/model/model.h"

#define HBONE_BAGGAGE_MAX 768
#define HBONE_FORWARDED_MAX 400
#define HBONE_TRACEPARENT_LEN 55
/* One value of baggage: a namespace, a label's value. */
#define HBONE_LABEL_MAX 253

/* Writes the source's baggage: k8s.cluster.name, k8s.namespace.name, k8s.<type>.name, service.name, service.version,
 * cloud.region, cloud.availability_zone; empty values are left out, and characters that would break the list (comma,
 * semicolon, equals, controls) end the value. Returns the length, without the NUL. */
size_t hbone_baggage(const struct workload *w, char buf[HBONE_BAGGAGE_MAX]);
/* What a peer's baggage says of it: cluster, namespace, canonical name (also as name) and revision. Only values that a
 * label could hold are taken. Counted; NULL when it says nothing. For logs, never for a decision. */
struct workload *hbone_baggage_parse(const char *text);
/* for="<client ip:port>" and ;host=<service host> when host is not NULL. Returns the length. */
size_t hbone_forwarded(const struct ip_port *client, const char *host, char buf[HBONE_FORWARDED_MAX]);
/* 00-<32 hex>-<16 hex>-00 from 24 random bytes; buf holds 56 bytes. */
void hbone_traceparent(const uint8_t random[24], char buf[HBONE_TRACEPARENT_LEN + 1]);

/* A CONNECT authority: an address and port, or a host name and port. */
struct hbone_authority {
	bool is_host;
	struct ip_port addr; /* when !is_host */
	char host[256];	     /* lower-cased, NUL-terminated, when is_host */
	uint16_t port;	     /* either way */
};
/* 0, or -EINVAL: both parts are required, a host may hold letters, digits, '-', '.' and '_'. */
int hbone_authority_parse(const char *text, size_t len, struct hbone_authority *ret);
/* Finds host=... in a forwarded header (quotes stripped). The length of the host within `text`, 0 when there is none.
 */
size_t hbone_forwarded_host(const char *text, size_t len, const char **ret_host);
