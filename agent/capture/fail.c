/* SPDX-License-Identifier: Apache-2.0 */
/* What went wrong in words and as a negative errno, in one step. Called by every file of capture/. */
#include "private.h"

#include <stdarg.h>
#include <stdio.h>

int capture_fail(char **ret_error, int r, const char *fmt, ...)
{
	va_list ap;

	if (!ret_error)
		return r;
	va_start(ap, fmt);
	if (vasprintf(ret_error, fmt, ap) < 0)
		*ret_error = NULL;
	va_end(ap);
	return r;
}
