/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedded CA behind --ca=dir:PATH: makes its root on first start, or signs with the operator's own (Istio's
 * plug-in files). A folder path comes in, tls_identity objects leave; called by cert_store.c and agent/.
 */
#include "engine/identity/ca.h"
#include "engine/base/cleanup.h"
#include "engine/base/dir.h"
#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define ROOT_YEARS 10
#define BACKDATE_S 300
#define FILE_BYTES (256 * 1024)

struct ca {
	X509 *cert; /* what signs: root or intermediate */
	EVP_PKEY *key;
	char *chain_pem; /* what goes behind the leaf; "" for a root of our own */
	char *roots_pem;
	unsigned ttl_s;
	char describe[512];
};

static int fail(char **ret_error, int error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static int fail(char **ret_error, int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(ret_error, fmt, ap) < 0)
		*ret_error = NULL;
	va_end(ap);
	ERR_clear_error();
	return error;
}

/* --- files --- */

/* Reads a whole file as text. Private ones must not be readable by others. */
static int read_file(int dir, const char *dir_path, const char *name, bool private, char **ret, char **ret_error)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return errno == ENOENT
			       ? -ENOENT
			       : fail(ret_error, -errno, "%s/%s: cannot open: %s", dir_path, name, strerror(errno));
	if (fstat(fd, &st) < 0)
		return -errno;
	if (private && (st.st_mode & 077))
		return fail(ret_error, -EPERM, "%s/%s: mode %04o lets others read a private key; run: chmod 600 %s/%s",
			    dir_path, name, st.st_mode & 0777, dir_path, name);
	if (st.st_size > FILE_BYTES)
		return fail(ret_error, -EFBIG, "%s/%s: larger than %d bytes", dir_path, name, FILE_BYTES);
	text = calloc(1, (size_t)st.st_size + 1);
	n = text ? read(fd, text, (size_t)st.st_size) : -1;
	if (n != st.st_size)
		return fail(ret_error, -EIO, "%s/%s: cannot read", dir_path, name);
	*ret = take_ptr(text);
	return 0;
}

/* Whole or not at all: written beside, synced, renamed. */
static int write_file(int dir, const char *dir_path, const char *name, mode_t mode, const char *text, size_t len,
		      char **ret_error)
{
	char tmp[128];
	_cleanup_close_ int fd = -1;

	snprintf(tmp, sizeof(tmp), ".%s.tmp", name);
	(void)unlinkat(dir, tmp, 0);
	fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len || fsync(fd) < 0 || renameat(dir, tmp, dir, name) < 0) {
		int e = errno ? errno : EIO;

		(void)unlinkat(dir, tmp, 0);
		return fail(ret_error, -e, "%s/%s: cannot write: %s; free space or make the folder writable", dir_path,
			    name, strerror(e));
	}
	(void)fsync(dir);
	return 0;
}

/* --- certificates --- */

static bool add_ext(X509 *x, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *e;
	bool ok;

	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
	e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = e && X509_add_ext(x, e, -1) == 1;
	X509_EXTENSION_free(e);
	return ok;
}

static bool random_serial(X509 *x)
{
	unsigned char bytes[16];
	BIGNUM *bn;
	bool ok;

	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return false;
	bytes[0] = (bytes[0] & 0x7f) | 0x40; /* positive and of full length (RFC 5280 4.1.2.2) */
	bn = BN_bin2bn(bytes, sizeof(bytes), NULL);
	ok = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x));
	BN_free(bn);
	return ok;
}

