/* SPDX-License-Identifier: Apache-2.0 */
/* What the values of the agent's options may be, and the one line that says what is wrong with one. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define VALUE_BLANKS " \t\r"
#define VALUE_PORTS_MAX 128 /* as many as capture excludes */

enum value_type { TEXT, NUMBER, DURATION, SIZE, FLAG, RANGES };

bool value_is_node(const char *v);
bool value_is_network(const char *v);
bool value_is_cluster(const char *v);
bool value_is_trust_domain(const char *v);
bool value_is_trust_domains(const char *v);
bool value_is_namespace(const char *v);
bool value_is_l7_deny(const char *v);
bool value_is_bad_mesh(const char *v);
bool value_is_dns_domain(const char *v);
bool value_is_dir(const char *v);
bool value_is_path(const char *v);
bool value_is_path_or_none(const char *v);
bool value_is_loss(const char *v);
bool value_is_binding(const char *v);
bool value_is_probe_exemption(const char *v);
bool value_is_anti_spoof(const char *v);
bool value_is_access_log(const char *v);
bool value_is_log(const char *v);
bool value_is_features(const char *v);
bool value_is_congestion(const char *v);
bool value_is_ports(const char *v);

/* The ports of a comma list in ret, which has room for VALUE_PORTS_MAX: how many, or -EINVAL. */
int value_ports(const char *list, uint16_t *ret);

/* Prints one line on stderr, whatever control characters the arguments hold. -EINVAL. */
int value_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same as "origin: value: expected want". `origin` is what a reader has to change: `--log`, `WARREN_LOG`
 * or `FILE:LINE: log`. */
int value_bad(const char *origin, const char *value, const char *want);
/* Reads a NUMBER, a DURATION (milliseconds) or a SIZE (bytes) of least..most. 0, or -EINVAL after
 * value_bad(). */
int value_scaled(enum value_type type, uint64_t least, uint64_t most, const char *origin, const char *value,
		 uint64_t *ret);
/* Takes the blanks off the end. */
void value_trim(char *text);
