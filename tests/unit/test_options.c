/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's options: defaults, their order of precedence, wrong values. */
#include "agent/option_values.h"
#include "agent/options.h"
#include "engine/base/cleanup.h"
#include "engine/base/limits.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define NEEDED "--node=n1", "--source=dir:/etc/warren", "--ca=dir:/var/lib/warren"

static char said[4096];

/* Parses with stderr caught in `said`. */
static int parse(struct options *ret, const char *const *args, int n)
{
	_cleanup_fclose_ FILE *f = tmpfile();
	int old = dup(2), r;
	char *argv[32] = {(char *)"warren-agent"};
	size_t len;

	for (int i = 0; i < n; i++)
		argv[i + 1] = (char *)args[i];
	fflush(stderr);
	dup2(fileno(f), 2);
	r = options_parse(n + 1, argv, ret);
	fflush(stderr);
	dup2(old, 2);
	close(old);
	rewind(f);
	len = fread(said, 1, sizeof(said) - 1, f);
	said[len] = 0;
	return r;
}

#define PARSE(ret, ...)                                                                                                \
	({                                                                                                             \
		const char *const args_[] = {__VA_ARGS__};                                                             \
		parse(ret, args_, (int)ARRAY_SIZE(args_));                                                             \
	})

static void defaults_hold(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, NEEDED), 0);
	assert_string_equal(o.node, "n1");
	assert_string_equal(o.trust_domain, "cluster.local");
	assert_string_equal(o.cluster_id, "Kubernetes");
	assert_string_equal(o.run_dir, "/run/warren");
	assert_int_equal(o.busy_poll, 150);
	assert_int_equal(o.drain_ms, 5000);
	assert_int_equal(o.dial_timeout_ms, 10000);
	assert_int_equal(o.cert_ttl_ms, 24 * 3600 * 1000);
	assert_int_equal(o.buffer_limit, 64 << 20);
	assert_int_equal(o.tunnel_max_age_ms, 24 * 3600 * 1000);
	assert_string_equal(o.crl, "");
	assert_int_equal(o.readiness_port, 15021);
	assert_true(o.workers >= 1);
	assert_int_equal(o.n_mesh_cidrs, 0);
	assert_string_equal(o.anti_spoof, "enforce");
	assert_false(o.takeover);
}

static void values_are_read(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, NEEDED, "--drain", "500ms", "--dial-timeout=2m", "--buffer-limit=128Mi",
			       "--takeover", "--mesh-cidr=10.0.0.0/8,fd00::/8", "--mesh-cidr=192.168.0.0/16",
			       "--mesh-cidr", "172.16.0.0/12", "--log=debug,json", "--access-log=/var/log/warren,json",
			       "--on-agent-loss=open", "--probe-exemption=node-sockets", "--assume-missing=tcx,sockops",
			       "--anti-spoof=count"),
			 0);
	assert_string_equal(o.anti_spoof, "count");
	assert_int_equal(o.drain_ms, 500);
	assert_int_equal(o.dial_timeout_ms, 120000);
	assert_int_equal(o.buffer_limit, 128 << 20);
	assert_true(o.takeover);
	assert_string_equal(o.probe_exemption, "node-sockets");
	assert_int_equal(o.n_mesh_cidrs, 4);
	assert_string_equal(o.mesh_cidrs[1], "fd00::/8");
	assert_string_equal(o.mesh_cidrs[3], "172.16.0.0/12");
}

static void ports_are_counted(void **state)
{
	uint16_t ports[VALUE_PORTS_MAX];
	char many[VALUE_PORTS_MAX * 2 + 2];
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, NEEDED), 0);
	assert_int_equal(value_ports(o.exclude_ports, ports), 0);
	assert_int_equal(PARSE(&o, NEEDED, "--exclude-ports=22,65535"), 0);
	assert_int_equal(value_ports(o.exclude_ports, ports), 2);
	assert_int_equal(ports[0], 22);
	assert_int_equal(ports[1], 65535);
	for (size_t i = 0; i < sizeof(many) - 1; i++)
		many[i] = i % 2 ? ',' : '9';
	many[sizeof(many) - 3] = many[sizeof(many) - 1] = 0;
	assert_int_equal(value_ports(many, ports), VALUE_PORTS_MAX);
	many[sizeof(many) - 3] = ',';
	assert_int_equal(value_ports(many, ports), -EINVAL);
}

