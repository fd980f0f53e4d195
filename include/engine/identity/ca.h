/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded CA behind --ca=dir:PATH. Control thread only. In PATH: Istio's plug-in files ca-cert.pem ca-key.pem
 * root-cert.pem cert-chain.pem if the operator put them there (RSA or EC); otherwise root-cert.pem/root-key.pem made on
 * first start (ECDSA P-256, key 0600, written by rename under a lock file, so that two agents may start at once on one
 * folder). Several agents share a folder: what one changes, the others read again.
 */
#pragma once
#include "engine/identity/tls_identity.h"

struct ca;

/* Opens or creates. `ttl_s` is the life of a leaf. 0, or -errno with *ret_error (malloc'd) naming file and cause. */
int ca_open_dir(const char *path, const char *trust_domain, unsigned ttl_s, struct ca **ret, char **ret_error);
struct ca *ca_free(struct ca *ca);
/* Reads the folder anew; makes nothing. 0, or -errno with *ret_error (malloc'd): broken contents leave the last good
 * ones in force, without the folder or its root (-ENOENT) nothing is issued until they are back. */
int ca_reload(struct ca *ca, char **ret_error);
/* Issues a fresh key and leaf for a SPIFFE ID (back-dated 5 min; serverAuth+clientAuth; critical URI SAN; 128-bit
 * random serial). 0, or -errno with *ret_error (malloc'd); -EKEYREVOKED: this identity gets none. */
int ca_issue(struct ca *ca, const char *spiffe, struct tls_identity **ret, char **ret_error);

/* "own root" or "operator's CA", and the signer's subject, for status. All borrowed, valid until a reload. */
const char *ca_describe(const struct ca *ca);
const char *ca_path(const struct ca *ca);
const char *ca_roots(const struct ca *ca);
/* Another text when another certificate signs. */
const char *ca_signer(const struct ca *ca);
/* Whose revocation lists count: the roots and what stands between them and the leaves. Caller frees all. */
STACK_OF(X509) * ca_crl_issuers(const struct ca *ca);

/* Rotation of a root of our own: the phase stands in the folder. */
enum ca_phase { CA_PHASE_NONE, CA_PHASE_PUBLISHED, CA_PHASE_ISSUING };
enum ca_rotate_step {
	CA_ROTATE_BEGIN,  /* publishes a new root beside the old one; harmless while one is under way */
	CA_ROTATE_FINISH, /* goes on by one phase: issues from the new root, then drops the old one */
	CA_ROTATE_FORCE,  /* the same without waiting for agents, or for leaves of the old root to expire */
};
/* 0, or -errno with *ret_error (malloc'd) saying what it waits for. */
int ca_rotate(struct ca *ca, enum ca_rotate_step step, enum ca_phase *ret_phase, char **ret_error);
enum ca_phase ca_phase(const struct ca *ca);
const char *ca_phase_name(enum ca_phase phase);

/* Puts a serial number, or all valid certificates of an identity, on the list in crl.pem; an identity gets no new ones
 * from here on. *ret_count: how many were added. 0, or -errno with *ret_error (malloc'd). */
int ca_revoke(struct ca *ca, const char *what, unsigned *ret_count, char **ret_error);
/* Signs crl.pem anew when less than half of its time is left before `next_update`. 0 or -errno. */
int ca_crl_renew(struct ca *ca, time_t next_update);
