/* SPDX-License-Identifier: Apache-2.0 */
/* HBONE's header texts. Model data and header values come in, header values and parsed forms leave; called by proxy/.
 */
#include "engine/proto/hbone.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static size_t add_member(char *buf, size_t at, const char *key, const char *value)
{
	size_t n = value ? strcspn(value, ",;=\" \t\r\n") : 0;
	int len;

	if (!n)
		return at;
	len = snprintf(buf + at, HBONE_BAGGAGE_MAX - at, "%s%s=%.*s", at ? "," : "", key, (int)n, value);
	/* A member that does not fit is left out whole: half a value would be a wrong one. */
	if (len < 0 || (size_t)len >= HBONE_BAGGAGE_MAX - at) {
		buf[at] = 0;
		return at;
	}
	return at + (size_t)len;
}

size_t hbone_baggage(const struct workload *w, char buf[HBONE_BAGGAGE_MAX])
{
	char key[64];
	size_t n = 0;

	buf[0] = 0;
	snprintf(key, sizeof(key), "k8s.%s.name", w->workload_type && *w->workload_type ? w->workload_type : "pod");
	n = add_member(buf, n, "k8s.cluster.name", w->cluster_id);
	n = add_member(buf, n, "k8s.namespace.name", w->namespace_);
	n = add_member(buf, n, key, w->workload_name);
	n = add_member(buf, n, "service.name", w->canonical_name);
	n = add_member(buf, n, "service.version", w->canonical_revision);
	n = add_member(buf, n, "cloud.region", w->region);
	return add_member(buf, n, "cloud.availability_zone", w->zone);
}

/* What a label's value may hold: the text goes to logs, and whoever sent it has only proven who it is. */
static char *label_value(const char *at, size_t len)
{
	if (!len || len > HBONE_LABEL_MAX)
		return NULL;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)at[i]) && !strchr("-._", at[i]))
			return NULL;
	return strndup(at, len);
}

static void read_member(const char *at, size_t len, struct workload *w)
{
	const struct {
		const char *key;
		char **field;
	} keys[] = {{"k8s.cluster.name", &w->cluster_id},
		    {"k8s.namespace.name", &w->namespace_},
		    {"service.name", &w->canonical_name},
		    {"service.version", &w->canonical_revision}};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		size_t n = strlen(keys[i].key);

		if (len > n && !memcmp(at, keys[i].key, n) && at[n] == '=' && !*keys[i].field)
			*keys[i].field = label_value(at + n + 1, len - n - 1);
	}
}

struct workload *hbone_baggage_parse(const char *text)
{
	struct workload *w = workload_new();

	while (w && *text) {
		size_t len;

		text += strspn(text, ", \t");
		len = strcspn(text, ",;"); /* W3C Baggage: properties behind a semicolon */
		read_member(text, len, w);
		text += strcspn(text, ",");
	}
	/* The log names a workload, else its canonical service (istio/ztunnel). */
	if (w && w->canonical_name)
		w->name = strdup(w->canonical_name);
	return w && (w->name || w->namespace_ || w->cluster_id) ? w : workload_unref(w);
}

size_t hbone_forwarded(const struct ip_port *client, const char *host, char buf[HBONE_FORWARDED_MAX])
{
	char addr[IP_PORT_STRLEN];
	int n = snprintf(buf, HBONE_FORWARDED_MAX, "for=\"%s\"%s%s", ip_port_format(client, addr, sizeof(addr)),
			 host ? ";host=" : "", host ? host : "");

	return n < 0 ? 0 : (size_t)n < HBONE_FORWARDED_MAX ? (size_t)n : HBONE_FORWARDED_MAX - 1;
}

void hbone_traceparent(const uint8_t random[24], char buf[HBONE_TRACEPARENT_LEN + 1])
{
	static const char hex[] = "0123456789abcdef";
	char *p = buf;

	p = stpcpy(p, "00-");
	for (int i = 0; i < 24; i++) {
		*p++ = hex[random[i] >> 4];
		*p++ = hex[random[i] & 15];
		if (i == 15)
			*p++ = '-';
	}
	strcpy(p, "-00");
}

static bool host_char(unsigned char c)
{
	return isalnum(c) || c == '-' || c == '.' || c == '_';
}

int hbone_authority_parse(const char *text, size_t len, struct hbone_authority *ret)
{
	struct hbone_authority a = {0};
	const char *colon;
	struct ip_port port;

	if (!ip_port_parse(text, len, &a.addr)) {
		a.port = a.addr.port;
		*ret = a;
		return 0;
	}
	colon = memrchr(text, ':', len);
	if (!colon || colon == text || (size_t)(colon - text) >= sizeof(a.host))
		return -EINVAL;
	for (const char *p = text; p < colon; p++) {
		if (!host_char((unsigned char)*p))
			return -EINVAL;
		a.host[p - text] = (char)tolower((unsigned char)*p);
	}
	/* Four dotted numbers with a bad octet are a broken address, not a name. */
	if (strspn(a.host, "0123456789.") == strlen(a.host))
		return -EINVAL;
	size_t n = len - (size_t)(colon + 1 - text);
	char buf[32];

	if (!n || n > 5)
		return -EINVAL;
	snprintf(buf, sizeof(buf), "1.1.1.1:%.*s", (int)n, colon + 1);
	if (strlen(buf) != n + 8 || ip_port_parse(buf, n + 8, &port))
		return -EINVAL;
	a.is_host = true;
	a.port = port.port;
	*ret = a;
	return 0;
}

size_t hbone_forwarded_host(const char *text, size_t len, const char **ret_host)
{
	const char *end = text + len, *p = text;

	while (p < end) {
		const char *next = memchr(p, ';', (size_t)(end - p));
		const char *stop = next ? next : end;

		while (p < stop && *p == ' ')
			p++;
		if (stop - p > 5 && !strncasecmp(p, "host=", 5)) {
			p += 5;
			if (*p == '"' && stop - p >= 2 && stop[-1] == '"') {
				p++;
				stop--;
			}
			*ret_host = p;
			return (size_t)(stop - p);
		}
		if (!next)
			break;
		p = next + 1;
	}
	return 0;
}
