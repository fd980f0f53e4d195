/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Follows the CA's folder and the revocation lists. Events of inotify come in, a look each second for file systems that
 * send none, and the names of the trust domain; a new struct trust leaves when something has changed. Called by
 * agent/identities.c and the admin commands.
 */
#include "engine/identity/trust_keeper.h"
#include "ca_private.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "engine/io/loop.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdarg.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>

/* Several files of one change are read together. */
#define SETTLE_MS 30
#define LOOK_MS 1000
#define EVENTS (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB | IN_CREATE | IN_DELETE_SELF)

/* Whether a file is still the one that was read. */
struct print {
	dev_t dev;
	ino_t ino;
	mode_t mode;
	off_t size;
	struct timespec mtime;
};

static const char *const ca_files[] = {"ca-cert.pem", "ca-key.pem", "cert-chain.pem",
				       CA_ROOT_CERT,  CA_ROOT_KEY,  CA_REVOKED_IDENTITIES};

/* One file of revocation lists: the operator's, or the one in the CA's folder. */
struct list_file {
	char *path;
	bool configured; /* the operator's always is, the CA's from the moment that it is there */
	bool looked, stale;
	struct print print;
	struct crl *crl; /* the last good one */
	char *alarm;
};

enum { LIST_OPERATOR, LIST_CA, LISTS };

struct trust_keeper {
	struct trust_keeper_config cfg;
	struct trust *trust;
	char **domains; /* our trust domain, then its aliases */
	size_t n_domains;
	bool owed; /* what changed is not believed yet: memory ran out */
	struct list_file lists[LISTS];
	struct print ca_prints[ARRAY_SIZE(ca_files)];
	char *crl_dir;
	char *ca_alarm;
	char signer[32];
	struct watch watch;
	struct timer settle, look;
};

static void set_alarm(char **alarm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void set_alarm(char **alarm, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (text && (!*alarm || strcmp(*alarm, text)))
		log_error("identity", "ALARM: %s", text);
	free(*alarm);
	*alarm = text;
}

static void clear_alarm(char **alarm, const char *what)
{
	if (*alarm)
		log_info("identity", "%s is good again", what);
	free(*alarm);
	*alarm = NULL;
}

static struct print print_of(const char *path)
{
	struct print p;
	struct stat st;

	memset(&p, 0, sizeof(p));
	if (stat(path, &st) < 0)
		return p;
	p.dev = st.st_dev;
	p.ino = st.st_ino;
	p.mode = st.st_mode;
	p.size = st.st_size;
	p.mtime = st.st_mtim;
	return p;
}

static bool same_print(const struct print *a, const struct print *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->mode == b->mode && a->size == b->size &&
	       a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec;
}

/* --- revocation lists --- */

static int read_list(struct trust_keeper *k, struct list_file *f, struct crl **ret, char **ret_error)
{
	_cleanup_close_ int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_free_ char *text = NULL;
	STACK_OF(X509) * issuers;
	int r = ca_read(dir, "", f->path + 1, false, &text, ret_error);

	if (r == -ENOENT)
		return ca_fail(ret_error, r, "it is not there");
	if (r < 0)
		return r;
	issuers = ca_crl_issuers(k->cfg.ca);
	r = crl_read(text, f->print.size > 0 ? (size_t)f->print.size : strlen(text), issuers, ret, ret_error);
	sk_X509_pop_free(issuers, X509_free);
	return r;
}

/* True when a new list is in force. */
static bool look_at_list(struct trust_keeper *k, struct list_file *f, bool new_issuers)
{
	struct print now;
	struct crl *fresh;
	char *error = NULL;
	bool was_configured = f->configured;

	if (!f->path)
		return false;
	now = print_of(f->path);
	if (f->looked && same_print(&f->print, &now) && !new_issuers)
		return false;
	f->looked = true;
	f->print = now;
	f->configured = f->configured || now.ino;
	if (!f->configured)
		return false;
	if (read_list(k, f, &fresh, &error) < 0) {
		set_alarm(&f->alarm, "revocation list %s: %s; %s", f->path, error ? error : "out of memory",
			  f->crl ? "the last good one stays in force"
				 : "none was ever read, so no handshake succeeds until it is good");
		free(error);
		return !was_configured;
	}
	clear_alarm(&f->alarm, f->path);
	crl_unref(f->crl);
	f->crl = fresh;
	f->stale = false;
	return true;
}

/* Past nextUpdate a list still says who is revoked, and perhaps not all. The CA's own is signed anew in time. */
static void look_at_age(struct trust_keeper *k, struct list_file *f)
{
	time_t next = f->crl ? crl_next_update(f->crl) : 0;

	if (!next)
		return;
	if (f == &k->lists[LIST_CA])
		(void)ca_crl_renew(k->cfg.ca, next);
	if (next > time(NULL) || f->stale)
		return;
	f->stale = true;
	log_error("identity",
		  "ALARM: revocation list %s is past its nextUpdate: put a newer one in place; used until then",
		  f->path);
}

/* --- the CA's folder --- */

/* True when it was read anew. */
static bool look_at_ca(struct trust_keeper *k)
{
	struct print now[ARRAY_SIZE(ca_files)];
	bool same = true;
	char *error = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(ca_files); i++) {
		_cleanup_free_ char *path = NULL;

		if (asprintf(&path, "%s/%s", ca_path(k->cfg.ca), ca_files[i]) < 0)
			return false;
		now[i] = print_of(path);
		same = same && same_print(&now[i], &k->ca_prints[i]);
	}
	if (same)
		return false;
	memcpy(k->ca_prints, now, sizeof(now));
	if (ca_reload(k->cfg.ca, &error) < 0) {
		set_alarm(&k->ca_alarm,
			  "CA folder: %s; what was read last stays trusted, certificates serve until they expire",
			  error ? error : "out of memory");
		free(error);
		return false;
	}
	clear_alarm(&k->ca_alarm, ca_path(k->cfg.ca));
	return true;
}

