/* SPDX-License-Identifier: Apache-2.0 */
/* The mesh's own names while an agent runs: which are in force, in which order the parts learn of a change, and what
 * people are told of what a running agent cannot change. Through a real folder. */
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/io/loop.h"
#include "engine/source/source.h"
#include "folder.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define POLICY                                                                                                         \
	"---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"     \
	"spec: {rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/a]}}]}]}\n"
#define POD                                                                                                            \
	"---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\n"                                     \
	"spec: {nodeName: n1}\nstatus: {podIPs: [{ip: 10.0.0.1}]}\n"

static char dir[32], spec[64];
static struct loop *loop;
static struct source *source;
static char story[400]; /* what was told, in order */

static void add(const char *text)
{
	size_t len = strlen(story);

	snprintf(story + len, sizeof(story) - len, "%s", text);
}

static void changed(void *arg, const struct model_delta *d)
{
	(void)arg;
	(void)d;
	add("changed; ");
}

static void aliases(void *arg, char *const *names, size_t n, bool widen)
{
	(void)arg;
	add(widen ? "all:" : "only:");
	for (size_t i = 0; i < n; i++) {
		add(" ");
		add(names[i]);
	}
	add("; ");
}

static void write_mesh(const char *settings)
{
	_cleanup_free_ char *text = NULL;
	char path[64];
	int n = settings ? asprintf(&text,
				    POD POLICY "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, "
					       "namespace: istio-system}\n"
					       "data: {mesh: '%s'}\n",
				    settings)
			 : 0;

	assert_true(n >= 0);
	snprintf(path, sizeof(path), "%s/m.yaml", dir);
	folder_put(path, settings ? text : POD POLICY);
}

static void open_source(const char *domain, bool given, const char *alias_option)
{
	struct source_config cfg = {.spec = spec,
				    .node = "n1",
				    .cluster_id = "Kubernetes",
				    .network = "",
				    .cluster_domain = "cluster.local",
				    .trust_domain = domain,
				    .trust_domain_given = given,
				    .trust_domain_aliases = alias_option,
				    .changed = changed,
				    .aliases = aliases};
	char *error = NULL;

	*story = 0;
	assert_int_equal(source_open(&cfg, loop, &source, &error), 0);
}

struct waiting {
	struct timer timer;
	const char *for_what;
	unsigned rounds;
};

static bool alarmed(const char *words)
{
	cJSON *list = cJSON_CreateArray(), *i;
	bool found = false;

	source_alarms(source, list);
	cJSON_ArrayForEach(i, list) {
		found = found || strstr(i->valuestring, words);
	}
	cJSON_Delete(list);
	return found;
}

static void look(struct timer *t)
{
	struct waiting *w = container_of(t, struct waiting, timer);

	if (strstr(story, w->for_what) || alarmed(w->for_what) || !--w->rounds)
		loop_stop(loop);
	else
		loop_timer_set(loop, t, 10);
}

/* Until the story or an alarm has these words. */
static void wait_for(const char *words)
{
	struct waiting w = {.timer.fn = look, .for_what = words, .rounds = 500};

	loop_timer_set(loop, &w.timer, 1);
	assert_int_equal(loop_run(loop), 0);
	assert_true(w.rounds);
}

static const char *setting(cJSON *dump, const char *name, const char *field)
{
	const cJSON *o = cJSON_GetObjectItemCaseSensitive(dump, name);
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, field));

	return text ? text : "";
}

static void assert_setting(const char *name, const char *value, const char *from, const char *overridden)
{
	cJSON *dump = source_mesh_dump(source);

	assert_string_equal(setting(dump, name, "value"), value);
	assert_string_equal(setting(dump, name, "from"), from);
	assert_string_equal(setting(dump, name, "overridden"), overridden);
	cJSON_Delete(dump);
}

static int set_up(void **state)
{
	(void)state;
	log_set_level("error");
	strcpy(dir, "/tmp/wr-test-mesh-XXXXXX");
	folder_make(dir);
	snprintf(spec, sizeof(spec), "dir:%s", dir);
	return loop_new(&loop);
}

static int tear_down(void **state)
{
	(void)state;
	source_free(source);
	source = NULL;
	loop_free(loop);
	return 0;
}

/* What is gone before the policies change, what is new after them; at the start before anybody is served. */
static void names_are_told_around_the_change(void **state)
{
	(void)state;
	write_mesh("trustDomainAliases: [a.org, b.org]");
	open_source("cluster.local", false, NULL);
	assert_string_equal(story, "all: a.org b.org; changed; all: a.org b.org; ");
	*story = 0;
	write_mesh("trustDomainAliases: [b.org, c.org]");
	wait_for("all: ");
	assert_string_equal(story, "only: b.org c.org; changed; all: b.org c.org; ");
	assert_setting("trust_domain_aliases", "b.org,c.org", "ConfigMap istio", "");
	*story = 0;
	write_mesh(NULL);
	wait_for("all:;");
	assert_string_equal(story, "only:; changed; all:; ");
	assert_setting("trust_domain_aliases", "", "default", "");
}

/* Policies are not compiled anew, and nobody is asked again, for what is not read here. */
static void other_settings_change_nothing(void **state)
{
	(void)state;
	write_mesh("{trustDomainAliases: [a.org], accessLogFile: x}");
	open_source("cluster.local", false, NULL);
	*story = 0;
	write_mesh("{trustDomainAliases: [a.org], accessLogFile: y, trustDomain: new.org}");
	wait_for("new.org");
	assert_string_equal(story, "");
}

static void the_trust_domain_needs_a_restart(void **state)
{
	(void)state;
	write_mesh("trustDomain: old.org");
	open_source("old.org", false, NULL);
	assert_false(alarmed("trustDomain"));
	assert_setting("trust_domain", "old.org", "ConfigMap istio", "");
	write_mesh("{trustDomain: new.org, trustDomainAliases: [old.org]}");
	wait_for("ConfigMap istio-system/istio: trustDomain: new.org is asked for, and old.org stays in use");
	assert_true(alarmed("restart this agent"));
	assert_setting("trust_domain", "old.org", "as this agent started", "");
	write_mesh(NULL);
	wait_for("trustDomain: gone, so that cluster.local is asked for, and old.org stays in use");
	assert_setting("trust_domain", "old.org", "as this agent started", "");
	*story = 0;
	write_mesh("{trustDomain: old.org, trustDomainAliases: [x.org]}");
	wait_for("all: x.org");
	assert_false(alarmed("trustDomain"));
}

static void options_win(void **state)
{
	(void)state;
	write_mesh("{trustDomain: map.org, trustDomainAliases: [a.org], rootNamespace: mesh}");
	open_source("option.org", true, "b.org");
	assert_string_equal(story, "all: b.org; changed; all: b.org; ");
	assert_false(alarmed("trustDomain"));
	assert_setting("trust_domain", "option.org", "--trust-domain", "map.org");
	assert_setting("trust_domain_aliases", "b.org", "--trust-domain-aliases", "a.org");
	assert_setting("root_namespace", "mesh", "ConfigMap istio", "");
	*story = 0;
	write_mesh("{trustDomainAliases: [a.org, c.org], rootNamespace: other}");
	wait_for("all: b.org");
	assert_setting("root_namespace", "other", "ConfigMap istio", "");
	assert_setting("trust_domain_aliases", "b.org", "--trust-domain-aliases", "a.org,c.org");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_are_told_around_the_change, set_up, tear_down),
		cmocka_unit_test_setup_teardown(other_settings_change_nothing, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_trust_domain_needs_a_restart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(options_win, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
