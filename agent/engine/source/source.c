/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source `dir:PATH`: a watched folder of manifests. A change is read whole a moment later, and goes to the model as
 * one delta. A folder that cannot be read, or is suddenly empty, changes nothing and alarms. Called by agent/.
 */
#include "engine/source/source.h"
#include "assemble.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/io/loop.h"
#include "folder.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

/* A burst of events (an editor, a ConfigMap swap) is one read. */
#define SETTLE_MS 30
/* Looks at the folder itself now and then: a mount over it or its removal sends no event. */
#define LOOK_MS 1000
/* What was last good is kept at once, or, where that takes longer than a moment, this long after it is in force,
 * however much changes meanwhile: the next change, which is often near, should not wait for it. What the folder does
 * not say any more is kept at once in any case. */
#define SAVE_MOMENT_MS 20
#define SAVE_MS 500
/* A full disk may have room again. */
#define SAVE_RETRY_MS 5000

struct source {
	struct source_config cfg;
	char *path, *state_path;
	struct loop *loop;
	struct watch watch;
	int watch_id;
	struct timer settle, look, save;
	uint64_t save_took_ms;
	int save_error; /* of the last one: said once */
	struct folder folder;
	struct store store;
	struct assembly assembly;
	dev_t dev;
	ino_t ino;
	bool read_once, published;
	uint64_t told;	      /* version of the mesh's settings */
	unsigned first_reads; /* at the start there is nothing that could stay in force: it begins with a quiet read */
	bool retired;
	bool owed; /* memory ran out: what was read is still to be published */
	char *alarm;
};

/* Read from the folder, or from what an earlier agent kept of it. */
static bool has_configuration(const struct source *s)
{
	return s->read_once || store_count(&s->store);
}

