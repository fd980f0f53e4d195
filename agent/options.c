/* SPDX-License-Identifier: Apache-2.0 */
/* Options of warren-agent. argv, environment and a file come in, a struct leaves; called by main.c; commands.c
 * shows them. */
#include "options.h"
#include "option_values.h"
#include "engine/base/addr.h"
#include "engine/base/cleanup.h"
#include "engine/base/version.h"
#include "engine/io/congestion.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_MAX 65536

/* What one parse carries from value to value. */
struct reading {
	struct options o;
	const char *config, *config_origin;
	bool defaults; /* what is read are those */
	/* The first ranges of a source (file, environment, arguments) replace an earlier one's, the others
	 * add up. */
	bool ranges_here, every_address;
};

#define DIR_WANT "dir:/PATH with an absolute path"
#define LOG_JSON ", with ,json behind it for JSON lines"
#define DOMAIN_WANT(more, name)                                                                                        \
	"at most 255 lower-case letters, digits, '-'" more " and '.' between them, such as " name
#define LABEL_WANT " 128 printable ASCII characters without blanks, quotes, slashes and , ; ="

static const struct option {
	const char *name;
	enum value_type type;
	size_t offset;
	const char *fallback, *arg, *help;
	uint64_t min, max;
	/* Of a text: is it one, and what would be? */
	bool (*ok)(const char *value);
	const char *want;
	size_t given; /* a flag that says so when the value is not the default; 0: none */
} table[] = {
#define AT(field) offsetof(struct options, field)
	{"node", TEXT, AT(node), NULL, "NAME", "name of this node, as in the pods' spec.nodeName (required)",
	 .ok = value_is_node, .want = "at most 200 letters, digits, '-', '_' and '.', the first no '.'"},
	{"source", TEXT, AT(source), NULL, "dir:PATH", "folder of Kubernetes manifests to follow (required)",
	 .ok = value_is_dir, .want = DIR_WANT},
	{"ca", TEXT, AT(ca), NULL, "dir:PATH", "folder of the CA: its root is made on first start (required)",
	 .ok = value_is_dir, .want = DIR_WANT},
	{"mesh-cidr", RANGES, AT(mesh_cidrs), "all", "CIDR[,CIDR]",
	 .help = "pod and Service ranges to capture (may be repeated), or all; without /BITS: one address"},
	{"exclude-ports", TEXT, AT(exclude_ports), "", "PORT[,PORT]",
	 "destination ports that are never captured: such connections of pods leave as they are", .ok = value_is_ports,
	 .want = "at most 128 ports from 1 to 65535, such as 22,9100"},
	{"trust-domain", TEXT, AT(trust_domain), "cluster.local", "NAME", "trust domain of all identities",
	 .ok = value_is_trust_domain, .want = DOMAIN_WANT(", '_'", "cluster.local"), .given = AT(trust_domain_given)},
	{"trust-domain-aliases", TEXT, AT(trust_domain_aliases), "", "A,B",
	 "other names that policies may have for it (former ones)", .ok = value_is_trust_domains,
	 .want = "at most 63 trust domains with commas between them", .given = AT(trust_domain_aliases_given)},
	{"root-namespace", TEXT, AT(root_namespace), "istio-system", "NAME",
	 "namespace whose policies are for the whole mesh", .ok = value_is_namespace,
	 .want = "at most 63 lower-case letters, digits and '-'", .given = AT(root_namespace_given)},
	{"l7-deny", TEXT, AT(l7_deny), "match", "match|ignore",
	 "what only HTTP shows in a DENY rule: counts as matched, or the rule is left out", .ok = value_is_l7_deny,
	 .want = "match or ignore"},
	{"bad-mesh-policy", TEXT, AT(bad_mesh_policy), "ignore", "ignore|deny",
	 "what a policy of the mesh that never was valid, or a broken file that may hold one, does to pods without "
	 "another policy",
	 .ok = value_is_bad_mesh, .want = "ignore or deny"},
	{"cluster-id", TEXT, AT(cluster_id), "Kubernetes", "NAME", "cluster name told to peers and logs",
	 .ok = value_is_cluster, .want = "1 to" LABEL_WANT},
	{"network", TEXT, AT(network), "", "NAME", "network name of this cluster", .ok = value_is_network,
	 .want = "at most" LABEL_WANT},
	{"cluster-domain", TEXT, AT(cluster_domain), "cluster.local", "NAME", "DNS domain of Service host names",
	 .ok = value_is_dns_domain, .want = DOMAIN_WANT("", "cluster.local")},
	{"run-dir", TEXT, AT(run_dir), "/run/warren", "PATH", "sockets, lock and state, in a folder per node",
	 .ok = value_is_path, .want = "an absolute path"},
	{"pin-dir", TEXT, AT(pin_dir), "/sys/fs/bpf", "PATH", "BPF file system for pins", .ok = value_is_path,
	 .want = "an absolute path"},
	{"workers", NUMBER, AT(workers), "0", "N", "threads that move bytes; 0: a quarter of the CPUs, at least one",
	 .min = 0, .max = 256},
	{"busy-poll", NUMBER, AT(busy_poll), "150", "MICROSECONDS",
	 "workers do not sleep while events come at shorter intervals than this; 0: they always do", .min = 0,
	 .max = 1000},
	{"drain", DURATION, AT(drain_ms), "5s", "TIME", "how long connections run on at un-enrolment and shutdown",
	 .min = 0, .max = 86400000},
	{"dial-timeout", DURATION, AT(dial_timeout_ms), "10s", "TIME", "deadline of a connection's whole set-up",
	 .min = 100, .max = 600000},
	{"cert-ttl", DURATION, AT(cert_ttl_ms), "24h", "TIME", "life of a workload certificate, renewed at half",
	 .min = 2000, .max = 31536000000},
	{"crl", TEXT, AT(crl), "", "FILE", "revocation lists of the operator's CA, PEM or DER, watched",
	 .ok = value_is_path_or_none, .want = "an absolute path, or nothing"},
	{"tunnel-max-age", DURATION, AT(tunnel_max_age_ms), "24h", "TIME",
	 "age at which a tunnel is replaced; its connections run on", .min = 1000, .max = 31536000000},
	{"buffer-limit", SIZE, AT(buffer_limit), "64Mi", "BYTES", "memory for bytes that slow readers have not taken",
	 .min = 1 << 20, .max = 1ull << 40},
	{"tunnel-congestion", TEXT, AT(tunnel_congestion), CONGESTION_AUTO, "NAME",
	 "congestion control of the tunnels, such as cubic; system: the system's; auto: that, but to peers within 1 ms "
	 "cubic in the place of bbr, whose timers cost CPU",
	 .ok = value_is_congestion,
	 .want = "auto, system or a name from /proc/sys/net/ipv4/tcp_available_congestion_control"},
	{"on-agent-loss", TEXT, AT(on_agent_loss), "closed", "closed|open",
	 "what becomes of new connections while no agent runs", .ok = value_is_loss, .want = "closed or open"},
	{"source-binding", TEXT, AT(source_binding), "known", "enforce|known|off",
	 "refuse callers whose address is another identity's pod's; enforce: or no single pod's",
	 .ok = value_is_binding, .want = "enforce, known or off"},
	{"probe-exemption", TEXT, AT(probe_exemption), "declared", "declared|node-sockets",
	 "who gets past policy: the kubelet to a manifest's probe ports, or every socket of the node",
	 .ok = value_is_probe_exemption, .want = "declared or node-sockets"},
	{"anti-spoof", TEXT, AT(anti_spoof), "enforce", "enforce|count|off",
	 "what becomes of a pod's packets with a foreign source, or to the mesh around the agent",
	 .ok = value_is_anti_spoof, .want = "enforce, count or off"},
	{"takeover", FLAG, AT(takeover), "false", NULL,
	 .help = "take over from the agent of this node that is running"},
	{"assume-missing", TEXT, AT(assume_missing), "", "LIST", "kernel features to do without: tcx,sockops,...",
	 .ok = value_is_features, .want = "names of features as `warrenctl doctor` shows them: tcx,sockops"},
	{"log", TEXT, AT(log), "info", "LEVEL[,json]", "error, warn, info or debug, on stderr", .ok = value_is_log,
	 .want = "error, warn, info or debug" LOG_JSON},
	{"access-log", TEXT, AT(access_log), "stdout", "TARGET[,json]",
	 "stdout, stderr, off or a file; with --log=debug also what opens", .ok = value_is_access_log,
	 .want = "stdout, stderr, off or an absolute path" LOG_JSON},
	{"readiness-port", NUMBER, AT(readiness_port), "15021", "PORT", "port of /healthz/ready; 0: none", .min = 0,
	 .max = 65535},
#undef AT
};

