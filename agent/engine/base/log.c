/* SPDX-License-Identifier: Apache-2.0 */
/* Diagnostic log to stderr, one write(2) a line. Called by the edge (agent/, tools/); the engine returns errors. */
#include "engine/base/log.h"
#include "engine/base/decimal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 2048

static const char *const words[] = {"error", "warn", "info", "debug"};
static atomic_int current = LOG_INFO_LEVEL;
static atomic_bool as_json;

int log_set_level(const char *level)
{
	for (int i = LOG_ERROR_LEVEL; i <= LOG_DEBUG_LEVEL; i++) {
		if (strcmp(words[i], level))
			continue;
		atomic_store_explicit(&current, i, memory_order_relaxed);
		return 0;
	}
	return -EINVAL;
}

const char *log_get_level(void)
{
	return words[atomic_load_explicit(&current, memory_order_relaxed)];
}

void log_set_json(bool json)
{
	atomic_store_explicit(&as_json, json, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&current, memory_order_relaxed);
}

int log_timestamp(char *buf, unsigned long size)
{
	/* The calendar is asked once a second: every connection has a line. */
	static __thread char date[] = "1970-01-01T00:00:00.";
	static __thread time_t second;
	char text[sizeof(date) + 8], *end;
	struct timespec ts;
	struct tm tm;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (ts.tv_sec != second) {
		gmtime_r(&ts.tv_sec, &tm);
		strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S.", &tm);
		second = ts.tv_sec;
	}
	memcpy(text, date, sizeof(date) - 1);
	end = decimal_write(text + sizeof(date) - 1, (uint64_t)ts.tv_nsec / 1000, 6);
	memcpy(end, "Z", 2);
	if (size < sizeof(text))
		return 0;
	memcpy(buf, text, sizeof(text));
	return (int)(end + 1 - text);
}

/* Quotes what would break a JSON string or a line. */
static size_t escape(char *to, size_t size, const char *from)
{
	size_t n = 0;

	for (; *from && n + 7 < size; from++) {
		unsigned char c = (unsigned char)*from;

		if (c == '"' || c == '\\') {
			to[n++] = '\\';
			to[n++] = (char)c;
		} else if (c < 0x20) {
			n += (size_t)snprintf(to + n, size - n, "\\u%04x", c);
		} else {
			to[n++] = (char)c;
		}
	}
	to[n] = 0;
	return n;
}

void log_write(enum log_level level, const char *scope, const char *fmt, ...)
{
	char message[LINE_BYTES], line[2 * LINE_BYTES], time_text[40];
	va_list ap;
	int n;

	if (!log_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	log_timestamp(time_text, sizeof(time_text));
	if (atomic_load_explicit(&as_json, memory_order_relaxed)) {
		char quoted[LINE_BYTES + 512];

		escape(quoted, sizeof(quoted), message);
		n = snprintf(line, sizeof(line),
			     "{\"time\":\"%s\",\"level\":\"%s\",\"scope\":\"%s\",\"message\":\"%s\"}\n", time_text,
			     words[level], scope, quoted);
	} else {
		for (char *p = message; *p; p++)
			if ((unsigned char)*p < 0x20 && *p != '\t')
				*p = ' ';
		n = snprintf(line, sizeof(line), "%s\t%s\t%s\t%s\n", time_text, words[level], scope, message);
	}
	if (n > 0)
		(void)!write(STDERR_FILENO, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1);
}
