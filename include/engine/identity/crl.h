/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificate revocation lists of one file (RFC 5280 5): read, checked against those who may sign them, and asked.
 * Immutable, counted. Any thread.
 */
#pragma once
#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

struct crl;

/* Reads the PEM lists of a text (or one in DER), each signed by one of `issuers`. All are good or none is taken: 0,
 * -ENOMEM, or -EINVAL with *ret_error (malloc'd) saying what is wrong with which. */
int crl_read(const char *text, size_t len, STACK_OF(X509) * issuers, struct crl **ret, char **ret_error);
struct crl *crl_ref(struct crl *c);
struct crl *crl_unref(struct crl *c);
/* Whether a list of this very issuer (by key) names the certificate. */
bool crl_revokes(const struct crl *c, X509 *cert, X509 *issuer);
/* How many certificates it names, and the earliest nextUpdate of its lists (0: none says one). */
size_t crl_size(const struct crl *c);
time_t crl_next_update(const struct crl *c);
