/* SPDX-License-Identifier: Apache-2.0 */
/* Options of warren-agent. argv, environment and a file come in, a struct leaves; called by main.c. */
#include "options.h"
#include "agent/capture/capture.h"
#include "engine/base/addr.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_MAX 65536

enum type { TEXT, NUMBER, DURATION, SIZE, FLAG };

static const struct option {
	const char *name;
	enum type type;
	size_t offset;
	const char *fallback, *arg, *help;
	uint64_t min, max;
} table[] = {
#define AT(field) offsetof(struct options, field)
	{"node", TEXT, AT(node), NULL, "NAME", "name of this node, as in the pods' spec.nodeName (required)",
	 0, 0},
	{"source", TEXT, AT(source), NULL, "dir:PATH", "folder of Kubernetes manifests to follow (required)",
	 0, 0},
	{"ca", TEXT, AT(ca), NULL, "dir:PATH", "folder of the CA: its root is made on first start (required)",
	 0, 0},
	{"mesh-cidr", TEXT, AT(mesh_cidr), "", "CIDR[,CIDR]",
	 "pod and Service ranges to capture (may be repeated); none: every address", 0, 0},
	{"trust-domain", TEXT, AT(trust_domain), "cluster.local", "NAME", "trust domain of all identities", 0,
	 0},
	{"cluster-id", TEXT, AT(cluster_id), "Kubernetes", "NAME", "cluster name told to peers and logs", 0,
	 0},
	{"network", TEXT, AT(network), "", "NAME", "network name of this cluster", 0, 0},
	{"cluster-domain", TEXT, AT(cluster_domain), "cluster.local", "NAME",
	 "DNS domain of Service host names", 0, 0},
	{"run-dir", TEXT, AT(run_dir), "/run/warren", "PATH", "sockets, lock and state, in a folder per node",
	 0, 0},
	{"pin-dir", TEXT, AT(pin_dir), "/sys/fs/bpf", "PATH", "BPF file system for pins", 0, 0},
	{"workers", NUMBER, AT(workers), "0", "N",
	 "threads that move bytes; 0: a quarter of the CPUs, at least one", 0, 256},
	{"drain", DURATION, AT(drain_ms), "5s", "TIME",
	 "how long connections run on at un-enrolment and shutdown", 0, 86400000},
	{"dial-timeout", DURATION, AT(dial_timeout_ms), "10s", "TIME",
	 "deadline of a connection's whole set-up", 100, 600000},
	{"cert-ttl", DURATION, AT(cert_ttl_ms), "24h", "TIME",
	 "life of a workload certificate, renewed at half", 2000, 31536000000},
	{"buffer-limit", SIZE, AT(buffer_limit), "64Mi", "BYTES",
	 "memory for bytes that slow readers have not taken", 1 << 20, 1ull << 40},
	{"on-agent-loss", TEXT, AT(on_agent_loss), "closed", "closed|open",
	 "new connections of a pod whose agent is gone", 0, 0},
	{"takeover", FLAG, AT(takeover), "false", NULL,
	 "take over from the agent of this node that is running", 0, 0},
	{"assume-missing", TEXT, AT(assume_missing), "", "LIST",
	 "kernel features to do without: tcx,sockops,...", 0, 0},
	{"log", TEXT, AT(log), "info", "LEVEL[,json]", "error, warn, info or debug, on stderr", 0, 0},
	{"access-log", TEXT, AT(access_log), "stdout", "TARGET[,json]", "stdout, stderr, off or a file", 0,
	 0},
	{"readiness-port", NUMBER, AT(readiness_port), "15021", "PORT", "port of /healthz/ready; 0: none", 0,
	 65535},
#undef AT
};

static int bad(const struct option *o, const char *where, const char *value, const char *want)
{
	fprintf(stderr, "warren-agent: %s%s: %s: expected %s\n", where, o->name, *value ? value : "(empty)",
		want);
	return -EINVAL;
}

