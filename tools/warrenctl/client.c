/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks the agent over its admin socket: one JSON line there, one back. The agent may be stuck, be replaced by
 * something else or be of another version, so time, size and memory of an answer are bounded. Called by the commands.
 */
#include "ctl.h"
#include "abi/marks.h"
#include "engine/base/cleanup.h"
#include "engine/base/clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* About 1 KiB a connection, and five times as much once it is parsed. */
#define ANSWER_MAX (64u * 1024 * 1024)
#define TREE_MAX (384u * 1024 * 1024)
/* From connecting to the answer's last byte. */
#define ANSWER_MS 10000

/* --- which node --- */

static int socket_address(const struct ctl *c, const char *node, struct sockaddr_un *ret)
{
	int n;

	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	n = snprintf(ret->sun_path, sizeof(ret->sun_path), "%s/%s/agent.sock", c->run_dir, node);
	return n < (int)sizeof(ret->sun_path) ? 0 : -ENAMETOOLONG;
}

/* Whether somebody listens there. What may not be asked counts: the call itself will say why. */
static bool has_agent(const struct ctl *c, const char *node)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un un;

	if (fd < 0 || socket_address(c, node, &un) < 0)
		return false;
	return !connect(fd, (struct sockaddr *)&un, sizeof(un)) || errno == EAGAIN || errno == EACCES || errno == EPERM;
}

void client_pin_path(const struct ctl *c, const char *node, char *buf, size_t size)
{
	int n = snprintf(buf, size, "%s/" WR_PIN_ROOT "/", c->pin_dir ? c->pin_dir : "/sys/fs/bpf");

	if (n < 0 || (size_t)n >= size)
		return;
	snprintf(buf + n, size - (size_t)n, "%s", node);
	/* As the capture names it: bpffs has no dots. */
	for (char *p = buf + n; *p; p++)
		*p = *p == '.' ? ':' : *p;
}

static bool has_pins(const struct ctl *c, const char *node)
{
	char path[4096];

	client_pin_path(c, node, path, sizeof(path));
	return access(path, F_OK) == 0 || errno == EACCES;
}

/* The nodes under the run directory, and those of them that qualify; `name` is the last of these. */
struct search {
	int nodes, found;
	char name[256], names[512];
};

static void consider(struct search *s, const char *name, bool qualifies)
{
	size_t len = strlen(s->names);

	s->nodes++;
	if (!qualifies)
		return;
	s->found++;
	snprintf(s->name, sizeof(s->name), "%s", name);
	snprintf(s->names + len, sizeof(s->names) - len, " %s", name);
}

/* 0, or the errno of a folder that cannot be read. */
static int search(const struct ctl *c, bool (*qualifies)(const struct ctl *c, const char *node), struct search *ret)
{
	DIR *dir = opendir(c->run_dir);
	struct dirent *d;

	*ret = (struct search){0};
	if (!dir)
		return errno;
	while ((d = readdir(dir)))
		if (d->d_name[0] != '.')
			consider(ret, d->d_name, !qualifies || qualifies(c, d->d_name));
	closedir(dir);
	return 0;
}

static int choose(struct ctl *c, const struct search *s)
{
	memcpy(c->node_buf, s->name, sizeof(c->node_buf));
	c->node = c->node_buf;
	return CTL_OK;
}

static int several(struct ctl *c, const struct search *s, const char *what)
{
	return ctl_error(c, CTL_USAGE, "several nodes under %s %s:%s; name one with --node", c->run_dir, what,
			 s->names);
}

int client_find_node(struct ctl *c)
{
	struct search s;
	int error;

	/* The name becomes a folder's. */
	if (c->node && (!*c->node || *c->node == '.' || strchr(c->node, '/')))
		return ctl_error(c, CTL_USAGE, "--node or WARREN_NODE: '%s' is no node's name", c->node);
	if (c->node)
		return CTL_OK;
	error = search(c, has_agent, &s);
	if (error == EACCES)
		return ctl_error(c, CTL_MISSING, "%s: %s; try as root", c->run_dir, strerror(error));
	if (!s.nodes)
		return ctl_error(c, CTL_NO_AGENT, "no agent has run here: %s holds no node; is --run-dir right?",
				 c->run_dir);
	if (s.found > 1)
		return several(c, &s, "have an agent");
	if (s.found)
		return choose(c, &s);
	(void)search(c, NULL, &s);
	if (s.nodes == 1)
		return choose(c, &s);
	return ctl_error(c, CTL_NO_AGENT, "none of the nodes under %s has an agent:%s", c->run_dir, s.names);
}

int client_find_pins(struct ctl *c)
{
	int r = client_find_node(c);
	struct search s;

	if (r != CTL_NO_AGENT || search(c, has_pins, &s) || !s.found)
		return r;
	if (s.found > 1)
		return several(c, &s, "have pins and no agent");
	ctl_error(c, r, "of %d nodes under %s none has an agent", s.nodes, c->run_dir);
	r = choose(c, &s);
	snprintf(s.names, sizeof(s.names), "taking node %.255s, the only one with pins", c->node);
	text_clean(s.names);
	ctl_remark(c, s.names);
	return r;
}

/* --- its network --- */

/* Without waiting, and where it may not be done nothing is: the caller then sees what can be seen from here. */
void client_enter_network(const struct ctl *c)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), netns = -1;
	socklen_t len = sizeof(struct ucred);
	struct ucred agent = {0};
	struct sockaddr_un un;
	char path[64];

	if (fd < 0 || socket_address(c, c->node, &un) < 0 || connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &agent, &len) < 0 || agent.pid <= 0)
		return;
	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)agent.pid);
	netns = open(path, O_RDONLY | O_CLOEXEC);
	if (netns >= 0)
		(void)!setns(netns, CLONE_NEWNET);
}

/* --- the call --- */

/* Both directions get the whole time: a full backlog blocks connect() as an unread buffer blocks send(). */
static int dial(struct ctl *c, int *ret)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = {.tv_sec = ANSWER_MS / 1000};
	struct sockaddr_un un;

	if (socket_address(c, c->node, &un) < 0)
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
		return ctl_error(c, CTL_NO_AGENT, "node %s: no agent at %s: %s", c->node, un.sun_path, strerror(errno));
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
		r = e < 0 ? ctl_error(c, CTL_BROKEN, "node %s: %s", c->node, reading_failed(e))
			  : unpack(c, &a, type, ret);
	}
	free(a.text);
	return r;
}