static int add_range(struct options *o, const char *origin, const char *text)
{
	static char kept[OPTIONS_CIDRS_MAX][IP_CIDR_STRLEN]; /* the ranges live as long as the process */
	char want[64 + IP_CIDR_STRLEN], range[IP_CIDR_STRLEN];
	struct ip_addr a, network;
	unsigned bits;

	if (ip_cidr_parse(text, &a, &bits))
		return value_bad(origin, text, "ranges such as 10.0.0.0/8,fd00::/8, or the word all alone");
	network = a;
	ip_addr_mask(&network, bits);
	ip_cidr_format(&network, bits, range, sizeof(range));
	if (!ip_addr_equal(&a, &network)) {
		snprintf(want, sizeof(want), "a range without host bits, perhaps %s", range);
		return value_bad(origin, text, want);
	}
	if (o->n_mesh_cidrs == OPTIONS_CIDRS_MAX) {
		snprintf(want, sizeof(want), "at most %d ranges", OPTIONS_CIDRS_MAX);
		return value_bad(origin, text, want);
	}
	memcpy(kept[o->n_mesh_cidrs], range, sizeof(range));
	o->mesh_cidrs[o->n_mesh_cidrs] = kept[o->n_mesh_cidrs];
	o->n_mesh_cidrs++;
	return 0;
}

