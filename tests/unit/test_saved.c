/* SPDX-License-Identifier: Apache-2.0 */
/* What a source keeps on disk, when something happens between a change and the moment at which it would be kept.
 * Through a real folder. */
#include "agent/engine/source/store.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/io/loop.h"
#include "engine/source/source.h"
#include "folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* A disk that is not quick: what changes is not kept at once. */
int fsync(int fd)
{
	(void)fd;
	return usleep(30000);
}

static char dir[32], state_dir[32], kept[64], spec[64];
static struct loop *loop;
static struct source *source;
static unsigned changes;

static void changed(void *arg, const struct model_delta *d)
{
	(void)arg;
	(void)d;
	changes++;
}

/* The only pod there is. */
static void write_pod(const char *name)
{
	char path[64], text[256];

	snprintf(path, sizeof(path), "%s/p.yaml", dir);
	snprintf(text, sizeof(text),
		 "apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: shop}\n"
		 "spec: {nodeName: n1}\nstatus: {podIPs: [{ip: 10.0.0.1}]}\n",
		 name);
	folder_put(path, text);
}

struct waiting {
	struct timer timer;
	bool (*done)(void);
	unsigned rounds;
};

static void look(struct timer *t)
{
	struct waiting *w = container_of(t, struct waiting, timer);

	if (w->done() || !--w->rounds)
		loop_stop(loop);
	else
		loop_timer_set(loop, t, 5);
}

static void wait_for(bool (*done)(void))
{
	struct waiting w = {.timer.fn = look, .done = done, .rounds = 2000};

	loop_timer_set(loop, &w.timer, 1);
	assert_int_equal(loop_run(loop), 0);
	assert_true(w.rounds);
}

static bool is_kept(void)
{
	return !access(kept, F_OK);
}

static bool has_changed(void)
{
	return changes > 0;
}

static bool is_alarmed(void)
{
	cJSON *list = cJSON_CreateArray();
	bool any;

	source_alarms(source, list);
	any = cJSON_GetArraySize(list) > 0;
	cJSON_Delete(list);
	return any;
}

/* A source whose first pod is kept, and whose second one is in force. */
static int set_up(void **state)
{
	struct source_config cfg = {.spec = spec,
				    .node = "n1",
				    .cluster_id = "Kubernetes",
				    .network = "",
				    .cluster_domain = "cluster.local",
				    .trust_domain = "cluster.local",
				    .state_dir = state_dir,
				    .changed = changed};
	char *error = NULL;

	(void)state;
	log_set_level("error");
	strcpy(dir, "/tmp/wr-test-saved-XXXXXX");
	folder_make(dir);
	strcpy(state_dir, "/tmp/wr-test-state-XXXXXX");
	folder_make(state_dir);
	snprintf(kept, sizeof(kept), "%s/resources.json", state_dir);
	snprintf(spec, sizeof(spec), "dir:%s", dir);
	assert_int_equal(loop_new(&loop), 0);
	write_pod("first");
	assert_int_equal(source_open(&cfg, loop, &source, &error), 0);
	wait_for(is_kept);
	changes = 0;
	write_pod("second");
	wait_for(has_changed);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	source_free(source);
	source = NULL;
	loop_free(loop);
	return 0;
}

static bool keeps(const char *pod)
{
	struct store s = {0};
	char key[32];
	bool yes;

	snprintf(key, sizeof(key), "Pod/shop/%s", pod);
	yes = !store_load(&s, kept, spec) && table_get_str(&s.resources, key);
	store_done(&s);
	return yes;
}

static bool keeps_third(void)
{
	return keeps("third");
}

static void also_when_the_folder_is_gone_by_then(void **state)
{
	char away[64];

	(void)state;
	snprintf(away, sizeof(away), "%s/away", state_dir);
	assert_int_equal(rename(dir, away), 0);
	wait_for(is_alarmed);
	source = source_free(source);
	assert_true(keeps("second"));
}

static void also_when_a_successor_takes_over_first(void **state)
{
	(void)state;
	source_retire(source);
	assert_true(keeps("second"));
}

/* Seen, and whatever was due at once is done. */
static bool is_refused(void)
{
	static bool before;
	cJSON *dump = source_dump(source), *i;
	bool now = false, yes;

	cJSON_ArrayForEach(i, cJSON_GetObjectItemCaseSensitive(dump, "resources")) {
		now |= !strcmp(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(i, "state")), "refused");
	}
	cJSON_Delete(dump);
	yes = now && before;
	before = now;
	return yes;
}

static void at_once_when_the_folder_does_not_say_it_any_more(void **state)
{
	char path[64];

	(void)state;
	snprintf(path, sizeof(path), "%s/p.yaml", dir);
	folder_put(path, "kind: [\n");
	wait_for(is_refused);
	assert_true(keeps("second"));
}

static void also_when_it_failed_at_first(void **state)
{
	char away[64];

	(void)state;
	snprintf(away, sizeof(away), "%s/away", dir);
	assert_int_equal(rename(state_dir, away), 0);
	changes = 0;
	write_pod("third");
	wait_for(has_changed);
	assert_int_equal(rename(away, state_dir), 0);
	assert_false(keeps("third"));
	wait_for(keeps_third);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(also_when_the_folder_is_gone_by_then, set_up, tear_down),
		cmocka_unit_test_setup_teardown(also_when_a_successor_takes_over_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(at_once_when_the_folder_does_not_say_it_any_more, set_up, tear_down),
		cmocka_unit_test_setup_teardown(also_when_it_failed_at_first, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
