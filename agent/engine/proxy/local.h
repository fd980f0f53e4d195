/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One plain TCP socket of a proxied connection: an app's, or an endpoint's outside the mesh. Edge-triggered; bytes that
 * the socket does not take wait in a backlog, counted against the worker's budget.
 */
#pragma once
#include "engine/io/loop.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct chunk;

struct local {
	struct watch watch; /* fd -1: closed */
	struct chunk *first, *last;
	uint32_t backlog;     /* bytes waiting for this socket */
	int error;	      /* it has failed: what is readable was said before that, nothing can be written */
	bool readable : 1;    /* may have bytes for us */
	bool peer_closed : 1; /* FIN seen by epoll: read on until 0 */
	bool read_done : 1;   /* EOF was read */
	bool urgent : 1;      /* urgent data has come: reads stop short where it begins */
	bool shut_wanted : 1; /* FIN follows the backlog */
	bool shut_done : 1;
};

/* Watches a connected (or connecting) socket, taking it over. 0 or -errno (fd not taken then). It resets on close
 * (sock_reset_on_close) since before it was connected: if the agent is killed the kernel closes for it, and a truncated
 * stream must never look complete. */
int local_init(struct local *l, struct loop *loop, int fd, void (*fn)(struct watch *w, uint32_t events));
/* What an event says: notes readiness. Returns -errno when the socket has failed, else 0. */
int local_event(struct local *l, uint32_t events);
/* Whether the connection of a socket that was being connected had been accepted before it failed. */
bool local_was_accepted(int error);
/* >0 bytes, 0 end of stream (once; read_done is set), -EAGAIN, -errno. Of a socket that has failed: what came before,
 * then its error. */
ssize_t local_read(struct local *l, uint8_t *buf, size_t max);
/* Takes all bytes: writes what the socket takes, keeps the rest. Bytes written at once, or -errno (-ENOMEM). */
ssize_t local_write(struct local *l, struct iovec *iov, int n);
/* Writes backlog, then FIN if it is due. Bytes written or -errno. */
ssize_t local_flush(struct local *l);
/* FIN once the backlog is gone. 0 or -errno. */
int local_shutdown(struct local *l);
/* Nothing is asked of the socket any more: the backlog goes, and what epoll says of it is not heard. local_close may
 * come later, as long as l stays where it is. */
void local_stop(struct local *l, struct loop *loop);
/* Closes what was stopped; `reset`: with RST. Harmless when closed. */
void local_close(struct local *l, bool reset);
/* Bytes waiting in the backlogs of this thread's sockets. */
size_t local_backlog_bytes(void);