static void set_alarm(struct source *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void set_alarm(struct source *s, const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (text && !s->store.quiet && (!s->alarm || strcmp(s->alarm, text)))
		log_error("source", "ALARM: %s; %s%s", text,
			  has_configuration(s) ? "the last configuration stays in force"
					       : "no configuration yet, waiting for ",
			  has_configuration(s) ? "" : s->path);
	free(s->alarm);
	s->alarm = text;
}

static void clear_alarm(struct source *s)
{
	if (s->alarm && !s->store.quiet)
		log_info("source", "%s is readable%s", s->path, s->read_once ? " again" : "");
	free(s->alarm);
	s->alarm = NULL;
}

/* --- reading --- */

/* 0 when the folder was read; an alarm is set otherwise. */
static int read_folder(struct source *s)
{
	_cleanup_free_ char *why = NULL;
	int r = folder_read(&s->folder, &s->store, s->watch.fd, &why);

	if (r < 0)
		set_alarm(s, "%s", why ? why : "out of memory");
	else
		clear_alarm(s);
	return r;
}

static bool is_empty(const struct model_delta *d)
{
	return !d->n_workloads && !d->n_services && !d->n_removed_workloads && !d->n_removed_services;
}

/* What is gone of the names is not believed any more before policies forget it, what is new only once they know it: at
 * no time is somebody let in whom no rule means. The first time nobody is served yet. */
static void tell(struct source *s, const struct model_delta *d)
{
	const struct mesh_settings *m = &s->assembly.policies.mesh;
	bool renamed = s->cfg.aliases && s->told != m->version;

	if (renamed)
		s->cfg.aliases(s->cfg.arg, m->names.aliases, m->names.n_aliases, !s->published);
	/* From inside `changed` the next delta may be published (source_set_pod_addresses). */
	s->told = m->version;
	if (!s->published || !is_empty(d))
		s->cfg.changed(s->cfg.arg, d);
	if (renamed)
		s->cfg.aliases(s->cfg.arg, m->names.aliases, m->names.n_aliases, true);
	s->published = true;
}

static void publish(struct source *s)
{
	struct model_delta *d;

	s->owed = assemble(&s->assembly, &s->store, &d) < 0;
	if (s->owed) {
		log_error("source", "out of memory: the last configuration stays in force");
		loop_timer_set(s->loop, &s->settle, LOOK_MS);
		return;
	}
	tell(s, d);
	model_delta_free(d);
}

/* Also while the folder cannot be read: all that was read of it before is in force. */
static void save(struct source *s)
{
	uint64_t began_ms = clock_now_ms();
	int e = s->retired ? 0 : store_save(&s->store, s->state_path, s->cfg.spec);

	s->save_took_ms = clock_now_ms() - began_ms;
	if (e < 0 && e != s->save_error)
		log_error("source", "%s: cannot keep the last good configuration: %s; tried again every %d s",
			  s->state_path, strerror(-e), SAVE_RETRY_MS / 1000);
	if (!e && s->save_error)
		log_info("source", "%s: the last good configuration is kept again", s->state_path);
	s->save_error = e;
	if (e < 0)
		loop_timer_set(s->loop, &s->save, SAVE_RETRY_MS);
}

static void save_due(struct timer *t)
{
	save(container_of(t, struct source, save));
}

static void save_after(struct source *s, uint64_t ms)
{
	if (s->state_path)
		loop_timer_set(s->loop, &s->save, ms);
}

static void reload(struct source *s)
{
	bool first = !s->read_once;

	if (read_folder(s) == 0) {
		if (s->store.disturbed)
			loop_timer_set(s->loop, &s->settle, SETTLE_MS);
		if (s->store.disturbed && first && ++s->first_reads < STORE_MISSES)
			return;
		s->read_once = true;
	} else if (!s->owed && (!first || !store_count(&s->store))) {
		return;
	} else {
		/* The folder is unreadable at the start: what was last good is as complete as it gets. */
		s->read_once = true;
		s->store.changed = true;
	}
	if (s->store.outlived && timer_armed(&s->save))
		save_after(s, 0);
	if (!first && !s->store.changed && !s->owed)
		return;
	/* First: what it forbids must not wait for a disk. */
	publish(s);
	if (!timer_armed(&s->save) || s->save_error)
		save_after(s, s->save_took_ms > SAVE_MOMENT_MS && !first && !s->store.outlived ? SAVE_MS : 0);
}

/* --- watching --- */

static void watch_folder(struct source *s)
{
	struct stat st;

	if (s->watch_id >= 0)
		(void)inotify_rm_watch(s->watch.fd, s->watch_id);
	s->watch_id = inotify_add_watch(s->watch.fd, s->path,
					IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE |
						IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR);
	if (!stat(s->path, &st)) {
		s->dev = st.st_dev;
		s->ino = st.st_ino;
	}
}

static void events(struct watch *w, uint32_t mask)
{
	struct source *s = container_of(w, struct source, watch);
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	bool relevant = false;
	ssize_t n;

	(void)mask;
	while ((n = read(w->fd, buf, sizeof(buf))) > 0) {
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *ev = (const struct inotify_event *)(const void *)p;

			/* A file just created is still being written: its close will be heard. A link is complete at
			 * once. */
			if (ev->mask & IN_CREATE && !(ev->mask & IN_ISDIR) && ev->len) {
				struct stat st;
				char path[4096];

				snprintf(path, sizeof(path), "%s/%s", s->path, ev->name);
				relevant |= !lstat(path, &st) && (S_ISLNK(st.st_mode) || st.st_nlink > 1);
			} else {
				relevant = true;
			}
			p += sizeof(*ev) + ev->len;
		}
	}
	if (relevant && !timer_armed(&s->settle))
		loop_timer_set(s->loop, &s->settle, SETTLE_MS);
}

static void settled(struct timer *t)
{
	reload(container_of(t, struct source, settle));
}

static void look(struct timer *t)
{
	struct source *s = container_of(t, struct source, look);
	struct stat st;

	if (stat(s->path, &st) < 0 || st.st_dev != s->dev || st.st_ino != s->ino || s->alarm) {
		watch_folder(s);
		reload(s);
	}
	loop_timer_set(s->loop, &s->look, LOOK_MS);
}

/* --- life --- */

static void load_state(struct source *s)
{
	int e = store_load(&s->store, s->state_path, s->cfg.spec);

	if (s->store.quiet)
		return;
	if (e == -ESTALE)
		log_info("source", "%s: the last good configuration is another source's, not used for %s",
			 s->state_path, s->cfg.spec);
	else if (e == -EBADMSG)
		log_error("source", "%s: is damaged, and not used: what the manifests no longer say is not in force",
			  s->state_path);
	else if (e < 0 && e != -ENOENT)
		log_warn("source", "%s: cannot use the last good configuration: %s", s->state_path, strerror(-e));
}

static bool is_dir(const struct source_config *cfg)
{
	return !strncmp(cfg->spec, "dir:", 4) && cfg->spec[4];
}

static int set_paths(struct source *s)
{
	s->path = strdup(s->cfg.spec + 4);
	s->folder.path = s->path;
	if (s->cfg.state_dir && asprintf(&s->state_path, "%s/resources.json", s->cfg.state_dir) < 0)
		s->state_path = NULL;
	return s->path && (s->state_path || !s->cfg.state_dir) ? 0 : -ENOMEM;
}

