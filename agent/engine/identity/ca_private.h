/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the embedded CA share: ca.c (the folder as a whole), ca_file.c (reading and writing in it),
 * ca_cert.c (keys and certificates), ca_ledger.c (what was issued), ca_rotation.c, ca_revoke.c. Control thread.
 */
#pragma once
#include "engine/identity/ca.h"

#include <openssl/x509.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define CA_BACKDATE_S 300
#define CA_ROOT_CERT "root-cert.pem"
#define CA_ROOT_KEY "root-key.pem"
#define CA_CRL "crl.pem"
/* During a rotation: the root to come, and the one to go while leaves are issued from the new one. */
#define CA_NEXT_KEY "next-root-key.pem"
#define CA_OLD_KEY "old-root-key.pem"
#define CA_ROTATION "rotation"
#define CA_REVOKED_IDENTITIES "revoked-identities"

struct ca {
	char *path, *trust_domain;
	unsigned ttl_s;
	bool own;   /* a root of our own, not the operator's files */
	X509 *cert; /* what signs: root or intermediate */
	EVP_PKEY *key;
	char *chain_pem; /* what goes behind the leaf; "" for a root of our own */
	char *roots_pem;
	char signer[17]; /* names `cert` in the ledger */
	char *gone;	 /* why nothing can be issued now; NULL when all is well */
	bool ledger_warned;
	size_t ledger_pruned; /* its size after it was last rewritten */
	char describe[512];
};

/* --- ca_file.c --- */
/* Returns `error` with *ret_error the text. */
int ca_fail(char **ret_error, int error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The folder's descriptor, or -errno. */
int ca_folder(const char *path, char **ret_error);
/* Holds the folder's lock until the descriptor is closed: a descriptor, or -errno. */
int ca_lock(int dir, const char *path, char **ret_error);
/* Both; `*ret_lock` is the caller's to close, too. */
int ca_folder_locked(const char *path, int *ret_lock, char **ret_error);
/* Reads a whole file as text; of a private one nobody else may have a right. -ENOENT without a text. */
int ca_read(int dir, const char *path, const char *name, bool private, char **ret, char **ret_error);
/* Whole or not at all: written beside, synced, renamed. */
int ca_write(int dir, const char *path, const char *name, mode_t mode, const char *text, char **ret_error);
/* Overwrites a secret text before it is freed; NULL is fine. */
void ca_wipe(char *text);

/* --- ca_cert.c --- */
X509 *ca_make_root(EVP_PKEY *key, const char *trust_domain);
X509 *ca_make_leaf(const struct ca *ca, EVP_PKEY *key, const char *spiffe);
/* PEM texts; NULL: no memory. */
char *ca_cert_pem(X509 *x);
char *ca_key_pem(EVP_PKEY *key);
EVP_PKEY *ca_read_key(const char *pem);
/* The first 16 hex digits of the certificate's SHA-256. */
void ca_fingerprint(X509 *x, char ret[17]);
/* The certificate of a PEM text that this key belongs to, or NULL. Caller frees. */
X509 *ca_cert_of_key(const char *pem, EVP_PKEY *key);

/* --- ca_ledger.c: one line for each certificate, of all agents on this folder --- */
struct ledger_entry {
	char serial[64]; /* decimal */
	int64_t not_after;
	char signer[17];
	const char *spiffe; /* valid during the call */
};
/* Appends one line; a folder that cannot be written is no failure, but warned of once. */
void ca_ledger_add(struct ca *ca, const struct tls_identity *id);
/* Calls fn for each certificate that has not expired. 0 or -errno. */
int ca_ledger_each(int dir, const char *path, void (*fn)(void *arg, const struct ledger_entry *e), void *arg,
		   char **ret_error);

/* --- ca_revoke.c --- */
/* Writes the list anew with what it holds, signed by every root that has leaves; nothing when there is none. The lock
 * is held.
 */
int ca_crl_sign(struct ca *ca, int dir, char **ret_error);
/* 0, or -EKEYREVOKED when certificates of this identity have been revoked. */
int ca_check_identity(const struct ca *ca, const char *spiffe, char **ret_error);