static int scaled(const struct option *o, const char *where, const char *value, uint64_t *ret)
{
	static const struct {
		const char *unit;
		enum type type;
		uint64_t factor;
	} units[] = {{"ms", DURATION, 1},
		     {"s", DURATION, 1000},
		     {"m", DURATION, 60000},
		     {"h", DURATION, 3600000},
		     {"Ki", SIZE, 1ull << 10},
		     {"Mi", SIZE, 1ull << 20},
		     {"Gi", SIZE, 1ull << 30},
		     {"k", SIZE, 1000},
		     {"M", SIZE, 1000000},
		     {"G", SIZE, 1000000000},
		     {"", SIZE, 1},
		     {"", NUMBER, 1}};
	static const char *const want[] = {[NUMBER] = "a whole number",
					   [DURATION] = "a time such as 500ms, 5s, 10m or 24h",
					   [SIZE] = "a size such as 65536, 64Ki or 64Mi"};
	char range[96];
	char *end;
	uint64_t v;

	if (!isdigit((unsigned char)*value))
		return bad(o, where, value, want[o->type]);
	errno = 0;
	v = strtoull(value, &end, 10);
	for (size_t i = 0; i < ARRAY_SIZE(units) && !errno; i++) {
		if (units[i].type != o->type || strcmp(units[i].unit, end))
			continue;
		if (v <= o->max / units[i].factor && v * units[i].factor >= o->min) {
			*ret = v * units[i].factor;
			return 0;
		}
		snprintf(range, sizeof(range), "%s from %llu to %llu%s", want[o->type],
			 (unsigned long long)o->min, (unsigned long long)o->max,
			 o->type == DURATION ? " ms" : "");
		return bad(o, where, value, range);
	}
	return bad(o, where, value, want[o->type]);
}

static int set(struct options *ret, const struct option *o, const char *where, const char *value)
{
	char *field = (char *)ret + o->offset;

	if (o->type == TEXT) {
		memcpy(field, &value, sizeof(value));
		return 0;
	}
	if (o->type == FLAG) {
		bool yes = !strcmp(value, "true") || !strcmp(value, "1");

		if (!yes && strcmp(value, "false") && strcmp(value, "0"))
			return bad(o, where, value, "true or false");
		memcpy(field, &yes, sizeof(yes));
		return 0;
	}
	return scaled(o, where, value, (uint64_t *)(void *)field);
}

static void env_name(const struct option *o, char *buf, size_t size)
{
	int n = snprintf(buf, size, "WARREN_%s", o->name);

	for (int i = 0; i < n; i++)
		buf[i] = buf[i] == '-' ? '_' : (char)toupper((unsigned char)buf[i]);
}

static void help(void)
{
	char env[64], left[64];

	printf("Usage: warren-agent --node=NAME --source=dir:PATH --ca=dir:PATH [OPTION]...\n"
	       "The node agent of the Warren service mesh. Look inside with warrenctl.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const struct option *o = &table[i];

		env_name(o, env, sizeof(env));
		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? "=" : "", o->arg ? o->arg : "");
		printf("  %-28s %s\n  %28s [%s%s%s]\n", left, o->help, "", env,
		       o->fallback && *o->fallback ? ", default " : "", o->fallback ? o->fallback : "");
	}
	printf("  %-28s lines `name = value` with the names above; # starts a comment\n  %28s "
	       "[WARREN_CONFIG]\n",
	       "--config=FILE", "");
	printf("  %-28s print the version\n  %-28s print this\n\n", "--version", "--help");
	printf("Later wins: default, --config, environment, command line. Exit: 0 done, 1 failed, 2 wrong "
	       "usage.\n");
}

static const struct option *find(const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (strlen(table[i].name) == len && !strncmp(table[i].name, name, len))
			return &table[i];
	return NULL;
}

/* One `name = value`; `line` is changed and kept: values point into it. */
static int read_line(struct options *ret, const char *path, int n, char *line)
{
	char *name = line + strspn(line, " \t\r"), *value, *end, where[512];
	size_t len = strcspn(name, " \t=");
	const struct option *o;

	if (!*name || *name == '#')
		return 0;
	value = strchr(name, '=');
	o = value ? find(name, len) : NULL;
	if (!o) {
		fprintf(stderr, "warren-agent: %s:%d: unknown option: %.*s\n", path, n, (int)len, name);
		return -EINVAL;
	}
	value += 1 + strspn(value + 1, " \t");
	for (end = value + strlen(value); end > value && strchr(" \t\r", end[-1]); end--)
		end[-1] = 0;
	snprintf(where, sizeof(where), "%.400s:%d: ", path, n);
	return set(ret, o, where, value);
}

static int read_config(struct options *ret, const char *path)
{
	static char text[CONFIG_MAX]; /* values live as long as the process */
	_cleanup_fclose_ FILE *f = fopen(path, "re");
	size_t size = f ? fread(text, 1, sizeof(text), f) : 0;
	char *line = text, *next;

	if (!f || ferror(f)) {
		fprintf(stderr, "warren-agent: --config: %s: %s\n", path, strerror(errno));
		return -EINVAL;
	}
	if (size == sizeof(text)) {
		fprintf(stderr, "warren-agent: --config: %s: more than %d bytes\n", path, CONFIG_MAX - 1);
		return -EINVAL;
	}
	text[size] = 0;
	for (int n = 1; line; line = next, n++) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (read_line(ret, path, n, line) < 0)
			return -EINVAL;
	}
	return 0;
}