static void later_wins(void **state)
{
	char path[] = "/tmp/wr-options-XXXXXX";
	int fd = mkstemp(path);
	static const char text[] = "# a comment\n\nnode = from-file  \r\ndrain=7s\n  workers = 3\n";
	struct options o;

	(void)state;
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	setenv("WARREN_DRAIN", "8s", 1);
	setenv("WARREN_CONFIG", path, 1);
	assert_int_equal(PARSE(&o, "--source=dir:/a", "--ca=dir:/b", "--workers=4"), 0);
	assert_string_equal(o.node, "from-file");
	assert_int_equal(o.drain_ms, 8000);
	assert_int_equal(o.workers, 4);
	unsetenv("WARREN_CONFIG");
	assert_int_equal(PARSE(&o, NEEDED, "--drain=9s", "--config", path), 0);
	assert_string_equal(o.node, "n1");
	assert_int_equal(o.drain_ms, 9000);
	unsetenv("WARREN_DRAIN");
	unlink(path);
	assert_int_equal(PARSE(&o, NEEDED, "--config", path), -EINVAL);
	assert_non_null(strstr(said, path));
}

static void wrong_values_name_themselves(void **state)
{
	static const struct {
		const char *arg, *name;
	} wrong[] = {
		{"--workers=many", "workers"},
		{"--anti-spoof=maybe", "anti-spoof"},
		{"--anti-spoof=", "anti-spoof"},
		{"--workers=300", "workers"},
		{"--workers=-1", "workers"},
		{"--drain=5", "drain"},
		{"--drain=", "drain"},
		{"--drain=5s5", "drain"},
		{"--dial-timeout=99ms", "dial-timeout"},
		{"--buffer-limit=64MB", "buffer-limit"},
		{"--buffer-limit=99999999999999999999", "buffer-limit"},
		{"--on-agent-loss=maybe", "on-agent-loss"},
		{"--probe-exemption=all", "probe-exemption"},
		{"--tunnel-congestion=nonesuch", "tunnel-congestion"},
		{"--exclude-ports=0", "exclude-ports"},
		{"--exclude-ports=65536", "exclude-ports"},
		{"--exclude-ports=22,", "exclude-ports"},
		{"--exclude-ports=22,,23", "exclude-ports"},
		{"--exclude-ports=ssh", "exclude-ports"},
		{"--exclude-ports=+22", "exclude-ports"},
		{"--exclude-ports=22;23", "exclude-ports"},
		{"--mesh-cidr=10.0.0.0/33", "mesh-cidr"},
		{"--mesh-cidr=10.0.0.0/8,x", "mesh-cidr"},
		{"--log=loud", "log"},
		{"--log=info,xml", "log"},
		{"--access-log=stdoutt", "access-log"},
		{"--access-log=,json", "access-log"},
		{"--assume-missing=tcxx", "assume-missing"},
		{"--assume-missing=tcx,,", "assume-missing"},
		{"--node=../x", "node"},
		{"--node=a/b", "node"},
		{"--source=/plain", "source"},
		{"--ca=dir:relative", "ca"},
		{"--readiness-port=65536", "readiness-port"},
		{"--takeover=perhaps", "takeover"},
		{"--trust-domain=a b", "trust-domain"},
		{"--unknown", "unknown"},
		{"stray", "stray"},
		{"--cluster-domain=", "cluster-domain"},
	};
	struct options o;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		if (PARSE(&o, NEEDED, wrong[i].arg) != -EINVAL || !strstr(said, wrong[i].name))
			fail_msg("%s: %s", wrong[i].arg, said);
	}
	assert_int_equal(PARSE(&o, "--node=n1"), -EINVAL);
	assert_non_null(strstr(said, "source"));
	assert_int_equal(PARSE(&o, NEEDED, "--drain"), -EINVAL);
	assert_non_null(strstr(said, "drain"));
}

/* Parses with `text` as the --config file; `said` calls the file FILE. */
static int parse_file(struct options *ret, const char *text)
{
	char path[] = "/tmp/wr-options-XXXXXX", shown[sizeof(said)];
	int fd = mkstemp(path), r;
	const char *at;

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	r = PARSE(ret, NEEDED, "--config", path);
	unlink(path);
	at = strstr(said, path);
	if (at) {
		snprintf(shown, sizeof(shown), "%.*sFILE%s", (int)(at - said), said, at + strlen(path));
		memcpy(said, shown, sizeof(said));
	}
	return r;
}

