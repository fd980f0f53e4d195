/* SPDX-License-Identifier: Apache-2.0 */
/* SPIFFE IDs in Istio's form (SPIFFE-ID 2; istio: spiffe://<td>/ns/<ns>/sa/<sa>). Called by verify.c and ca.c. */
#include "engine/identity/tls_identity.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

/* SPIFFE-ID 2.3. Policy relies on it: to it a longer name would be nobody's. */
#define ID_BYTES_MAX 2048

/* One path piece or trust domain: not empty, only characters that SPIFFE-ID 2.1 and 2.2 allow. */
static size_t piece(const char *at, const char *end)
{
	const char *p = at;

	while (p < end && *p != '/') {
		unsigned char c = (unsigned char)*p;

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
		      c == '.' || c == '_'))
			return 0;
		p++;
	}
	return (size_t)(p - at);
}

static bool skip(const char **at, const char *end, const char *text)
{
	size_t n = strlen(text);

	if ((size_t)(end - *at) < n || memcmp(*at, text, n))
		return false;
	*at += n;
	return true;
}

int spiffe_parse(const char *uri, size_t len, struct spiffe_id *ret)
{
	const char *at = uri, *end = uri + len;
	struct spiffe_id id;

	if (len > ID_BYTES_MAX || !skip(&at, end, "spiffe://"))
		return -EINVAL;
	id.trust_domain = at;
	id.trust_domain_len = piece(at, end);
	at += id.trust_domain_len;
	if (!id.trust_domain_len || !skip(&at, end, "/ns/"))
		return -EINVAL;
	id.namespace_ = at;
	id.namespace_len = piece(at, end);
	at += id.namespace_len;
	if (!id.namespace_len || !skip(&at, end, "/sa/"))
		return -EINVAL;
	id.service_account = at;
	id.service_account_len = piece(at, end);
	if (!id.service_account_len || at + id.service_account_len != end)
		return -EINVAL;
	*ret = id;
	return 0;
}
