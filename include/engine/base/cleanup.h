/* SPDX-License-Identifier: Apache-2.0 */
/* Scope-bound cleanup and ownership transfer. Used by every user-space file; no implementation file. */
#pragma once
#include <stdlib.h>
#include <unistd.h>
#include <stdio.h>
#include <errno.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))

/* Frees the pointer that `p` points to; accepts a NULL pointer there. */
static inline void cleanup_freep(void *p)
{
	free(*(void **)p);
}

/* Closes *fd when it is open (>= 0), keeping errno. */
static inline void cleanup_closep(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;
		close(*fd);
		errno = saved;
	}
}

static inline void cleanup_fclosep(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define _cleanup_free_ _cleanup_(cleanup_freep)
#define _cleanup_close_ _cleanup_(cleanup_closep)
#define _cleanup_fclose_ _cleanup_(cleanup_fclosep)

/* Moves ownership out of a variable that has a cleanup attribute. */
#define take_ptr(p)                                                                                                    \
	({                                                                                                             \
		__typeof__(p) take_tmp_ = (p);                                                                         \
		(p) = NULL;                                                                                            \
		take_tmp_;                                                                                             \
	})
#define take_fd(fd)                                                                                                    \
	({                                                                                                             \
		int take_tmp_ = (fd);                                                                                  \
		(fd) = -1;                                                                                             \
		take_tmp_;                                                                                             \
	})

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
