/* SPDX-License-Identifier: Apache-2.0 */
/* warren-agent: the node agent of the mesh. A command line comes in, an exit code leaves; node.c is the agent. */
#include "node.h"

int main(int argc, char **argv)
{
	struct options o;
	struct node *n;
	int r = options_parse(argc, argv, &o);

	if (r)
		return r > 0 ? 0 : 2;
	if (node_start(&o, &n) < 0)
		return 1;
	r = node_run(n);
	node_free(n);
	return r < 0;
}
