/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that reaches a terminal or a pipe. Names, reasons and pins come in as somebody else wrote them;
 * text and JSON leave that a terminal shows and a parser takes. Called by the rest of warrenctl.
 */
#include "ctl.h"
#include "engine/base/cleanup.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* --- characters --- */

/* The UTF-8 character at s: its length, 0 when it is malformed. Stops at the text's end, which continues none. */
static size_t character(const char *s, uint32_t *ret)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *u = (const unsigned char *)s;
	size_t n = *u < 0x80 ? 1 : *u < 0xc2 ? 0 : *u < 0xe0 ? 2 : *u < 0xf0 ? 3 : *u < 0xf5 ? 4 : 0;
	uint32_t v = n < 2 ? *u : *u & (0x7fu >> n);

	for (size_t i = 1; i < n; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (u[i] & 0x3f);
	}
	if (!n || v < least[n] || (v >= 0xd800 && v < 0xe000) || v > 0x10ffff)
		return 0;
	*ret = v;
	return n;
}

/* Controls, also those of 0x80 to 0x9f that xterm obeys in UTF-8, and what turns the direction of the rest of
 * the line. */
static bool harmless(uint32_t v)
{
	return v >= 0x20 && (v < 0x7f || v >= 0xa0) && v != 0x200e && v != 0x200f && (v < 0x2028 || v > 0x202e) &&
	       (v < 0x2066 || v > 0x2069);
}

void text_clean(char *s)
{
	char *to = s;
	uint32_t v;

	while (*s) {
		size_t n = character(s, &v);

		if (n && harmless(v)) {
			memmove(to, s, n);
			to += n;
		} else {
			*to++ = '?';
		}
		s += n ? n : 1;
	}
	*to = '\0';
}

int text_width(const char *s)
{
	int n = 0;

	for (; *s; s++)
		n += (*s & 0xc0) != 0x80;
	return n;
}

static void clean_tree(cJSON *v)
{
	cJSON *i;

	if (v->string)
		text_clean(v->string);
	if (v->valuestring)
		text_clean(v->valuestring);
	cJSON_ArrayForEach(i, v)
		clean_tree(i);
}

/* cJSON escapes only what JSON forbids. Anything beyond ASCII stands inside a string, so an escape fits. */
static void print_escaped(const char *s)
{
	const char *from = s;
	uint32_t v = 0;

	while (*s) {
		size_t n = character(s, &v);

		if (n && (harmless(v) || v == '\n' || v == '\t')) {
			s += n;
			continue;
		}
		fwrite(from, 1, (size_t)(s - from), stdout);
		printf("\\u%04x", n ? v : 0xfffd);
		s += n ? n : 1;
		from = s;
	}
	fwrite(from, 1, (size_t)(s - from), stdout);
	putchar('\n');
}

bool ctl_print_json(const struct ctl *c, cJSON *v)
{
	_cleanup_free_ char *text = NULL;

	if (!c->json) {
		clean_tree(v);
		return false;
	}
	text = c->pretty ? cJSON_Print(v) : cJSON_PrintUnformatted(v);
	print_escaped(text ? text : "{\"error\":\"out of memory\"}");
	return true;
}

/* --- failures --- */

int ctl_error(struct ctl *c, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->error, sizeof(c->error), fmt, ap);
	va_end(ap);
	return code;
}

int ctl_say(struct ctl *c, int code)
{
	cJSON *o;

	text_clean(c->error);
	if (!c->json) {
		fprintf(stderr, "warrenctl: %s\n", c->error);
		return code;
	}
	o = cJSON_CreateObject();
	cJSON_AddStringToObject(o, "error", c->error);
	(void)ctl_print_json(c, o);
	cJSON_Delete(o);
	return code;
}

int ctl_fail(struct ctl *c, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->error, sizeof(c->error), fmt, ap);
	va_end(ap);
	return ctl_say(c, code);
}

void ctl_remark(struct ctl *c, const char *instead)
{
	text_clean(c->error);
	fprintf(stderr, "warrenctl: %s; %s\n", c->error, instead);
}

/* --- descriptors --- */

void ctl_keep_standard(void)
{
	int fd;

	/* Read-only, so that printing into what the caller closed fails and is noticed. */
	do
		fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

int ctl_finish(int code)
{
	errno = 0;
	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	fprintf(stderr, "warrenctl: cannot write the output: %s\n", errno ? strerror(errno) : "write error");
	return CTL_BROKEN;
}

/* --- members --- */

const cJSON *member(const cJSON *o, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(o, name);
}

const char *text_of(const cJSON *o, const char *name)
{
	const char *v = cJSON_GetStringValue(member(o, name));

	return v ? v : "";
}

double number_of(const cJSON *o, const char *name)
{
	const cJSON *v = member(o, name);

	return cJSON_IsNumber(v) ? v->valuedouble : 0;
}

bool is_true(const cJSON *o, const char *name)
{
	return cJSON_IsTrue(member(o, name));
}