static X509 *make_root(EVP_PKEY *key, const char *trust_domain)
{
	X509 *x = X509_new();
	X509_NAME *name = x ? X509_get_subject_name(x) : NULL;
	bool ok =
		x && X509_set_version(x, X509_VERSION_3) && random_serial(x) &&
		X509_gmtime_adj(X509_getm_notBefore(x), -BACKDATE_S) &&
		X509_time_adj_ex(X509_getm_notAfter(x), ROOT_YEARS * 365, 0, NULL) && X509_set_pubkey(x, key) &&
		X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const unsigned char *)trust_domain, -1, -1, 0) &&
		X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const unsigned char *)"Warren root", -1, -1,
					   0) &&
		X509_set_issuer_name(x, name) && add_ext(x, x, NID_basic_constraints, "critical,CA:TRUE") &&
		add_ext(x, x, NID_key_usage, "critical,keyCertSign,cRLSign") &&
		add_ext(x, x, NID_subject_key_identifier, "hash") && X509_sign(x, key, EVP_sha256());

	if (ok)
		return x;
	X509_free(x);
	return NULL;
}

static X509 *make_leaf(struct ca *ca, EVP_PKEY *key, const char *spiffe)
{
	X509 *x = X509_new();
	char san[600];
	bool ok;

	snprintf(san, sizeof(san), "critical,URI:%s", spiffe);
	ok = x && X509_set_version(x, X509_VERSION_3) && random_serial(x) &&
	     X509_gmtime_adj(X509_getm_notBefore(x), -BACKDATE_S) &&
	     X509_gmtime_adj(X509_getm_notAfter(x), (long)ca->ttl_s) && X509_set_pubkey(x, key) &&
	     X509_set_issuer_name(x, X509_get_subject_name(ca->cert)) &&
	     add_ext(x, ca->cert, NID_basic_constraints, "critical,CA:FALSE") &&
	     add_ext(x, ca->cert, NID_key_usage, "critical,digitalSignature") &&
	     add_ext(x, ca->cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
	     add_ext(x, ca->cert, NID_subject_alt_name, san);
	/* A leaf must not outlive its issuer: the chain would break before the leaf says so. */
	if (ok && ASN1_TIME_compare(X509_get0_notAfter(x), X509_get0_notAfter(ca->cert)) > 0)
		ok = X509_set1_notAfter(x, X509_get0_notAfter(ca->cert));
	ok = ok && X509_sign(x, ca->key, EVP_sha256());
	if (ok)
		return x;
	X509_free(x);
	return NULL;
}

static char *to_text(BIO *bio)
{
	char *data;
	long n = BIO_get_mem_data(bio, &data);

	return n > 0 ? strndup(data, (size_t)n) : NULL;
}

static char *cert_pem(X509 *x)
{
	BIO *bio = BIO_new(BIO_s_mem());
	char *text = bio && PEM_write_bio_X509(bio, x) ? to_text(bio) : NULL;

	BIO_free(bio);
	return text;
}

static char *key_pem(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	char *text = bio && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) ? to_text(bio) : NULL;

	BIO_free(bio);
	return text;
}

static void wipe(char *text)
{
	if (text)
		OPENSSL_cleanse(text, strlen(text));
	free(text);
}

static int issue_pem(struct ca *ca, const char *spiffe, char **ret_chain, char **ret_key)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *leaf = key ? make_leaf(ca, key, spiffe) : NULL;
	char *leaf_pem = leaf ? cert_pem(leaf) : NULL, *text = key ? key_pem(key) : NULL, *chain = NULL;
	int r = -ENOMEM;

	if (leaf_pem && text && asprintf(&chain, "%s%s", leaf_pem, ca->chain_pem) > 0) {
		*ret_chain = chain;
		*ret_key = take_ptr(text);
		r = 0;
	}
	wipe(text);
	free(leaf_pem);
	X509_free(leaf);
	EVP_PKEY_free(key);
	return r;
}

