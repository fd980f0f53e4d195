/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificate provider interface and the embedded CA behind --ca=dir:PATH. Control thread only (except where noted).
 * In PATH: Istio's plug-in files ca-cert.pem ca-key.pem root-cert.pem cert-chain.pem if the operator put them there
 * (RSA or EC); otherwise root-cert.pem/root-key.pem made on first start (ECDSA P-256, key 0600, written by rename under
 * a lock file, so that two agents may start at once on one folder).
 */
#pragma once
#include "engine/identity/tls_identity.h"

struct ca;

/* Opens or creates. `ttl_s` is the life of a leaf. 0, or -errno with *ret_error (malloc'd) naming file and cause. */
int ca_open_dir(const char *path, const char *trust_domain, unsigned ttl_s, struct ca **ret, char **ret_error);
struct ca *ca_free(struct ca *ca);
/* Issues a fresh key and leaf for a SPIFFE ID (back-dated 5 min; serverAuth+clientAuth; critical URI SAN; 128-bit
 * random serial). 0, or -errno with *ret_error (malloc'd). */
int ca_issue(struct ca *ca, const char *spiffe, struct tls_identity **ret, char **ret_error);
/* "self-signed root made by Warren" or "operator's intermediate", and the root's subject, for status. Borrowed. */
const char *ca_describe(const struct ca *ca);

/* Certificates of the workloads on this node: one per SPIFFE ID, counted users, renewed at half life. */
struct cert_store;
struct loop;
/* `changed` is called on the control thread with each renewed identity (borrowed). */
int cert_store_new(struct ca *ca, struct loop *loop, void (*changed)(void *arg, struct tls_identity *id), void *arg,
		   struct cert_store **ret);
struct cert_store *cert_store_free(struct cert_store *s);
/* Takes a user reference on this identity's certificate, issuing it if new. *ret_id is a counted reference. */
int cert_store_get(struct cert_store *s, const char *spiffe, struct tls_identity **ret_id, char **ret_error);
/* Drops one user; the certificate is forgotten with the last. */
void cert_store_put(struct cert_store *s, const char *spiffe);
/* JSON array for `warrenctl certificate` (identity, serial, not_before, not_after, state, users, pem chain; no keys).
 */
struct cJSON;
struct cJSON *cert_store_dump(struct cert_store *s);