/* --- trust domains --- */

static void free_domains(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

static int set_domains(struct trust_keeper *k, char *const *domains, size_t n)
{
	char **list = calloc(n + 1, sizeof(*list));
	size_t have = 0;

	while (list && have < n && (list[have] = strdup(domains[have])))
		have++;
	if (!list || have < n) {
		free_domains(list, have);
		return -ENOMEM;
	}
	free_domains(k->domains, k->n_domains);
	k->domains = list;
	k->n_domains = n;
	return 0;
}

static bool has(char *const *domains, size_t n, const char *domain)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(domains[i], domain))
			return true;
	return false;
}

int trust_keeper_set_aliases(struct trust_keeper *k, char *const *aliases, size_t n, bool widen)
{
	_cleanup_free_ char **list = calloc(n + 1, sizeof(*list));
	bool news = false;
	size_t count = 1;
	int r;

	if (!list)
		return -ENOMEM;
	list[0] = k->domains[0];
	for (size_t i = 0; i < n; i++) {
		bool known = has(k->domains, k->n_domains, aliases[i]);

		/* One that is there twice would stand for one that is gone when they are counted. */
		if ((known || widen) && !has(list, count, aliases[i]))
			list[count++] = aliases[i];
		news = news || (widen && !known);
	}
	/* Every open tunnel is judged again: not for nothing. */
	if (!news && count == k->n_domains)
		return 0;
	r = set_domains(k, list, count);
	if (r < 0)
		return r;
	k->owed = true;
	trust_keeper_look(k);
	return 0;
}

/* --- putting it together --- */

static int make_trust(struct trust_keeper *k)
{
	struct crl *crls[LISTS] = {k->lists[LIST_OPERATOR].crl, k->lists[LIST_CA].crl};
	struct trust_config tc = {.roots_pem = ca_roots(k->cfg.ca),
				  .domains = (const char *const *)k->domains,
				  .n_domains = k->n_domains,
				  .crls = crls,
				  .n_crls = LISTS};
	struct trust *fresh;
	int r;

	for (int i = 0; i < LISTS; i++)
		tc.crl_missing = tc.crl_missing || (k->lists[i].configured && !k->lists[i].crl);
	r = trust_new(&tc, &fresh);
	if (r < 0)
		return r;
	trust_unref(k->trust);
	k->trust = fresh;
	return 0;
}

/* True when what is believed may have changed. */
static bool look(struct trust_keeper *k)
{
	bool ca = look_at_ca(k), lists = false;

	for (int i = 0; i < LISTS; i++)
		lists = look_at_list(k, &k->lists[i], ca) || lists;
	for (int i = 0; i < LISTS; i++)
		look_at_age(k, &k->lists[i]);
	return ca || lists;
}

/* Watches are added again and again: the same folder keeps its watch, one in its place gets a new one. */
static void watch_folders(struct trust_keeper *k)
{
	if (k->watch.fd < 0)
		return;
	(void)inotify_add_watch(k->watch.fd, ca_path(k->cfg.ca), EVENTS);
	if (k->crl_dir)
		(void)inotify_add_watch(k->watch.fd, k->crl_dir, EVENTS);
}

void trust_keeper_look(struct trust_keeper *k)
{
	bool new_signer;

	watch_folders(k);
	loop_timer_set(k->cfg.loop, &k->look, LOOK_MS);
	k->owed = look(k) || k->owed;
	if (!k->owed || make_trust(k) < 0)
		return;
	k->owed = false;
	new_signer = strcmp(k->signer, ca_signer(k->cfg.ca)) != 0;
	snprintf(k->signer, sizeof(k->signer), "%s", ca_signer(k->cfg.ca));
	k->cfg.changed(k->cfg.arg, k->trust, new_signer);
}

