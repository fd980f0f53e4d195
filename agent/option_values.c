/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the values of warren-agent's options may be. A value's text and where it stands come in; a verdict, a
 * number or a line on stderr leaves. Called by options.c, and by node.c for lists that are taken apart later.
 */
#include "option_values.h"
#include "agent/capture/capture.h"
#include "engine/base/cleanup.h"
#include "engine/base/limits.h"
#include "engine/io/congestion.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Kept as names of folders, sockets and pins. */
bool value_is_node(const char *v)
{
	return *v && strlen(v) <= 200 && v[0] != '.' &&
	       strspn(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == strlen(v);
}

/* Goes into uids, logs and baggage, whose separators are refused with what a log would have to quote. */
bool value_is_network(const char *v)
{
	for (const char *p = v; *p; p++)
		if (*p <= ' ' || *p >= 0x7f || strchr("\"'`/\\,;=", *p))
			return false;
	return strlen(v) <= 128;
}

bool value_is_cluster(const char *v)
{
	return *v && value_is_network(v);
}

static bool is_domain(const char *v, const char *allowed)
{
	size_t n = strlen(v);

	return n && n <= 255 && strspn(v, allowed) == n && v[0] != '.' && v[n - 1] != '.' && !strstr(v, "..");
}

/* SPIFFE-ID 2.1: peers refuse every other name in a certificate. */
bool value_is_trust_domain(const char *v)
{
	return is_domain(v, "abcdefghijklmnopqrstuvwxyz0123456789.-_");
}

/* None, or names with commas between them. */
bool value_is_trust_domains(const char *v)
{
	char name[256];

	for (size_t n, count = 1; *v; v += n + 1) {
		n = strcspn(v, ",");
		if (count++ >= LIMIT_TRUST_DOMAINS || n >= sizeof(name) || (v[n] == ',' && !v[n + 1]))
			return false;
		memcpy(name, v, n);
		name[n] = 0;
		if (!value_is_trust_domain(name))
			return false;
		if (!v[n])
			return true;
	}
	return true;
}

bool value_is_namespace(const char *v)
{
	return *v && strlen(v) <= 63 && strspn(v, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(v);
}

bool value_is_l7_deny(const char *v)
{
	return !strcmp(v, "match") || !strcmp(v, "ignore");
}

bool value_is_bad_mesh(const char *v)
{
	return !strcmp(v, "ignore") || !strcmp(v, "deny");
}

bool value_is_dns_domain(const char *v)
{
	return is_domain(v, "abcdefghijklmnopqrstuvwxyz0123456789.-");
}

bool value_is_dir(const char *v)
{
	return !strncmp(v, "dir:/", 5);
}

bool value_is_path(const char *v)
{
	return v[0] == '/';
}

bool value_is_path_or_none(const char *v)
{
	return !*v || value_is_path(v);
}

/* What the kernel has loaded; a name that it does not know would be without effect, in silence. */
bool value_is_congestion(const char *v)
{
	char list[512] = " ";
	FILE *f;
	char *word, *save;

	if (!strcmp(v, CONGESTION_AUTO) || !strcmp(v, CONGESTION_SYSTEM))
		return true;
	f = fopen("/proc/sys/net/ipv4/tcp_available_congestion_control", "re");
	if (!f)
		return false;
	if (!fgets(list, sizeof(list), f))
		*list = 0;
	fclose(f);
	for (word = strtok_r(list, " \n", &save); word; word = strtok_r(NULL, " \n", &save))
		if (!strcmp(word, v))
			return true;
	return false;
}

bool value_is_loss(const char *v)
{
	return !strcmp(v, "closed") || !strcmp(v, "open");
}

bool value_is_binding(const char *v)
{
	return !strcmp(v, "enforce") || !strcmp(v, "known") || !strcmp(v, "off");
}

bool value_is_probe_exemption(const char *v)
{
	return !strcmp(v, "declared") || !strcmp(v, "node-sockets");
}

bool value_is_anti_spoof(const char *v)
{
	return !strcmp(v, "enforce") || !strcmp(v, "count") || !strcmp(v, "off");
}

bool value_is_access_log(const char *v)
{
	size_t n = strlen(v);

	if (n > 5 && !strcmp(v + n - 5, ",json"))
		n -= 5;
	return v[0] == '/' || (n == 6 && (!strncmp(v, "stdout", 6) || !strncmp(v, "stderr", 6))) ||
	       (n == 3 && !strncmp(v, "off", 3));
}

bool value_is_log(const char *v)
{
	static const char *const levels[] = {"error", "warn", "info", "debug"};
	size_t n = strcspn(v, ",");

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
		if (strlen(levels[i]) == n && !strncmp(v, levels[i], n))
			return !v[n] || !strcmp(v + n, ",json");
	return false;
}

/* Every word must be a feature that the probe knows: a typing error would force nothing, silently. */
bool value_is_features(const char *list)
{
	cJSON *known = *list ? capture_probe(NULL) : NULL, *f;
	bool ok = true;

	/* A comma at the end is not passed over: an empty word follows it. */
	for (size_t n; *list && ok; list += n + (list[n] == ',' && list[n + 1])) {
		n = strcspn(list, ",");
		ok = false;
		cJSON_ArrayForEach(f, known) {
			const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(f, "name"));

			ok = ok || (name && strlen(name) == n && !strncmp(name, list, n));
		}
	}
	cJSON_Delete(known);
	return ok;
}

int value_ports(const char *list, uint16_t *ret)
{
	int n = 0;

	/* As above, an empty word is none. */
	for (char *end; *list; list = end + (*end == ',' && end[1])) {
		unsigned long port = strtoul(list, &end, 10);

		if (!isdigit((unsigned char)*list) || (*end && *end != ',') || !port || port > UINT16_MAX ||
		    n == VALUE_PORTS_MAX)
			return -EINVAL;
		ret[n++] = (uint16_t)port;
	}
	return n;
}

bool value_is_ports(const char *v)
{
	uint16_t ports[VALUE_PORTS_MAX];

	return value_ports(v, ports) >= 0;
}

int value_complain(const char *fmt, ...)
{
	char line[1400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* A value with a line break in it must not make a second line, nor one with ESC a coloured one. */
	for (char *p = line; *p; p++)
		if (iscntrl((unsigned char)*p))
			*p = '?';
	fprintf(stderr, "warren-agent: %s\n", line);
	return -EINVAL;
}

/* `origin` is what a reader has to change: `--log`, `WARREN_LOG` or `FILE:LINE: log`. */
int value_bad(const char *origin, const char *value, const char *want)
{
	return value_complain("%.500s: %.300s: expected %s", origin, *value ? value : "(empty)", want);
}

/* Ascending within a type: the first is the smallest. */
static const struct unit {
	const char *name;
	enum value_type type;
	uint64_t factor;
} units[] = {
	{"", NUMBER, 1},	  {"ms", DURATION, 1},	    {"s", DURATION, 1000},
	{"m", DURATION, 60000},	  {"h", DURATION, 3600000}, {"", SIZE, 1},
	{"k", SIZE, 1000},	  {"Ki", SIZE, 1ull << 10}, {"M", SIZE, 1000000},
	{"Mi", SIZE, 1ull << 20}, {"G", SIZE, 1000000000},  {"Gi", SIZE, 1ull << 30},
};

/* A bound in the largest unit that tells it exactly, as a user would write it. */
static const char *bound(enum value_type type, uint64_t v, char buf[32])
{
	const struct unit *best = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (units[i].type == type && (!best || (v && v % units[i].factor == 0)))
			best = &units[i];
	snprintf(buf, 32, "%llu%s", (unsigned long long)(v / best->factor), best->name);
	return buf;
}

int value_scaled(enum value_type type, uint64_t least, uint64_t most, const char *origin, const char *value,
		 uint64_t *ret)
{
	static const char *const kinds[] = {[NUMBER] = "a whole number",
					    [DURATION] = "a time such as 500ms, 5s, 10m or 24h",
					    [SIZE] = "a size such as 65536, 64Ki or 64Mi"};
	char want[160], min[32], max[32], *end;
	uint64_t v = 0;

	/* strtoull() would skip blanks and negate; what is too large for it is too large for every bound. */
	if (isdigit((unsigned char)*value)) {
		v = strtoull(value, &end, 10);
		for (const struct unit *u = units; u < units + ARRAY_SIZE(units); u++)
			if (u->type == type && !strcmp(u->name, end) && v <= most / u->factor &&
			    v * u->factor >= least) {
				*ret = v * u->factor;
				return 0;
			}
	}
	snprintf(want, sizeof(want), "%s, from %s to %s", kinds[type], bound(type, least, min), bound(type, most, max));
	return value_bad(origin, value, want);
}

void value_trim(char *text)
{
	for (size_t n = strlen(text); n && strchr(VALUE_BLANKS, text[n - 1]); n--)
		text[n - 1] = 0;
}
