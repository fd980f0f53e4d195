/* SPDX-License-Identifier: Apache-2.0 */
/* A folder read again: only what changed is parsed, and the outcome is that of parsing all of it. */
#include "agent/engine/source/assemble.h"
#include "agent/engine/source/folder.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "folder.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

/* One that reads the folder. */
struct reader {
	struct folder folder;
	struct store store;
	struct assembly assembly;
};

static char dir[] = "/tmp/wr-test-folder-XXXXXX";

static void start(struct reader *r)
{
	*r = (struct reader){.folder.path = dir,
			     .store.quiet = true,
			     .assembly.cfg = {.node = "n1",
					      .cluster_id = "Kubernetes",
					      .network = "",
					      .cluster_domain = "cluster.local",
					      .trust_domain = "cluster.local"}};
}

static void end(struct reader *r)
{
	assemble_done(&r->assembly);
	folder_done(&r->folder);
	store_done(&r->store);
}

static void read_again(struct reader *r)
{
	_cleanup_free_ char *why = NULL;
	struct model_delta *d;

	assert_int_equal(folder_read(&r->folder, &r->store, -1, &why), 0);
	assert_int_equal(assemble(&r->assembly, &r->store, &d), 0);
	model_delta_free(d);
}

/* --- files --- */

static char *path_of(const char *name)
{
	static char paths[4][200];
	static unsigned n;
	char *path = paths[n++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

/* In place. */
static void overwrite(const char *name, const char *text)
{
	FILE *f = fopen(path_of(name), "w");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* By a rename, as people should. */
static void put(const char *name, const char *text)
{
	overwrite(".new", text);
	assert_int_equal(rename(path_of(".new"), path_of(name)), 0);
}

static void put_policy(void (*how)(const char *name, const char *text), const char *name, int number, int port)
{
	char text[400];

	snprintf(text, sizeof(text),
		 "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p%d, namespace: shop}\n"
		 "spec: {action: DENY, rules: [{to: [{operation: {ports: ['%d']}}]}]}\n",
		 number, port);
	how(name, text);
}

static int set_up(void **state)
{
	(void)state;
	log_set_level("error");
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	folder_make(dir);
	return 0;
}

/* --- what is parsed --- */

static const char *port_of(const struct reader *r, const char *policy)
{
	char key[60];
	const struct resource *p;
	const cJSON *rule;

	snprintf(key, sizeof(key), "AuthorizationPolicy/shop/%s", policy);
	p = table_get_str(&r->store.resources, key);
	assert_non_null(p);
	rule = get(get(p->tree, "spec"), "rules")->child;
	return get(get(get(rule, "to")->child, "operation"), "ports")->child->valuestring;
}

static void expect_parsed(struct reader *r, size_t n)
{
	read_again(r);
	assert_int_equal(r->folder.parsed, n);
	assert_int_equal(store_count(&r->store), 3);
}

static void each_way_of_changing(struct reader *r)
{
	struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

	expect_parsed(r, 0);
	put_policy(put, "1.yaml", 1, 81);
	expect_parsed(r, 1);
	assert_string_equal(port_of(r, "p1"), "81");
	/* In place, of the same length, and its time put back. */
	put_policy(overwrite, "2.yaml", 2, 82);
	assert_int_equal(utimensat(AT_FDCWD, path_of("2.yaml"), times, 0), 0);
	expect_parsed(r, 1);
	assert_string_equal(port_of(r, "p2"), "82");
	/* Again, within the same tick. */
	put_policy(overwrite, "2.yaml", 2, 92);
	assert_int_equal(utimensat(AT_FDCWD, path_of("2.yaml"), times, 0), 0);
	expect_parsed(r, 1);
	assert_string_equal(port_of(r, "p2"), "92");
	/* Another file with the same text. */
	put_policy(put, "1.yaml", 1, 81);
	expect_parsed(r, 0);
	/* Another name of the same file. */
	assert_int_equal(rename(path_of("1.yaml"), path_of("4.yaml")), 0);
	expect_parsed(r, 1);
	assert_string_equal(
		((struct resource *)table_get_str(&r->store.resources, "AuthorizationPolicy/shop/p1"))->file,
		path_of("4.yaml"));
	assert_int_equal(rename(path_of("4.yaml"), path_of("1.yaml")), 0);
	expect_parsed(r, 1);
}

static void put_all(void)
{
	put_policy(put, "0.yaml", 0, 70);
	put_policy(put, "1.yaml", 1, 71);
	put_policy(put, "2.yaml", 2, 72);
}

static void only_what_changed_is_parsed(void **state)
{
	struct reader r;

	(void)state;
	start(&r);
	put_all();
	expect_parsed(&r, 3);
	each_way_of_changing(&r);
	/* Files that are older than the clock's tick are known by their identity alone. */
	put_all();
	sleep(4);
	expect_parsed(&r, 2);
	each_way_of_changing(&r);
	end(&r);
}

/* As a ConfigMap is mounted: files are links into a folder that a link leads to, which is replaced as a whole. */
static void a_swapped_link_is_followed(void **state)
{
	struct reader r;

	(void)state;
	start(&r);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(mkdir(path_of(i ? ".second" : ".first"), 0700), 0);
		put_policy(put, i ? ".second/0.yaml" : ".first/0.yaml", 0, 70);
		put_policy(put, i ? ".second/1.yaml" : ".first/1.yaml", 1, i ? 81 : 71);
		put_policy(put, i ? ".second/2.yaml" : ".first/2.yaml", 2, 72);
	}
	assert_int_equal(symlink(".first", path_of(".data")), 0);
	assert_int_equal(symlink(".data/0.yaml", path_of("0.yaml")), 0);
	assert_int_equal(symlink(".data/1.yaml", path_of("1.yaml")), 0);
	assert_int_equal(symlink(".data/2.yaml", path_of("2.yaml")), 0);
	expect_parsed(&r, 3);
	expect_parsed(&r, 0);
	assert_int_equal(symlink(".second", path_of(".swap")), 0);
	assert_int_equal(rename(path_of(".swap"), path_of(".data")), 0);
	expect_parsed(&r, 1);
	assert_string_equal(port_of(&r, "p1"), "81");
	end(&r);
}

/* Which of two documents of one name counts may change with a file that has neither changed. */
static void the_first_of_two_counts_again(void **state)
{
	struct reader r;

	(void)state;
	start(&r);
	put_all();
	put_policy(put, "1.yaml", 1, 71);
	expect_parsed(&r, 3);
	put_policy(put, "00.yaml", 1, 91);
	expect_parsed(&r, 2);
	assert_string_equal(port_of(&r, "p1"), "91");
	assert_int_equal(cJSON_GetArraySize(r.store.problems), 1);
	assert_int_equal(unlink(path_of("00.yaml")), 0);
	expect_parsed(&r, 1);
	assert_string_equal(port_of(&r, "p1"), "71");
	assert_int_equal(cJSON_GetArraySize(r.store.problems), 0);
	expect_parsed(&r, 0);
	end(&r);
}

/* --- the same as a full read --- */

static unsigned long long seed = 20240607;

static unsigned draw(unsigned n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(seed >> 33) % n;
}

/* Of `number`, when it is to be in order and to have a name of its own. */
static int random_document(char *text, size_t size, int number)
{
	static const char *const specs[] = {
		"{}",
		"{action: DENY, rules: [{}]}",
		"{rules: [{from: [{source: {namespaces: [a]}}]}]}",
		"{selector: {matchLabels: {app: web}}, action: DENY, rules: [{}]}",
		"{action: DENY, rules: [{form: []}]}",
		"{action: [",
	};
	static const char *const others[] = {
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop, labels: {app: web}}\nspec: {nodeName: "
		"n1}\nstatus: {podIP: 10.0.0.1}\n",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: bank}\nspec: {nodeName: n1}\n",
		"apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\nspec: [\n",
		"{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: ServiceAccount, metadata: {name: x}}]}\n",
		"# nothing\n",
	};
	static const char *const namespaces[] = {"shop", "bank", "istio-system"};

	if (number < 0 && !draw(3))
		return snprintf(text, size, "---\n%s", others[draw(ARRAY_SIZE(others))]);
	return snprintf(text, size,
			"---\napiVersion: security.istio.io/v1\nkind: %s\nmetadata: {name: p%u, namespace: %s}\n"
			"spec: %s\n",
			draw(4) ? "AuthorizationPolicy" : "PeerAuthentication", number < 0 ? draw(4) : (unsigned)number,
			namespaces[draw(3)], number < 0 ? specs[draw(draw(3) ? 4 : 6)] : "{}");
}

static void random_text(char *text, size_t size, bool tame, unsigned file)
{
	unsigned n = 1 + draw(3);
	size_t at = 0;

	for (unsigned i = 0; i < n; i++)
		at += (size_t)random_document(text + at, size - at, tame ? (int)(file * 10 + i) : -1);
}

static void clear(void)
{
	char name[16];

	for (unsigned i = 0; i < 12; i++) {
		snprintf(name, sizeof(name), "%u.yaml", i);
		(void)unlink(path_of(name));
	}
}

static void random_edit(bool tame)
{
	char name[16], other[16], text[2000];
	unsigned file = draw(12);

	snprintf(name, sizeof(name), "%u.yaml", file);
	snprintf(other, sizeof(other), "%u.yaml", draw(12));
	random_text(text, sizeof(text), tame, file);
	switch (draw(tame ? 3 : 6)) {
	case 0:
		overwrite(name, text);
		break;
	case 1:
		(void)unlink(path_of(name));
		break;
	case 2:
		put(name, text);
		break;
	case 3:
		(void)rename(path_of(name), path_of(other));
		break;
	case 4:
		/* The same documents elsewhere as well. */
		(void)unlink(path_of(other));
		if (link(path_of(name), path_of(other)) < 0)
			put(other, text);
		break;
	default:
		put(name, text);
	}
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The items of an array, one a line, in the order of their texts. Takes it over. */
static char *lines_of(cJSON *array)
{
	char *lines[200], *out;
	size_t n = 0, size = 1;
	const cJSON *i;

	cJSON_ArrayForEach(i, array) {
		assert_true(n < ARRAY_SIZE(lines));
		lines[n] = cJSON_PrintUnformatted(i);
		size += strlen(lines[n++]) + 1;
	}
	out = calloc(1, size);
	qsort(lines, n, sizeof(*lines), by_text);
	for (size_t k = 0; k < n; k++) {
		strcat(strcat(out, lines[k]), "\n");
		free(lines[k]);
	}
	cJSON_Delete(array);
	return out;
}

/* What is in force, and what closes because it never was valid. */
static cJSON *trees_of(const struct reader *r)
{
	cJSON *array = cJSON_CreateArray();
	struct table_iter it = {0};
	const struct resource *p;

	while ((p = table_next(&r->store.resources, &it))) {
		cJSON *o = cJSON_CreateObject();

		cJSON_AddStringToObject(o, "key", p->key);
		cJSON_AddStringToObject(o, "file", p->file);
		cJSON_AddNumberToObject(o, "line", p->line);
		cJSON_AddItemToObject(o, "tree", cJSON_Duplicate(p->tree, true));
		cJSON_AddItemToObject(o, "invalid", cJSON_Duplicate(p->invalid, true));
		cJSON_AddBoolToObject(o, "stray", p->stray);
		cJSON_AddItemToArray(array, o);
	}
	return array;
}

static cJSON *alarms_of(const struct reader *r)
{
	cJSON *alarms = cJSON_CreateArray();

	assemble_policy_alarms(&r->assembly, &r->store, alarms);
	return alarms;
}

static void assert_same_text(char *a, char *b)
{
	assert_string_equal(a, b);
	free(a);
	free(b);
}

static void assert_same(const struct reader *a, const struct reader *b)
{
	assert_same_text(lines_of(store_dump(&a->store)), lines_of(store_dump(&b->store)));
	assert_same_text(lines_of(assemble_policy_dump(&a->assembly, &a->store)),
			 lines_of(assemble_policy_dump(&b->assembly, &b->store)));
	assert_same_text(lines_of(trees_of(a)), lines_of(trees_of(b)));
	assert_same_text(lines_of(alarms_of(a)), lines_of(alarms_of(b)));
}

static bool is_all_well(const struct reader *r)
{
	char *text = lines_of(store_dump(&r->store));
	bool well = !strstr(text, "\"refused\"");

	free(text);
	return well;
}

/* `full` has the same history and parses every file each time; `fresh` has none, so that nothing of it may be wrong. */
static void edits_as_by_full_reads(void **state)
{
	struct reader again, full;
	size_t parsed = 0, all = 0, compared = 0;

	(void)state;
	start(&again);
	start(&full);
	put("z.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
	for (int i = 0; i < 600; i++) {
		bool tame = i / 50 % 2;
		struct reader fresh;

		if (tame && i % 50 == 0)
			clear();
		for (unsigned n = 1 + draw(3); n; n--)
			random_edit(tame);
		start(&fresh);
		folder_done(&full.folder);
		read_again(&again);
		read_again(&full);
		read_again(&fresh);
		parsed += again.folder.parsed;
		all += full.folder.parsed;
		assert_same(&again, &full);
		if (is_all_well(&fresh)) {
			assert_same(&again, &fresh);
			compared++;
		}
		end(&fresh);
	}
	assert_true(compared > 50 && parsed < all);
	print_message("%zu of %zu files parsed, %zu compared with a first read\n", parsed, all, compared);
	end(&again);
	end(&full);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(only_what_changed_is_parsed, set_up),
		cmocka_unit_test_setup(a_swapped_link_is_followed, set_up),
		cmocka_unit_test_setup(the_first_of_two_counts_again, set_up),
		cmocka_unit_test_setup(edits_as_by_full_reads, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
