/* SPDX-License-Identifier: Apache-2.0 */
/* Shared inside identity/ only. */
#pragma once
#include "abi/reasons.h"

#include <openssl/x509.h>
#include <time.h>

struct tls_verify;

/* Slot in an SSL that holds its struct tls_verify. */
int identity_ex_index(void);
/* SSL_CTX_set_cert_verify_callback: the whole verification of a peer's chain. */
int identity_verify_callback(X509_STORE_CTX *ctx, void *arg);
/* All certificates of a PEM text in order; NULL when there is none or one is malformed. Caller frees. */
STACK_OF(X509) * identity_read_certs(const char *pem);
/* The one URI of a certificate when it has exactly one and that is a SPIFFE ID; otherwise NULL, with the reason and
 * *ret_why (static). Caller frees. */
char *identity_spiffe(X509 *leaf, enum wr_reason *ret_reason, const char **ret_why);
/* What is wrong with a URI that spiffe_parse() refuses; static. */
const char *spiffe_fault(const char *uri, size_t len);
/* The serial number in decimal; NULL: no memory. Caller frees. */
char *identity_serial(const X509 *leaf);
time_t identity_time(const ASN1_TIME *t);
