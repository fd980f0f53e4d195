/* SPDX-License-Identifier: Apache-2.0 */
/* The admin socket. Requests come in as JSON lines, go to the handler of their command, answers leave.
 * Control loop. */
#include "engine/admin/admin.h"
#include "engine/base/cleanup.h"
#include "engine/base/limits.h"
#include "engine/base/list.h"
#include "engine/base/table.h"
#include "engine/io/loop.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define REQUEST_MAX (64 * 1024)
#define CALLS_MAX 64
#define CALL_MS 30000

struct handler {
	const char *name;
	admin_handler fn;
	void *arg;
};

struct admin {
	struct loop *loop;
	struct watch watch;
	struct timer again;
	struct table handlers;
	struct list calls;
	unsigned n_calls;
};

struct admin_call {
	struct list node;
	struct admin *a;
	struct watch watch;
	struct timer timer;
	char *in, *out;
	size_t in_len, out_len, out_off;
	cJSON *request;
	bool answered;
	bool detached; /* the peer went before its answer came: freed by admin_reply */
};

static void call_free(struct admin_call *c)
{
	int fd = c->watch.fd;

	loop_timer_cancel(c->a->loop, &c->timer);
	loop_watch_del(c->a->loop, &c->watch);
	close(fd);
	list_remove(&c->node);
	c->a->n_calls--;
	free(c->in);
	free(c->out);
	cJSON_Delete(c->request);
	free(c);
}

/* A call whose answer is still being made by somebody must live until they give it. */
static void call_drop(struct admin_call *c)
{
	if (!c->request || c->answered) {
		call_free(c);
		return;
	}
	loop_timer_cancel(c->a->loop, &c->timer);
	loop_watch_del(c->a->loop, &c->watch);
	c->detached = true;
}

static void send_out(struct admin_call *c)
{
	while (c->out_off < c->out_len) {
		ssize_t n = send(c->watch.fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN) {
			(void)loop_watch_mod(c->a->loop, &c->watch, EPOLLOUT);
			return;
		}
		if (n < 0)
			break;
		c->out_off += (size_t)n;
	}
	call_free(c);
}

static void reply(struct admin_call *c, cJSON *answer)
{
	char *text = cJSON_PrintUnformatted(answer);

	cJSON_Delete(answer);
	c->answered = true;
	if (c->detached || !text) {
		free(text);
		call_free(c);
		return;
	}
	c->out = text;
	c->out_len = strlen(text);
	c->out[c->out_len++] = '\n'; /* where the terminator was */
	send_out(c);
}

void admin_reply(struct admin_call *c, struct cJSON *result)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddTrueToObject(o, "ok");
	cJSON_AddItemToObject(o, "result", result);
	reply(c, o);
}

void admin_reply_error(struct admin_call *c, int code, const char *fmt, ...)
{
	cJSON *o = cJSON_CreateObject();
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cJSON_AddFalseToObject(o, "ok");
	cJSON_AddStringToObject(o, "error", text);
	cJSON_AddNumberToObject(o, "code", code);
	reply(c, o);
}

const struct cJSON *admin_args(const struct admin_call *c)
{
	return cJSON_GetObjectItemCaseSensitive(c->request, "args");
}

const char *admin_text(const struct admin_call *c, const char *name, const char *fallback)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(admin_args(c), name));

	return text ? text : fallback;
}

int admin_fd(const struct admin_call *c)
{
	return c->watch.fd;
}

static void dispatch(struct admin_call *c)
{
	const cJSON *name;
	struct handler *h;

	c->request = cJSON_ParseWithLength(c->in, c->in_len);
	name = cJSON_GetObjectItemCaseSensitive(c->request, "command");
	if (!cJSON_IsString(name)) {
		admin_reply_error(c, EINVAL, "not a request: expected {\"command\": \"...\"}");
		return;
	}
	h = table_get_str(&c->a->handlers, name->valuestring);
	if (!h)
		admin_reply_error(c, ENOSYS, "unknown command: %s", name->valuestring);
	else
		h->fn(h->arg, c);
}

