/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays that grow by doubling. No implementation file. */
#pragma once
#include <stdlib.h>
#include <string.h>

/* One more zeroed element, of `size` bytes, at the end of *array, which has *n: borrowed, until the next one. Room is
 * made at powers of two, so the count alone says how much there is, and every element must come from here. NULL: out of
 * memory, nothing is changed. */
static inline void *array_grow(void *array, size_t *n, size_t size)
{
	char **a = array;

	if (!(*n & (*n - 1))) {
		char *grown = realloc(*a, (*n ? *n * 2 : 1) * size);

		if (!grown)
			return NULL;
		*a = grown;
	}
	return memset(*a + (*n)++ * size, 0, size);
}
