/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods that earlier agents enrolled and capture still holds. The list comes in once, from capture, when the
 * set is made; a pod that comes back gets its number again, the others leave capture: without listeners every
 * connection of theirs would be dropped. Called by pods.c and enrolment.c.
 */
#include "private.h"
#include "engine/base/cleanup.h"
#include "engine/base/log.h"
#include "netns.h"

#include <string.h>

uint32_t leftover_number(const struct enrolment *e)
{
	const struct pods *p = e->all;
	bool taken[CAPTURE_MAX_PODS] = {true};

	for (size_t i = 0; i < p->n_left; i++) {
		const struct capture_leftover *l = &p->left[i];

		if (!strcmp(l->uid, e->uid) && l->number < CAPTURE_MAX_PODS && !p->by_number[l->number] &&
		    capture_is_netns(e->netns_fd, l->netns_cookie))
			return l->number;
		if (l->number < CAPTURE_MAX_PODS)
			taken[l->number] = true;
	}
	for (uint32_t n = 1; n < CAPTURE_MAX_PODS; n++)
		if (!p->by_number[n] && !taken[n])
			return n;
	return 0;
}

void leftover_forget(struct pods *p, uint32_t number)
{
	for (size_t i = 0; i < p->n_left; i++)
		if (p->left[i].number == number)
			p->left[i--] = p->left[--p->n_left];
}

/* The path's namespace if it is the leftover's; else -1. */
static int open_same(const struct capture_leftover *l, const char *path)
{
	struct stat st;
	int fd = *path ? netns_open(path, &st) : -1;

	if (fd < 0 || capture_is_netns(fd, l->netns_cookie))
		return fd;
	close(fd);
	return -1;
}

/* Kept as it is until its pod is enrolled again: the model wants the pod, and nothing said so far keeps it
 * out of the namespace that it was in. */
static bool comes_back(const struct pods *p, const struct capture_leftover *l)
{
	const struct enrolment *e = table_get_str(&p->by_uid, l->uid);
	_cleanup_close_ int fd = -1;

	if (!e || !e->wanted || e->released || objection_manifest(e->workload))
		return false;
	fd = open_same(l, e->workload->netns_path);
	return fd >= 0;
}

static void release(struct pods *p, const struct capture_leftover *l)
{
	_cleanup_close_ int fd = open_same(l, l->netns_path);

	log_info("enroll", "%s: %s", l->uid,
		 fd >= 0 ? "no longer in the mesh, capture removed" : "went while no agent ran");
	(void)capture_pod_detach(p->cfg.capture, l->number, fd);
}

void leftover_settle(struct pods *p)
{
	for (size_t i = 0; i < p->n_left;) {
		if (comes_back(p, &p->left[i])) {
			i++;
			continue;
		}
		release(p, &p->left[i]);
		p->left[i] = p->left[--p->n_left];
	}
}
