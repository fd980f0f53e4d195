/* SPDX-License-Identifier: Apache-2.0 */
/* GET /healthz/ready on 15021 for the kubelet and for people. One request a connection, parsed by llhttp.
 * Control loop. */
#include "engine/admin/admin.h"
#include "engine/base/cleanup.h"
#include "engine/base/limits.h"
#include "engine/base/list.h"
#include "engine/io/loop.h"

#include <errno.h>
#include <llhttp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define REQUEST_MAX 8192
#define CLIENTS_MAX 64
#define CLIENT_MS 5000
#define PATH_MAX_LEN 256

struct readiness {
	struct loop *loop;
	struct watch watch;
	struct timer again;
	struct list clients;
	unsigned n_clients;
	bool (*ready)(void *arg, const char **ret_why);
	void *arg;
};

struct client {
	struct list node;
	struct readiness *r;
	struct watch watch;
	struct timer timer;
	llhttp_t parser;
	size_t got, path_len;
	char path[PATH_MAX_LEN];
	bool done;
};

static void client_free(struct client *c)
{
	loop_timer_cancel(c->r->loop, &c->timer);
	loop_watch_del(c->r->loop, &c->watch);
	close(c->watch.fd);
	list_remove(&c->node);
	c->r->n_clients--;
	free(c);
}

static int on_url(llhttp_t *p, const char *at, size_t len)
{
	struct client *c = p->data;

	if (c->path_len + len >= sizeof(c->path))
		return -1;
	memcpy(c->path + c->path_len, at, len);
	c->path_len += len;
	return 0;
}

static int on_complete(llhttp_t *p)
{
	((struct client *)p->data)->done = true;
	return HPE_PAUSED;
}

static void answer(struct client *c, const char *status, const char *body)
{
	char text[1024];
	/* RFC 9110 9.3.2: the answer to HEAD says how much there would be, and stops there. */
	int n = snprintf(text, sizeof(text),
			 "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: "
			 "close\r\n\r\n%s",
			 status, strlen(body), c->parser.method == HTTP_HEAD ? "" : body);

	(void)!send(c->watch.fd, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1, MSG_NOSIGNAL);
}

static void respond(struct client *c)
{
	const char *why = "";
	char body[512];

	c->path[c->path_len] = 0;
	if (strcmp(c->path, "/healthz/ready")) {
		answer(c, "404 Not Found", "not found\n");
	} else if (c->parser.method != HTTP_GET && c->parser.method != HTTP_HEAD) {
		answer(c, "405 Method Not Allowed", "only GET\n");
	} else if (c->r->ready(c->r->arg, &why)) {
		answer(c, "200 OK", "ready\n");
	} else {
		snprintf(body, sizeof(body), "not ready, pending: %s\n", why);
		answer(c, "500 Internal Server Error", body);
	}
}

static void client_ready(struct watch *w, uint32_t events)
{
	static llhttp_settings_t settings = {.on_url = on_url, .on_message_complete = on_complete};
	struct client *c = container_of(w, struct client, watch);
	char buf[2048];
	ssize_t n = recv(w->fd, buf, sizeof(buf), 0);
	enum llhttp_errno e;

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		if (!c->got)
			llhttp_init(&c->parser, HTTP_REQUEST, &settings);
		c->parser.data = c;
		c->got += (size_t)n;
		e = llhttp_execute(&c->parser, buf, (size_t)n);
		if (c->done)
			respond(c);
		else if (e == HPE_OK && c->got < REQUEST_MAX)
			return;
		else
			answer(c, "400 Bad Request", "not an HTTP/1.1 request\n");
	}
	shutdown(w->fd, SHUT_WR);
	client_free(c);
}

static void client_late(struct timer *t)
{
	client_free(container_of(t, struct client, timer));
}

static void accept_again(struct timer *t)
{
	struct readiness *r = container_of(t, struct readiness, again);

	(void)loop_watch_mod(r->loop, &r->watch, EPOLLIN);
}

static void accept_ready(struct watch *w, uint32_t events)
{
	struct readiness *r = container_of(w, struct readiness, watch);
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c;

	(void)events;
	if (fd < 0) {
		/* Out of descriptors: the listener stays readable, so the loop would spin. */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
			(void)loop_watch_mod(r->loop, w, 0);
			loop_timer_set(r->loop, &r->again, LIMIT_ACCEPT_BACKOFF_MS);
		}
		return;
	}
	/* Clients that send nothing must not keep a probe out: the oldest goes. */
	if (r->n_clients == CLIENTS_MAX)
		client_free(list_entry(r->clients.next, struct client, node));
	c = calloc(1, sizeof(*c));
	if (!c || loop_watch_add(r->loop, &c->watch, fd, EPOLLIN) < 0) {
		free(c);
		close(fd);
		return;
	}
	c->r = r;
	c->watch.fn = client_ready;
	c->timer.fn = client_late;
	r->n_clients++;
	list_append(&r->clients, &c->node);
	loop_timer_set(r->loop, &c->timer, CLIENT_MS);
}

int readiness_bind(uint16_t port, bool beside)
{
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	int off = 0, on = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;
	bool v6 = fd >= 0;

	if (!v6)
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (beside)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	r = v6 ? bind(fd, (struct sockaddr *)&in6, sizeof(in6)) : bind(fd, (struct sockaddr *)&in, sizeof(in));
	if (r < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	/* Only now: a successor may bind beside us, but we have not bound beside another node's agent, with
	 * which the probes would be shared out. */
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	return fd;
}

int readiness_new(struct loop *loop, int fd, bool (*ready)(void *arg, const char **ret_why), void *arg,
		  struct readiness **ret)
{
	struct readiness *r = listen(fd, CLIENTS_MAX) < 0 ? NULL : calloc(1, sizeof(*r));
	int e;

	if (!r) {
		e = -errno;
		close(fd);
		return e;
	}
	*r = (struct readiness){
		.loop = loop, .watch.fn = accept_ready, .again.fn = accept_again, .ready = ready, .arg = arg};
	list_init(&r->clients);
	e = loop_watch_add(loop, &r->watch, fd, EPOLLIN);
	if (e < 0) {
		close(fd);
		free(r);
		return e;
	}
	*ret = r;
	return 0;
}

struct readiness *readiness_free(struct readiness *r)
{
	if (!r)
		return NULL;
	list_foreach_safe(n, tmp, &r->clients)
		client_free(list_entry(n, struct client, node));
	loop_timer_cancel(r->loop, &r->again);
	loop_watch_del(r->loop, &r->watch);
	close(r->watch.fd);
	free(r);
	return NULL;
}