static void look_due(struct timer *t)
{
	trust_keeper_look(container_of(t, struct trust_keeper, look));
}

static void settled(struct timer *t)
{
	trust_keeper_look(container_of(t, struct trust_keeper, settle));
}

/* The first event of a burst starts the clock: a stream of them cannot put the look off. */
static void folder_event(struct watch *w, uint32_t events)
{
	struct trust_keeper *k = container_of(w, struct trust_keeper, watch);
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

	(void)events;
	while (read(w->fd, buf, sizeof(buf)) > 0)
		;
	if (!timer_armed(&k->settle))
		loop_timer_set(k->cfg.loop, &k->settle, SETTLE_MS);
}

static int prepare(struct trust_keeper *k)
{
	const char *crl = k->cfg.crl_path && *k->cfg.crl_path ? k->cfg.crl_path : NULL;
	int fd;

	if (asprintf(&k->lists[LIST_CA].path, "%s/%s", ca_path(k->cfg.ca), CA_CRL) < 0)
		return -ENOMEM;
	if (crl) {
		_cleanup_free_ char *copy = strdup(crl);

		k->lists[LIST_OPERATOR].path = strdup(crl);
		k->lists[LIST_OPERATOR].configured = true;
		k->crl_dir = copy ? strdup(dirname(copy)) : NULL;
		if (!k->crl_dir || !k->lists[LIST_OPERATOR].path)
			return -ENOMEM;
	}
	/* Without inotify there is still the look each second. */
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd >= 0 && loop_watch_add(k->cfg.loop, &k->watch, fd, EPOLLIN) < 0)
		close(fd);
	return 0;
}

int trust_keeper_new(const struct trust_keeper_config *cfg, struct trust_keeper **ret)
{
	struct trust_keeper *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return -ENOMEM;
	k->cfg = *cfg;
	k->watch.fd = -1;
	k->watch.fn = folder_event;
	k->settle.fn = settled;
	k->look.fn = look_due;
	r = set_domains(k, (char *const *)(uintptr_t)cfg->domains, cfg->n_domains);
	r = r < 0 ? r : prepare(k);
	if (r == 0) {
		watch_folders(k);
		(void)look(k);
		snprintf(k->signer, sizeof(k->signer), "%s", ca_signer(k->cfg.ca));
		loop_timer_set(k->cfg.loop, &k->look, LOOK_MS);
		r = make_trust(k);
	}
	if (r < 0) {
		trust_keeper_free(k);
		return r;
	}
	*ret = k;
	return 0;
}

struct trust_keeper *trust_keeper_free(struct trust_keeper *k)
{
	if (!k)
		return NULL;
	loop_timer_cancel(k->cfg.loop, &k->settle);
	loop_timer_cancel(k->cfg.loop, &k->look);
	if (k->watch.fd >= 0) {
		loop_watch_del(k->cfg.loop, &k->watch);
		close(k->watch.fd);
	}
	for (int i = 0; i < LISTS; i++) {
		free(k->lists[i].path);
		free(k->lists[i].alarm);
		crl_unref(k->lists[i].crl);
	}
	trust_unref(k->trust);
	free_domains(k->domains, k->n_domains);
	free(k->crl_dir);
	free(k->ca_alarm);
	free(k);
	return NULL;
}

struct trust *trust_keeper_trust(struct trust_keeper *k)
{
	return k->trust;
}

void trust_keeper_alarms(const struct trust_keeper *k, struct cJSON *list)
{
	if (k->ca_alarm)
		cJSON_AddItemToArray(list, cJSON_CreateString(k->ca_alarm));
	for (int i = 0; i < LISTS; i++) {
		_cleanup_free_ char *text = NULL;

		if (k->lists[i].alarm)
			cJSON_AddItemToArray(list, cJSON_CreateString(k->lists[i].alarm));
		if (k->lists[i].stale &&
		    asprintf(&text,
			     "revocation list %s is past its nextUpdate: put a newer one in place; used until then",
			     k->lists[i].path) > 0)
			cJSON_AddItemToArray(list, cJSON_CreateString(text));
	}
}

void trust_keeper_crl_state(const struct trust_keeper *k, char *buf, size_t size)
{
	size_t revoked = 0;
	bool any = false, missing = false, troubled = false;

	for (int i = 0; i < LISTS; i++) {
		const struct list_file *f = &k->lists[i];

		any = any || f->configured;
		missing = missing || (f->configured && !f->crl);
		troubled = troubled || f->alarm || f->stale;
		revoked += f->crl ? crl_size(f->crl) : 0;
	}
	snprintf(buf, size, "%s", "none");
	if (missing)
		snprintf(buf, size, "%s", "never read: handshakes are denied");
	else if (any)
		snprintf(buf, size, "%zu revoked%s", revoked, troubled ? ", ALARM" : "");
}
