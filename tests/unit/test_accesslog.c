/* SPDX-License-Identifier: Apache-2.0 */
/* The access log's lines: names and order of ztunnel's fields in text and JSON, what is left out, what is escaped. */
#include "engine/base/cleanup.h"
#include "engine/model/policy.h"
#include "engine/telemetry/accesslog.h"

#include <cjson/cJSON.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define A "spiffe://cluster.local/ns/a/sa/a"
#define B "spiffe://cluster.local/ns/b/sa/b"
#define STAMP "2026-01-02T03:04:05.678901Z"

static char written[8192];

static struct ip_port at(const char *text)
{
	struct ip_port p;

	assert_int_equal(ip_port_parse(text, strlen(text), &p), 0);
	return p;
}

/* The one line of this record in `written`, without its end and with one and the same time. */
static const char *line_of(const struct accesslog_record *r, bool json)
{
	char path[] = "/tmp/wr-test-access-XXXXXX", *stamp;
	int fd = mkstemp(path);
	ssize_t n;

	assert_true(fd >= 0);
	assert_int_equal(accesslog_open(path, json), 0);
	accesslog_write(r);
	accesslog_close();
	n = read(fd, written, sizeof(written) - 1);
	close(fd);
	unlink(path);
	written[n > 0 ? n : 0] = 0;
	if (n <= 0)
		return "";
	assert_ptr_equal(strchr(written, '\n'), written + n - 1);
	written[n - 1] = 0;
	stamp = json ? strstr(written, "\"time\":\"") + 8 : written;
	assert_int_equal(stamp[strlen(STAMP) - 1], 'Z');
	memcpy(stamp, STAMP, strlen(STAMP));
	return written;
}

static struct workload client = {.name = (char *)"client", .namespace_ = (char *)"a", .cluster_id = (char *)"east"};
static struct workload server = {.name = (char *)"server", .namespace_ = (char *)"b", .cluster_id = (char *)"west"};
static struct service service = {.hostname = (char *)"web.b.svc.cluster.local"};

/* An outbound connection with every field that one can have. */
static struct accesslog_record tunnelled(void)
{
	return (struct accesslog_record){.src_addr = at("10.0.0.1:5000"),
					 .src = &client,
					 .src_identity = A,
					 .dst_addr = at("10.0.1.2:15008"),
					 .hbone_addr = "10.0.1.2:8080",
					 .dst_service = &service,
					 .dst = &server,
					 .dst_identity = B,
					 .direction = ACCESS_OUTBOUND,
					 .bytes_sent = 11,
					 .bytes_recv = 22,
					 .duration_us = 3999};
}

#define SOURCE                                                                                                         \
	"src.addr=10.0.0.1:5000 src.workload=\"client\" src.namespace=\"a\" src.identity=\"" A "\" "                   \
	"src.cluster=\"east\""
#define DESTINATION                                                                                                    \
	"dst.addr=10.0.1.2:15008 dst.hbone_addr=10.0.1.2:8080 dst.service=\"web.b.svc.cluster.local\" "                \
	"dst.workload=\"server\" dst.namespace=\"b\" dst.identity=\"" B "\" dst.cluster=\"west\""
#define JSON_ENDS                                                                                                      \
	"\"src.addr\":\"10.0.0.1:5000\",\"src.workload\":\"client\",\"src.namespace\":\"a\",\"src.identity\":\"" A     \
	"\",\"src.cluster\":\"east\",\"dst.addr\":\"10.0.1.2:15008\",\"dst.hbone_addr\":\"10.0.1.2:8080\","            \
	"\"dst.service\":\"web.b.svc.cluster.local\",\"dst.workload\":\"server\",\"dst.namespace\":\"b\","             \
	"\"dst.identity\":\"" B "\",\"dst.cluster\":\"west\",\"direction\":\"outbound\""

static void every_field_in_its_order(void **state)
{
	struct accesslog_record r = tunnelled();

	(void)state;
	assert_string_equal(line_of(&r, false),
			    STAMP "\tinfo\taccess\tconnection complete\t" SOURCE " " DESTINATION
				  " direction=\"outbound\" bytes_sent=11 bytes_recv=22 duration=\"3ms\"");
	assert_string_equal(line_of(&r, true), "{\"level\":\"info\",\"time\":\"" STAMP
					       "\",\"scope\":\"access\",\"message\":\"connection complete\"," JSON_ENDS
					       ",\"bytes_sent\":11,\"bytes_recv\":22,\"duration\":\"3ms\"}");
}