static void one_line_said(const char *want)
{
	size_t n = strlen(said);

	if (!strstr(said, want) || strncmp(said, "warren-agent: ", 14) || strchr(said, '\n') != said + n - 1)
		fail_msg("not one line with `%s`: %s", want, said);
}

static void file_holds_comments_quotes_and_lists(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(parse_file(&o, "# first\n"
					"  \t # second\r\n"
					"\n"
					"log = debug # comment = behind a blank\r\n"
					"\tdrain\t=\t7s\t# and behind a tab\n"
					"cluster-id = a#b\n"
					"network =#n\n"
					"access-log = \"/var/log/a # b ,json\" # the # in quotes is the file's\n"
					"run-dir = '/run/it is \" warren'\n"
					"pin-dir = /sys/it's\n"
					"takeover=true\n"
					"mesh-cidr = 10.1.0.0/16, fd01::/16 # two\n"
					"mesh-cidr = 10.2.0.0/16"),
			 0);
	assert_string_equal(o.log, "debug");
	assert_int_equal(o.drain_ms, 7000);
	assert_string_equal(o.cluster_id, "a#b");
	assert_string_equal(o.network, "#n");
	assert_string_equal(o.access_log, "/var/log/a # b ,json");
	assert_string_equal(o.run_dir, "/run/it is \" warren");
	assert_string_equal(o.pin_dir, "/sys/it's");
	assert_true(o.takeover);
	assert_int_equal(o.n_mesh_cidrs, 3);
	assert_string_equal(o.mesh_cidrs[1], "fd01::/16");
	assert_string_equal(o.mesh_cidrs[2], "10.2.0.0/16");
}

static void wrong_lines_name_file_and_line(void **state)
{
	static const struct {
		const char *line, *said;
	} wrong[] = {
		{"log = foo", "FILE:2: log: foo: expected error, warn, info or debug"},
		{"log =", "FILE:2: log: (empty): expected error,"},
		{"log = # comment", "FILE:2: log: (empty): expected error,"},
		{"log foo = debug", "FILE:2: log foo: unknown option"},
		{"log # = debug", "FILE:2: log: '=' is missing, expected log = LEVEL[,json]"},
		{"log", "FILE:2: log: '=' is missing, expected log = LEVEL[,json]"},
		{"log: info", "FILE:2: log: info: '=' is missing, expected log = LEVEL[,json]"},
		{"takeover", "FILE:2: takeover: '=' is missing, expected takeover = true or false"},
		{"logg", "FILE:2: logg: expected name = value"},
		{"= foo", "FILE:2: (no name): expected name = value"},
		{"--log = info", "FILE:2: --log: unknown option"},
		{"Log = info", "FILE:2: Log: unknown option"},
		{"lo = info", "FILE:2: lo: unknown option"},
		{"config = /x", "FILE:2: config: unknown option"},
		{"log = info#no-comment", "FILE:2: log: info#no-comment: expected"},
		{"log = \"info", "FILE:2: log: \"info: expected a closing quote"},
		{"log = \"info\",json", "FILE:2: log: \"info\",json: expected nothing but a comment behind"},
		{"log = \"info\"#x", "FILE:2: log: \"info\"#x: expected nothing but a comment behind"},
		{"workers = +1", "FILE:2: workers: +1: expected a whole number, from 0 to 256"},
		{"mesh-cidr =", "FILE:2: mesh-cidr: (empty): expected ranges"},
		{"mesh-cidr = ::/0\nmesh-cidr = all", "FILE:3: mesh-cidr: all: expected the word all alone"},
		{"mesh-cidr = all\nmesh-cidr = ::/0", "FILE:3: mesh-cidr: ::/0: expected the word all alone"},
		{"mesh-cidr = ::/0\nmesh-cidr = 1.1.1.1/8", "FILE:3: mesh-cidr: 1.1.1.1/8: expected a range"},
	};
	struct options o;
	char text[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		snprintf(text, sizeof(text), "drain = 1s\n%s\n", wrong[i].line);
		if (parse_file(&o, text) != -EINVAL)
			fail_msg("accepted: %s", wrong[i].line);
		one_line_said(wrong[i].said);
	}
}

