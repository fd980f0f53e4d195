/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replacing the embedded CA's root without a failed connection: the new root is published beside the old one, then
 * leaves are issued from it, then the old one is dropped. Every agent on the folder follows by watching it. The phase
 * and its beginning stand in the file `rotation`. Called by agent/certificate_commands.c.
 */
#include "ca_private.h"
#include "engine/base/cleanup.h"
#include "identity.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

/* Agents look at the folder each second: after this all that run trust what was published. */
#define SETTLE_S 5

static const char *const phase_names[] = {"none", "published", "issuing"};

static enum ca_phase read_phase(int dir, const char *path, int64_t *ret_since)
{
	_cleanup_free_ char *text = NULL, *error = NULL;
	char name[16] = "";

	*ret_since = 0;
	if (ca_read(dir, path, CA_ROTATION, false, &text, &error) < 0 ||
	    sscanf(text, "%15s %" SCNd64, name, ret_since) != 2)
		return CA_PHASE_NONE;
	for (int i = CA_PHASE_PUBLISHED; i <= CA_PHASE_ISSUING; i++)
		if (!strcmp(name, phase_names[i]))
			return (enum ca_phase)i;
	return CA_PHASE_NONE;
}

enum ca_phase ca_phase(const struct ca *ca)
{
	_cleanup_free_ char *error = NULL;
	_cleanup_close_ int dir = ca_folder(ca->path, &error);
	int64_t since;

	return dir < 0 ? CA_PHASE_NONE : read_phase(dir, ca->path, &since);
}

static int write_phase(int dir, const char *path, enum ca_phase phase, char **ret_error)
{
	char text[64];

	snprintf(text, sizeof(text), "%s %" PRId64 "\n", phase_names[phase], (int64_t)time(NULL));
	return ca_write(dir, path, CA_ROTATION, 0644, text, ret_error);
}

/* --- the three steps; each is one rename that counts, and may be repeated after a crash --- */

static int publish(struct ca *ca, int dir, char **ret_error)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *root = key ? ca_make_root(key, ca->trust_domain) : NULL;
	char *cert = root ? ca_cert_pem(root) : NULL, *key_text = key ? ca_key_pem(key) : NULL;
	char *own = ca_cert_pem(ca->cert), *bundle = NULL;
	int r = -ENOMEM;

	if (cert && key_text && own && asprintf(&bundle, "%s%s", own, cert) > 0)
		r = ca_write(dir, ca->path, CA_NEXT_KEY, 0600, key_text, ret_error);
	r = r < 0 ? r : ca_write(dir, ca->path, CA_ROOT_CERT, 0644, bundle, ret_error);
	r = r < 0 ? r : write_phase(dir, ca->path, CA_PHASE_PUBLISHED, ret_error);
	ca_wipe(key_text);
	free(bundle);
	free(own);
	free(cert);
	X509_free(root);
	EVP_PKEY_free(key);
	return r;
}

/* With its key in place of the old one the new root is the one that signs; the old key still signs a list of what is
 * revoked. */
static int issue_from_new(struct ca *ca, int dir, char **ret_error)
{
	if (!faccessat(dir, CA_NEXT_KEY, F_OK, 0)) {
		(void)unlinkat(dir, CA_OLD_KEY, 0);
		if (linkat(dir, CA_ROOT_KEY, dir, CA_OLD_KEY, 0) < 0 ||
		    renameat(dir, CA_NEXT_KEY, dir, CA_ROOT_KEY) < 0)
			return ca_fail(ret_error, -errno, "%s: cannot put the new root's key in place: %s", ca->path,
				       strerror(errno));
	}
	return write_phase(dir, ca->path, CA_PHASE_ISSUING, ret_error);
}

/* The list goes first: one of a root that is not trusted any more would be refused. */
static int drop_old(struct ca *ca, int dir, char **ret_error)
{
	_cleanup_free_ char *own = ca_cert_pem(ca->cert);
	int r;

	(void)unlinkat(dir, CA_OLD_KEY, 0);
	r = own ? ca_crl_sign(ca, dir, ret_error) : -ENOMEM;
	r = r < 0 ? r : ca_write(dir, ca->path, CA_ROOT_CERT, 0644, own, ret_error);
	if (r == 0)
		(void)unlinkat(dir, CA_ROTATION, 0);
	return r;
}

/* --- what may be done when --- */

struct last_leaf {
	const char *signer;
	unsigned count;
	int64_t not_after;
};

static void look_at_leaf(void *arg, const struct ledger_entry *e)
{
	struct last_leaf *l = arg;

	if (!strcmp(e->signer, l->signer))
		return;
	l->count++;
	if (e->not_after > l->not_after)
		l->not_after = e->not_after;
}

/* Dropping the root ends what still rests on it: not before the last of its leaves is over, unless forced. */
static int check_leaves(struct ca *ca, int dir, int64_t since, char **ret_error)
{
	struct last_leaf l = {.signer = ca->signer, .not_after = since + ca->ttl_s};
	int r = ca_ledger_each(dir, ca->path, look_at_leaf, &l, ret_error);
	int64_t left = l.not_after - time(NULL);

	if (r < 0 || left <= 0)
		return r;
	return ca_fail(ret_error, -EAGAIN,
		       "%u certificates of the old root are still valid, the last for %" PRId64
		       " s; wait, or drop it now with 'certificate rotate-root --force', which ends what rests on them",
		       l.count, left);
}

static int finish_phase(struct ca *ca, int dir, enum ca_phase phase, int64_t since, bool force, char **ret_error)
{
	int64_t age = time(NULL) - since;
	int r;

	if (phase == CA_PHASE_NONE)
		return ca_fail(ret_error, -EINVAL,
			       "no rotation is under way; begin one with 'certificate rotate-root'");
	if (phase == CA_PHASE_PUBLISHED) {
		if (age < SETTLE_S && !force)
			return ca_fail(ret_error, -EAGAIN,
				       "the new root was published %" PRId64 " s ago; give the agents %d s to read it",
				       age, SETTLE_S);
		return issue_from_new(ca, dir, ret_error);
	}
	r = force ? 0 : check_leaves(ca, dir, since, ret_error);
	return r < 0 ? r : drop_old(ca, dir, ret_error);
}

int ca_rotate(struct ca *ca, enum ca_rotate_step step, enum ca_phase *ret_phase, char **ret_error)
{
	_cleanup_close_ int dir = -1, lock = -1;
	enum ca_phase phase;
	int64_t since;
	int r;

	*ret_error = NULL;
	if (!ca->own)
		return ca_fail(ret_error, -ENOTSUP,
			       "%s holds the operator's CA: put new files in place, which the agents read at once",
			       ca->path);
	dir = ca_folder_locked(ca->path, &lock, ret_error);
	if (dir < 0)
		return dir;
	/* Another agent may have gone on since this one last looked. */
	r = ca_reload(ca, ret_error);
	if (r < 0)
		return r;
	phase = read_phase(dir, ca->path, &since);
	if (step != CA_ROTATE_BEGIN)
		r = finish_phase(ca, dir, phase, since, step == CA_ROTATE_FORCE, ret_error);
	else if (phase == CA_PHASE_NONE)
		r = publish(ca, dir, ret_error);
	r = r < 0 ? r : ca_reload(ca, ret_error);
	if (r == 0)
		*ret_phase = read_phase(dir, ca->path, &since);
	return r;
}

const char *ca_phase_name(enum ca_phase phase)
{
	return phase_names[phase];
}