/* An empty text, or an empty range in a list, is refused: it is what a template leaves of an unset variable,
 * and to guess would capture everything, or leave in plaintext what was meant to be captured. */
static int set_ranges(struct reading *r, const char *origin, const char *value)
{
	bool first = !r->ranges_here, every = !strcmp(value, "all");
	char piece[128];

	if (!first && (every || r->every_address))
		return value_bad(origin, value, "the word all alone, or ranges alone");
	r->ranges_here = true;
	r->every_address = every;
	if (first)
		r->o.n_mesh_cidrs = 0;
	if (every)
		return 0;
	for (const char *p = value;; p++) {
		size_t len;

		p += strspn(p, VALUE_BLANKS);
		len = strcspn(p, ",");
		if (len >= sizeof(piece))
			return value_bad(origin, p, "ranges such as 10.0.0.0/8");
		memcpy(piece, p, len);
		piece[len] = 0;
		value_trim(piece);
		if (!*piece && *value)
			return value_bad(origin, value, "no empty range between commas");
		if (add_range(&r->o, origin, piece) < 0)
			return -EINVAL;
		p += len;
		if (!*p)
			return 0;
	}
}

static int set(struct reading *r, const struct option *o, const char *origin, const char *value)
{
	char *field = (char *)&r->o + o->offset;
	bool yes = !strcmp(value, "true") || !strcmp(value, "1");

	if (o->given)
		*((bool *)(void *)((char *)&r->o + o->given)) = !r->defaults;
	switch (o->type) {
	case TEXT:
		if (!o->ok(value))
			return value_bad(origin, value, o->want);
		memcpy(field, &value, sizeof(value));
		return 0;
	case FLAG:
		if (!yes && strcmp(value, "false") && strcmp(value, "0"))
			return value_bad(origin, value, "true or false");
		memcpy(field, &yes, sizeof(yes));
		return 0;
	case RANGES:
		return set_ranges(r, origin, value);
	default:
		return value_scaled(o->type, o->min, o->max, origin, value, (uint64_t *)(void *)field);
	}
}

static void env_name(const struct option *o, char *buf, size_t size)
{
	int n = snprintf(buf, size, "WARREN_%s", o->name);

	for (int i = 0; i < n; i++)
		buf[i] = buf[i] == '-' ? '_' : (char)toupper((unsigned char)buf[i]);
}

/* Blanks below the names of options. */
#define BESIDE "                                "