static void call_ready(struct watch *w, uint32_t events)
{
	struct admin_call *c = container_of(w, struct admin_call, watch);
	ssize_t n;

	if (c->answered) {
		send_out(c);
		return;
	}
	if (c->request) {
		/* Waiting for a handler: only the peer's going matters. */
		if (events & (EPOLLHUP | EPOLLERR))
			call_drop(c);
		else
			(void)loop_watch_mod(c->a->loop, w, 0);
		return;
	}
	n = recv(w->fd, c->in + c->in_len, REQUEST_MAX - c->in_len, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		call_free(c);
		return;
	}
	c->in_len += (size_t)n;
	if (memchr(c->in + c->in_len - n, '\n', (size_t)n))
		dispatch(c);
	else if (c->in_len == REQUEST_MAX)
		call_free(c);
}

static void call_late(struct timer *t)
{
	call_drop(container_of(t, struct admin_call, timer));
}

static void accept_again(struct timer *t)
{
	struct admin *a = container_of(t, struct admin, again);

	(void)loop_watch_mod(a->loop, &a->watch, EPOLLIN);
}

static void accept_ready(struct watch *w, uint32_t events)
{
	struct admin *a = container_of(w, struct admin, watch);
	struct admin_call *c;
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	(void)events;
	if (fd < 0) {
		/* Out of descriptors: the listener stays readable, so the loop would spin. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
			(void)loop_watch_mod(a->loop, w, 0);
			loop_timer_set(a->loop, &a->again, LIMIT_ACCEPT_BACKOFF_MS);
		}
		return;
	}
	c = a->n_calls < CALLS_MAX ? calloc(1, sizeof(*c)) : NULL;
	if (c)
		c->in = malloc(REQUEST_MAX);
	if (!c || !c->in || loop_watch_add(a->loop, &c->watch, fd, EPOLLIN) < 0) {
		if (c)
			free(c->in);
		free(c);
		close(fd);
		return;
	}
	c->a = a;
	c->watch.fn = call_ready;
	c->timer.fn = call_late;
	a->n_calls++;
	list_append(&a->calls, &c->node);
	loop_timer_set(a->loop, &c->timer, CALL_MS);
}

int admin_new(struct loop *loop, const char *socket_path, struct admin **ret)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;
	struct admin *a;
	mode_t old;
	int r;

	if (strlen(socket_path) >= sizeof(un.sun_path))
		return -ENAMETOOLONG;
	memcpy(un.sun_path, socket_path, strlen(socket_path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* The lock on the run directory says that nobody else serves here: what lies there is stale. */
	(void)unlink(socket_path);
	old = umask(0177);
	r = bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || listen(fd, CALLS_MAX) < 0 ? -errno : 0;
	umask(old);
	if (r < 0)
		return r;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->loop = loop;
	a->watch.fn = accept_ready;
	a->again.fn = accept_again;
	list_init(&a->calls);
	r = loop_watch_add(loop, &a->watch, fd, EPOLLIN);
	if (r < 0) {
		free(a);
		return r;
	}
	fd = -1;
	*ret = a;
	return 0;
}

struct admin *admin_free(struct admin *a)
{
	struct table_iter it = {0};
	struct handler *h;

	if (!a)
		return NULL;
	list_foreach_safe(n, tmp, &a->calls)
		call_free(list_entry(n, struct admin_call, node));
	loop_timer_cancel(a->loop, &a->again);
	loop_watch_del(a->loop, &a->watch);
	close(a->watch.fd);
	while ((h = table_next(&a->handlers, &it))) {
		table_del(&a->handlers, h->name, strlen(h->name));
		free(h);
	}
	table_done(&a->handlers);
	free(a);
	return NULL;
}

int admin_register(struct admin *a, const char *name, admin_handler fn, void *arg)
{
	struct handler *h = malloc(sizeof(*h));

	if (!h)
		return -ENOMEM;
	*h = (struct handler){name, fn, arg};
	if (table_put(&a->handlers, name, strlen(name), h, NULL)) {
		free(h);
		return -ENOMEM;
	}
	return 0;
}
