/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks the agent over its admin socket: one JSON line there, one back. The agent may be stuck, be replaced by
 * something else or be of another version, so time, size and memory of an answer are bounded. Called by main.c.
 */
#include "ctl.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"

#include <dirent.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* About 1 KiB a connection, and five times as much once it is parsed. */
#define ANSWER_MAX (64u * 1024 * 1024)
#define TREE_MAX (384u * 1024 * 1024)
/* From connecting to the answer's last byte. */
#define ANSWER_MS 10000

static int several_or_none(struct ctl *c, int found, const char *names, int error)
{
	if (found)
		return ctl_error(c, CTL_USAGE, "several nodes under %s:%s; name one with --node", c->run_dir,
				 names);
	if (error == EACCES)
		return ctl_error(c, CTL_MISSING, "%s: %s; try as root", c->run_dir, strerror(error));
	return ctl_error(c, CTL_NO_AGENT, "no agent has run here: %s holds no node; is --run-dir right?",
			 c->run_dir);
}

int client_find_node(struct ctl *c)
{
	char names[512] = "";
	struct dirent *d;
	size_t len = 0;
	int found = 0, error;
	DIR *dir;

	/* The name becomes a folder's. */
	if (c->node && (!*c->node || *c->node == '.' || strchr(c->node, '/')))
		return ctl_error(c, CTL_USAGE, "--node: '%s' is no node's name", c->node);
	if (c->node)
		return CTL_OK;
	dir = opendir(c->run_dir);
	error = errno;
	while (dir && (d = readdir(dir))) {
		if (d->d_name[0] == '.')
			continue;
		found++;
		snprintf(c->node_buf, sizeof(c->node_buf), "%s", d->d_name);
		if (len < sizeof(names))
			len += (size_t)snprintf(names + len, sizeof(names) - len, " %s", d->d_name);
	}
	if (dir)
		closedir(dir);
	if (found != 1)
		return several_or_none(c, found, names, dir ? 0 : error);
	c->node = c->node_buf;
	return CTL_OK;
}

/* Both directions get the whole time: a full backlog blocks connect() as an unread buffer blocks send(). */
static int dial(struct ctl *c, int *ret)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = {.tv_sec = ANSWER_MS / 1000};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int n = snprintf(un.sun_path, sizeof(un.sun_path), "%s/%s/agent.sock", c->run_dir, c->node);

	if (n >= (int)sizeof(un.sun_path))
		return ctl_error(c, CTL_USAGE, "--run-dir: the socket's path is longer than the %zu bytes of one",
				 sizeof(un.sun_path) - 1);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0)
		return ctl_error(c, CTL_BROKEN, "cannot open a socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
		if (errno == EAGAIN)
			return ctl_error(c, CTL_BROKEN, "node %s: the agent does not accept calls", c->node);
		if (errno == EACCES || errno == EPERM)
			return ctl_error(c, CTL_MISSING, "node %s: %s: %s; try as root", c->node, un.sun_path,
					 strerror(errno));
		return ctl_error(c, CTL_NO_AGENT, "node %s: no agent at %s: %s", c->node, un.sun_path,
				 strerror(errno));
	}
	*ret = take_fd(fd);
	return CTL_OK;
}

static int send_request(struct ctl *c, int fd, const char *command, cJSON *args)
{
	_cleanup_free_ char *text = NULL;
	cJSON *request = cJSON_CreateObject();
	size_t len;

	cJSON_AddStringToObject(request, "command", command);
	if (args)
		cJSON_AddItemToObject(request, "args", args);
	text = cJSON_PrintUnformatted(request);
	cJSON_Delete(request);
	len = text ? strlen(text) : 0;
	if (!len || send(fd, text, len, MSG_NOSIGNAL) != (ssize_t)len || send(fd, "\n", 1, MSG_NOSIGNAL) != 1)
		return ctl_error(c, CTL_BROKEN, "node %s: the agent does not take the request", c->node);
	return CTL_OK;
}

struct answer {
	char *text;
	size_t len, size;
};