static void help(void)
{
	char env[64], left[64];

	printf("Usage: warren-agent --node=NAME --source=dir:PATH --ca=dir:PATH [OPTION]...\n"
	       "The node agent of the Warren service mesh. Look inside with warrenctl.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const struct option *o = &table[i];

		env_name(o, env, sizeof(env));
		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->arg ? "=" : "", o->arg ? o->arg : "");
		/* A name without room beside it has a line of its own. */
		printf("  %-29s%s%s\n", left, strlen(left) > 29 ? "\n" BESIDE : " ", o->help);
		printf(BESIDE "[%s%s%s]\n", env, o->fallback && *o->fallback ? ", default " : "",
		       o->fallback ? o->fallback : "");
	}
	printf("  %-29s lines `name = value` with the names above; # at the start or behind a blank begins\n" BESIDE
	       "a comment, not within \"\" or '' around the whole value [WARREN_CONFIG]\n",
	       "--config=FILE");
	printf("  %-29s print the version\n  %-29s print this\n\n", "--version", "--help");
	printf("Later wins: default, --config, environment, command line; so does the last of an option that is given\n"
	       "twice in one of them. Only --mesh-cidr adds up there, and replaces the list of what came before.\n"
	       "Trust domain, its aliases and the root namespace are those of Istio's ConfigMap `istio` in that\n"
	       "namespace when their option is not given.\n"
	       "Exit: 0 done, 1 failed, 2 wrong usage.\n");
}

static const struct option *find(const char *name, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (strlen(table[i].name) == len && !strncmp(table[i].name, name, len))
			return &table[i];
	return NULL;
}

/* Only a # behind a blank begins a comment, so that values may hold one. */
static bool cut_comment(char *text, bool behind_blank)
{
	for (; *text; text++) {
		if (*text == '#' && behind_blank) {
			*text = 0;
			return true;
		}
		behind_blank = strchr(VALUE_BLANKS, *text) != NULL;
	}
	return false;
}

/* The value behind `=`, without comment, blanks around it and quotes around all of it. */
static int read_value(const char *origin, char *text, const char **ret)
{
	char *value = text + strspn(text, VALUE_BLANKS), *end;

	if (*value != '"' && *value != '\'') {
		cut_comment(value, value > text);
		value_trim(value);
		*ret = value;
		return 0;
	}
	end = strchr(value + 1, *value);
	if (!end) {
		value_trim(value);
		return value_bad(origin, value, "a closing quote");
	}
	cut_comment(end + 1, false);
	value_trim(end + 1);
	if (end[1])
		return value_bad(origin, value, "nothing but a comment behind the closing quote");
	*end = 0;
	*ret = value + 1;
	return 0;
}

/* A line without `=`: most likely that is all that is missing. */
static int not_a_pair(const char *path, int n, const char *line)
{
	const struct option *o = find(line, strspn(line, "abcdefghijklmnopqrstuvwxyz-"));

	if (!o)
		return value_complain("%.400s:%d: %.300s: expected name = value, with a name of --help", path, n, line);
	return value_complain("%.400s:%d: %.300s: '=' is missing, expected %s = %s", path, n, line, o->name,
			      o->type == FLAG ? "true or false" : o->arg);
}

/* One `name = value`; `line` is changed and kept: values point into it. */
static int read_line(struct reading *r, const char *path, int n, char *line)
{
	char *name = line + strspn(line, VALUE_BLANKS), *eq = strchr(name, '='), origin[512];
	const struct option *o;
	const char *value = NULL;

	if (eq)
		*eq = 0;
	if (cut_comment(name, true))
		eq = NULL;
	value_trim(name);
	if (!eq && !*name)
		return 0;
	if (!eq || !*name)
		return not_a_pair(path, n, eq ? "(no name)" : name);
	o = find(name, strlen(name));
	if (!o)
		return value_complain("%.400s:%d: %.300s: unknown option, expected a name of --help", path, n, name);
	snprintf(origin, sizeof(origin), "%.400s:%d: %s", path, n, o->name);
	return read_value(origin, eq + 1, &value) < 0 ? -EINVAL : set(r, o, origin, value);
}

static int read_config(struct reading *r)
{
	static char text[CONFIG_MAX]; /* values live as long as the process */
	const char *path = r->config, *origin = r->config_origin;
	_cleanup_fclose_ FILE *f = *path ? fopen(path, "re") : NULL;
	size_t size = f ? fread(text, 1, sizeof(text), f) : 0;
	char *line = text, *next;

	if (!*path)
		return value_bad(origin, path, "the path of a file");
	if (!f || ferror(f))
		return value_complain("%s: %.400s: expected a file: %s", origin, path, strerror(errno));
	if (size == sizeof(text))
		return value_complain("%s: %.400s: expected at most %d bytes", origin, path, CONFIG_MAX - 1);
	/* Everything behind it would be passed over. */
	if (memchr(text, 0, size))
		return value_complain("%s: %.400s: expected text, without zero bytes", origin, path);
	text[size] = 0;
	r->ranges_here = false;
	for (int n = 1; line; line = next, n++) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (read_line(r, path, n, line) < 0)
			return -EINVAL;
	}
	return 0;
}