int ca_issue(struct ca *ca, const char *spiffe, struct tls_identity **ret, char **ret_error)
{
	_cleanup_free_ char *chain = NULL;
	struct spiffe_id id;
	const char *why = NULL;
	char *key = NULL;
	int r;

	if (spiffe_parse(spiffe, strlen(spiffe), &id) || strlen(spiffe) > 500)
		return fail(ret_error, -EINVAL, "not an identity that can be certified: %s", spiffe);
	if (X509_cmp_current_time(X509_get0_notAfter(ca->cert)) < 0)
		return fail(ret_error, -EKEYEXPIRED, "the CA's own certificate has expired; put a new one in place");
	r = issue_pem(ca, spiffe, &chain, &key);
	if (r < 0)
		return fail(ret_error, r, "cannot issue a certificate for %s", spiffe);
	r = tls_identity_new(chain, key, ca->roots_pem, ret, &why);
	wipe(key);
	return r < 0 ? fail(ret_error, r, "cannot use the new certificate of %s: %s", spiffe, why) : 0;
}

/* --- opening --- */

static EVP_PKEY *read_key(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;

	BIO_free(bio);
	return key;
}

static int check_chain(X509 *cert, const char *chain_pem, const char *roots_pem)
{
	STACK_OF(X509) *chain = *chain_pem ? identity_read_certs(chain_pem) : NULL,
		       *roots = identity_read_certs(roots_pem);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	int error = X509_V_ERR_OUT_OF_MEM;

	for (int i = 0; store && i < sk_X509_num(roots); i++)
		X509_STORE_add_cert(store, sk_X509_value(roots, i));
	if (store && ctx && roots && X509_STORE_CTX_init(ctx, store, cert, chain))
		error = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	sk_X509_pop_free(chain, X509_free);
	sk_X509_pop_free(roots, X509_free);
	return error;
}

/* Puts signing certificate and key together and checks that they can do their work. */
static int adopt(struct ca *ca, const char *path, const char *names[2], const char *cert_text, const char *key_text,
		 const char *kind, char **ret_error)
{
	STACK_OF(X509) *certs = identity_read_certs(cert_text);
	char subject[256];
	int e;

	ca->cert = certs ? sk_X509_shift(certs) : NULL;
	sk_X509_pop_free(certs, X509_free);
	ca->key = read_key(key_text);
	if (!ca->cert)
		return fail(ret_error, -EINVAL,
			    "%s/%s: holds no certificate; restore it, or remove both files to start anew", path,
			    names[0]);
	if (!ca->key)
		return fail(ret_error, -EINVAL, "%s/%s: holds no usable private key", path, names[1]);
	if (X509_check_private_key(ca->cert, ca->key) != 1)
		return fail(ret_error, -EINVAL, "%s/%s does not belong to %s/%s", path, names[1], path, names[0]);
	if (X509_check_ca(ca->cert) != 1)
		return fail(ret_error, -EINVAL, "%s/%s: not a CA certificate (basicConstraints CA:TRUE is missing)",
			    path, names[0]);
	e = check_chain(ca->cert, ca->chain_pem, ca->roots_pem);
	if (e != X509_V_OK)
		return fail(ret_error, -EINVAL, "%s/%s: does not lead to root-cert.pem: %s", path, names[0],
			    X509_verify_cert_error_string(e));
	X509_NAME_oneline(X509_get_subject_name(ca->cert), subject, sizeof(subject));
	snprintf(ca->describe, sizeof(ca->describe), "%s, %s", kind, subject);
	return 0;
}

/* Istio's plug-in files. -ENOENT when ca-cert.pem is not there. */
static int open_plugin(struct ca *ca, int dir, const char *path, char **ret_error)
{
	static const char *names[] = {"ca-cert.pem", "ca-key.pem"};
	_cleanup_free_ char *cert = NULL;
	char *key = NULL;
	int r = read_file(dir, path, names[0], false, &cert, ret_error);

	if (r < 0)
		return r;
	r = read_file(dir, path, names[1], true, &key, ret_error);
	if (r == 0)
		r = read_file(dir, path, "root-cert.pem", false, &ca->roots_pem, ret_error);
	if (r == 0)
		r = read_file(dir, path, "cert-chain.pem", false, &ca->chain_pem, ret_error);
	if (r == -ENOENT)
		r = fail(ret_error, -EINVAL,
			 "%s: ca-cert.pem needs ca-key.pem, root-cert.pem and cert-chain.pem beside it", path);
	if (r == 0)
		r = adopt(ca, path, names, cert, key, "operator's CA", ret_error);
	wipe(key);
	return r;
}