static struct mesh_options mesh_options(const struct source_config *cfg)
{
	return (struct mesh_options){.trust_domain_aliases = cfg->trust_domain_aliases,
				     .root_namespace = cfg->root_namespace,
				     .trust_domain_given = cfg->trust_domain_given};
}

int source_read_trust_domain(const struct source_config *cfg, char **ret)
{
	struct mesh_options o = mesh_options(cfg);
	struct source s = {.cfg = *cfg, .store.quiet = true, .watch.fd = -1};
	int r = is_dir(cfg) ? set_paths(&s) : 0;

	if (s.path && s.state_path)
		load_state(&s);
	if (s.path)
		(void)read_folder(&s);
	r = r < 0 ? r : mesh_settings_domain(&o, &s.store, ret);
	folder_done(&s.folder);
	store_done(&s.store);
	free(s.path);
	free(s.state_path);
	free(s.alarm);
	return r;
}

int source_open(const struct source_config *cfg, struct loop *loop, struct source **ret, char **ret_error)
{
	struct source *s;
	int fd;

	*ret_error = NULL;
	if (!is_dir(cfg)) {
		if (asprintf(ret_error, "--source: %s: only dir:PATH is supported", cfg->spec) < 0)
			*ret_error = NULL;
		return -EINVAL;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->cfg = *cfg;
	s->loop = loop;
	s->watch.fd = -1;
	s->watch_id = -1;
	s->watch.fn = events;
	s->settle.fn = settled;
	s->look.fn = look;
	s->save.fn = save_due;
	s->assembly.cfg = (struct assemble_config){.node = cfg->node,
						   .cluster_id = cfg->cluster_id,
						   .network = cfg->network,
						   .cluster_domain = cfg->cluster_domain,
						   .trust_domain = cfg->trust_domain,
						   .policies = {.mesh = mesh_options(cfg),
								.bad_mesh_policy_deny = cfg->bad_mesh_policy_deny,
								.l7_deny = cfg->l7_deny}};
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (set_paths(s) < 0 || fd < 0 || loop_watch_add(loop, &s->watch, fd, EPOLLIN) < 0) {
		if (asprintf(ret_error, "cannot watch %s: %s", cfg->spec, strerror(errno)) < 0)
			*ret_error = NULL;
		source_free(s);
		return -EIO;
	}
	if (s->state_path)
		load_state(s);
	watch_folder(s);
	reload(s);
	loop_timer_set(loop, &s->look, LOOK_MS);
	*ret = s;
	return 0;
}

struct source *source_free(struct source *s)
{
	if (!s)
		return NULL;
	if (s->watch.fd >= 0) {
		int fd = s->watch.fd;

		loop_watch_del(s->loop, &s->watch);
		close(fd);
	}
	loop_timer_cancel(s->loop, &s->settle);
	loop_timer_cancel(s->loop, &s->look);
	if (timer_armed(&s->save))
		save(s);
	loop_timer_cancel(s->loop, &s->save);
	assemble_done(&s->assembly);
	folder_done(&s->folder);
	store_done(&s->store);
	free(s->path);
	free(s->state_path);
	free(s->alarm);
	free(s);
	return NULL;
}

void source_retire(struct source *s)
{
	/* The successor may find no folder, and goes on with what is kept here. */
	if (timer_armed(&s->save))
		save(s);
	loop_timer_cancel(s->loop, &s->save);
	s->retired = true;
}

int source_set_pod_addresses(struct source *s, const char *uid, const struct ip_addr *addrs, size_t n)
{
	int r = assemble_set_addresses(&s->assembly, uid, addrs, n);

	if (r > 0 && s->read_once)
		publish(s);
	return r < 0 ? r : 0;
}

struct cJSON *source_dump(struct source *s)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "spec", s->cfg.spec);
	cJSON_AddBoolToObject(o, "healthy", !s->alarm && s->read_once);
	if (s->alarm)
		cJSON_AddStringToObject(o, "alarm", s->alarm);
	cJSON_AddItemToObject(o, "resources", store_dump(&s->store));
	return o;
}

struct cJSON *source_policy_dump(const struct source *s)
{
	return assemble_policy_dump(&s->assembly, &s->store);
}

struct cJSON *source_mesh_dump(const struct source *s)
{
	return mesh_settings_dump(&s->assembly.policies.mesh, &s->assembly.cfg.policies.mesh);
}

void source_alarms(const struct source *s, struct cJSON *alarms)
{
	if (s->alarm)
		cJSON_AddItemToArray(alarms, cJSON_CreateString(s->alarm));
	assemble_policy_alarms(&s->assembly, &s->store, alarms);
}