static int grow(struct answer *a)
{
	size_t size = a->size ? a->size * 2 : 128 * 1024;
	char *grown;

	if (a->size - a->len > 1)
		return 0;
	grown = size <= ANSWER_MAX ? realloc(a->text, size) : NULL;
	if (!grown)
		return -EFBIG;
	a->text = grown;
	a->size = size;
	return 0;
}

/* Reads to the end of the line. Whatever stands behind it is not for us. */
static int read_answer(int fd, struct answer *a)
{
	uint64_t end = clock_now_ms() + ANSWER_MS, now;

	while ((now = clock_now_ms()) < end) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;
		char *eol;

		if (poll(&p, 1, (int)(end - now)) < 1)
			continue;
		if (grow(a) < 0)
			return -EFBIG;
		n = recv(fd, a->text + a->len, a->size - a->len - 1, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			return n < 0 ? -errno : a->len ? -ECONNABORTED : -ENODATA;
		a->text[a->len + (size_t)n] = '\0';
		eol = memchr(a->text + a->len, '\n', (size_t)n);
		a->len += (size_t)n;
		if (eol) {
			*eol = '\0';
			a->len = (size_t)(eol - a->text);
			return 0;
		}
	}
	return -ETIMEDOUT;
}

static const char *reading_failed(int r)
{
	switch (-r) {
	case ETIMEDOUT:
		return "the agent does not answer";
	case ENODATA:
		return "the agent closed the connection without an answer";
	case ECONNABORTED:
		return "the agent's answer ends in the middle";
	case EFBIG:
		return "the agent's answer is too large";
	default:
		return strerror(-r);
	}
}

/* cJSON makes up to 40 bytes of one (`0,0,0,`), so the tree has a budget of its own. */
static size_t tree_left;

static void *tree_alloc(size_t size)
{
	size_t cost = size + 16;

	tree_left = cost <= tree_left ? tree_left - cost : 0;
	return tree_left ? malloc(size) : NULL;
}

static cJSON *parse(const struct answer *a)
{
	cJSON_Hooks bounded = {.malloc_fn = tree_alloc, .free_fn = free};
	cJSON *v = NULL;

	tree_left = TREE_MAX;
	/* A NUL inside would hide what follows. */
	if (strlen(a->text) != a->len)
		return NULL;
	cJSON_InitHooks(&bounded);
	v = cJSON_ParseWithOpts(a->text, NULL, true);
	cJSON_InitHooks(NULL);
	return v;
}

static int unpack(struct ctl *c, const struct answer *a, int type, cJSON **ret)
{
	cJSON *answer = parse(a), *result = cJSON_DetachItemFromObjectCaseSensitive(answer, "result");
	const cJSON *ok = member(answer, "ok"), *error = member(answer, "error");
	int r = CTL_BROKEN;

	if (!answer && !tree_left)
		ctl_error(c, r, "node %s: %s", c->node, reading_failed(-EFBIG));
	else if (cJSON_IsFalse(ok) && cJSON_IsString(error))
		r = ctl_error(c, CTL_REFUSED, "node %s: %s", c->node, error->valuestring);
	else if (cJSON_IsTrue(ok) && result && (result->type & 0xff) == type)
		r = CTL_OK;
	else
		ctl_error(c, r, "node %s: the agent's answer is not understood (%zu bytes)", c->node, a->len);
	cJSON_Delete(answer);
	if (r == CTL_OK)
		*ret = take_ptr(result);
	cJSON_Delete(result);
	return r;
}

int client_call(struct ctl *c, const char *command, cJSON *args, int type, cJSON **ret)
{
	_cleanup_close_ int fd = -1;
	struct answer a = {0};
	int r = client_find_node(c), e;

	r = r ? r : dial(c, &fd);
	if (r) {
		cJSON_Delete(args);
		return r;
	}
	r = send_request(c, fd, command, args);
	if (!r) {
		e = read_answer(fd, &a);
		r = e < 0 ? ctl_error(c, CTL_BROKEN, "node %s: %s", c->node, reading_failed(e)) :
			    unpack(c, &a, type, ret);
	}
	free(a.text);
	return r;
}
