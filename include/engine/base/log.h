/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Diagnostic log: one line per event on stderr, `<RFC 3339 time>\t<level>\t<scope>\t<message>`, or one JSON object per
 * line. The engine returns errors; the edge (agent/, tools/) logs them once, with context. Thread-safe: each line is
 * one write(2).
 */
#pragma once
#include <stdbool.h>

enum log_level { LOG_ERROR_LEVEL, LOG_WARN_LEVEL, LOG_INFO_LEVEL, LOG_DEBUG_LEVEL };

/* Sets what is printed from now on: "error", "warn", "info" or "debug". Returns 0, or -EINVAL for another word. */
int log_set_level(const char *level);
/* The word for the level in force (static storage). */
const char *log_get_level(void);
/* Chooses JSON lines instead of text. */
void log_set_json(bool json);
bool log_enabled(enum log_level level);
/* Writes one line; `scope` names the module ("capture", "source", ...). A trailing newline is added. */
void log_write(enum log_level level, const char *scope, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Appends the present time as RFC 3339 with microseconds and Z to buf (at least 32 bytes); returns its length. */
int log_timestamp(char *buf, unsigned long size);

#define log_error(scope, ...) log_write(LOG_ERROR_LEVEL, scope, __VA_ARGS__)
#define log_warn(scope, ...) log_write(LOG_WARN_LEVEL, scope, __VA_ARGS__)
#define log_info(scope, ...) log_write(LOG_INFO_LEVEL, scope, __VA_ARGS__)
#define log_debug(scope, ...)                                                                                          \
	do {                                                                                                           \
		if (log_enabled(LOG_DEBUG_LEVEL))                                                                      \
			log_write(LOG_DEBUG_LEVEL, scope, __VA_ARGS__);                                                \
	} while (0)
