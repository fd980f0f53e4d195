/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods that earlier agents enrolled and capture still holds. The list comes in once, from capture, when the
 * set is made; a pod that comes back gets its number again, the others leave capture. Called by pods.c and
 * enrolment.c.
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

		if (!strcmp(l->uid, e->uid) && l->netns_ino == e->netns.st_ino &&
		    l->number < CAPTURE_MAX_PODS && !p->by_number[l->number])
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

void leftover_settle(struct pods *p)
{
	if (p->settled)
		return;
	p->settled = true;
	for (size_t i = 0; i < p->n_left; i++) {
		struct capture_leftover *l = &p->left[i];
		struct enrolment *e = table_get_str(&p->by_uid, l->uid);
		struct stat st;
		int fd;

		if (e && e->wanted && e->workload->netns_path && !stat(e->workload->netns_path, &st) &&
		    st.st_ino == l->netns_ino)
			continue;
		fd = *l->netns_path ? netns_open(l->netns_path, &st) : -1;
		if (fd >= 0 && st.st_ino != l->netns_ino) {
			close(fd);
			fd = -1;
		}
		log_info("enroll", "%s: %s", l->uid,
			 fd >= 0 ? "no longer in the mesh, capture removed" : "went while no agent ran");
		(void)capture_pod_detach(p->cfg.capture, l->number, fd);
		if (fd >= 0)
			close(fd);
		*l = p->left[--p->n_left];
		i--;
	}
}