static void a_failure_is_an_error_with_its_reason(void **state)
{
	struct accesslog_record r = tunnelled();

	(void)state;
	r.reason = WR_REASON_DIAL_TIMEOUT;
	r.detail = "http status: 503";
	assert_non_null(strstr(line_of(&r, false), "\terror\taccess\tconnection complete\t" SOURCE " "));
	assert_non_null(strstr(written, " duration=\"3ms\" error=\"dial_timeout: "));
	assert_string_equal(written + strlen(written) - 19, ": http status: 503\"");
	assert_non_null(strstr(line_of(&r, true), "{\"level\":\"error\","));
	assert_non_null(strstr(written, ",\"duration\":\"3ms\",\"error\":\"dial_timeout: "));
}

/* What is known by then. */
static void an_opening_has_no_counts(void **state)
{
	struct accesslog_record r = tunnelled();

	(void)state;
	r.opened = true;
	assert_string_equal(line_of(&r, false), STAMP "\tdebug\taccess\tconnection opened\t" SOURCE " " DESTINATION
						      " direction=\"outbound\"");
	assert_string_equal(line_of(&r, true),
			    "{\"level\":\"debug\",\"time\":\"" STAMP
			    "\",\"scope\":\"access\",\"message\":\"connection opened\"," JSON_ENDS "}");
}

static void an_early_refusal_is_short(void **state)
{
	static const char want[] = STAMP "\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.1:5000 "
					 "dst.addr=10.0.1.2:15008 direction=\"inbound\" error=\"dial_timeout: ";
	struct accesslog_record r = tunnelled();

	(void)state;
	r.early = true;
	r.direction = ACCESS_INBOUND;
	r.reason = WR_REASON_DIAL_TIMEOUT;
	if (strncmp(line_of(&r, false), want, strlen(want)))
		fail_msg("%s", written);
}

static void what_is_not_known_is_left_out(void **state)
{
	struct accesslog_record r = {
		.src_addr = at("[fd00::1]:5"), .dst_addr = at("[fd00::2]:80"), .direction = ACCESS_INBOUND};
	struct workload named = {.namespace_ = (char *)""};

	(void)state;
	r.src = &named;
	assert_string_equal(line_of(&r, false), STAMP "\tinfo\taccess\tconnection complete\tsrc.addr=[fd00::1]:5 "
						      "dst.addr=[fd00::2]:80 direction=\"inbound\" bytes_sent=0 "
						      "bytes_recv=0 duration=\"0ms\"");
}

/* Names come from manifests and from peers: none makes a second line, a second field or broken JSON. */
static void names_are_escaped(void **state)
{
	struct accesslog_record r = tunnelled();
	struct workload odd = {.name = (char *)"a\"b\\c\nforged\x1b"};
	cJSON *tree;

	(void)state;
	r.src = &odd;
	assert_non_null(strstr(line_of(&r, false), " src.workload=\"a\\\"b\\\\c\\u000aforged\\u001b\" "));
	tree = cJSON_Parse(line_of(&r, true));
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(tree, "src.workload")), odd.name);
	assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(tree, "bytes_recv")), 22);
	cJSON_Delete(tree);
}

static char *of_length(char *buf, size_t n)
{
	memset(buf, 'x', n);
	buf[n] = 0;
	return buf;
}

/* All that peers, manifests and policies may choose, as long as they may make it. */
static void the_longest_line_is_whole(void **state)
{
	struct accesslog_record r = tunnelled();
	char peer[2049], own[501], name[254], namespace_[64], cluster[129], host[388], authority[264];
	struct policy rule = {.namespace_ = namespace_, .name = name};
	struct policy_verdict denied = {.policy = &rule,
					.rule = 1000000000,
					.field = "spec.rules[1000000000].when[1000000000].notValues[1000000000]"};
	struct workload w = {.name = of_length(name, 253),
			     .namespace_ = of_length(namespace_, 63),
			     .cluster_id = of_length(cluster, 128)};
	struct service s = {.hostname = of_length(host, 387)};
	cJSON *tree;

	(void)state;
	r.src_addr = r.dst_addr = at("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
	r.src = r.dst = &w;
	r.dst_service = &s;
	r.src_identity = of_length(peer, 2048);
	r.dst_identity = of_length(own, 500);
	r.hbone_addr = of_length(authority, 263);
	r.bytes_sent = r.bytes_recv = r.duration_us = UINT64_MAX;
	r.reason = WR_REASON_POLICY_DENY;
	r.detail = "http status: 503";
	r.verdict = &denied;
	tree = cJSON_Parse(line_of(&r, true));
	if (!tree)
		fail_msg("cut: ...%s", written + strlen(written) - 100);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(tree, "policy.field")), denied.field);
	cJSON_Delete(tree);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_in_its_order),
		cmocka_unit_test(a_failure_is_an_error_with_its_reason),
		cmocka_unit_test(an_opening_has_no_counts),
		cmocka_unit_test(an_early_refusal_is_short),
		cmocka_unit_test(what_is_not_known_is_left_out),
		cmocka_unit_test(names_are_escaped),
		cmocka_unit_test(the_longest_line_is_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