static void wrong_files_name_themselves(void **state)
{
	char path[] = "/tmp/wr-options-XXXXXX";
	int fd = mkstemp(path);
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, NEEDED, "--config="), -EINVAL);
	one_line_said("--config: (empty): expected the path of a file");
	assert_int_equal(PARSE(&o, NEEDED, "--config=/"), -EINVAL);
	one_line_said("--config: /: expected a file: Is a directory");
	setenv("WARREN_CONFIG", "/nonexistent", 1);
	assert_int_equal(PARSE(&o, NEEDED), -EINVAL);
	one_line_said("WARREN_CONFIG: /nonexistent: expected a file: No such file");
	unsetenv("WARREN_CONFIG");
	/* Behind a zero byte the file would not have been read. */
	assert_int_equal(write(fd, "drain = 1s\n\0\nnonsense\n", 22), 22);
	close(fd);
	assert_int_equal(PARSE(&o, NEEDED, "--config", path), -EINVAL);
	one_line_said("expected text, without zero bytes");
	unlink(path);
}

static void wrong_environment_names_the_variable(void **state)
{
	static const struct {
		const char *name, *value, *said;
	} wrong[] = {
		{"WARREN_LOG", "foo", "WARREN_LOG: foo: expected error,"},
		{"WARREN_LOG", "", "WARREN_LOG: (empty): expected error,"},
		{"WARREN_MESH_CIDR", "", "WARREN_MESH_CIDR: (empty): expected ranges"},
		{"WARREN_MESH_CIDR", "10.0.0.0/8,", "WARREN_MESH_CIDR: 10.0.0.0/8,: expected no empty range"},
		{"WARREN_ON_AGENT_LOSS", "no", "WARREN_ON_AGENT_LOSS: no: expected closed or open"},
		{"WARREN_READINESS_PORT", "abc", "WARREN_READINESS_PORT: abc: expected a whole number"},
		{"WARREN_TRUST_DOMAIN", "UP", "WARREN_TRUST_DOMAIN: UP: expected at most 255 lower-case"},
		{"WARREN_TAKEOVER", "yes", "WARREN_TAKEOVER: yes: expected true or false"},
	};
	struct options o;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		setenv(wrong[i].name, wrong[i].value, 1);
		if (PARSE(&o, NEEDED) != -EINVAL)
			fail_msg("accepted: %s=%s", wrong[i].name, wrong[i].value);
		unsetenv(wrong[i].name);
		one_line_said(wrong[i].said);
	}
}

static void ranges_are_one_source_s(void **state)
{
	char many[OPTIONS_CIDRS_MAX * 16 + 16] = "";
	struct options o;

	(void)state;
	setenv("WARREN_MESH_CIDR", "10.1.0.0/16,10.2.0.0/16", 1);
	assert_int_equal(parse_file(&o, "mesh-cidr = 10.3.0.0/16\n"), 0);
	assert_int_equal(o.n_mesh_cidrs, 2);
	assert_string_equal(o.mesh_cidrs[1], "10.2.0.0/16");
	assert_int_equal(PARSE(&o, NEEDED, "--mesh-cidr=10.4.0.0/16", "--mesh-cidr=10.5.0.1"), 0);
	assert_int_equal(o.n_mesh_cidrs, 2);
	assert_string_equal(o.mesh_cidrs[0], "10.4.0.0/16");
	assert_string_equal(o.mesh_cidrs[1], "10.5.0.1/32");
	assert_int_equal(PARSE(&o, NEEDED, "--mesh-cidr=all"), 0);
	assert_int_equal(o.n_mesh_cidrs, 0);
	unsetenv("WARREN_MESH_CIDR");
	for (int i = 0; i < OPTIONS_CIDRS_MAX; i++)
		snprintf(many + strlen(many), 16, "%s10.%d.0.0/16", i ? "," : "", i);
	assert_int_equal(PARSE(&o, NEEDED, "--mesh-cidr", many), 0);
	assert_int_equal(o.n_mesh_cidrs, OPTIONS_CIDRS_MAX);
	assert_int_equal(PARSE(&o, NEEDED, "--mesh-cidr", many, "--mesh-cidr=fd00::/8"), -EINVAL);
	one_line_said("--mesh-cidr: fd00::/8: expected at most 64 ranges");
}

