/* SPDX-License-Identifier: Apache-2.0 */
/* Misspelt names of fields. Two words come in, whether one may stand for the other leaves. Called by check.c and
 * decode.c. */
#include "spelling.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static bool same(char a, char b)
{
	return tolower((unsigned char)a) == tolower((unsigned char)b);
}

bool spelling_near(const char *word, const char *meant)
{
	const char *a = word, *b = meant;

	if (!strcmp(word, meant))
		return false;
	while (*a && same(*a, *b)) {
		a++;
		b++;
	}
	if (!*a && !*b)
		return true;
	return (*a && !strcasecmp(a + 1, b)) || (*b && !strcasecmp(a, b + 1)) ||
	       (*a && *b &&
		(!strcasecmp(a + 1, b + 1) || (same(a[0], b[1]) && same(a[1], b[0]) && !strcasecmp(a + 2, b + 2))));
}
