/* SPDX-License-Identifier: Apache-2.0 */
/* Arbitrary bytes as a manifest file: parsed, checked, stored, assembled into the model and dumped; its policies are
 * compiled for a pod of this node that is beside it. */
#include "agent/engine/source/assemble.h"
#include "agent/engine/source/store.h"
#include "agent/engine/source/yaml.h"
#include "engine/base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void document(void *arg, cJSON *tree, int line)
{
	store_put(arg, "fuzz.yaml", line, tree);
}

static void broken(void *arg, const struct yaml_error *error)
{
	store_put_broken(arg, "fuzz.yaml", error);
}

static const struct yaml_handlers handlers = {document, broken};

static const char pod[] = "apiVersion: v1\nkind: Pod\nmetadata: {name: own, namespace: shop, labels: {app: web}}\n"
			  "spec: {nodeName: n1}\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct assembly a = {.cfg = {.node = "n1",
				     .cluster_id = "Kubernetes",
				     .network = "",
				     .cluster_domain = "cluster.local",
				     .trust_domain = "cluster.local"}};
	struct store s = {0};
	struct model *m = model_new();
	struct model_delta *d;

	log_set_level("error");
	store_begin(&s);
	(void)yaml_parse(pod, sizeof(pod) - 1, &handlers, &s);
	(void)yaml_parse((const char *)data, size, &handlers, &s);
	store_end(&s);
	for (int i = 0; i < 2; i++) {
		if (assemble(&a, &s, &d) == 0) {
			model_apply(m, d);
			model_delta_free(d);
		}
	}
	cJSON_Delete(store_dump(&s));
	cJSON_Delete(assemble_policy_dump(&a, &s));
	model_free(m);
	assemble_done(&a);
	store_done(&s);
	return 0;
}