/* An empty text is what an unset variable leaves of a template; it must not widen the capture. */
static void wrong_ranges_are_refused(void **state)
{
	static const struct {
		const char *value, *said;
	} wrong[] = {
		{"", "--mesh-cidr: (empty): expected ranges such as 10.0.0.0/8,fd00::/8, or the word all"},
		{" ", "--mesh-cidr:  : expected no empty range"},
		{",", "--mesh-cidr: ,: expected no empty range"},
		{"10.0.0.0/8,,fd00::/8", "expected no empty range"},
		{",10.0.0.0/8", "expected no empty range"},
		{"10.0.0.1/8", "--mesh-cidr: 10.0.0.1/8: expected a range without host bits, perhaps 10.0.0.0/8"},
		{"fd00::/8,fd77:1::2/32", "fd77:1::2/32: expected a range without host bits, perhaps fd77:1::/32"},
		{"1.2.3.4/0", "perhaps 0.0.0.0/0"},
		{"::1/0", "perhaps ::/0"},
		{"All", "--mesh-cidr: All: expected ranges"},
		{"all,10.0.0.0/8", "--mesh-cidr: all: expected ranges"},
		{"10.0.0.0/+8", "expected ranges"},
		{"10.0.0.0/ 8", "expected ranges"},
		{"10.0.0.0/8 11.0.0.0/8", "expected ranges"},
		{"10.0.0.0/8                                                                            "
		 "                                                                             junk",
		 "expected ranges"},
		{"010.0.0.0/8", "expected ranges"},
		{"10.0.0.0/4294967304", "expected ranges"},
	};
	struct options o;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		if (PARSE(&o, NEEDED, "--mesh-cidr", wrong[i].value) != -EINVAL)
			fail_msg("accepted: %s", wrong[i].value);
		one_line_said(wrong[i].said);
	}
}

/* Checks what the option named `name` takes and refuses. */
static void check_value(const char *name, const char *value, bool ok)
{
	struct options o;
	char arg[512], want[64];

	snprintf(arg, sizeof(arg), "--%s=%s", name, value);
	snprintf(want, sizeof(want), "--%s: ", name);
	if (PARSE(&o, NEEDED, arg) != (ok ? 0 : -EINVAL))
		fail_msg("%s: %s %s", arg, ok ? "refused" : "accepted", said);
	if (!ok)
		one_line_said(want);
}

static void names_go_into_identities_and_logs(void **state)
{
	static const char *const domains[] = {"trust-domain", "cluster-domain"};
	static const char *const names[] = {"cluster-id", "network", "node"};
	static const char *const bad_domains[] = {"",	      ".",    "a.",   ".a",   "a..b",	    "UPPER",
						  "a b",      "a/b",  "a:1",  "td\n", "spiffe://a", "a%41",
						  "\xc3\xa4", "a\tb", "a\"b", "a,b",  "*.a",	    "cluster.Local"};
	static const char *const bad_names[] = {"a b",	"a\"b", "a'b",	 "a`b",	    "a/b",	"a\\b",
						"a\nb", " a",	"a\x7f", "\x1b[1m", "\xc3\xa4", "a\tb"};
	char text[300];

	(void)state;
	for (size_t d = 0; d < ARRAY_SIZE(domains); d++) {
		for (size_t i = 0; i < ARRAY_SIZE(bad_domains); i++)
			check_value(domains[d], bad_domains[i], false);
		check_value(domains[d], "mesh-1.example.org", true);
		check_value(domains[d], "a_b", d == 0);
		snprintf(text, sizeof(text), "%0255d", 7);
		check_value(domains[d], text, true);
		snprintf(text, sizeof(text), "%0256d", 7);
		check_value(domains[d], text, false);
	}
	for (size_t n = 0; n < ARRAY_SIZE(names); n++) {
		for (size_t i = 0; i < ARRAY_SIZE(bad_names); i++)
			check_value(names[n], bad_names[i], false);
		check_value(names[n], "GKE_project-1_europe.west", true);
		check_value(names[n], "", !strcmp(names[n], "network"));
		snprintf(text, sizeof(text), "%0*d", n < 2 ? 128 : 200, 7);
		check_value(names[n], text, true);
		snprintf(text, sizeof(text), "%0*d", n < 2 ? 129 : 201, 7);
		check_value(names[n], text, false);
	}
	/* Baggage separates its members by these and would cut the name there. */
	check_value("cluster-id", "a,b", false);
	check_value("cluster-id", "a;b", false);
	check_value("cluster-id", "a=b", false);
}