static int read_environment(struct options *ret)
{
	char env[64];

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const char *v;

		env_name(&table[i], env, sizeof(env));
		v = getenv(env);
		if (v && set(ret, &table[i], "environment: ", v) < 0)
			return -EINVAL;
	}
	return 0;
}

/* The value of argv[*i]: behind `=`, or the next argument. */
static const char *value_of(int argc, char **argv, int *i, const struct option *o)
{
	char *eq = strchr(argv[*i], '=');

	if (eq)
		return eq + 1;
	if (o && o->type == FLAG)
		return "true";
	return *i + 1 < argc ? argv[++*i] : NULL;
}

/* --mesh-cidr may be given several times. NULL: too many. */
static const char *append_cidr(const char *before, const char *value)
{
	static char all[OPTIONS_CIDRS_MAX * 64];
	size_t used = before == all ? strlen(all) : (size_t)snprintf(all, sizeof(all), "%s", before);

	if (used + strlen(value) + 2 > sizeof(all)) {
		fprintf(stderr, "warren-agent: --mesh-cidr: %s: expected at most %d ranges\n", value,
			OPTIONS_CIDRS_MAX);
		return NULL;
	}
	snprintf(all + used, sizeof(all) - used, ",%s", value);
	return all;
}

static int read_arguments(struct options *ret, int argc, char **argv, const char **ret_config,
			  bool config_only)
{
	int n_cidrs = 0;

	for (int i = 1; i < argc; i++) {
		const char *name = argv[i] + 2, *value;
		size_t len = strncmp(argv[i], "--", 2) ? 0 : strcspn(name, "=");
		const struct option *o = len ? find(name, len) : NULL;
		bool config = len == 6 && !strncmp(name, "config", 6);

		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			help();
			return 1;
		}
		if (!strcmp(argv[i], "--version") || !strcmp(argv[i], "-V")) {
			printf("warren-agent %s\n", WARREN_VERSION);
			return 1;
		}
		if (!o && !config) {
			fprintf(stderr, "warren-agent: unknown argument: %s; see --help\n", argv[i]);
			return -EINVAL;
		}
		value = value_of(argc, argv, &i, o);
		if (!value) {
			fprintf(stderr, "warren-agent: --%.*s: needs a value\n", (int)len, name);
			return -EINVAL;
		}
		if (config)
			*ret_config = value;
		else if (!config_only && o->offset == offsetof(struct options, mesh_cidr) && n_cidrs++)
			value = append_cidr(ret->mesh_cidr, value);
		if (!config && !config_only && (!value || set(ret, o, "--", value) < 0))
			return -EINVAL;
	}
	return 0;
}

/* Kept as names of folders, sockets and pins, and in identities. */
static bool is_name(const char *v)
{
	return *v && strlen(v) <= 200 && v[0] != '.' &&
	       strspn(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == strlen(v);
}

static int check_text(const char *name, const char *value, bool ok, const char *want)
{
	if (ok)
		return 0;
	fprintf(stderr, "warren-agent: --%s: %s: expected %s\n", name, value && *value ? value : "(missing)",
		want);
	return -EINVAL;
}

static int split_cidrs(struct options *o)
{
	static const char want[] = "ranges such as 10.0.0.0/8 or fd00::/8, at most 64";
	static char copy[OPTIONS_CIDRS_MAX * 64]; /* the ranges live as long as the process */
	char *save = NULL;

	if (strlen(o->mesh_cidr) >= sizeof(copy))
		return check_text("mesh-cidr", o->mesh_cidr, false, want);
	memcpy(copy, o->mesh_cidr, strlen(o->mesh_cidr) + 1);
	for (char *p = strtok_r(copy, ", ", &save); p; p = strtok_r(NULL, ", ", &save)) {
		struct ip_addr a;
		unsigned bits;

		if (o->n_mesh_cidrs == OPTIONS_CIDRS_MAX || ip_cidr_parse(p, &a, &bits))
			return check_text("mesh-cidr", p, false, want);
		o->mesh_cidrs[o->n_mesh_cidrs++] = p;
	}
	return 0;
}

static bool access_spec(const char *v)
{
	size_t n = strlen(v);

	if (n > 5 && !strcmp(v + n - 5, ",json"))
		n -= 5;
	return v[0] == '/' || (n == 6 && (!strncmp(v, "stdout", 6) || !strncmp(v, "stderr", 6))) ||
	       (n == 3 && !strncmp(v, "off", 3));
}

/* Every word must be a feature that the probe knows: a typing error would force nothing, silently. */
static int check_features(const char *list)
{
	cJSON *known = *list ? capture_probe(NULL) : NULL, *f;
	char text[256];
	int r = 0;

	while (*list && !r) {
		size_t n = strcspn(list, ",");
		bool found = false;

		snprintf(text, sizeof(text), "%.*s", (int)n, list);
		cJSON_ArrayForEach(f, known)
		{
			const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(f, "name"));

			found = found || (name && !strcmp(name, text));
		}
		if (!found)
			r = check_text("assume-missing", text, false,
				       "names of features as `warrenctl doctor` shows them: tcx,sockops");
		list += n + (list[n] == ',');
	}
	cJSON_Delete(known);
	return r;
}

