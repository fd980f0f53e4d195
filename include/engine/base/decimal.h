/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers as text without printf, for what is written for every connection. No implementation file. */
#pragma once
#include <stdint.h>

#define DECIMAL_STRLEN 20 /* of the largest number, without a NUL */

/* Writes the digits of v, at least `width` of them (leading zeros), without a NUL. Returns the place behind them. */
static inline char *decimal_write(char *to, uint64_t v, int width)
{
	char digits[DECIMAL_STRLEN];
	int n = 0;

	do
		digits[n++] = (char)('0' + v % 10);
	while ((v /= 10) || n < width);
	while (n)
		*to++ = digits[--n];
	return to;
}