static void options_of_policy(void **state)
{
	static const char *const bad_lists[] = {",", "a,", ",a", "a,,b", "A", "a b", "a,*.b", "a/b"};
	char many[2 * LIMIT_TRUST_DOMAINS + 1] = "";
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, NEEDED), 0);
	assert_string_equal(o.trust_domain_aliases, "");
	assert_string_equal(o.root_namespace, "istio-system");
	assert_string_equal(o.l7_deny, "match");
	assert_string_equal(o.bad_mesh_policy, "ignore");
	assert_false(o.trust_domain_given || o.trust_domain_aliases_given || o.root_namespace_given);
	/* The default's own word, given, is given. */
	assert_int_equal(PARSE(&o, NEEDED, "--trust-domain=cluster.local", "--trust-domain-aliases=old.org,older.org",
			       "--l7-deny=ignore", "--bad-mesh-policy=deny"),
			 0);
	assert_true(o.trust_domain_given && o.trust_domain_aliases_given && !o.root_namespace_given);
	assert_string_equal(o.trust_domain_aliases, "old.org,older.org");
	setenv("WARREN_ROOT_NAMESPACE", "mesh", 1);
	assert_int_equal(PARSE(&o, NEEDED), 0);
	unsetenv("WARREN_ROOT_NAMESPACE");
	assert_string_equal(o.root_namespace, "mesh");
	assert_true(o.root_namespace_given);
	for (size_t i = 0; i < ARRAY_SIZE(bad_lists); i++)
		check_value("trust-domain-aliases", bad_lists[i], false);
	for (size_t i = 1; i < LIMIT_TRUST_DOMAINS; i++)
		strcat(many, "a,");
	strcat(many, "a");
	check_value("trust-domain-aliases", many, false);
	check_value("trust-domain-aliases", many + 2, true);
	check_value("trust-domain-aliases", "", true);
	check_value("root-namespace", "", false);
	check_value("root-namespace", "A", false);
	check_value("root-namespace", "a.b", false);
	check_value("l7-deny", "deny", false);
	check_value("l7-deny", "match", true);
	check_value("bad-mesh-policy", "", false);
	check_value("bad-mesh-policy", "ignore", true);
}

static void numbers_have_digits_units_and_bounds(void **state)
{
	static const struct {
		const char *arg, *said;
	} wrong[] = {
		{"--workers=", "--workers: (empty): expected a whole number, from 0 to 256"},
		{"--workers= 1", "--workers:  1: expected a whole number, from 0 to 256"},
		{"--workers=1 ", "--workers: 1 : expected a whole number, from 0 to 256"},
		{"--workers=0x10", "--workers: 0x10: expected a whole number"},
		{"--workers=18446744073709551617", "expected a whole number, from 0 to 256"},
		{"--readiness-port=99999999999999999999", "--readiness-port: 99999999999999999999: expected"},
		{"--drain=999999h", "--drain: 999999h: expected a time such as 500ms, 5s, 10m or 24h, from 0ms to 24h"},
		{"--drain=-5s", "--drain: -5s: expected a time"},
		{"--drain=5 s", "--drain: 5 s: expected a time"},
		{"--drain=5S", "--drain: 5S: expected a time"},
		{"--drain=1.5s", "--drain: 1.5s: expected a time"},
		{"--drain=5124095576030431h", "from 0ms to 24h"}, /* times 3600000: 2^64 and a little */
		{"--dial-timeout=0s", "from 100ms to 10m"},
		{"--cert-ttl=1s", "from 2s to 8760h"},
		{"--buffer-limit=0",
		 "--buffer-limit: 0: expected a size such as 65536, 64Ki or 64Mi, from 1Mi to 1024Gi"},
		{"--buffer-limit=17179869185Gi", "from 1Mi to 1024Gi"}, /* 2^64 and 1Gi */
		{"--buffer-limit=64mi", "--buffer-limit: 64mi: expected a size"},
	};
	struct options o;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		if (PARSE(&o, NEEDED, wrong[i].arg) != -EINVAL)
			fail_msg("accepted: %s", wrong[i].arg);
		one_line_said(wrong[i].said);
	}
	assert_int_equal(PARSE(&o, NEEDED, "--drain=24h", "--cert-ttl=8760h", "--buffer-limit=1024Gi"), 0);
	assert_int_equal(o.buffer_limit, 1ull << 40);
}

