/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admin socket <run-dir>/<node>/agent.sock (0600, SOCK_STREAM): one JSON request {"command": "...", "args": {...}} a
 * line, one JSON answer {"ok": true, "result": ...} or {"ok": false, "error": "...", "code": N} a line, then close. And
 * the readiness server: HTTP/1.1 GET /healthz/ready on 15021. Both run on the control loop.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
struct loop;
struct cJSON;
struct admin;

/* An answer is given now or later, exactly once. Takes over `result`. */
struct admin_call;
void admin_reply(struct admin_call *c, struct cJSON *result);
void admin_reply_error(struct admin_call *c, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
const struct cJSON *admin_args(const struct admin_call *c); /* the "args" object; may be NULL */
/* An argument that is a text, or else the fallback. Borrowed. */
const char *admin_text(const struct admin_call *c, const char *name, const char *fallback);
/* Peer's descriptor, for passing descriptors to a successor. Borrowed. */
int admin_fd(const struct admin_call *c);

typedef void (*admin_handler)(void *arg, struct admin_call *c);

/* Binds the socket (replacing a stale one). 0 or -errno. */
int admin_new(struct loop *loop, const char *socket_path, struct admin **ret);
struct admin *admin_free(struct admin *a);
/* Registers a command, e.g. "status", "pod list". `arg` and `name` must outlive the server. */
int admin_register(struct admin *a, const char *name, admin_handler fn, void *arg);

/* Readiness. The socket is bound first, in the agent's own namespace, dual-stack: nobody is answered before
 * readiness_new. `beside`: next to a predecessor's; else -EADDRINUSE, also when an agent of another node has
 * the port. A descriptor or -errno. */
int readiness_bind(uint16_t port, bool beside);
/* Takes over the bound descriptor, also on failure. `ready` returns true, or false with *ret_why a text
 * (borrowed until the next call). 0 or -errno. */
struct readiness;
int readiness_new(struct loop *loop, int fd, bool (*ready)(void *arg, const char **ret_why), void *arg,
		  struct readiness **ret);
struct readiness *readiness_free(struct readiness *r);
