/* SPDX-License-Identifier: Apache-2.0 */
/* Arbitrary bytes as a SPIFFE ID and as the PEM texts of an identity. */
#include "engine/identity/tls_identity.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tls_identity *identity;
	const char *error;
	struct spiffe_id id;
	char *text = malloc(size + 1);

	if (!spiffe_parse((const char *)data, size, &id) &&
	    (!id.trust_domain_len || !id.namespace_len || !id.service_account_len ||
	     id.trust_domain_len + id.namespace_len + id.service_account_len + 17 != size))
		abort();
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	if (!tls_identity_new(text, text, &identity, &error))
		tls_identity_unref(identity);
	free(text);
	return 0;
}