static void arguments_are_read_strictly(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, NEEDED, "--log=debug", "--log=warn", "--takeover", "--takeover=false"), 0);
	assert_string_equal(o.log, "warn");
	assert_false(o.takeover);
	assert_int_equal(PARSE(&o, NEEDED, "--log=debug", "--log=foo"), -EINVAL);
	one_line_said("--log: foo: expected");
	/* What comes next is an option, not the name of a cluster. */
	assert_int_equal(PARSE(&o, NEEDED, "--cluster-id", "--takeover"), -EINVAL);
	one_line_said("--cluster-id: a value is missing, expected --cluster-id=NAME");
	assert_int_equal(PARSE(&o, NEEDED, "--config"), -EINVAL);
	one_line_said("--config: a value is missing, expected --config=FILE");
	assert_int_equal(PARSE(&o, NEEDED, "--log=a\nb"), -EINVAL);
	one_line_said("--log: a?b: expected");
	assert_int_equal(PARSE(&o, NEEDED, "--lo\ng"), -EINVAL);
	one_line_said("--lo?g: unknown argument");
	assert_int_equal(PARSE(&o, "--workers=1"), -EINVAL);
	one_line_said("missing, expected --node=NAME, --source=dir:PATH, --ca=dir:PATH; see --help");
}

static void dump_shows_what_is_in_force(void **state)
{
	struct options o;
	cJSON *dump;

	(void)state;
	assert_int_equal(PARSE(&o, NEEDED, "--drain=1s"), 0);
	dump = options_dump(&o);
	assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(dump, "drain")), 1000);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(dump, "node")), "n1");
	assert_true(cJSON_IsFalse(cJSON_GetObjectItem(dump, "takeover")));
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(dump, "mesh-cidr")), "all");
	cJSON_Delete(dump);
	assert_int_equal(PARSE(&o, NEEDED, "--mesh-cidr=10.0.0.0/8", "--mesh-cidr=fd00::1"), 0);
	dump = options_dump(&o);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(dump, "mesh-cidr")), "10.0.0.0/8,fd00::1/128");
	cJSON_Delete(dump);
}

/* The value of this option in force with one more argument, or none; as JSON, which the caller frees. */
static cJSON *in_force(const char *name, const char *arg)
{
	struct options o;
	cJSON *dump, *value;

	if (parse(&o, &arg, arg != NULL))
		fail_msg("%s: %s", name, said);
	dump = options_dump(&o);
	value = cJSON_DetachItemFromObjectCaseSensitive(dump, name);
	cJSON_Delete(dump);
	return value;
}

/* Given in any of the three ways it comes to the same, which is not what is in force without. */
static void check_each_way(const char *name, const char *env, const char *value)
{
	_cleanup_free_ char *required = getenv(env) ? strdup(getenv(env)) : NULL;
	char arg[128], line[128], path[] = "/tmp/wr-options-XXXXXX", config[64];
	int fd = mkstemp(path);
	cJSON *without = in_force(name, NULL), *got[3];

	snprintf(arg, sizeof(arg), "--%s=%s", name, value);
	snprintf(line, sizeof(line), "%s = %s\n", name, value);
	snprintf(config, sizeof(config), "--config=%s", path);
	assert_int_equal(write(fd, line, strlen(line)), strlen(line));
	close(fd);
	got[0] = in_force(name, arg);
	setenv(env, value, 1);
	got[1] = in_force(name, NULL);
	unsetenv(env);
	got[2] = in_force(name, config);
	if (required)
		setenv(env, required, 1);
	unlink(path);
	for (size_t i = 0; i < ARRAY_SIZE(got); i++)
		if (cJSON_Compare(got[i], without, true) || !cJSON_Compare(got[i], got[0], true))
			fail_msg("%s: given in way %zu", name, i);
	for (size_t i = 0; i < ARRAY_SIZE(got); i++)
		cJSON_Delete(got[i]);
	cJSON_Delete(without);
}

