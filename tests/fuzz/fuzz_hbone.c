/* SPDX-License-Identifier: Apache-2.0 */
/* Arbitrary bytes as authority, forwarded header and baggage. */
#include "engine/proto/hbone.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hbone_authority a;
	const char *host;
	char *text;
	size_t n;

	if (!hbone_authority_parse((const char *)data, size, &a) && !a.port)
		abort();
	n = hbone_forwarded_host((const char *)data, size, &host);
	if (n && (host < (const char *)data || host + n > (const char *)data + size))
		abort();
	text = strndup((const char *)data, size);
	workload_unref(hbone_baggage_parse(text));
	free(text);
	return 0;
}