static int read_environment(struct reading *r)
{
	char env[64];

	r->ranges_here = false;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const char *v;

		env_name(&table[i], env, sizeof(env));
		v = getenv(env);
		if (v && set(r, &table[i], env, v) < 0)
			return -EINVAL;
	}
	return 0;
}

/* The value of argv[*i]: behind `=`, or the next argument, unless that is an option again. */
static const char *value_of(int argc, char **argv, int *i, const struct option *o)
{
	char *eq = strchr(argv[*i], '=');

	if (eq)
		return eq + 1;
	if (o && o->type == FLAG)
		return "true";
	return *i + 1 < argc && strncmp(argv[*i + 1], "--", 2) ? argv[++*i] : NULL;
}

/* --help and --version: 1 when it was printed. */
static int print_only(const char *arg)
{
	if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
		help();
		return 1;
	}
	if (!strcmp(arg, "--version") || !strcmp(arg, "-V")) {
		printf("warren-agent %s\n", WARREN_VERSION);
		return 1;
	}
	return 0;
}

static int read_arguments(struct reading *r, int argc, char **argv, bool config_only)
{
	char origin[64];

	r->ranges_here = false;
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *name = arg + 2, *value;
		size_t len = strncmp(arg, "--", 2) ? 0 : strcspn(name, "=");
		const struct option *o = len ? find(name, len) : NULL;
		bool config = len == 6 && !strncmp(name, "config", 6);

		if (print_only(arg))
			return 1;
		if (!o && !config)
			return value_complain("%.300s: unknown argument, expected an option of --help", arg);
		value = value_of(argc, argv, &i, o);
		snprintf(origin, sizeof(origin), "--%.*s", (int)len, name);
		if (!value)
			return value_complain("%s: a value is missing, expected %s=%s", origin, origin,
					      o ? o->arg : "FILE");
		if (config) {
			r->config = value;
			r->config_origin = "--config";
		} else if (!config_only && set(r, o, origin, value) < 0) {
			return -EINVAL;
		}
	}
	return 0;
}

/* What has no default must have been given; all that is missing in one line. */
static int check_required(const struct options *o)
{
	char missing[256] = "";
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const char *value;

		if (table[i].fallback)
			continue;
		memcpy(&value, (const char *)o + table[i].offset, sizeof(value));
		if (!value)
			n += (size_t)snprintf(missing + n, sizeof(missing) - n, "%s--%s=%s", n ? ", " : "",
					      table[i].name, table[i].arg);
	}
	return n ? value_complain("missing, expected %s; see --help", missing) : 0;
}

int options_parse(int argc, char **argv, struct options *ret)
{
	struct reading rd = {.config = getenv("WARREN_CONFIG"), .config_origin = "WARREN_CONFIG", .defaults = true};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(table) && !r; i++)
		if (table[i].fallback)
			r = set(&rd, &table[i], table[i].name, table[i].fallback);
	rd.defaults = false;
	/* The command line is read twice: first for --help and --config, then for the values, which win. */
	r = r ? r : read_arguments(&rd, argc, argv, true);
	if (!r && rd.config)
		r = read_config(&rd);
	r = r ? r : read_environment(&rd);
	r = r ? r : read_arguments(&rd, argc, argv, false);
	r = r ? r : check_required(&rd.o);
	if (!r) {
		if (!rd.o.workers) {
			long cpus = sysconf(_SC_NPROCESSORS_ONLN);

			rd.o.workers = cpus > 4 ? (uint64_t)cpus / 4 : 1;
		}
		*ret = rd.o;
	}
	return r;
}

struct cJSON *options_dump(const struct options *o)
{
	cJSON *out = cJSON_CreateObject();
	char ranges[OPTIONS_CIDRS_MAX * IP_CIDR_STRLEN] = "all";
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const char *field = (const char *)o + table[i].offset, *text;
		uint64_t number;
		bool flag;

		switch (table[i].type) {
		case TEXT:
			memcpy(&text, field, sizeof(text));
			cJSON_AddStringToObject(out, table[i].name, text ? text : "");
			break;
		case RANGES:
			for (size_t k = 0; k < o->n_mesh_cidrs; k++)
				n += (size_t)snprintf(ranges + n, sizeof(ranges) - n, "%s%s", n ? "," : "",
						      o->mesh_cidrs[k]);
			cJSON_AddStringToObject(out, table[i].name, ranges);
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
