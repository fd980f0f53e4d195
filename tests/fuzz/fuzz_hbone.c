/* SPDX-License-Identifier: Apache-2.0 */
/* Arbitrary bytes as authority and as forwarded header. */
#include "engine/proto/hbone.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hbone_authority a;
	const char *host;
	size_t n;

	if (!hbone_authority_parse((const char *)data, size, &a) && !a.port)
		abort();
	n = hbone_forwarded_host((const char *)data, size, &host);
	if (n && (host < (const char *)data || host + n > (const char *)data + size))
		abort();
	return 0;
}
