/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The run directory, and the two locks that make an agent the only one of its node: one in the run directory,
 * where a successor and warrenctl look for it, and one on the node's folder of pins, which agents with
 * different run directories share all the same. Options come in, folders and locks leave. Called by node.c
 * and shutdown.c.
 */
#include "node_private.h"
#include "engine/base/clock.h"
#include "engine/base/dir.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>

/* As long as a predecessor may take from its answer to letting go. */
#define TAKEOVER_LOCK_MS 15000
#define POLL_US 10000

int node_make_dirs(struct node *n)
{
	int r;

	if (asprintf(&n->dir, "%s/%s", n->o.run_dir, n->o.node) < 0 ||
	    asprintf(&n->state_dir, "%s/state", n->dir) < 0 || asprintf(&n->socket_path, "%s/agent.sock", n->dir) < 0 ||
	    asprintf(&n->lock_path, "%s/lock", n->dir) < 0)
		return -ENOMEM;
	if (strlen(n->socket_path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return node_fail(-ENAMETOOLONG, "--run-dir: %s is too long for a socket's path", n->socket_path);
	r = dir_make(n->dir, 0700);
	if (r < 0)
		return node_fail(r, "--run-dir: %s: cannot make the folder: %s", n->dir, strerror(-r));
	r = dir_make(n->state_dir, 0700);
	return r < 0 ? node_fail(r, "--run-dir: %s: %s", n->state_dir, strerror(-r)) : 0;
}

/* --- the run directory's --- */

static long lock_holder(const struct node *n)
{
	char text[32] = {0};

	return pread(n->lock_fd, text, sizeof(text) - 1, 0) > 0 ? strtol(text, NULL, 10) : 0;
}

static int lock_run_dir(struct node *n, uint64_t until)
{
	char pid[32];
	int len;

	n->lock_fd = open(n->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (n->lock_fd < 0)
		return node_fail(-errno, "%s: %s", n->lock_path, strerror(errno));
	while (flock(n->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return node_fail(-errno, "%s: %s", n->lock_path, strerror(errno));
		if (!n->o.takeover || clock_now_ms() > until)
			return node_fail(-EBUSY,
					 "node %s already has an agent, pid %ld; stop it, or start with --takeover",
					 n->o.node, lock_holder(n));
		usleep(POLL_US);
	}
	len = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(n->lock_fd, 0) < 0 || pwrite(n->lock_fd, pid, (size_t)len, 0) != len)
		return node_fail(-EIO, "%s: cannot write: %s", n->lock_path, strerror(errno));
	return 0;
}

/* --- the pins' --- */

/* bpffs holds no files of ours, but it holds links: this one leads nowhere and says "PID RUNDIR". */
static char *holder_path(const struct node *n)
{
	char *path;

	return asprintf(&path, "%s/holder", n->pins) < 0 ? NULL : path;
}

/* The other agent's run directory in buf, and its pid; 0 when it does not say. */
static long read_holder(const struct node *n, char *buf, size_t size)
{
	_cleanup_free_ char *path = holder_path(n);
	ssize_t len = path ? readlink(path, buf, size - 1) : -1;
	char *end = buf;
	long pid;

	buf[len < 0 ? 0 : len] = 0;
	pid = strtol(buf, &end, 10);
	memmove(buf, *end ? end + 1 : end, strlen(*end ? end + 1 : end) + 1);
	return pid;
}

static void write_holder(const struct node *n)
{
	_cleanup_free_ char *path = holder_path(n), *run_dir = realpath(n->o.run_dir, NULL), *text = NULL;

	if (!path || !run_dir || asprintf(&text, "%d %s", (int)getpid(), run_dir) < 0) {
		text = NULL;
		return;
	}
	(void)unlink(path);
	if (symlink(text, path) < 0)
		log_warn("agent", "%s: cannot write who holds this folder: %s", path, strerror(errno));
}

static int held_by_other(const struct node *n)
{
	char dir[PATH_MAX];
	long pid = read_holder(n, dir, sizeof(dir));

	return node_fail(-EBUSY,
			 "another warren-agent of node %s runs (pid %ld, run dir %s) and holds %s; stop it, or "
			 "start with its --run-dir and --takeover",
			 n->o.node, pid, *dir ? dir : "unknown", n->pins);
}

/* A predecessor lets go soon; one with another run directory was not asked to. */
static bool lets_go(const struct node *n)
{
	_cleanup_free_ char *own = realpath(n->o.run_dir, NULL);
	char dir[PATH_MAX];

	(void)read_holder(n, dir, sizeof(dir));
	return n->o.takeover && own && (!*dir || !strcmp(dir, own));
}

/* Somebody may have removed the folder between its opening and its locking: then that lock keeps nobody out.
 */
static bool still_there(const struct node *n)
{
	struct stat held, named;

	return !fstat(n->pins_fd, &held) && !stat(n->pins, &named) && held.st_ino == named.st_ino &&
	       held.st_dev == named.st_dev;
}

static int open_pins(struct node *n)
{
	_cleanup_free_ char *error = NULL;
	int r;

	if (n->pins_fd >= 0)
		close(n->pins_fd);
	n->pins_fd = -1;
	free(n->pins);
	n->pins = NULL;
	r = capture_pin_folder(n->o.node, n->o.pin_dir, &n->pins, &error);
	if (r < 0)
		return node_fail(r, "%s", error ? error : strerror(-r));
	n->pins_fd = open(n->pins, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return n->pins_fd < 0 ? node_fail(-errno, "%s: %s", n->pins, strerror(errno)) : 0;
}

static int lock_pins(struct node *n, uint64_t until)
{
	int r = open_pins(n);

	while (r == 0) {
		if (!flock(n->pins_fd, LOCK_EX | LOCK_NB)) {
			if (still_there(n))
				break;
			r = open_pins(n);
		} else if (errno != EWOULDBLOCK && errno != EINTR) {
			r = node_fail(-errno, "%s: cannot lock: %s", n->pins, strerror(errno));
		} else if (clock_now_ms() > until || !lets_go(n)) {
			r = held_by_other(n);
		} else {
			usleep(POLL_US);
		}
	}
	if (r == 0) {
		write_holder(n);
	} else if (n->pins_fd >= 0) {
		/* Not ours: node_unlock must leave the other's name alone. */
		close(n->pins_fd);
		n->pins_fd = -1;
	}
	return r;
}

int node_lock(struct node *n)
{
	uint64_t until = clock_now_ms() + TAKEOVER_LOCK_MS;
	int r = lock_run_dir(n, until);

	return r < 0 ? r : lock_pins(n, until);
}

void node_unlock(struct node *n)
{
	if (n->pins_fd >= 0) {
		_cleanup_free_ char *path = holder_path(n);

		if (path)
			(void)unlink(path);
		close(n->pins_fd);
	}
	if (n->lock_fd >= 0)
		close(n->lock_fd);
	n->pins_fd = n->lock_fd = -1;
}
