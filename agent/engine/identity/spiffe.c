/* SPDX-License-Identifier: Apache-2.0 */
/* SPIFFE IDs in Istio's form (SPIFFE-ID 2; istio: spiffe://<td>/ns/<ns>/sa/<sa>). Called by verify.c and ca.c. */
#include "engine/identity/tls_identity.h"
#include "identity.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define SCHEME "spiffe://"
/* SPIFFE-ID 2.3. Policy relies on it: to it a longer name would be nobody's. */
#define ID_BYTES_MAX 2048
/* In the path of Istio's form: before ns, NAME, sa and NAME. */
#define PATH_SLASHES 4

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

	if (len > ID_BYTES_MAX || !skip(&at, end, SCHEME))
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

const char *spiffe_fault(const char *uri, size_t len)
{
	const char *at = uri, *end = uri + len;
	bool empty = false;
	int slashes = 0;

	if (len && memchr(uri, 0, len))
		return "a NUL byte inside the URI";
	if (len > ID_BYTES_MAX)
		return "the URI is longer than 2048 bytes";
	if (!skip(&at, end, SCHEME))
		return "the URI's scheme is not spiffe";
	if (memchr(at, '%', (size_t)(end - at)))
		return "percent-encoding in the URI";
	for (; at < end; at++) {
		slashes += *at == '/';
		empty = empty || (*at == '/' && (at + 1 == end || at[1] == '/'));
	}
	return empty			? "an empty piece in the URI's path"
	       : slashes > PATH_SLASHES ? "extra pieces in the URI's path"
					: "the URI is not spiffe://DOMAIN/ns/NAME/sa/NAME";
}
