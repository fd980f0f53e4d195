/* SPDX-License-Identifier: Apache-2.0 */
/* Shared inside identity/ only. */
#pragma once
#include <openssl/x509.h>

/* Slot in an SSL that holds its struct tls_verify. */
int identity_ex_index(void);
/* SSL_CTX_set_cert_verify_callback: the whole verification of a peer's chain. */
int identity_verify_callback(X509_STORE_CTX *ctx, void *arg);
/* All certificates of a PEM text in order; NULL when there is none or one is malformed. Caller frees. */
STACK_OF(X509) * identity_read_certs(const char *pem);