static int create_root(int dir, const char *path, const char *trust_domain, char **ret_error)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *root = key ? make_root(key, trust_domain) : NULL;
	char *cert_text = root ? cert_pem(root) : NULL, *key_text = key ? key_pem(key) : NULL;
	int r = cert_text && key_text ? 0 : fail(ret_error, -ENOMEM, "cannot make a root certificate");

	/* The certificate comes last: with it the pair is complete. */
	if (r == 0)
		r = write_file(dir, path, "root-key.pem", 0600, key_text, strlen(key_text), ret_error);
	if (r == 0)
		r = write_file(dir, path, "root-cert.pem", 0644, cert_text, strlen(cert_text), ret_error);
	wipe(key_text);
	free(cert_text);
	X509_free(root);
	EVP_PKEY_free(key);
	return r;
}

static int open_own(struct ca *ca, int dir, const char *path, const char *trust_domain, char **ret_error)
{
	static const char *names[] = {"root-cert.pem", "root-key.pem"};
	char *key = NULL;
	int r = read_file(dir, path, names[0], false, &ca->roots_pem, ret_error);

	if (r == -ENOENT) {
		r = create_root(dir, path, trust_domain, ret_error);
		if (r == 0)
			r = read_file(dir, path, names[0], false, &ca->roots_pem, ret_error);
	}
	if (r == 0) {
		r = read_file(dir, path, names[1], true, &key, ret_error);
		if (r == -ENOENT)
			r = fail(ret_error, -EINVAL,
				 "%s: root-cert.pem without root-key.pem; restore the key, or use ca-cert.pem and "
				 "ca-key.pem",
				 path);
	}
	if (r == 0) {
		ca->chain_pem = strdup("");
		r = ca->chain_pem ? adopt(ca, path, names, ca->roots_pem, key, "own root", ret_error) : -ENOMEM;
	}
	wipe(key);
	return r;
}

int ca_open_dir(const char *path, const char *trust_domain, unsigned ttl_s, struct ca **ret, char **ret_error)
{
	_cleanup_close_ int dir = -1, lock = -1;
	struct ca *ca;
	int r;

	*ret_error = NULL;
	r = dir_make(path, 0700);
	if (r < 0)
		return fail(ret_error, r, "%s: cannot make the folder: %s", path, strerror(-r));
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return fail(ret_error, -errno, "%s: cannot open: %s", path, strerror(errno));
	/* Two agents may start at once on one folder: the second finds the first one's root. A read-only folder is fine
	 * as long as nothing has to be made. */
	lock = openat(dir, ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (lock >= 0 && flock(lock, LOCK_EX) < 0)
		return fail(ret_error, -errno, "%s/.lock: cannot lock: %s", path, strerror(errno));
	ca = calloc(1, sizeof(*ca));
	if (!ca)
		return -ENOMEM;
	ca->ttl_s = ttl_s;
	r = open_plugin(ca, dir, path, ret_error);
	if (r == -ENOENT)
		r = open_own(ca, dir, path, trust_domain, ret_error);
	if (r < 0) {
		ca_free(ca);
		return r;
	}
	*ret = ca;
	return 0;
}

struct ca *ca_free(struct ca *ca)
{
	if (!ca)
		return NULL;
	X509_free(ca->cert);
	EVP_PKEY_free(ca->key);
	free(ca->chain_pem);
	free(ca->roots_pem);
	free(ca);
	return NULL;
}

const char *ca_describe(const struct ca *ca)
{
	return ca->describe;
}
