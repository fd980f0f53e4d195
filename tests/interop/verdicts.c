/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warren's verdicts on many policy sets, for a comparison with another implementation. A file comes in:
 * {sets: [[manifest]], subjects: [{identity?, source, destination, port}]}; for each set a line leaves with 1 (allowed)
 * or 0 for each subject. The workload is the pod shop/shop. Called by test_envoy_rbac.py.
 */
#include "agent/engine/source/assemble.h"
#include "agent/engine/source/file.h"
#include "agent/engine/source/yaml.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"

#include <fcntl.h>
#include <string.h>

static const char pod[] = "{apiVersion: v1, kind: Pod, metadata: {name: shop, namespace: shop, labels: {app: shop, "
			  "istio.io/dataplane-mode: ambient}}, spec: {nodeName: n1}}";

static void keep(void *arg, cJSON *tree, int line)
{
	(void)line;
	*(cJSON **)arg = tree;
}

static void broken(void *arg, const struct yaml_error *error)
{
	(void)arg;
	fprintf(stderr, "verdicts: line %d: %s\n", error->line, error->reason);
}

/* NULL: it cannot be read, which was said. */
static cJSON *parse(const char *text, size_t len)
{
	static const struct yaml_handlers handlers = {keep, broken};
	cJSON *tree = NULL;

	return yaml_parse(text, len, &handlers, &tree) < 0 ? NULL : tree;
}

static int subject_of(const cJSON *o, struct policy_subject *ret)
{
	*ret = (struct policy_subject){
		.identity = decode_string(o, "identity", NULL),
		.destination.port = (uint16_t)cJSON_GetNumberValue(get(o, "port")),
	};
	if (ip_addr_parse(decode_string(o, "source", ""), &ret->source) ||
	    ip_addr_parse(decode_string(o, "destination", ""), &ret->destination.ip))
		return -EINVAL;
	return 0;
}

/* A refused document would close what it is for: the two would differ for another reason than the one looked for. */
static int none_refused(const struct store *s)
{
	cJSON *dump = store_dump(s), *i;
	int r = 0;

	cJSON_ArrayForEach(i, dump) {
		if (strcmp(decode_string(i, "state", ""), "refused"))
			continue;
		fprintf(stderr, "verdicts: %s is refused: %s\n", decode_string(i, "name", ""),
			decode_string(i, "reason", ""));
		r = -EINVAL;
	}
	cJSON_Delete(dump);
	return r;
}

static int judge(const cJSON *subjects, const struct policy_set *set)
{
	const cJSON *i;

	cJSON_ArrayForEach(i, subjects) {
		struct policy_subject subject;
		struct policy_verdict v;

		if (subject_of(i, &subject) < 0) {
			fprintf(stderr, "verdicts: a subject without source and destination\n");
			return -EINVAL;
		}
		policy_evaluate(set, &subject, &v);
		putchar(v.allow ? '1' : '0');
	}
	putchar('\n');
	return 0;
}

static int judge_set(const cJSON *manifests, const cJSON *subjects)
{
	struct store s = {.quiet = true};
	struct assembly a = {.cfg = {.node = "n1",
				     .cluster_id = "Kubernetes",
				     .network = "",
				     .cluster_domain = "cluster.local",
				     .trust_domain = "cluster.local"}};
	struct model *m = model_new();
	struct model_delta *d = NULL;
	struct workload *w;
	const cJSON *i;
	int r;

	store_begin(&s);
	store_put(&s, "pod", 1, parse(pod, strlen(pod)));
	cJSON_ArrayForEach(i, manifests) {
		store_put(&s, "set", 1, cJSON_Duplicate(i, true));
	}
	store_end(&s);
	r = none_refused(&s);
	r = r ? r : assemble(&a, &s, &d);
	r = r ? r : model_apply(m, d);
	model_delta_free(d);
	w = r ? NULL : model_workload_by_uid(m, "Kubernetes//Pod/shop/shop");
	r = w ? judge(subjects, w->policy) : -EINVAL;
	model_free(m);
	assemble_done(&a);
	store_done(&s);
	return r;
}

int main(int argc, char **argv)
{
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	cJSON *tree;
	const cJSON *set;
	int r = 0;

	log_set_level("error");
	if (argc != 2 || file_read(AT_FDCWD, argv[1], &text, &len, NULL) < 0) {
		fprintf(stderr, "verdicts: name a file with sets and subjects\n");
		return 2;
	}
	tree = parse(text, len);
	cJSON_ArrayForEach(set, get(tree, "sets")) {
		r = r ? r : judge_set(set, get(tree, "subjects"));
	}
	r = tree ? r : -EINVAL;
	cJSON_Delete(tree);
	return r ? 1 : 0;
}