/* What --help prints. */
static void read_help(char *buf, size_t size)
{
	_cleanup_fclose_ FILE *f = tmpfile();
	int old = dup(1);
	struct options o;

	fflush(stdout);
	dup2(fileno(f), 1);
	assert_int_equal(PARSE(&o, "--help"), 1);
	fflush(stdout);
	dup2(old, 1);
	close(old);
	rewind(f);
	buf[fread(buf, 1, size - 1, f)] = 0;
}

static void every_option_in_every_way_and_in_the_help(void **state)
{
	static const char *const values[][2] = {
		{"node", "n2"},
		{"source", "dir:/a"},
		{"ca", "dir:/b"},
		{"mesh-cidr", "10.0.0.0/8"},
		{"exclude-ports", "22"},
		{"trust-domain", "td.org"},
		{"trust-domain-aliases", "o"},
		{"root-namespace", "mesh"},
		{"l7-deny", "ignore"},
		{"bad-mesh-policy", "deny"},
		{"cluster-id", "west"},
		{"network", "net-1"},
		{"cluster-domain", "k8s"},
		{"run-dir", "/run/other"},
		{"pin-dir", "/bpf"},
		{"workers", "3"},
		{"busy-poll", "0"},
		{"drain", "7s"},
		{"dial-timeout", "3s"},
		{"cert-ttl", "1h"},
		{"crl", "/crl.pem"},
		{"tunnel-max-age", "1h"},
		{"buffer-limit", "1Mi"},
		{"tunnel-congestion", "reno"},
		{"on-agent-loss", "open"},
		{"source-binding", "off"},
		{"probe-exemption", "node-sockets"},
		{"anti-spoof", "off"},
		{"takeover", "true"},
		{"assume-missing", "tcx"},
		{"log", "debug"},
		{"access-log", "off"},
		{"readiness-port", "0"},
	};
	char help[16384], words[128], env[64];
	struct options o;
	cJSON *all;

	(void)state;
	assert_int_equal(PARSE(&o, NEEDED), 0);
	all = options_dump(&o);
	assert_int_equal(cJSON_GetArraySize(all), ARRAY_SIZE(values));
	cJSON_Delete(all);
	read_help(help, sizeof(help));
	setenv("WARREN_NODE", "n1", 1);
	setenv("WARREN_SOURCE", "dir:/etc/warren", 1);
	setenv("WARREN_CA", "dir:/var/lib/warren", 1);
	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		snprintf(env, sizeof(env), "WARREN_%s", values[i][0]);
		for (char *p = env; *p; p++)
			*p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
		check_each_way(values[i][0], env, values[i][1]);
		snprintf(words, sizeof(words), "\n  --%s%s", values[i][0],
			 strcmp(values[i][0], "takeover") ? "=" : " ");
		assert_non_null(strstr(help, words));
		snprintf(words, sizeof(words), " [%s", env);
		assert_non_null(strstr(help, words));
	}
	unsetenv("WARREN_NODE");
	unsetenv("WARREN_SOURCE");
	unsetenv("WARREN_CA");
	assert_non_null(strstr(help, "\n  --config=FILE "));
	assert_non_null(strstr(help, "[WARREN_CONFIG]"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_hold),
		cmocka_unit_test(values_are_read),
		cmocka_unit_test(ports_are_counted),
		cmocka_unit_test(later_wins),
		cmocka_unit_test(wrong_values_name_themselves),
		cmocka_unit_test(file_holds_comments_quotes_and_lists),
		cmocka_unit_test(wrong_lines_name_file_and_line),
		cmocka_unit_test(wrong_files_name_themselves),
		cmocka_unit_test(wrong_environment_names_the_variable),
		cmocka_unit_test(ranges_are_one_source_s),
		cmocka_unit_test(wrong_ranges_are_refused),
		cmocka_unit_test(names_go_into_identities_and_logs),
		cmocka_unit_test(options_of_policy),
		cmocka_unit_test(numbers_have_digits_units_and_bounds),
		cmocka_unit_test(arguments_are_read_strictly),
		cmocka_unit_test(dump_shows_what_is_in_force),
		cmocka_unit_test(every_option_in_every_way_and_in_the_help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
