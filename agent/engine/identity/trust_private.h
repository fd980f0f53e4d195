/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of struct trust, for trust.c and verify.c. */
#pragma once
#include "engine/identity/trust.h"

#include <stdatomic.h>

struct trust {
	atomic_uint refs;
	X509_STORE *roots;
	char **domains;
	size_t n_domains;
	struct crl **crls;
	size_t n_crls;
	bool crl_missing;
};