static bool log_spec(const char *v)
{
	static const char *const levels[] = {"error", "warn", "info", "debug"};
	size_t n = strcspn(v, ",");

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
		if (strlen(levels[i]) == n && !strncmp(v, levels[i], n))
			return !v[n] || !strcmp(v + n, ",json");
	return false;
}

static bool dir_spec(const char *v)
{
	return v && !strncmp(v, "dir:/", 5);
}

static int check(struct options *o)
{
	bool loss = !strcmp(o->on_agent_loss, "closed") || !strcmp(o->on_agent_loss, "open");

	if (check_text("node", o->node, o->node && is_name(o->node),
		       "a name of letters, digits, '-', '.' and '_'") ||
	    check_text("source", o->source, dir_spec(o->source), "dir:/PATH") ||
	    check_text("ca", o->ca, dir_spec(o->ca), "dir:/PATH") ||
	    check_text("trust-domain", o->trust_domain, is_name(o->trust_domain),
		       "a name such as cluster.local") ||
	    check_text("cluster-domain", o->cluster_domain, is_name(o->cluster_domain),
		       "a name such as cluster.local") ||
	    check_text("on-agent-loss", o->on_agent_loss, loss, "closed or open") ||
	    check_text("log", o->log, log_spec(o->log),
		       "error, warn, info or debug, with ,json for JSON lines"))
		return -EINVAL;
	if (check_text("access-log", o->access_log, access_spec(o->access_log),
		       "stdout, stderr, off or an absolute path, with ,json for JSON lines") ||
	    check_text("pin-dir", o->pin_dir, o->pin_dir[0] == '/', "an absolute path") ||
	    check_text("run-dir", o->run_dir, o->run_dir[0] == '/', "an absolute path") ||
	    check_features(o->assume_missing))
		return -EINVAL;
	return split_cidrs(o);
}

int options_parse(int argc, char **argv, struct options *ret)
{
	struct options o = {0};
	const char *config = getenv("WARREN_CONFIG");
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(table) && !r; i++)
		if (table[i].fallback)
			r = set(&o, &table[i], "", table[i].fallback);
	/* The command line is read twice: first for --help and --config, then for the values, which win. */
	r = r ? r : read_arguments(&o, argc, argv, &config, true);
	if (!r && config)
		r = read_config(&o, config);
	r = r ? r : read_environment(&o);
	r = r ? r : read_arguments(&o, argc, argv, &config, false);
	r = r ? r : check(&o);
	if (!r) {
		if (!o.workers) {
			long cpus = sysconf(_SC_NPROCESSORS_ONLN);

			o.workers = cpus > 4 ? (uint64_t)cpus / 4 : 1;
		}
		*ret = o;
	}
	return r;
}

struct cJSON *options_dump(const struct options *o)
{
	cJSON *out = cJSON_CreateObject();

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const char *field = (const char *)o + table[i].offset, *text;
		uint64_t number;
		bool flag;

		switch (table[i].type) {
		case TEXT:
			memcpy(&text, field, sizeof(text));
			cJSON_AddStringToObject(out, table[i].name, text ? text : "");
			break;
		case FLAG:
			memcpy(&flag, field, sizeof(flag));
			cJSON_AddBoolToObject(out, table[i].name, flag);
			break;
		default:
			memcpy(&number, field, sizeof(number));
			cJSON_AddNumberToObject(out, table[i].name, (double)number);
		}
	}
	return out;
}
