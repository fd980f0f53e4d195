/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's options: defaults, their order of precedence, wrong values. */
#include "agent/options.h"
#include "engine/base/cleanup.h"

#include <cjson/cJSON.h>
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

#define PARSE(ret, ...)                                                                                      \
	({                                                                                                   \
		const char *const args_[] = {__VA_ARGS__};                                                   \
		parse(ret, args_, (int)ARRAY_SIZE(args_));                                                   \
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
	assert_int_equal(o.drain_ms, 5000);
	assert_int_equal(o.dial_timeout_ms, 10000);
	assert_int_equal(o.cert_ttl_ms, 24 * 3600 * 1000);
	assert_int_equal(o.buffer_limit, 64 << 20);
	assert_int_equal(o.readiness_port, 15021);
	assert_true(o.workers >= 1);
	assert_int_equal(o.n_mesh_cidrs, 0);
	assert_false(o.takeover);
}

static void values_are_read(void **state)
{
	struct options o;

	(void)state;
	assert_int_equal(PARSE(&o, NEEDED, "--drain", "500ms", "--dial-timeout=2m", "--buffer-limit=128Mi",
			       "--takeover", "--mesh-cidr=10.0.0.0/8,fd00::/8", "--mesh-cidr=192.168.0.0/16",
			       "--mesh-cidr", "172.16.0.0/12", "--log=debug,json",
			       "--access-log=/var/log/warren,json", "--on-agent-loss=open",
			       "--assume-missing=tcx,sockops"),
			 0);
	assert_int_equal(o.drain_ms, 500);
	assert_int_equal(o.dial_timeout_ms, 120000);
	assert_int_equal(o.buffer_limit, 128 << 20);
	assert_true(o.takeover);
	assert_int_equal(o.n_mesh_cidrs, 4);
	assert_string_equal(o.mesh_cidrs[1], "fd00::/8");
	assert_string_equal(o.mesh_cidrs[3], "172.16.0.0/12");
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
		{"--workers=300", "workers"},
		{"--workers=-1", "workers"},
		{"--drain=5", "drain"},
		{"--drain=", "drain"},
		{"--drain=5s5", "drain"},
		{"--dial-timeout=99ms", "dial-timeout"},
		{"--buffer-limit=64MB", "buffer-limit"},
		{"--buffer-limit=99999999999999999999", "buffer-limit"},
		{"--on-agent-loss=maybe", "on-agent-loss"},
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
	cJSON_Delete(dump);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_hold),
		cmocka_unit_test(values_are_read),
		cmocka_unit_test(later_wins),
		cmocka_unit_test(wrong_values_name_themselves),
		cmocka_unit_test(dump_shows_what_is_in_force),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
